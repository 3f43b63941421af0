//! The kernel command line: which release this boot image was made for.
//!
//! The line lies in the boot image, beside the trust root, so it is as trustworthy as this program itself.

use gap_format::Digest;
use std::{fs, path::Path};

use crate::Stop;

/// The one release that may be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// `gap.name`: name of the appliance.
    pub name: String,
    /// `gap.serial`: serial number of the release.
    pub serial: u64,
    /// `gap.os`: digest of the mount manifest of the OS image.
    pub os: Digest,
}

/// Reads `proc/cmdline`.
///
/// # Errors
/// [`Stop::Failed`] when one of the three parameters is missing, doubled or malformed.
pub fn wanted_from(root: &Path) -> Result<Wanted, Stop> {
    let line = fs::read_to_string(root.join("proc/cmdline"))
        .map_err(|source| Stop::System { what: "reading the kernel command line".into(), source })?;
    parse(&line)
}

fn parse(line: &str) -> Result<Wanted, Stop> {
    Ok(Wanted {
        name: parameter(line, "gap.name")?.to_owned(),
        serial: parameter(line, "gap.serial")?.parse().map_err(|_| malformed("gap.serial", "a number"))?,
        os: parameter(line, "gap.os")?.parse().map_err(|_| malformed("gap.os", "a digest (sha256:...)"))?,
    })
}

fn parameter<'a>(line: &'a str, name: &str) -> Result<&'a str, Stop> {
    let mut values = line.split_ascii_whitespace().filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    match (values.next(), values.next()) {
        (Some(value), None) if !value.is_empty() => Ok(value),
        (None, _) => Err(Stop::Failed(format!(
            "the kernel command line has no {name}; this initramfs must be started by the boot image it was built for"
        ))),
        (Some(_), _) => Err(malformed(name, "one value, given once")),
    }
}

fn malformed(name: &str, expected: &str) -> Stop {
    Stop::Failed(format!("{name} on the kernel command line is not {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OS: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_release_is_named_by_three_parameters() {
        let wanted = parse(&format!("console=tty0 gap.name=demo gap.serial=7 gap.os={OS} quiet\n")).unwrap();
        assert_eq!(wanted, Wanted { name: "demo".into(), serial: 7, os: OS.parse().unwrap() });
    }

    #[test]
    fn a_missing_doubled_or_malformed_parameter_is_refused() {
        for line in [
            format!("gap.name=demo gap.os={OS}"),
            format!("gap.name=demo gap.name=other gap.serial=7 gap.os={OS}"),
            format!("gap.name= gap.serial=7 gap.os={OS}"),
            format!("gap.name=demo gap.serial=-1 gap.os={OS}"),
            "gap.name=demo gap.serial=7 gap.os=sha256:00".into(),
        ] {
            assert!(matches!(parse(&line), Err(Stop::Failed(_))), "{line}");
        }
    }
}
