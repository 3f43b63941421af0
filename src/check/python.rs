//! Python's rules for which wheel runs where (PEP 425, PEP 508, PEP 600).

use super::facts::Tag;
use pep440_rs::Version;
use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder};

/// Longest name of a wheel's file accepted, in bytes.
const MAX_FILE_NAME: usize = 255;

/// Why a wheel does not run on an interpreter and C library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is for another interpreter.
    #[error("it is built for Python `{0}`")]
    Python(String),
    /// It is for another processor or system.
    #[error("it is built for the platform `{0}`")]
    Platform(String),
    /// It needs a newer C library.
    #[error("it needs glibc {needed}, and the image has {has}")]
    Glibc {
        /// The version that its tag names.
        needed: Version,
        /// The version in the image.
        has: Version,
    },
}

impl Unfit {
    /// How near the wheel comes to fitting: what it says of the reason is the more useful, the nearer.
    const fn nearness(&self) -> u8 {
        match self {
            Self::Platform(_) => 0,
            Self::Python(_) => 1,
            Self::Glibc { .. } => 2,
        }
    }
}

/// Whether a wheel with these tags runs on CPython `python` on x86-64 Linux with `glibc`.
///
/// # Errors
/// [`Unfit`]: what stands against the tag that comes nearest.
pub fn fits(tags: &[Tag], python: &Version, glibc: &Version) -> Result<(), Unfit> {
    let mut nearest: Option<Unfit> = None;
    for tag in tags {
        match tag_fits(tag, python, glibc) {
            Ok(()) => return Ok(()),
            Err(unfit) if nearest.as_ref().is_none_or(|other| other.nearness() < unfit.nearness()) => {
                nearest = Some(unfit);
            }
            Err(_) => {}
        }
    }
    nearest.map_or(Ok(()), Err)
}

fn tag_fits(tag: &Tag, python: &Version, glibc: &Version) -> Result<(), Unfit> {
    platform_fits(&tag.platform, glibc)?;
    if interpreter_fits(tag, python) { Ok(()) } else { Err(Unfit::Python(format!("{}-{}", tag.python, tag.abi))) }
}

fn interpreter_fits(tag: &Tag, python: &Version) -> bool {
    let (major, minor) = match python.release() {
        [major, minor, ..] => (*major, *minor),
        _ => return false,
    };
    let split = tag.python.find(|c: char| c.is_ascii_digit()).unwrap_or(tag.python.len());
    let (implementation, digits) = tag.python.split_at(split);
    let wanted = match digits.split_at_checked(1) {
        Some((first, rest)) => {
            (first.parse::<u64>().ok(), if rest.is_empty() { None } else { rest.parse::<u64>().ok() })
        }
        None => (None, None),
    };
    let (Some(wanted_major), wanted_minor) = wanted else { return false };
    if wanted_major != major {
        return false;
    }
    match (implementation, tag.abi.as_str()) {
        // Pure Python, and extensions that are loaded by other means, run on later minors.
        ("py" | "cp", "none") => wanted_minor.is_none_or(|wanted| wanted <= minor),
        ("cp", "abi3") => wanted_minor.is_some_and(|wanted| wanted <= minor),
        ("cp", abi) => wanted_minor == Some(minor) && abi == format!("cp{major}{minor}"),
        _ => false,
    }
}

fn platform_fits(platform: &str, glibc: &Version) -> Result<(), Unfit> {
    let other = || Unfit::Platform(platform.to_owned());
    // PEP 513, 571 and 599 name what PEP 600 writes as versions.
    let needed = match platform {
        "any" | "linux_x86_64" => return Ok(()),
        "manylinux1_x86_64" => "2.5".to_owned(),
        "manylinux2010_x86_64" => "2.12".to_owned(),
        "manylinux2014_x86_64" => "2.17".to_owned(),
        newer => {
            let numbers = newer.strip_prefix("manylinux_").and_then(|rest| rest.strip_suffix("_x86_64"));
            numbers.ok_or_else(other)?.replace('_', ".")
        }
    };
    let needed: Version = needed.parse().map_err(|_| other())?;
    if needed <= *glibc { Ok(()) } else { Err(Unfit::Glibc { needed, has: glibc.clone() }) }
}

