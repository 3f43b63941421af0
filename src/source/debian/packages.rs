//! `Packages` files: what an archive offers (deb-control(5), Debian repository format).

use super::{
    deb822::{Deb822Error, Paragraph, Parser},
    relation::is_package_name,
    version,
};
use gap_format::Digest;

/// How much a system misses a package (Policy 2.5); the order is that of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Needed for the system to work at all.
    Required,
    /// Expected on any Unix-like system.
    Important,
    /// A reasonably small character-mode system.
    Standard,
    /// Everything else.
    #[default]
    Optional,
    /// The deprecated lowest rank.
    Extra,
}

impl Priority {
    fn parse(text: &str) -> Self {
        match text {
            "required" => Self::Required,
            "important" => Self::Important,
            "standard" => Self::Standard,
            "extra" => Self::Extra,
            _ => Self::Optional,
        }
    }
}

/// Whether a package of another architecture may satisfy a dependency (deb-control(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MultiArch {
    /// Neither installable twice nor usable across architectures.
    #[default]
    No,
    /// Installable for several architectures at once.
    Same,
    /// Serves packages of any architecture.
    Foreign,
    /// Serves those that ask for `:any`.
    Allowed,
}

impl MultiArch {
    fn parse(text: &str) -> Self {
        match text {
            "same" => Self::Same,
            "foreign" => Self::Foreign,
            "allowed" => Self::Allowed,
            _ => Self::No,
        }
    }
}

/// One package that an archive offers. Texts are borrowed from the index; relation fields are
/// unparsed, empty where absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package<'a> {
    /// Name.
    pub name: &'a str,
    /// Version.
    pub version: &'a str,
    /// Architecture it was built for, or `all`.
    pub architecture: &'a str,
    /// What must be configured before it is.
    pub depends: &'a str,
    /// What must be configured before it is unpacked.
    pub pre_depends: &'a str,
    /// What is usually wanted with it.
    pub recommends: &'a str,
    /// Virtual packages it stands for.
    pub provides: &'a str,
    /// What cannot be unpacked together with it.
    pub conflicts: &'a str,
    /// What cannot be configured together with it.
    pub breaks: &'a str,
    /// Whose files it may overwrite.
    pub replaces: &'a str,
    /// Whether dpkg considers it essential.
    pub essential: bool,
    /// Priority.
    pub priority: Priority,
    /// Section.
    pub section: &'a str,
    /// Size of the `.deb` in bytes.
    pub size: u64,
    /// Digest of the `.deb`.
    pub sha256: Digest,
    /// Path of the `.deb` below the archive's root.
    pub filename: &'a str,
    /// Multi-arch kind.
    pub multi_arch: MultiArch,
    /// Estimated size when installed, in KiB.
    pub installed_size: u64,
}

