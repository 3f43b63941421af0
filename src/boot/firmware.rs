//! QEMU and UEFI firmware for it, where the host has them.

use crate::boot::qemu::QemuError;
use std::{
    env, fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The program, looked for in `PATH`.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// Firmware code and its variables, as distributions lay them.
const FIRMWARE: [(&str, &str); 5] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
];
/// UEFI firmware: its code, and the variables that a new machine has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Firmware {
    /// The code, read-only to a machine.
    pub code: &'static Path,
    /// Fresh variables, of which each machine gets a copy.
    pub variables: &'static Path,
}

impl Firmware {
    /// Finds QEMU and firmware for it.
    pub fn find() -> Result<(PathBuf, Self), QemuError> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut programs = env::split_paths(&path).map(|directory| directory.join(QEMU));
        let qemu = programs.find(|path| path.is_file()).ok_or(QemuError::NoQemu)?;
        let pair = |(code, variables)| Self { code: Path::new(code), variables: Path::new(variables) };
        let found = FIRMWARE.into_iter().map(pair).find(|pair| pair.code.is_file() && pair.variables.is_file());
        Ok((qemu, found.ok_or(QemuError::NoFirmware)?))
    }

    /// Makes a directory for a machine, with variables of its own.
    pub fn lay_out(&self) -> Result<TempDir, QemuError> {
        let directory = tempfile::Builder::new().prefix("gapimage-boot-").tempdir().map_err(QemuError::Prepare)?;
        let variables = fs::read(self.variables).map_err(QemuError::Prepare)?;
        fs::write(directory.path().join("variables"), variables).map_err(QemuError::Prepare)?;
        Ok(directory)
    }
}
