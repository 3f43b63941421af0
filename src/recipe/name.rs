//! The rules for names: what is safe as an OCI reference, a file name and a Debian or Cargo name alike.

use std::path::{Component, Path};

/// Longest name of an appliance, image or layer, in bytes.
const MAX_LEN: usize = 64;

/// A rule that a text keeps or breaks; when broken, what is allowed instead.
pub(super) type Rule = fn(&str) -> Result<(), &'static str>;

/// Appliances, images, layers: a path component of the OCI distribution specification (`[a-z0-9]+([._-][a-z0-9]+)*`).
pub(super) fn oci_name(text: &str) -> Result<(), &'static str> {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let parts_are_full = text.split(['.', '_', '-']).all(|part| !part.is_empty() && part.bytes().all(alphanumeric));
    (text.len() <= MAX_LEN && parts_are_full)
        .then_some(())
        .ok_or("lower-case letters and digits, with single `.`, `_` or `-` between them, at most 64 in all")
}

/// Steps: names like those of images, with `/` between them.
pub(super) fn step(text: &str) -> Result<(), &'static str> {
    (text.len() <= 128 && text.split('/').all(|part| oci_name(part).is_ok()))
        .then_some(())
        .ok_or("lower-case letters and digits with single `.`, `_` or `-` between them, and `/` between names")
}

/// Versions: an OCI tag (`[A-Za-z0-9][A-Za-z0-9._-]{0,63}`).
pub(super) fn version(text: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (text.len() <= MAX_LEN
        && text.bytes().all(allowed)
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()))
    .then_some(())
    .ok_or("letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 64 in all")
}

/// Debian packages (Debian policy, 5.6.7).
pub(super) fn debian_package(text: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (text.len() >= 2 && text.len() <= 128 && starts_well && text.bytes().all(allowed))
        .then_some(())
        .ok_or("a Debian package: lower-case letters, digits, `+`, `-` and `.`, at least two of them")
}

/// Debian versions (Debian policy, 5.6.12).
pub(super) fn debian_version(text: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".+-~:".contains(&byte);
    (text.len() <= 128 && text.bytes().next().is_some_and(|b| b.is_ascii_digit()) && text.bytes().all(allowed))
        .then_some(())
        .ok_or("a Debian version such as `1:2.36-9+deb12u4`")
}

/// Suites and components: path components, `/` between them.
pub(super) fn suite(text: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let part_is_good =
        |part: &str| part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && part.bytes().all(allowed);
    (text.len() <= 128 && text.split('/').all(part_is_good))
        .then_some(())
        .ok_or("letters, digits, `.`, `_`, `-`, and `/` between words")
}

/// Cargo packages, binaries and features, and kernel modules.
pub(super) fn identifier(text: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (!text.is_empty() && text.len() <= 128 && !text.starts_with('-') && text.bytes().all(allowed))
        .then_some(())
        .ok_or("letters, digits, `_` and `-`")
}

/// Cargo features: as identifiers, but `+`, `.` and one `/` (a dependency's feature) are allowed too.
pub(super) fn feature(text: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+.".contains(&byte);
    let part_is_good = |part: &str| !part.is_empty() && !part.starts_with(['-', '+', '.']) && part.bytes().all(allowed);
    (text.len() <= 128 && text.matches('/').count() <= 1 && text.split('/').all(part_is_good))
        .then_some(())
        .ok_or("letters, digits, `_`, `-`, `+`, `.`, and one `/` after the name of a dependency")
}

/// Modules of Python, dotted.
pub(super) fn python_module(text: &str) -> Result<(), &'static str> {
    let starts_well = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let allowed = |byte: u8| starts_well(byte) || byte.is_ascii_digit();
    let part_is_good = |part: &str| part.bytes().next().is_some_and(starts_well) && part.bytes().all(allowed);
    (text.len() <= 256 && text.split('.').all(part_is_good))
        .then_some(())
        .ok_or("a Python module: letters, digits and `_`, with `.` between the words")
}

