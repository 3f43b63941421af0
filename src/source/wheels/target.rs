//! What wheels are chosen for: the Python and the C library of the image, as its Debian packages say.
//!
//! Tags are those of the platform compatibility tags specification (PEP 425, 600, 3149).

use super::{error::WheelsError, name::WheelName};
use crate::{recipe::Arch, source::debian::LockedPackage};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Versions of glibc of the older tags with names of their own.
const NAMED_GLIBC: [(&str, Glibc); 3] = [
    ("manylinux1", Glibc { major: 2, minor: 5 }),
    ("manylinux2010", Glibc { major: 2, minor: 12 }),
    ("manylinux2014", Glibc { major: 2, minor: 17 }),
];
/// Minor versions of glibc 2 that uv has platforms for, rising.
const UV_GLIBC: [u32; 12] = [17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40];

/// A version of CPython 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Python {
    /// `13` of 3.13.5.
    pub minor: u32,
    /// `5` of 3.13.5.
    pub patch: u32,
}

/// A version of the GNU C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glibc {
    /// `2` of 2.41.
    pub major: u32,
    /// `41` of 2.41.
    pub minor: u32,
}

/// A text that is no version of Python or glibc.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version of {1}")]
pub struct VersionError(String, &'static str);

impl FromStr for Python {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let bad = || VersionError(text.escape_debug().to_string(), "Python 3");
        match numbers(text).ok_or_else(bad)?.as_slice() {
            &[3, minor, patch] => Ok(Self { minor, patch }),
            _ => Err(bad()),
        }
    }
}

impl FromStr for Glibc {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let bad = || VersionError(text.escape_debug().to_string(), "glibc");
        match numbers(text).ok_or_else(bad)?.as_slice() {
            &[major, minor] => Ok(Self { major, minor }),
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for Python {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl TryFrom<String> for Glibc {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<Python> for String {
    fn from(python: Python) -> Self {
        python.to_string()
    }
}

impl From<Glibc> for String {
    fn from(glibc: Glibc) -> Self {
        glibc.to_string()
    }
}

impl fmt::Display for Python {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "3.{}.{}", self.minor, self.patch)
    }
}

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Python {
    /// `3.13`, as it stands in paths.
    pub fn series(self) -> String {
        format!("3.{}", self.minor)
    }
}

fn numbers(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?).collect()
}

/// What wheels must run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The image's Python.
    pub python: Python,
    /// The image's C library.
    pub glibc: Glibc,
    /// For which processors.
    pub arch: Arch,
}

impl Target {
    /// The target that an image with these Debian packages is. `series` (`3.13`) names one of several Pythons.
    ///
    /// # Errors
    /// [`WheelsError::NoPython`] or [`WheelsError::NoGlibc`] if the packages have none.
    pub fn of_image(packages: &[&LockedPackage], series: Option<&str>, arch: Arch) -> Result<Self, WheelsError> {
        let version_of =
            |name: &str| packages.iter().find(|package| package.name == name).map(|p| upstream(&p.version));
        let series = match series {
            Some(series) => series.to_owned(),
            None => version_of("python3-minimal")
                .or_else(|| version_of("python3"))
                .and_then(|version| leading(version, 2))
                .ok_or(WheelsError::NoPython { wanted: None })?,
        };
        let python = version_of(&format!("python{series}-minimal"))
            .and_then(|version| leading(version, 3))
            .and_then(|version| version.parse().ok())
            .ok_or(WheelsError::NoPython { wanted: Some(series) })?;
        let glibc = version_of("libc6")
            .and_then(|version| leading(version, 2))
            .and_then(|version| version.parse().ok())
            .ok_or(WheelsError::NoGlibc)?;
        Ok(Self { python, glibc, arch })
    }

    /// Whether a wheel of this name runs there.
    pub fn accepts(&self, wheel: &WheelName) -> bool {
        let interface = wheel.python.iter().any(|python| wheel.abi.iter().any(|abi| self.has_interface(python, abi)));
        interface && wheel.platform.iter().any(|platform| self.is_on(platform))
    }

    fn has_interface(&self, python: &str, abi: &str) -> bool {
        let minor = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u32>().ok() };
        let minor_of = |prefix: &str| python.strip_prefix(prefix).and_then(minor);
        let own = self.python.minor;
        match abi {
            "none" => minor_of("py3").is_some_and(|minor| minor <= own) || minor_of("cp3") == Some(own),
            "abi3" => minor_of("cp3").is_some_and(|minor| minor <= own),
            _ => minor_of("cp3") == Some(own) && abi == format!("cp3{own}"),
        }
    }

    fn is_on(&self, platform: &str) -> bool {
        if platform == "any" {
            return true;
        }
        let Some(system) = platform.strip_suffix(self.arch.name()).and_then(|rest| rest.strip_suffix('_')) else {
            return false;
        };
        let named = NAMED_GLIBC.iter().find(|(name, _)| *name == system).map(|(_, glibc)| *glibc);
        let needed = named.or_else(|| system.strip_prefix("manylinux_")?.replace('_', ".").parse().ok());
        system == "linux" || needed.is_some_and(|needed| needed.major == self.glibc.major && needed <= self.glibc)
    }

    /// The platform that uv resolves for: that of the image's glibc, or of the nearest older one that uv has a name for.
    /// What uv chooses then runs on the image; nothing newer than the image is ever considered.
    ///
    /// # Errors
    /// [`WheelsError::OldGlibc`] below 2.17.
    pub fn uv_platform(&self) -> Result<String, WheelsError> {
        let minor = UV_GLIBC.iter().rev().find(|&&minor| self.glibc >= Glibc { major: 2, minor });
        let minor = minor.ok_or(WheelsError::OldGlibc(self.glibc))?;
        Ok(format!("{}-manylinux_2_{minor}", self.arch.name()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Python {} with glibc {} on {}", self.python, self.glibc, self.arch.name())
    }
}

/// The packages that hold interpreter and standard library: what compiled bytecode depends on. Sorted by name.
pub fn interpreter<'p>(packages: &[&'p LockedPackage], python: Python) -> Vec<&'p LockedPackage> {
    let series = python.series();
    let names = [
        format!("libpython{series}-minimal"),
        format!("libpython{series}-stdlib"),
        format!("python{series}"),
        format!("python{series}-minimal"),
    ];
    let mut found: Vec<&LockedPackage> =
        packages.iter().copied().filter(|package| names.contains(&package.name)).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The upstream part of a Debian version: without epoch and revision.