/// Why a `Packages` file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackagesError {
    /// It is not deb822.
    #[error(transparent)]
    Syntax(#[from] Deb822Error),
    /// A package lacks a field, or a field is malformed or doubled.
    #[error("the paragraph of package `{package}` that ends at line {line}: field {field} is {problem}")]
    Field {
        /// The package, as far as known.
        package: String,
        /// Line number, from 1.
        line: usize,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Calls `found` for every package of the text, in its order, borrowing from it.
///
/// # Errors
/// [`PackagesError`] with the line; packages before it were already handed out.
pub fn parse<'a>(text: &'a str, mut found: impl FnMut(Package<'a>)) -> Result<(), PackagesError> {
    let mut parser = Parser::new(text);
    let mut paragraph = Paragraph::default();
    while parser.read(&mut paragraph)? {
        let package = read_package(&paragraph).map_err(|(field, problem)| PackagesError::Field {
            package: paragraph.get("Package").unwrap_or("?").chars().take(80).collect(),
            line: parser.line(),
            field,
            problem,
        })?;
        found(package);
    }
    Ok(())
}

type Problem = (&'static str, &'static str);

/// The raw values of the fields that matter, gathered in one pass over the paragraph.
#[derive(Default)]
struct Raw<'a> {
    values: [Option<&'a str>; FIELDS.len()],
}

const FIELDS: [&str; 18] = [
    "Package",
    "Version",
    "Architecture",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Provides",
    "Conflicts",
    "Breaks",
    "Replaces",
    "Essential",
    "Priority",
    "Section",
    "Size",
    "SHA256",
    "Filename",
    "Multi-Arch",
    "Installed-Size",
];

impl<'a> Raw<'a> {
    fn gather(paragraph: &Paragraph<'a>) -> Result<Self, Problem> {
        let mut raw = Self::default();
        for &(name, value) in paragraph.fields() {
            let Some(index) = FIELDS.iter().position(|&field| field == name) else { continue };
            if let Some(slot) = raw.values.get_mut(index)
                && slot.replace(value).is_some()
            {
                return Err((FIELDS.get(index).copied().unwrap_or_default(), "given twice"));
            }
        }
        Ok(raw)
    }

    fn optional(&self, name: &str) -> &'a str {
        FIELDS.iter().position(|&field| field == name).and_then(|index| *self.values.get(index)?).unwrap_or_default()
    }

    fn required(&self, name: &'static str) -> Result<&'a str, Problem> {
        match self.optional(name) {
            "" => Err((name, "missing")),
            value => Ok(value),
        }
    }
}

fn read_package<'a>(paragraph: &Paragraph<'a>) -> Result<Package<'a>, Problem> {
    let raw = Raw::gather(paragraph)?;
    let package = Package {
        name: raw.required("Package")?,
        version: raw.required("Version")?,
        architecture: raw.required("Architecture")?,
        depends: raw.optional("Depends"),
        pre_depends: raw.optional("Pre-Depends"),
        recommends: raw.optional("Recommends"),
        provides: raw.optional("Provides"),
        conflicts: raw.optional("Conflicts"),
        breaks: raw.optional("Breaks"),
        replaces: raw.optional("Replaces"),
        essential: raw.optional("Essential") == "yes",
        priority: Priority::parse(raw.optional("Priority")),
        section: raw.optional("Section"),
        size: raw.required("Size")?.parse().map_err(|_| ("Size", "not a number of bytes"))?,
        sha256: Digest::from_hex(raw.required("SHA256")?).map_err(|_| ("SHA256", "not a SHA-256"))?,
        filename: raw.required("Filename")?,
        multi_arch: MultiArch::parse(raw.optional("Multi-Arch")),
        installed_size: match raw.optional("Installed-Size") {
            "" => 0,
            size => size.parse().map_err(|_| ("Installed-Size", "not a number of KiB"))?,
        },
    };
    if !is_package_name(package.name) {
        return Err(("Package", "not a package name"));
    }
    version::validate(package.version).map_err(|_| ("Version", "not a version"))?;
    if !is_confined(package.filename) {
        return Err(("Filename", "not a plain path below the archive"));
    }
    Ok(package)
}

/// Whether a path from an index stays below the archive's root and needs no escaping in a URL.
pub(super) fn is_confined(path: &str) -> bool {
    path.split('/').all(|name| !matches!(name, "" | "." | ".."))
        && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+~:@=,!".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "Package: a\nVersion: 1:2-3\nArchitecture: amd64\nDepends: libc6 (>= 2),\n b\nEssential: yes\n\
        Priority: required\nSize: 12\nInstalled-Size: 40\nMulti-Arch: foreign\nFilename: pool/a/a_2-3_amd64.deb\n\
        SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";

    fn all(text: &str) -> Result<Vec<Package<'_>>, PackagesError> {
        let mut packages = Vec::new();
        parse(text, |package| packages.push(package))?;
        Ok(packages)
    }

    #[test]
    fn a_package_is_read() {
        let text = format!("{GOOD}\n{GOOD}");
        let packages = all(&text).unwrap();
        assert_eq!(packages.len(), 2);
        let package = &packages[0];
        assert_eq!((package.name, package.version, package.size, package.installed_size), ("a", "1:2-3", 12, 40));
        assert_eq!((package.essential, package.priority), (true, Priority::Required));
        assert_eq!((package.depends, package.multi_arch), ("libc6 (>= 2),\n b", MultiArch::Foreign));
    }

    #[test]
    fn missing_doubled_and_malformed_fields_are_refused() {
        for (from, to) in [
            ("Package: a\n", ""),
            ("Size: 12", "Size: -1"),
            ("Size: 12", "Size: 12\nSize: 13"),
            ("SHA256: e3", "SHA256: zz"),
            ("Version: 1:2-3", "Version: x y"),
            ("Package: a", "Package: ../a"),
            ("pool/a/a_", "../a_"),
            ("pool/a/a_", "/a_"),
            ("pool/a/a_", "pool/?a_"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            assert!(all(&text).is_err(), "{to}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "(Package|Size|[a-z: \\n]){0,40}") {
            let _ = all(&text);
        }
    }
}
