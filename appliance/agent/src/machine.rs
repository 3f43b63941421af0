//! The machine as the kernel shows it: devices, memory, kernel version.

use crate::root::Root;
use serde::Serialize;

/// Most devices of one kind that are listed.
const MAX_DEVICES: usize = 4096;
/// The kernel counts the sizes of block devices in these, whatever the device's own sector is.
const SECTOR: u64 = 512;

/// Everything that is plugged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Devices {
    /// PCI functions.
    pub pci: Vec<PciDevice>,
    /// Block devices.
    pub block: Vec<BlockDevice>,
    /// Network interfaces.
    pub net: Vec<NetDevice>,
}

/// A PCI function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PciDevice {
    /// `0000:01:00.0`.
    pub address: String,
    /// Vendor id, as `0x10de`.
    pub vendor: String,
    /// Device id, as `0x2335`.
    pub device: String,
    /// Class, subclass and programming interface, as `0x030200`.
    pub class: String,
    /// The driver that is bound to it.
    pub driver: Option<String>,
}

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockDevice {
    /// `nvme0n1`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether the kernel refuses to write to it.
    pub read_only: bool,
    /// What its maker calls it.
    pub model: Option<String>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetDevice {
    /// `eth0`.
    pub name: String,
    /// Hardware address.
    pub mac: Option<String>,
    /// `up`, `down`, `unknown`, … as the kernel says.
    pub state: Option<String>,
    /// Largest packet in bytes.
    pub mtu: Option<u32>,
    /// Speed in megabits a second.
    pub speed_mbit: Option<u32>,
}

/// Main memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What the kernel has.
    pub total: u64,
    /// What a new program could still get.
    pub available: u64,
}

/// The running kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// `6.12.94-amd64`.
    pub release: String,
    /// Build, as `#1 SMP …`.
    pub version: String,
    /// `x86_64`.
    pub machine: String,
}

/// Reads what is plugged in now.
pub fn devices(root: &Root) -> Devices {
    Devices { pci: pci(root), block: block(root), net: net(root) }
}

fn pci(root: &Root) -> Vec<PciDevice> {
    let functions = root.names("/sys/bus/pci/devices", MAX_DEVICES);
    let read = |address: String| {
        let at = format!("/sys/bus/pci/devices/{address}");
        Some(PciDevice {
            vendor: root.line(format!("{at}/vendor"))?,
            device: root.line(format!("{at}/device"))?,
            class: root.line(format!("{at}/class"))?,
            driver: root.link_name(format!("{at}/driver")),
            address,
        })
    };
    functions.into_iter().filter_map(read).collect()
}

fn block(root: &Root) -> Vec<BlockDevice> {
    let read = |name: String| {
        let at = format!("/sys/block/{name}");
        let sectors: u64 = root.line(format!("{at}/size"))?.parse().ok()?;
        Some(BlockDevice {
            size: sectors.checked_mul(SECTOR)?,
            read_only: root.line(format!("{at}/ro")).as_deref() == Some("1"),
            model: root.line(format!("{at}/device/model")),
            name,
        })
    };
    root.names("/sys/block", MAX_DEVICES).into_iter().filter_map(read).filter(|device| device.size > 0).collect()
}

fn net(root: &Root) -> Vec<NetDevice> {
    let read = |name: String| {
        let at = format!("/sys/class/net/{name}");
        NetDevice {
            mac: root.line(format!("{at}/address")),
            state: root.line(format!("{at}/operstate")),
            mtu: root.line(format!("{at}/mtu")).and_then(|mtu| mtu.parse().ok()),
            speed_mbit: root.line(format!("{at}/speed")).and_then(|speed| speed.parse().ok()),
            name,
        }
    };
    root.names("/sys/class/net", MAX_DEVICES).into_iter().map(read).collect()
}

/// Main memory; zeros when `/proc/meminfo` cannot be read.
pub fn memory(root: &Root) -> Memory {
    let bytes = root.read("/proc/meminfo", 64 << 10).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Memory { total: field("MemTotal").unwrap_or(0), available: field("MemAvailable").unwrap_or(0) }
}

/// The running kernel.
pub fn kernel() -> Kernel {
    let name = rustix::system::uname();
    Kernel {
        release: name.release().to_string_lossy().into_owned(),
        version: name.version().to_string_lossy().into_owned(),
        machine: name.machine().to_string_lossy().into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        for (path, text) in files {
            fs::create_dir_all(root.at(path).parent().unwrap()).unwrap();
            fs::write(root.at(path), text).unwrap();
        }
        (directory, root)
    }

    #[test]
    fn devices_are_listed_with_their_drivers() {
        let (_directory, root) = machine(&[
            ("/sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n"),
            ("/sys/bus/pci/devices/0000:01:00.0/device", "0x2335\n"),
            ("/sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n"),
            ("/sys/bus/pci/devices/0000:02:00.0/vendor", "0x8086\n"),
            ("/sys/block/sda/size", "2048\n"),
            ("/sys/block/sda/ro", "1\n"),
            ("/sys/block/loop0/size", "0\n"),
            ("/sys/class/net/eth0/address", "52:54:00:12:34:56\n"),
            ("/sys/class/net/eth0/mtu", "1500\n"),
        ]);
        std::os::unix::fs::symlink("../../drivers/nvidia", root.at("/sys/bus/pci/devices/0000:01:00.0/driver"))
            .unwrap();
        let devices = devices(&root);
        assert_eq!(devices.pci.len(), 1, "a function that is half there is left out");
        assert_eq!(devices.pci[0].driver.as_deref(), Some("nvidia"));
        assert_eq!(devices.block.len(), 1);
        assert_eq!((devices.block[0].size, devices.block[0].read_only), (1 << 20, true));
        assert_eq!(devices.net[0].mtu, Some(1500));
    }

    #[test]
    fn memory_is_told_in_bytes() {
        let (_directory, root) = machine(&[("/proc/meminfo", "MemTotal:  1024 kB\nMemAvailable:   512 kB\n")]);
        assert_eq!(memory(&root), Memory { total: 1 << 20, available: 1 << 19 });
    }
}
