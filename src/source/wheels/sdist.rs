//! Source distributions: which one is taken of a project, and what it says of itself.
//!
//! Nothing of one is run to find that out: its needs are those of `PKG-INFO`, what it is built with that of
//! `pyproject.toml` (PEP 517, 518). The build compares what the wheel says with what was locked.

use super::{
    index::Offer,
    metadata::{Metadata, MetadataError},
    name::ProjectName,
};
use crate::{recipe::requirement::requirement, source::entries::each_entry};
use flate2::read::GzDecoder;
use pep508_rs::{
    Requirement, VerbatimUrl, VersionOrUrl,
    pep440_rs::{Version, VersionSpecifiers},
};
use serde::Deserialize;
use std::{
    io::{self, Read},
    str::FromStr,
};

/// How the name of a source distribution ends (PEP 625).
const SUFFIX: &str = ".tar.gz";
/// What is built with where a project does not say (PEP 517, "Source trees").
const USUAL_REQUIRES: &str = "setuptools>=40.8.0";
/// Members of an archive that are looked at, at most.
const MEMBERS_MAX: usize = 500_000;
/// Bytes that an archive may unpack to.
const UNPACKED_MAX: u64 = 16 << 30;
/// Longest file that is read out of it, in bytes.
const FILE_MAX: u64 = super::metadata::MAX_LEN;

/// The file name of a source distribution: `NAME-VERSION.tar.gz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SdistName {
    /// The project.
    pub project: ProjectName,
    /// Its version.
    pub version: Version,
    text: String,
}

impl SdistName {
    /// Takes a file name apart; `None` if it is none of a source distribution.
    pub fn parse(text: &str) -> Option<Self> {
        let stem = text.strip_suffix(SUFFIX)?;
        let (project, version) = stem.rsplit_once('-')?;
        let project = ProjectName::new(project).ok()?;
        Some(Self { project, version: Version::from_str(version).ok()?, text: text.to_owned() })
    }

    /// The file name as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// What a source distribution says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    /// Its metadata, as far as it is known before it is built.
    pub metadata: Metadata,
    /// What it is built with, beyond the recipe's own words (PEP 508).
    pub build: Vec<String>,
}

/// Why a source distribution cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SdistError {
    /// It is no archive, or a damaged one.
    #[error("it is no whole tar archive: {0}")]
    Archive(#[from] io::Error),
    /// It has more members than any project.
    #[error("it has more than {MEMBERS_MAX} members")]
    TooMany,
    /// It holds no metadata.
    #[error("it has no PKG-INFO at its top; only source distributions as PEP 643 has them can be locked")]
    NoMetadata,
    /// Its metadata cannot be read.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Its `pyproject.toml` cannot be read.
    #[error("its pyproject.toml cannot be read: {0}")]
    Project(String),
}

/// The part of `pyproject.toml` that says how it is built.
#[derive(Deserialize)]
struct PyProject {
    #[serde(rename = "build-system")]
    build_system: Option<BuildSystem>,
}

#[derive(Deserialize)]
struct BuildSystem {
    #[serde(default)]
    requires: Vec<String>,
}

/// The newest of `offers` that the requirements allow, or the one of the version `previous`, if they allow that.
pub(super) fn best<'o>(
    project: &ProjectName,
    offers: &'o [Offer],
    allowed: &[VersionSpecifiers],
    python: &Version,
    previous: Option<&str>,
) -> Option<(&'o Offer, SdistName)> {
    let fits = |offer: &'o Offer| {
        let name = SdistName::parse(&offer.file).filter(|name| name.project == *project)?;
        let for_python = offer.requires_python.as_ref().and_then(|text| VersionSpecifiers::from_str(text).ok());
        let usable = !offer.yanked
            && for_python.is_none_or(|wanted| wanted.contains(python))
            && allowed.iter().all(|wanted| wanted.contains(&name.version));
        usable.then_some((offer, name))
    };
    let previous = previous.and_then(|text| Version::from_str(text).ok());
    // Releases before pre-releases, newer before older; what was locked before all others.
    let rank = |name: &SdistName| {
        (previous.as_ref() == Some(&name.version), !name.version.any_prerelease(), name.version.clone())
    };
    offers.iter().filter_map(fits).max_by(|(_, a), (_, b)| rank(a).cmp(&rank(b)))
}

