//! Debian's short names of licences (copyright-format 1.0, "Short name") as SPDX identifiers.

use super::UNREADABLE;

/// Longest short name; what is longer is a sentence.
const NAME_MAX: usize = 64;

/// Short names that differ from SPDX' by more than the case of letters.
const KNOWN: [(&str, &str); 13] = [
    ("apache-2", "Apache-2.0"),
    ("artistic", "Artistic-1.0-Perl"),
    ("cc0", "CC0-1.0"),
    ("expat", "MIT"),
    ("gfdl-niv-1.1", "GFDL-1.1-no-invariants-only"),
    ("gfdl-niv-1.1+", "GFDL-1.1-no-invariants-or-later"),
    ("gfdl-niv-1.2", "GFDL-1.2-no-invariants-only"),
    ("gfdl-niv-1.2+", "GFDL-1.2-no-invariants-or-later"),
    ("gfdl-niv-1.3", "GFDL-1.3-no-invariants-only"),
    ("gfdl-niv-1.3+", "GFDL-1.3-no-invariants-or-later"),
    ("psf-2", "PSF-2.0"),
    ("python-2", "Python-2.0"),
    ("unicode", "Unicode-DFS-2016"),
];

/// The SPDX identifier of a short name, or a `LicenseRef-debian-…`.
pub(super) fn spdx(name: &str) -> String {
    if name.len() > NAME_MAX {
        return UNREADABLE.to_owned();
    }
    let known = KNOWN.iter().find(|(debian, _)| debian.eq_ignore_ascii_case(name));
    let listed = || {
        let mut licences = spdx::identifiers::LICENSES.iter();
        let found = licences.find(|licence| licence.name.eq_ignore_ascii_case(name))?;
        // The identifiers that SPDX gave up are those of GNU licences that do not say whether later versions count.
        spdx::license_id(found.name).filter(|id| !id.is_deprecated()).map(|id| id.name.to_owned())
    };
    let found = known.map(|(_, spdx)| (*spdx).to_owned()).or_else(|| gnu(name)).or_else(listed);
    found.unwrap_or_else(|| reference(name))
}

/// `GPL-2+` is `GPL-2.0-or-later`, `LGPL-2.1` is `LGPL-2.1-only`. With an exception it is neither: Debian's names of
/// exceptions are not exact enough.
fn gnu(name: &str) -> Option<String> {
    let (family, version) = name.split_once('-')?;
    let (number, suffix) = match version.strip_suffix('+').or_else(|| version.strip_suffix("-or-later")) {
        Some(number) => (number, "or-later"),
        None => (version.strip_suffix("-only").unwrap_or(version), "only"),
    };
    gnu_id(family, number, suffix)
}

/// The identifier of a version of a GNU licence, if there is such a version.
pub(super) fn gnu_id(family: &str, number: &str, suffix: &str) -> Option<String> {
    if !matches!(family, "GPL" | "LGPL" | "AGPL" | "GFDL") {
        return None;
    }
    let dotted = if number.contains('.') { number.to_owned() } else { format!("{number}.0") };
    let id = format!("{family}-{dotted}-{suffix}");
    spdx::license_id(&id).map(|found| found.name.to_owned())
}

/// A name of our own for a licence that Debian names and SPDX does not.
pub(super) fn reference(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '-' };
    format!("LicenseRef-debian-{}", name.chars().map(safe).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_those_of_spdx() {
        for (debian, expected) in [
            ("GPL-2+", "GPL-2.0-or-later"),
            ("GPL-1", "GPL-1.0-only"),
            ("LGPL-2.1", "LGPL-2.1-only"),
            ("LGPL-2.1-or-later", "LGPL-2.1-or-later"),
            ("GFDL-1.2+", "GFDL-1.2-or-later"),
            ("AGPL-3+", "AGPL-3.0-or-later"),
            ("Expat", "MIT"),
            ("bsd-3-clause", "BSD-3-Clause"),
            ("BSD-3-clause", "BSD-3-Clause"),
            ("Zlib", "Zlib"),
            ("zlib", "Zlib"),
            ("CC-BY-SA-4.0", "CC-BY-SA-4.0"),
            ("MPL-2.0", "MPL-2.0"),
            ("GPL-9", "LicenseRef-debian-GPL-9"),
            ("GPL-2+ with OpenSSL exception", "LicenseRef-debian-GPL-2--with-OpenSSL-exception"),
            ("public-domain", "LicenseRef-debian-public-domain"),
            ("GPL", "LicenseRef-debian-GPL"),
            ("eCos-2.0", "LicenseRef-debian-eCos-2.0"),
        ] {
            assert_eq!(spdx(debian), expected, "{debian}");
        }
        assert_eq!(spdx(&"very ".repeat(20)), UNREADABLE);
    }
}
