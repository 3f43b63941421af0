//! What uv resolved: a `pylock.toml` (PEP 751), of which only what is needed is read.

use super::{
    error::WheelsError,
    index::file_name,
    name::{ProjectName, WheelName},
    target::Target,
};
use crate::recipe::requirement::marker;
use gap_format::Digest;
use pep508_rs::MarkerEnvironment;
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path};
use url::Url;

/// A wheel that was chosen, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Its file name.
    pub file: WheelName,
    /// Its digest.
    pub sha256: Digest,
    /// Where it is.
    pub url: Url,
    /// Its project.
    pub project: ProjectName,
    /// The version.
    pub version: String,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    packages: Vec<Package>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Package {
    name: String,
    version: Option<String>,
    marker: Option<String>,
    #[serde(default)]
    wheels: Vec<File>,
    vcs: Option<toml::Value>,
    directory: Option<toml::Value>,
    archive: Option<toml::Value>,
}

#[derive(Deserialize)]
struct File {
    name: Option<String>,
    url: Option<String>,
    path: Option<String>,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
}

/// The wheels in a `pylock.toml` that lies in `directory`, one for each project that the target needs.
///
/// # Errors
/// [`WheelsError`] if one is missing, for something else or not from an index.
pub(super) fn chosen(
    text: &str,
    directory: &Path,
    target: &Target,
    environment: &MarkerEnvironment,
) -> Result<Vec<Chosen>, WheelsError> {
    let document: Document = toml::from_str(text).map_err(|error| WheelsError::Answer(error.to_string()))?;
    let applies = |package: &Package| {
        let marker = package.marker.as_deref().and_then(|text| marker(text).ok());
        marker.is_none_or(|marker| marker.evaluate(environment, &[]))
    };
    let packages = document.packages.into_iter().filter(applies);
    packages.map(|package| of_package(package, directory, target)).collect()
}

fn of_package(package: Package, directory: &Path, target: &Target) -> Result<Chosen, WheelsError> {
    if package.vcs.is_some() || package.directory.is_some() || package.archive.is_some() {
        return Err(WheelsError::Direct(package.name));
    }
    let project = ProjectName::new(&package.name)?;
    let version = package.version.unwrap_or_default();
    let no_wheel = || WheelsError::NoWheel { name: package.name.clone(), version: version.clone(), target: *target };
    // uv lists the best one first.
    let mut refused = None;
    for file in &package.wheels {
        let (name, url) = place(file, directory)?;
        let name: WheelName = name.parse()?;
        if !target.accepts(&name) {
            refused = Some(name);
            continue;
        }
        let hex = file.hashes.get("sha256").ok_or_else(|| WheelsError::Answer(format!("`{name}` has no sha256")))?;
        let sha256 = Digest::from_hex(&hex.to_ascii_lowercase())
            .map_err(|error| WheelsError::Answer(format!("the digest of `{name}`: {error}")))?;
        if name.project != project {
            let expected = package.name.clone();
            return Err(WheelsError::Identity { file: name.to_string(), found: name.project.to_string(), expected });
        }
        return Ok(Chosen { file: name, sha256, url, project, version });
    }
    Err(refused.map_or_else(no_wheel, |name| WheelsError::OtherPlatform { file: name.to_string(), target: *target }))
}

/// Name and address of a file.
fn place(file: &File, directory: &Path) -> Result<(String, Url), WheelsError> {
    let odd = |what: &str| WheelsError::Answer(what.to_owned());
    let url = match (&file.url, &file.path) {
        (Some(url), _) => Url::parse(url).map_err(|error| odd(&format!("an address: {error}")))?,
        (None, Some(path)) => Url::from_file_path(directory.join(path)).map_err(|()| odd("a path is not absolute"))?,
        (None, None) => return Err(odd("a wheel has neither address nor path")),
    };
    let name = file.name.clone().or_else(|| file_name(&url)).ok_or_else(|| odd("a wheel has no name"))?;
    Ok((name, url))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{graph::environment, target::tests::trixie},
        *,
    };

    fn read(text: &str) -> Result<Vec<Chosen>, WheelsError> {
        chosen(text, Path::new("/scratch"), &trixie(), &environment(&trixie()).unwrap())
    }

    fn package(name: &str, rest: &str) -> String {
        format!("[[packages]]\nname = \"{name}\"\nversion = \"1.0\"\n{rest}\n")
    }

    fn wheel(place: &str) -> String {
        format!("wheels = [{{ {place}, hashes = {{ sha256 = \"{}\" }} }}]", Digest::of(b"x").to_hex())
    }

    #[test]
    fn wheels_come_with_name_and_address() {
        let text = [
            package("a", &wheel("url = \"https://h/p/a-1.0%2Bcpu-py3-none-any.whl\"")),
            package("b", &wheel("path = \"links/b-1.0-py3-none-any.whl\"")),
            package(
                "w",
                &format!(
                    "marker = \"sys_platform == 'win32'\"\n{}",
                    wheel("url = \"https://h/w-1.0-py3-none-any.whl\"")
                ),
            ),
        ];
        let chosen = read(&text.concat()).unwrap();
        assert_eq!(chosen.len(), 2);
        assert_eq!(chosen[0].file.as_str(), "a-1.0+cpu-py3-none-any.whl");
        assert_eq!(chosen[1].url.as_str(), "file:///scratch/links/b-1.0-py3-none-any.whl");
    }

    #[test]
    fn what_cannot_be_locked_is_refused() {
        assert!(matches!(read(&package("a", "vcs = { type = \"git\" }")), Err(WheelsError::Direct(_))));
        assert!(matches!(read(&package("a", "")), Err(WheelsError::NoWheel { .. })));
        let foreign = wheel("url = \"https://h/a-1.0-cp313-cp313-win_amd64.whl\"");
        assert!(matches!(read(&package("a", &foreign)), Err(WheelsError::OtherPlatform { .. })));
        let other = wheel("url = \"https://h/b-1.0-py3-none-any.whl\"");
        assert!(matches!(read(&package("a", &other)), Err(WheelsError::Identity { .. })));
        assert!(matches!(read("packages = 3"), Err(WheelsError::Answer(_))));
    }
}