pub(super) fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
}

/// The first `count` numbers of a version, if it begins with that many.
fn leading(version: &str, count: usize) -> Option<String> {
    let mut parts = Vec::new();
    for part in version.split('.').take(count) {
        let end = part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len());
        let digits = part.get(..end).filter(|digits| !digits.is_empty())?;
        parts.push(digits);
    }
    (parts.len() == count).then(|| parts.join("."))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use gap_format::Digest;

    pub(crate) fn package(name: &str, version: &str) -> LockedPackage {
        LockedPackage {
            name: name.to_owned(),
            version: version.to_owned(),
            arch: "amd64".to_owned(),
            size: 1,
            sha256: Digest::of(name.as_bytes()),
            path: format!("pool/{name}.deb"),
            archive: "debian".to_owned(),
            installed_size: 1,
            order: 0,
            provides: String::new(),
            conflicts: String::new(),
            licenses: Vec::new(),
        }
    }

    pub(crate) fn trixie() -> Target {
        Target { python: "3.13.5".parse().unwrap(), glibc: "2.41".parse().unwrap(), arch: Arch::X86_64 }
    }

    #[test]
    fn the_target_is_what_the_packages_say() {
        let packages = [
            package("libc6", "2.41-12+deb13u1"),
            package("python3-minimal", "3.13.5-1"),
            package("python3.13-minimal", "3.13.5-2"),
            package("python3.14-minimal", "3.14.0~rc2-1"),
        ];
        let packages: Vec<&LockedPackage> = packages.iter().collect();
        assert_eq!(Target::of_image(&packages, None, Arch::X86_64).unwrap(), trixie());
        let other = Target::of_image(&packages, Some("3.14"), Arch::X86_64).unwrap();
        assert_eq!(other.python.to_string(), "3.14.0");
        let missing = Target::of_image(&packages, Some("3.12"), Arch::X86_64).unwrap_err().to_string();
        assert!(missing.contains("python3.12"), "{missing}");
        let none = Target::of_image(&[], None, Arch::X86_64).unwrap_err().to_string();
        assert!(none.contains("python3"), "{none}");
    }

    #[test]
    fn only_wheels_that_run_on_the_image_are_accepted() {
        let accepts = |tags: &str| trixie().accepts(&format!("a-1-{tags}.whl").parse().unwrap());
        for tags in [
            "py3-none-any",
            "py2.py3-none-any",
            "py313-none-any",
            "py38-none-manylinux1_x86_64",
            "cp313-cp313-manylinux_2_41_x86_64",
            "cp313-cp313-manylinux_2_27_x86_64.manylinux_2_28_x86_64",
            "cp310-abi3-manylinux2014_x86_64",
            "cp313-none-linux_x86_64",
        ] {
            assert!(accepts(tags), "{tags}");
        }
        for tags in [
            "py2-none-any",
            "py314-none-any",
            "cp312-cp312-manylinux_2_17_x86_64",
            "cp313-cp313t-manylinux_2_17_x86_64",
            "cp314-abi3-manylinux_2_17_x86_64",
            "cp312-none-any",
            "pp310-pypy310_pp73-manylinux_2_17_x86_64",
            "cp313-cp313-manylinux_2_42_x86_64",
            "cp313-cp313-manylinux_3_0_x86_64",
            "cp313-cp313-manylinux_2_17_aarch64",
            "cp313-cp313-musllinux_1_2_x86_64",
            "cp313-cp313-win_amd64",
            "cp313-cp313-macosx_11_0_x86_64",
        ] {
            assert!(!accepts(tags), "{tags}");
        }
    }

    #[test]
    fn uv_gets_the_newest_platform_that_is_not_newer_than_the_image() {
        let platform = |glibc: &str| Target { glibc: glibc.parse().unwrap(), ..trixie() }.uv_platform();
        assert_eq!(platform("2.41").unwrap(), "x86_64-manylinux_2_40");
        assert_eq!(platform("2.36").unwrap(), "x86_64-manylinux_2_36");
        assert_eq!(platform("2.30").unwrap(), "x86_64-manylinux_2_28");
        assert!(platform("2.5").is_err());
    }

    #[test]
    fn debian_versions_lose_epoch_and_revision() {
        assert_eq!(upstream("1:2.6.0+dfsg-7"), "2.6.0+dfsg");
        assert_eq!(upstream("2.41"), "2.41");
        assert_eq!(leading("3.13.5~rc1", 3).unwrap(), "3.13.5");
        assert_eq!(leading("3", 2), None);
        assert_eq!(leading("x.y", 2), None);
    }
}
