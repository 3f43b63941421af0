//! GPUs of a machine: found, provisioned, checked and described for containers.
//!
//! There is no udev, no systemd and no `nvidia-modprobe` on the appliance, so that what they do elsewhere is done here, in
//! the order of [`provision`]: PCI scan → modules → fabric → device nodes → MIG → persistence → health → CDI. Each stage
//! is a function of a [`Root`](gap_root::Root), the directory that stands for `/`, so that a made-up tree can stand in
//! for a machine. The driver's own library (NVML) is loaded when it is there; without it the machine works on its CPUs.

pub mod address;
pub mod cdi;
mod cutting;
pub mod devices;
pub mod driver;
pub mod fabric;
pub mod health;
pub mod mig;
pub mod nodes;
pub mod nvml;
pub mod pci;
pub mod provision;

pub use address::PciAddress;
