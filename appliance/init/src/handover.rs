//! What the agent finds in `/run/gap`.

use gap_handover::{BootReport, boot_report};
use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{Attempt, Stop, mounts::make_directory};

/// Writes the boot report, the trust root and, where there is one, the site configuration below `sysroot`.
///
/// The directory is for the agent alone: the site configuration may hold a private key.
///
/// # Errors
/// [`Stop`] when a file cannot be written.
pub fn write(sysroot: &Path, report: &BootReport, trust: &[u8], site: Option<&str>) -> Result<(), Stop> {
    make_directory(&sysroot.join("run/gap"), 0o700)?;
    let json = serde_json::to_vec(report).map_err(io::Error::from).attempt(|| "encoding the boot report".into())?;
    put(sysroot, boot_report::PATH, &json)?;
    put(sysroot, boot_report::TRUST_PATH, trust)?;
    site.map_or(Ok(()), |site| write_site(sysroot, site))
}

/// Writes a site configuration where there was none.
///
/// # Errors
/// [`Stop`] when it cannot be written.
pub fn write_site(sysroot: &Path, site: &str) -> Result<(), Stop> {
    put(sysroot, boot_report::SITE_PATH, site.as_bytes())
}

fn put(sysroot: &Path, path: &str, bytes: &[u8]) -> Result<(), Stop> {
    let place = sysroot.join(path.trim_start_matches('/'));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(place)
        .and_then(|mut file| file.write_all(bytes))
        .attempt(|| format!("writing {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gap_format::Digest;
    use gap_handover::boot_report::{Clock, Medium, Release, RollbackProtection, SecureBoot};
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn the_agent_reads_back_what_was_written_and_nobody_else_does() {
        let sysroot = tempfile::tempdir().unwrap();
        fs::create_dir(sysroot.path().join("run")).unwrap();
        let report = BootReport {
            release: Release {
                name: "demo".into(),
                version: "1.0".into(),
                serial: 7,
                index: Digest::of(b"i"),
                signers: vec!["k".into()],
                expires: None,
            },
            medium: Medium { device: "/dev/vda".into(), file: None },
            trust_fingerprint: Digest::of(b"t"),
            secure_boot: SecureBoot::Unsupported,
            rollback_protection: RollbackProtection::None,
            clock: Clock { built: 1_700_000_000, was_behind: false },
            layers: Vec::new(),
            stages: Vec::new(),
        };
        write(sysroot.path(), &report, b"trust", Some("hostname = 'x'")).unwrap();
        let gap = sysroot.path().join("run/gap");
        let read: BootReport = serde_json::from_slice(&fs::read(gap.join("boot.json")).unwrap()).unwrap();
        assert_eq!(read, report);
        assert_eq!(fs::read(gap.join("trust.toml")).unwrap(), b"trust");
        assert_eq!(fs::read(gap.join("site.toml")).unwrap(), b"hostname = 'x'");
        assert_eq!(fs::metadata(&gap).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(gap.join("site.toml")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
