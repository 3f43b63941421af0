//! The core metadata of a project (`METADATA` in a wheel, `PKG-INFO` elsewhere).

use super::name::{NameError, ProjectName};
use crate::recipe::requirement::{RequirementError, requirement};
use pep508_rs::{MarkerTree, Requirement, VerbatimUrl};

/// Longest metadata read, in bytes; descriptions can be long.
pub const MAX_LEN: u64 = 16 << 20;
/// Longest text of a field that says which licence it is; anything longer is the licence itself.
const LICENSE_MAX: usize = 100;
/// What licence classifiers mean in SPDX's terms. Those that leave a version open are missing on purpose.
const CLASSIFIERS: [(&str, &str); 19] = [
    ("Apache Software License", "Apache-2.0"),
    ("Boost Software License 1.0 (BSL-1.0)", "BSL-1.0"),
    ("GNU Affero General Public License v3", "AGPL-3.0-only"),
    ("GNU Affero General Public License v3 or later (AGPLv3+)", "AGPL-3.0-or-later"),
    ("GNU General Public License v2 (GPLv2)", "GPL-2.0-only"),
    ("GNU General Public License v2 or later (GPLv2+)", "GPL-2.0-or-later"),
    ("GNU General Public License v3 (GPLv3)", "GPL-3.0-only"),
    ("GNU General Public License v3 or later (GPLv3+)", "GPL-3.0-or-later"),
    ("GNU Lesser General Public License v2 or later (LGPLv2+)", "LGPL-2.0-or-later"),
    ("GNU Lesser General Public License v3 (LGPLv3)", "LGPL-3.0-only"),
    ("GNU Lesser General Public License v3 or later (LGPLv3+)", "LGPL-3.0-or-later"),
    ("ISC License (ISCL)", "ISC"),
    ("MIT License", "MIT"),
    ("MIT No Attribution License (MIT-0)", "MIT-0"),
    ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
    ("Python Software Foundation License", "PSF-2.0"),
    ("The Unlicense (Unlicense)", "Unlicense"),
    ("Universal Permissive License (UPL)", "UPL-1.0"),
    ("zlib/libpng License", "Zlib"),
];

/// What is used of a project's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The project.
    pub name: ProjectName,
    /// Its version, as written.
    pub version: String,
    /// Its licences: an SPDX expression where it gives one, else what it says; sorted.
    pub licenses: Vec<String>,
    /// What it needs, with markers.
    pub requires: Vec<Requirement<VerbatimUrl>>,
}

/// Why metadata is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// It is not UTF-8.
    #[error("the metadata is not UTF-8")]
    Encoding,
    /// A field that there must be is missing.
    #[error("the metadata has no {0}")]
    Missing(&'static str),
    /// A name that cannot be.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A requirement that is none.
    #[error("the metadata requires `{requirement}`: {source}")]
    Requirement {
        /// What it says, escaped.
        requirement: String,
        /// Why it is no requirement.
        source: RequirementError,
    },
}

impl Metadata {
    /// Reads metadata.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub fn parse(data: &[u8]) -> Result<Self, MetadataError> {
        let text = std::str::from_utf8(data).map_err(|_| MetadataError::Encoding)?;
        let fields = fields(text);
        let all = |wanted: &str| -> Vec<&str> {
            let same = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            same.map(|(_, value)| value.as_str()).collect()
        };
        let one = |wanted: &'static str| all(wanted).first().copied().ok_or(MetadataError::Missing(wanted));
        let requires = all("Requires-Dist").into_iter().map(|text| {
            requirement(text)
                .map_err(|source| MetadataError::Requirement { requirement: text.escape_debug().to_string(), source })
        });
        Ok(Self {
            name: ProjectName::new(one("Name")?)?,
            version: one("Version")?.to_owned(),
            licenses: licenses(&all("License-Expression"), &all("License"), &all("Classifier")),
            requires: requires.collect::<Result<_, _>>()?,
        })
    }
}

/// The header fields of an e-mail-like file (RFC 822): names and unfolded values, up to the first empty line.
pub fn fields(text: &str) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)) {
        if line.is_empty() {
            break;
        }
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    fields
}

