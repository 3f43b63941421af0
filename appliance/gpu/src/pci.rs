//! The PCI scan: which of NVIDIA's functions are plugged in, whatever any driver says.

use crate::PciAddress;
use gap_root::Root;
use serde::Serialize;

/// NVIDIA's vendor id.
const NVIDIA: &str = "0x10de";
/// Most PCI functions that are looked at.
const MAX_FUNCTIONS: usize = 4096;

/// What kind of function it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A graphics or 3D controller (class 0x03).
    Gpu,
    /// A switch between GPUs (class 0x0680): without its fabric manager GPUs behind it do not work.
    NvSwitch,
}

/// One of NVIDIA's functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Function {
    /// Where it sits.
    pub address: PciAddress,
    /// Device id, as `0x2330`.
    pub device: String,
    /// What it is.
    pub kind: Kind,
    /// The driver that is bound to it.
    pub driver: Option<String>,
}

/// Reads `/sys/bus/pci/devices` (Documentation/ABI/testing/sysfs-bus-pci), sorted by address.
pub fn scan(root: &Root) -> Vec<Function> {
    let names = root.names("/sys/bus/pci/devices", MAX_FUNCTIONS);
    let mut functions: Vec<Function> = names.iter().filter_map(|name| function(root, name)).collect();
    functions.sort_unstable_by_key(|function| function.address);
    functions
}

fn function(root: &Root, name: &str) -> Option<Function> {
    let at = format!("/sys/bus/pci/devices/{name}");
    if root.line(format!("{at}/vendor"))? != NVIDIA {
        return None;
    }
    let kind = match root.line(format!("{at}/class"))?.as_str() {
        class if class.starts_with("0x03") => Kind::Gpu,
        class if class.starts_with("0x0680") => Kind::NvSwitch,
        _ => return None,
    };
    Some(Function {
        address: name.parse().ok()?,
        device: root.line(format!("{at}/device"))?,
        kind,
        driver: root.link_name(format!("{at}/driver")),
    })
}

/// How many GPUs there are.
pub fn gpus(functions: &[Function]) -> usize {
    functions.iter().filter(|function| function.kind == Kind::Gpu).count()
}