/// Addresses of mirrors.
pub(super) fn mirror(text: &str) -> Result<(), &'static str> {
    let rest = ["http://", "https://", "file:///"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let printable = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    match rest {
        Some(rest) if !rest.is_empty() && text.len() <= 2048 && text.bytes().all(printable) => Ok(()),
        _ => Err("an address that begins with `http://`, `https://` or `file:///`"),
    }
}

/// Addresses of hubs: without credentials, which a recipe is no place for.
pub(super) fn endpoint(text: &str) -> Result<(), &'static str> {
    let web = !text.starts_with("file:") && mirror(text).is_ok();
    (web && !text.contains(['@', '?', '#']))
        .then_some(())
        .ok_or("an address that begins with `https://` or `http://`, without credentials and query")
}

/// Branches, tags and commits of a hub.
pub(super) fn revision(text: &str) -> Result<(), &'static str> {
    super::model::is_revision(text).then_some(()).ok_or("the name of a branch or tag, or a commit")
}

/// A relative path that does not leave the directory that it starts from.
pub(super) fn confined_path(text: &str) -> Result<(), &'static str> {
    let inside = Path::new(text).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    (relative_path(text).is_ok() && inside)
        .then_some(())
        .ok_or("a relative path without `..`: what a recipe takes in lies beside or below it")
}

/// A relative path, which may climb with `..`.
pub(super) fn relative_path(text: &str) -> Result<(), &'static str> {
    (!text.is_empty() && text.len() < 4096 && !text.contains('\0') && !text.starts_with('/'))
        .then_some(())
        .ok_or("a relative path: it is looked for from the directory of the file that names it")
}

/// Words of the kernel's command line that the recipe may not decide: they would change what is verified or started.
const RESERVED_PARAMETERS: [&str; 9] =
    ["init", "rdinit", "root", "rootfstype", "rootflags", "initrd", "noinitrd", "ro", "rw"];

/// Words for the kernel's command line. `Err` holds the word that is not allowed.
pub(super) fn cmdline(text: &str) -> Result<(), String> {
    if let Some(odd) = text.chars().find(|&c| !(c == ' ' || c.is_ascii_graphic()) || c == '"') {
        return Err(odd.escape_default().to_string());
    }
    let forbidden = |word: &&str| {
        let parameter = word.split('=').next().unwrap_or_default().replace('-', "_");
        parameter.starts_with("gap.") || RESERVED_PARAMETERS.contains(&parameter.as_str())
    };
    // Everything after a lone `--` is handed to init.
    match text.split(' ').find(|word| *word == "--" || forbidden(word)) {
        Some(word) => Err(word.to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_oci_references_and_file_names() {
        for good in ["os", "quickstart", "finetune-7b", "a.b_c-d", "7b"] {
            assert_eq!(oci_name(good), Ok(()), "{good}");
        }
        for bad in ["", "Os", "a--b", "-a", "a-", "a/b", "..", "a b", "ä", "a\n", &"x".repeat(65)] {
            assert!(oci_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_are_oci_tags() {
        assert_eq!(version("1.4.0-rc1"), Ok(()));
        for bad in ["", ".1", "1+2", "1/2", "1 2", "-1"] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_of_a_recipe_stay_where_they_start() {
        assert_eq!(confined_path("site/motd"), Ok(()));
        assert_eq!(confined_path("./site"), Ok(()));
        for bad in ["", "/etc/shadow", "../x", "a/../../x", "a\0b"] {
            assert!(confined_path(bad).is_err(), "{bad}");
        }
        assert_eq!(relative_path("../keys/trust.toml"), Ok(()));
    }

    #[test]
    fn the_command_line_cannot_say_what_is_verified_or_started() {
        assert_eq!(cmdline("quiet console=ttyS1,9600 mitigations=auto"), Ok(()));
        for bad in ["gap.os=sha256:00", "quiet init=/bin/sh", "rdinit=/x", "root=/dev/sda", "a -- b", "rw"] {
            assert!(cmdline(bad).is_err(), "{bad}");
        }
        assert!(cmdline("a\nb").is_err());
        assert!(cmdline("x=\"init=/bin/sh\"").is_err());
    }
}