/// A requirement without marker and address: `NAME[EXTRAS]SPECIFIERS`.
pub fn plain(requirement: &Requirement<VerbatimUrl>) -> String {
    let mut plain = requirement.clone();
    plain.marker = MarkerTree::TRUE;
    plain.clear_url();
    plain.to_string()
}

/// The licences by the best that the metadata has: expression, short text, classifiers.
fn licenses(expressions: &[&str], texts: &[&str], classifiers: &[&str]) -> Vec<String> {
    if let Some(expression) = expressions.iter().find(|text| is_short(text)) {
        return vec![(*expression).to_owned()];
    }
    let named = classifiers.iter().filter_map(|classifier| classifier.strip_prefix("License :: "));
    let named = named.map(|classifier| classifier.strip_prefix("OSI Approved :: ").unwrap_or(classifier));
    let named = named.filter(|&name| name != "OSI Approved").map(|name| {
        let known = CLASSIFIERS.iter().find(|(classifier, _)| *classifier == name);
        known.map_or_else(|| name.escape_debug().to_string(), |(_, spdx)| (*spdx).to_owned())
    });
    let mut found: Vec<String> = named.collect();
    if found.is_empty() {
        // Some put the whole licence there; its first line is its name.
        let first = texts.iter().filter_map(|text| text.lines().map(str::trim).find(|line| !line.is_empty()));
        found.extend(
            first.filter(|line| is_short(line) && *line != "UNKNOWN").map(|line| line.escape_debug().to_string()),
        );
    }
    found.sort();
    found.dedup();
    found
}

fn is_short(text: &str) -> bool {
    !text.is_empty() && text.len() <= LICENSE_MAX && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "Metadata-Version: 2.1\r\nName: Foo.Bar\r\nVersion: 1.0\r\nLicense: MIT License\r\n        \r\n\
        Classifier: License :: OSI Approved :: BSD License\r\nRequires-Dist: numpy>=1.17\r\n\
        Requires-Dist: torch (>=2.2) ; extra == 'torch'\r\n\r\nName: not-a-header\r\n";

    #[test]
    fn what_counts_is_read() {
        let read = Metadata::parse(WHOLE.as_bytes()).unwrap();
        assert_eq!((read.name.as_str(), read.version.as_str()), ("foo-bar", "1.0"));
        assert_eq!(read.licenses, ["BSD License"]);
        assert_eq!(read.requires.len(), 2);
    }

    #[test]
    fn the_best_word_on_the_licence_counts() {
        let found = |head: &str| Metadata::parse(format!("Name: a\nVersion: 1\n{head}\n").as_bytes()).unwrap().licenses;
        assert_eq!(found("License-Expression: MIT OR Apache-2.0\nLicense: x"), ["MIT OR Apache-2.0"]);
        assert_eq!(found("License: Apache 2.0 License"), ["Apache 2.0 License"]);
        assert_eq!(found("License: MIT License\n  Copyright (c) you\n  Permission is"), ["MIT License"]);
        assert_eq!(
            found("Classifier: License :: OSI Approved\nClassifier: License :: Other/Proprietary License"),
            ["Other/Proprietary License"]
        );
        assert!(found("License: UNKNOWN").is_empty());
        assert!(found(&format!("License: {}", "x".repeat(200))).is_empty());
    }

    #[test]
    fn odd_metadata_is_refused() {
        let error = |text: &[u8]| Metadata::parse(text).unwrap_err();
        assert_eq!(error(b"Version: 1\n"), MetadataError::Missing("Name"));
        assert_eq!(error(b"Name: a\n\nVersion: 1\n"), MetadataError::Missing("Version"));
        assert_eq!(error(b"Name: \xff\n"), MetadataError::Encoding);
        assert!(matches!(error(b"Name: a b\nVersion: 1\n"), MetadataError::Name(_)));
        let requirement = error(b"Name: a\nVersion: 1\nRequires-Dist: x >>> 1\n");
        assert!(requirement.to_string().contains("x >>> 1"), "{requirement}");
    }
}