/// The tags of a wheel by the name of its file (PEP 427): each combination of the parts that stand between dots.
/// `None` if it is no name of a wheel.
pub fn tags_of(file: &str) -> Option<Vec<Tag>> {
    let parts: Vec<&str> = file.strip_suffix(".whl")?.split('-').collect();
    let [.., pythons, abis, platforms] = parts.as_slice() else { return None };
    if !(5..=6).contains(&parts.len()) || file.len() > MAX_FILE_NAME {
        return None;
    }
    let each = |part: &'_ str| part.split('.').map(str::to_owned).collect::<Vec<_>>();
    let mut tags = Vec::new();
    for python in each(pythons) {
        for abi in each(abis) {
            for platform in each(platforms) {
                tags.push(Tag { python: python.clone(), abi: abi.clone(), platform });
            }
        }
    }
    Some(tags)
}

/// What environment markers are evaluated against: CPython `python` on x86-64 Linux.
pub fn environment(python: &Version) -> Option<MarkerEnvironment> {
    let full = python.to_string();
    let [major, minor, ..] = python.release() else { return None };
    let short = format!("{major}.{minor}");
    let builder = MarkerEnvironmentBuilder {
        implementation_name: "cpython",
        implementation_version: &full,
        os_name: "posix",
        platform_machine: "x86_64",
        platform_python_implementation: "CPython",
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: &full,
        python_version: &short,
        sys_platform: "linux",
    };
    builder.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(tags: &[(&str, &str, &str)]) -> Result<(), Unfit> {
        let tags: Vec<Tag> = tags
            .iter()
            .map(|(python, abi, platform)| Tag {
                python: (*python).to_owned(),
                abi: (*abi).to_owned(),
                platform: (*platform).to_owned(),
            })
            .collect();
        fits(&tags, &"3.13.5".parse().unwrap(), &"2.41".parse().unwrap())
    }

    #[test]
    fn wheels_run_on_their_interpreter_and_pure_ones_everywhere() {
        for good in [
            ("py3", "none", "any"),
            ("py2", "none", "any"),
            ("cp313", "cp313", "manylinux_2_28_x86_64"),
            ("cp39", "abi3", "manylinux2014_x86_64"),
            ("py3", "none", "manylinux_2_17_x86_64"),
            ("cp312", "none", "any"),
        ] {
            let expected = if good.0 == "py2" { Err(Unfit::Python("py2-none".to_owned())) } else { Ok(()) };
            assert_eq!(fit(&[good]), expected, "{good:?}");
        }
        assert_eq!(fit(&[("cp312", "cp312", "linux_x86_64")]), Err(Unfit::Python("cp312-cp312".to_owned())));
        assert_eq!(fit(&[("cp313", "cp313t", "linux_x86_64")]), Err(Unfit::Python("cp313-cp313t".to_owned())));
        assert_eq!(fit(&[("cp314", "abi3", "any")]), Err(Unfit::Python("cp314-abi3".to_owned())));
    }

    #[test]
    fn the_nearest_tag_gives_the_reason() {
        let newer = ("cp313", "cp313", "manylinux_2_50_x86_64");
        let unfit = fit(&[("cp313", "cp313", "macosx_11_0_arm64"), newer, ("cp39", "cp39", "any")]).unwrap_err();
        assert_eq!(unfit.to_string(), "it needs glibc 2.50, and the image has 2.41");
        assert_eq!(fit(&[newer, ("py3", "none", "any")]), Ok(()));
        assert!(matches!(fit(&[("cp313", "cp313", "manylinux_2_28_aarch64")]), Err(Unfit::Platform(_))));
        assert!(matches!(fit(&[("cp313", "cp313", "musllinux_1_2_x86_64")]), Err(Unfit::Platform(_))));
    }

    #[test]
    fn the_name_of_a_wheel_holds_all_its_tags() {
        let tags = tags_of("numpy-2.3.5-cp313-cp313-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl").unwrap();
        assert_eq!(tags.len(), 2);
        assert_eq!((tags[1].python.as_str(), tags[1].platform.as_str()), ("cp313", "manylinux_2_28_x86_64"));
        assert_eq!(tags_of("six-1.17.0-1-py2.py3-none-any.whl").unwrap().len(), 2);
        for other in ["six-1.17.0.tar.gz", "six-none-any.whl", "", "a-b-c-d-e-f-g.whl"] {
            assert_eq!(tags_of(other), None, "{other}");
        }
    }

    #[test]
    fn markers_see_linux() {
        let environment = environment(&"3.13.5".parse().unwrap()).unwrap();
        assert_eq!((environment.sys_platform(), environment.python_version().to_string().as_str()), ("linux", "3.13"));
    }
}
