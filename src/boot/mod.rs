//! What firmware and kernel start from: initramfs, kernel modules, unified kernel image and EFI
//! system partition, all built in-process and reproducible; and the virtual machine that tries them.

pub mod check;
pub mod cmdline;
pub mod console;
pub mod depmod;
pub mod esp;
mod firmware;
pub mod initramfs;
mod machine;
pub mod modinfo;
pub mod modules;
pub mod program;
pub mod qemu;
pub mod qmp;
pub mod site;
pub mod uki;
