//! What the kernel driver tells of itself and of its GPUs in `/proc/driver/nvidia`.

use crate::PciAddress;
use gap_root::Root;

/// Most GPUs of one machine.
pub const MAX_GPUS: usize = 256;
/// Longest file of the driver that is read, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// A GPU as the driver knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverGpu {
    /// Where it sits.
    pub address: PciAddress,
    /// The number in `/dev/nvidiaN`.
    pub minor: u32,
    /// `GPU-…`; absent until the GPU was opened once.
    pub uuid: Option<String>,
    /// What its maker calls it.
    pub model: Option<String>,
}

/// Who may open device nodes, as the driver was told (`NVreg_DeviceFileUID` and so on).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Default for Ownership {
    /// The driver's own default.
    fn default() -> Self {
        Self { uid: 0, gid: 0, mode: 0o666 }
    }
}

/// The driver's version (`550.163.01`), from the line that begins with `NVRM version:`.
pub fn version(root: &Root) -> Option<String> {
    let text = read(root, "/proc/driver/nvidia/version")?;
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_version = |word: &&str| {
        word.contains('.') && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    line.split_ascii_whitespace().find(is_version).map(str::to_owned)
}

/// The GPUs that the driver took, sorted by address. Excluded ones (`NVreg_ExcludedGpus`) have no node and are left out.
pub fn gpus(root: &Root) -> Vec<DriverGpu> {
    let names = root.names("/proc/driver/nvidia/gpus", MAX_GPUS);
    let mut gpus: Vec<DriverGpu> = names.iter().filter_map(|name| gpu(root, name)).collect();
    gpus.sort_unstable_by_key(|gpu| gpu.address);
    gpus
}

fn gpu(root: &Root, name: &str) -> Option<DriverGpu> {
    let text = read(root, &format!("/proc/driver/nvidia/gpus/{name}/information"))?;
    if field(&text, "GPU Excluded") == Some("Yes") {
        return None;
    }
    Some(DriverGpu {
        address: name.parse().ok()?,
        minor: field(&text, "Device Minor")?.parse().ok()?,
        uuid: field(&text, "GPU UUID").filter(|uuid| is_uuid(uuid)).map(str::to_owned),
        model: field(&text, "Model").map(str::to_owned),
    })
}

/// Whether it is `GPU-` and a UUID: before a GPU was opened, the driver prints question marks.
fn is_uuid(text: &str) -> bool {
    text.strip_prefix("GPU-")
        .is_some_and(|uuid| uuid.len() == 36 && uuid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'))
}

/// Who may open device nodes.
pub fn ownership(root: &Root) -> Ownership {
    let Some(text) = read(root, "/proc/driver/nvidia/params") else { return Ownership::default() };
    let number = |name| field(&text, name).and_then(|value| value.parse().ok());
    let default = Ownership::default();
    Ownership {
        uid: number("DeviceFileUID").unwrap_or(default.uid),
        gid: number("DeviceFileGID").unwrap_or(default.gid),
        mode: number("DeviceFileMode").unwrap_or(default.mode) & 0o777,
    }
}

/// The value of `NAME: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
}

/// A small text of the driver.
pub(crate) fn read(root: &Root, path: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&root.read(path, MAX_FILE).ok()?).into_owned())
}