/// What requirements say of the versions of a project.
pub(super) fn bounds<'r>(
    project: &ProjectName,
    requirements: impl Iterator<Item = &'r Requirement<VerbatimUrl>>,
) -> Vec<VersionSpecifiers> {
    let of_it = requirements.filter(|requirement| requirement.name.as_ref() == project.as_str());
    let specifiers = of_it.filter_map(|requirement| match &requirement.version_or_url {
        Some(VersionOrUrl::VersionSpecifier(specifiers)) => Some(specifiers.clone()),
        _ => None,
    });
    specifiers.collect()
}

/// Reads what the source distribution in `reader` says of itself.
///
/// # Errors
/// [`SdistError`].
pub(super) fn describe(reader: impl Read) -> Result<Description, SdistError> {
    let mut files = Files::default();
    let unpacked = GzDecoder::new(reader).take(UNPACKED_MAX);
    each_entry(unpacked, SdistError::Archive, |number, entry| {
        if number >= MEMBERS_MAX {
            return Err(SdistError::TooMany);
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path.trim_start_matches("./");
        let Some((_, inner)) = path.split_once('/') else { return Ok(()) };
        let place = match inner {
            "PKG-INFO" => &mut files.info,
            "pyproject.toml" => &mut files.project,
            _ if inner.ends_with(".egg-info/requires.txt") => &mut files.requires,
            _ => return Ok(()),
        };
        if entry.header().entry_type().is_file() && entry.size() <= FILE_MAX {
            let mut data = Vec::new();
            entry.take(FILE_MAX).read_to_end(&mut data)?;
            *place = Some(data);
        }
        Ok(())
    })?;
    files.description()
}

/// The files of an archive that say something.
#[derive(Default)]
struct Files {
    info: Option<Vec<u8>>,
    project: Option<Vec<u8>>,
    requires: Option<Vec<u8>>,
}

impl Files {
    fn description(self) -> Result<Description, SdistError> {
        let info = self.info.ok_or(SdistError::NoMetadata)?;
        let mut metadata = Metadata::parse(&info)?;
        if let Some(requires) = self.requires.filter(|_| metadata.requires.is_empty()) {
            metadata.requires = old_requirements(&String::from_utf8_lossy(&requires))?;
        }
        let build = match self.project {
            Some(project) => build_requirements(&project)?,
            None => vec![USUAL_REQUIRES.to_owned()],
        };
        Ok(Description { metadata, build })
    }
}

fn build_requirements(project: &[u8]) -> Result<Vec<String>, SdistError> {
    let text = std::str::from_utf8(project).map_err(|_| SdistError::Project("it is not UTF-8".to_owned()))?;
    let project: PyProject =
        toml::from_str(text).map_err(|error| SdistError::Project(error.message().escape_debug().to_string()))?;
    Ok(project.build_system.map_or_else(|| vec![USUAL_REQUIRES.to_owned()], |system| system.requires))
}

/// The requirements in setuptools' own `requires.txt`, which older ones leave out of `PKG-INFO`: lines, in sections of an
/// extra and a marker (`[extra:marker]`).
fn old_requirements(text: &str) -> Result<Vec<Requirement<VerbatimUrl>>, MetadataError> {
    let mut condition = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let (extra, marker) = section.split_once(':').unwrap_or((section, ""));
            let extra = (!extra.is_empty()).then(|| format!("extra == '{extra}'"));
            let marker = (!marker.is_empty()).then(|| format!("({marker})"));
            condition = marker.into_iter().chain(extra).collect::<Vec<_>>().join(" and ");
            continue;
        }
        let whole = if condition.is_empty() { line.to_owned() } else { format!("{line} ; {condition}") };
        let read = requirement(&whole)
            .map_err(|source| MetadataError::Requirement { requirement: whole.escape_debug().to_string(), source })?;
        found.push(read);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;
    use url::Url;

    const INFO: &str = "Metadata-Version: 2.2\nName: a\nVersion: 1.0\nRequires-Dist: b>=2\n";

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar.into_inner().unwrap()).unwrap();
        gzip.finish().unwrap()
    }

    fn described(files: &[(&str, &str)]) -> Result<Description, SdistError> {
        describe(archive(files).as_slice())
    }

    fn plain(requirements: &[Requirement<VerbatimUrl>]) -> Vec<String> {
        requirements.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn metadata_and_build_requirements_are_read_without_running_anything() {
        let project = "[build-system]\nrequires = [\"flit_core>=3\"]\nbuild-backend = \"flit_core.buildapi\"\n";
        let read = described(&[("a-1.0/PKG-INFO", INFO), ("a-1.0/pyproject.toml", project)]).unwrap();
        assert_eq!(plain(&read.metadata.requires), ["b>=2"]);
        assert_eq!(read.build, ["flit_core>=3"]);
        let read = described(&[("a-1.0/PKG-INFO", INFO), ("a-1.0/setup.py", "")]).unwrap();
        assert_eq!(read.build, ["setuptools>=40.8.0"]);
        assert!(matches!(described(&[("a-1.0/sub/PKG-INFO", INFO)]), Err(SdistError::NoMetadata)));
        let broken = described(&[("a-1.0/PKG-INFO", INFO), ("a-1.0/pyproject.toml", "= 1")]);
        assert!(matches!(broken, Err(SdistError::Project(_))));
        assert!(matches!(describe(&b"no gzip"[..]), Err(SdistError::Archive(_))));
    }

    #[test]
    fn a_small_archive_that_unpacks_to_a_name_of_megabytes_is_refused_and_a_large_member_is_not() {
        let long = described(&[(&format!("a-1.0/{}", "n".repeat(2 << 20)), ""), ("a-1.0/PKG-INFO", INFO)]);
        assert!(matches!(&long, Err(SdistError::Archive(error)) if error.kind() == io::ErrorKind::FileTooLarge));
        let large = "0".repeat(3 << 20);
        described(&[("a-1.0/data", &large), ("a-1.0/more", &large), ("a-1.0/PKG-INFO", INFO)]).unwrap();
    }

    #[test]
    fn what_old_setuptools_left_out_is_found_beside() {
        let old = INFO.replace("Requires-Dist: b>=2\n", "");
        let requires =
            "numpy>=1\n\n[:python_version < \"3.9\"]\nold\n\n[loud]\nshout\n\n[loud:os_name == \"nt\"]\nwin\n";
        let read = described(&[("a-1.0/PKG-INFO", &old), ("a-1.0/a.egg-info/requires.txt", requires)]).unwrap();
        let expected = [
            "numpy>=1",
            "old ; python_full_version < '3.9'",
            "shout ; extra == 'loud'",
            "win ; os_name == 'nt' and extra == 'loud'",
        ];
        assert_eq!(plain(&read.metadata.requires), expected);
    }

    #[test]
    fn the_newest_that_may_be_taken_is_taken() {
        let project = ProjectName::new("foo-bar").unwrap();
        let offer = |file: &str, requires: Option<&str>, yanked| Offer {
            file: file.to_owned(),
            url: Url::parse("https://example.org/x").unwrap(),
            sha256: None,
            size: None,
            requires_python: requires.map(str::to_owned),
            yanked,
        };
        let offers = [
            offer("foo_bar-1.0.tar.gz", None, false),
            offer("foo-bar-1.2.tar.gz", None, false),
            offer("foo_bar-2.0.tar.gz", Some(">=3.99"), false),
            offer("foo_bar-1.9.tar.gz", None, true),
            offer("foo_bar-3.0rc1.tar.gz", None, false),
            offer("foo_bar-1.5-py3-none-any.whl", None, false),
            offer("foo_baz-1.5.tar.gz", None, false),
        ];
        let python = Version::from_str("3.13.5").unwrap();
        let taken = |bounds: &[&str], previous| {
            let bounds: Vec<_> = bounds.iter().map(|text| VersionSpecifiers::from_str(text).unwrap()).collect();
            best(&project, &offers, &bounds, &python, previous).map(|(_, name)| name.version.to_string())
        };
        assert_eq!(taken(&[], None).as_deref(), Some("1.2"));
        assert_eq!(taken(&["<1.2"], None).as_deref(), Some("1.0"));
        assert_eq!(taken(&[], Some("1.0")).as_deref(), Some("1.0"));
        assert_eq!(taken(&[">1"], Some("1.0")).as_deref(), Some("1.2"));
        assert_eq!(taken(&[">5"], None), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = describe(bytes.as_slice());
            let _ = describe(archive(&[("a/PKG-INFO", &String::from_utf8_lossy(&bytes))]).as_slice());
        }
    }
}
