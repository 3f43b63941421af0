//! Trees that stand for a machine's `/`.

use gap_root::Root;
use rustix::fs::{FileType, major, minor};
use std::{fs, os::unix::fs::symlink, path::PathBuf};
use tempfile::TempDir;

pub struct Tree(TempDir);

impl Tree {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn root(&self) -> Root {
        Root::new(self.0.path())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn file(&self, path: &str, content: &str) {
        let place = self.at(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, content).unwrap();
    }

    /// A PCI function, as sysfs shows it.
    pub fn other(self, address: &str, vendor: &str, class: &str) -> Self {
        let at = format!("/sys/bus/pci/devices/{address}");
        self.file(&format!("{at}/vendor"), &format!("{vendor}\n"));
        self.file(&format!("{at}/class"), &format!("{class}\n"));
        self.file(&format!("{at}/device"), "0x1234\n");
        self
    }

    /// One of NVIDIA's functions without a driver.
    pub fn plugged(self, address: &str, device: &str, class: &str) -> Self {
        let tree = self.other(address, "0x10de", class);
        tree.file(&format!("/sys/bus/pci/devices/{address}/device"), &format!("{device}\n"));
        tree
    }

    fn gpu(self, address: &str, device: &str, model: &str, minor: u32) -> Self {
        let tree = self.plugged(address, device, "0x030200");
        symlink("../../../bus/pci/drivers/nvidia", tree.at(&format!("/sys/bus/pci/devices/{address}/driver"))).unwrap();
        let information = format!(
            "Model: \t\t {model}\nIRQ:   \t\t 16\nGPU UUID: \t GPU-????????-????-????-????-????????????\n\
             Video BIOS: \t ??.??.??.??.??\nBus Type: \t PCIe\nBus Location: \t {address}\nDevice Minor: \t {minor}\n\
             GPU Firmware: \t 550.163.01\nGPU Excluded:\t No\n"
        );
        tree.file(&format!("/proc/driver/nvidia/gpus/{address}/information"), &information);
        tree
    }

    /// From documentation: an H200 (SXM).
    pub fn h200(self, address: &str, minor: u32) -> Self {
        self.gpu(address, "0x2335", "NVIDIA H200", minor)
    }

    /// From documentation: an H100 of an HGX board.
    pub fn h100(self, address: &str, minor: u32) -> Self {
        self.gpu(address, "0x2330", "NVIDIA H100 80GB HBM3", minor)
    }

    /// From documentation: an A100 with 80 GB.
    pub fn a100(self, address: &str, minor: u32) -> Self {
        self.gpu(address, "0x20b2", "NVIDIA A100-SXM4-80GB", minor)
    }

    /// From documentation: an NVSwitch of an HGX H100 board.
    pub fn switch(self, address: &str) -> Self {
        self.plugged(address, "0x22a3", "0x068000")
    }

    /// From documentation: the driver's own files, and its libraries in the OS image.
    pub fn driver(self) -> Self {
        self.file(
            "/proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.163.01  Release Build  (dvs-builder)\n\
             GCC version:  gcc version 14.2.0\n",
        );
        self.file(
            "/proc/driver/nvidia/params",
            "ModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438\n",
        );
        self.file(
            "/proc/devices",
            "Character devices:\n  1 mem\n195 nvidia\n195 nvidia-modeset\n195 nvidiactl\n234 nvidia-uvm\n\
             235 nvidia-nvswitch\n236 nvidia-nvlink\n237 nvidia-caps\n\nBlock devices:\n259 blkext\n",
        );
        self.file("/usr/lib/x86_64-linux-gnu/libcuda.so.1", "");
        self.file("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "");
        self.file("/usr/lib/x86_64-linux-gnu/libcudart.so.12", "");
        self
    }

    /// A process that was started from this file.
    pub fn runs(self, path: &str) -> Self {
        let root = self.root();
        std::fs::create_dir_all(root.at("/proc/77")).unwrap();
        std::os::unix::fs::symlink(root.at(path), root.at("/proc/77/exe")).unwrap();
        self
    }

    /// From documentation: the fabric manager's package.
    pub fn fabric_manager(self) -> Self {
        self.file("/usr/bin/nv-fabricmanager", "");
        self.file("/usr/share/nvidia/nvswitch/fabricmanager.cfg", "DAEMONIZE=1\n");
        self
    }

    /// From documentation (NVIDIA's MIG guide): the list of rights, which always has those that 32 GPUs could have.
    pub fn minors(self) -> Self {
        let mut minors = "config 1\nmonitor 2\n".to_owned();
        let mut number = 3..;
        let mut line = |name: String| minors += &format!("{name}/access {}\n", number.next().unwrap());
        for (gpu, instance) in (0..32).flat_map(|gpu| (0..15).map(move |instance| (gpu, instance))) {
            line(format!("gpu{gpu}/gi{instance}"));
            (0..8).for_each(|compute| line(format!("gpu{gpu}/gi{instance}/ci{compute}")));
        }
        assert_eq!(minors.lines().last(), Some("gpu31/gi14/ci7/access 4322"), "as in the guide");
        self.file("/proc/driver/nvidia-caps/mig-minors", &minors);
        self
    }

    /// From documentation: slices of a GPU that are there (GPU instance, compute instance), among the rights of all that
    /// could be.
    pub fn slices(self, gpu: u32, slices: &[(u32, u32)]) -> Self {
        for (instance, compute) in slices {
            let at = format!("/proc/driver/nvidia/capabilities/gpu{gpu}/mig/gi{instance}");
            self.file(&format!("{at}/access"), "");
            self.file(&format!("{at}/ci{compute}/access"), "");
        }
        self.minors()
    }

    /// A list of rights that is no list.
    pub fn endless_minors(self) -> Self {
        self.file("/proc/driver/nvidia-caps/mig-minors", &"x".repeat((1 << 20) + 1));
        self
    }

    pub fn exists(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    /// Numbers of a character device.
    pub fn device(&self, path: &str) -> Option<(u32, u32)> {
        let stat = rustix::fs::lstat(self.at(path)).ok()?;
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        is_device.then(|| (major(stat.st_rdev), minor(stat.st_rdev)))
    }

    pub fn link(&self, path: &str) -> Option<String> {
        Some(fs::read_link(self.at(path)).ok()?.to_str()?.to_owned())
    }

    /// The specification that was written.
    pub fn spec(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.at(gap_gpu::cdi::PLACE)).unwrap()).unwrap()
    }
}
