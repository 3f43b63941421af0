//! What the firmware says about Secure Boot (UEFI specification 2.10, section 3.3, global variables).

use gap_handover::boot_report::SecureBoot;
use std::{fs, path::Path};

const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Reads the variables from `sys/firmware/efi/efivars`.
pub fn state_from(root: &Path) -> SecureBoot {
    let variable = |name: &str| {
        let path = root.join(format!("sys/firmware/efi/efivars/{name}-{GLOBAL}"));
        // Four bytes of attributes come before the value.
        fs::read(path).ok()?.get(4).copied()
    };
    match (variable("SecureBoot"), variable("SetupMode")) {
        (None, _) => SecureBoot::Unsupported,
        // In setup mode anyone may enrol keys, so that nothing is enforced that means anything.
        (Some(1), None | Some(0)) => SecureBoot::Enabled,
        (Some(_), _) => SecureBoot::Disabled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firmware(variables: &[(&str, u8)]) -> SecureBoot {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("sys/firmware/efi/efivars");
        fs::create_dir_all(&directory).unwrap();
        for (name, value) in variables {
            fs::write(directory.join(format!("{name}-{GLOBAL}")), [6, 0, 0, 0, *value]).unwrap();
        }
        state_from(root.path())
    }

    #[test]
    fn only_an_enforcing_firmware_counts_as_enabled() {
        assert_eq!(firmware(&[]), SecureBoot::Unsupported);
        assert_eq!(firmware(&[("SecureBoot", 0), ("SetupMode", 1)]), SecureBoot::Disabled);
        assert_eq!(firmware(&[("SecureBoot", 1), ("SetupMode", 1)]), SecureBoot::Disabled);
        assert_eq!(firmware(&[("SecureBoot", 1), ("SetupMode", 0)]), SecureBoot::Enabled);
    }
}
