//! Names of projects (PEP 503) and of wheel files (PEP 427).

use pep508_rs::pep440_rs::Version;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Longest name of a project or file accepted, in bytes.
const MAX_LEN: usize = 200;

/// The name of a project in its one normalised spelling: lower case, runs of `-`, `_` and `.` as one `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectName(String);

/// Why a text names no project or wheel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a name as PEP 508 has it.
    #[error("`{0}` is no name of a Python project")]
    Project(String),
    /// Not a file name as PEP 427 has it.
    #[error("`{0}` is no file name of a wheel")]
    Wheel(String),
}

impl ProjectName {
    /// Normalises a name in any spelling.
    ///
    /// # Errors
    /// [`NameError::Project`] if it has other characters than letters, digits, `-`, `_` and `.`, or does not begin and
    /// end with a letter or digit.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let ends_well = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if bytes.len() > MAX_LEN || !bytes.iter().all(allowed) || !ends_well(bytes.first()) || !ends_well(bytes.last())
        {
            return Err(NameError::Project(shown(text)));
        }
        let mut name = String::with_capacity(text.len());
        for letter in text.chars().map(|letter| if "-_.".contains(letter) { '-' } else { letter.to_ascii_lowercase() })
        {
            if letter != '-' || !name.ends_with('-') {
                name.push(letter);
            }
        }
        Ok(Self(name))
    }

    /// The normalised name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ProjectName {
    type Error = NameError;

    /// Takes only what is normalised already.
    fn try_from(text: String) -> Result<Self, NameError> {
        let name = Self::new(&text)?;
        if name.0 == text { Ok(name) } else { Err(NameError::Project(shown(&text))) }
    }
}

impl From<ProjectName> for String {
    fn from(name: ProjectName) -> Self {
        name.0
    }
}

/// A wheel's file name, taken apart: `NAME-VERSION(-BUILD)-PYTHON-ABI-PLATFORM.whl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WheelName {
    /// The project.
    pub project: ProjectName,
    /// Its version.
    pub version: Version,
    /// Tags of Python versions that it is for.
    pub python: Vec<String>,
    /// Tags of binary interfaces that it needs.
    pub abi: Vec<String>,
    /// Tags of platforms that it is for.
    pub platform: Vec<String>,
    text: String,
}

impl WheelName {
    /// The file name as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for WheelName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = || NameError::Wheel(shown(text));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+!".contains(&byte);
        if text.len() > MAX_LEN || !text.bytes().all(allowed) {
            return Err(bad());
        }
        let stem = text.strip_suffix(".whl").ok_or_else(bad)?;
        let parts: Vec<&str> = stem.split('-').collect();
        let (project, version, [python, abi, platform]) = match parts.as_slice() {
            [project, version, python, abi, platform] => (project, version, [python, abi, platform]),
            [project, version, build, python, abi, platform]
                if build.starts_with(|letter: char| letter.is_ascii_digit()) =>
            {
                (project, version, [python, abi, platform])
            }
            _ => return Err(bad()),
        };
        let tags = |text: &str| -> Result<Vec<String>, NameError> {
            let word = |tag: &str| !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            let tags: Vec<String> = text.split('.').map(str::to_owned).collect();
            if tags.iter().all(|tag| word(tag)) { Ok(tags) } else { Err(bad()) }
        };
        Ok(Self {
            project: ProjectName::new(project).map_err(|_| bad())?,
            version: Version::from_str(&version.replace('_', "-")).map_err(|_| bad())?,
            python: tags(python)?,
            abi: tags(abi)?,
            platform: tags(platform)?,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for WheelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The beginning of a text from outside, escaped.
fn shown(text: &str) -> String {
    text.chars().take(MAX_LEN).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_one_project_are_one_name() {
        for text in ["Friendly-Bard", "friendly.bard", "FRIENDLY__bard", "friendly-.-_bard"] {
            assert_eq!(ProjectName::new(text).unwrap().as_str(), "friendly-bard");
        }
        for text in ["", "-a", "a.", "a b", "a/b", "ä", "..", &"x".repeat(201)] {
            assert!(ProjectName::new(text).is_err(), "{text}");
        }
        assert!(ProjectName::try_from("Torch".to_owned()).is_err(), "locks hold the one spelling");
    }

    #[test]
    fn wheel_names_come_apart() {
        let name: WheelName = "Foo_bar-1.0+cpu-2b-cp313.cp312-abi3-manylinux_2_17_x86_64.any.whl".parse().unwrap();
        assert_eq!(name.project.as_str(), "foo-bar");
        assert_eq!(name.version.to_string(), "1.0+cpu");
        assert_eq!(name.python, ["cp313", "cp312"]);
        assert_eq!(name.platform, ["manylinux_2_17_x86_64", "any"]);
        for text in [
            "foo-1.0-py3-none-any.zip",
            "foo-1.0-py3-none.whl",
            "foo-1.0-build-py3-none-any.whl",
            "foo-1.0-py3-none-any/../x.whl",
            "../foo-1.0-py3-none-any.whl",
            "foo-one-py3-none-any.whl",
            "foo-1.0-py3..py2-none-any.whl",
            "foo-1.0-py3-none-any.whl\n",
        ] {
            assert!(text.parse::<WheelName>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_parses_leaves_a_directory(text in "[a-z0-9./_+-]{0,40}(\\.whl)?") {
            if let Ok(name) = text.parse::<WheelName>() {
                prop_assert!(!name.as_str().contains('/') && !name.as_str().starts_with('.'));
            }
        }
    }
}
