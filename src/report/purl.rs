//! Package URLs (purl, ECMA-427): by which name a package is known where.

use std::fmt::{self, Write as _};

/// `pkg:TYPE/NAMESPACE/NAME@VERSION?QUALIFIERS`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackageUrl {
    path: String,
    qualifiers: Vec<(&'static str, String)>,
}

impl PackageUrl {
    /// The URL of a package of this type. The namespace may have several parts with `/` between them.
    pub fn new(kind: &str, namespace: Option<&str>, name: &str, version: Option<&str>) -> Self {
        let mut path = format!("pkg:{kind}");
        let parts = namespace.into_iter().flat_map(|namespace| namespace.split('/')).chain([name]);
        for part in parts {
            path.push('/');
            encode(part, &mut path);
        }
        if let Some(version) = version {
            path.push('@');
            encode(version, &mut path);
        }
        Self { path, qualifiers: Vec::new() }
    }

    /// Adds a qualifier.
    pub fn qualify(&mut self, key: &'static str, value: &str) {
        let mut encoded = String::new();
        encode(value, &mut encoded);
        self.qualifiers.push((key, encoded));
        self.qualifiers.sort();
    }
}

impl fmt::Display for PackageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        for (number, (key, value)) in self.qualifiers.iter().enumerate() {
            write!(f, "{}{key}={value}", if number == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

/// Percent-encodes all but letters, digits, `.`, `-`, `_`, `~` and `:`.
fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_encoded_and_qualifiers_sorted() {
        let mut url = PackageUrl::new("deb", Some("debian"), "libstdc++6", Some("1:14.2~0-19+b1"));
        url.qualify("distro", "trixie");
        url.qualify("arch", "amd64");
        assert_eq!(url.to_string(), "pkg:deb/debian/libstdc%2B%2B6@1:14.2~0-19%2Bb1?arch=amd64&distro=trixie");
        let url = PackageUrl::new("huggingface", Some("org"), "model/é", None);
        assert_eq!(url.to_string(), "pkg:huggingface/org/model%2F%C3%A9");
    }
}
