//! dpkg's triggers (deb-triggers(5)): who is interested in what, and what unpacking has activated.
//!
//! `triggers/File` holds `PATH PACKAGE[/noawait]` lines, `triggers/NAME` the packages interested in
//! an explicit trigger, and `triggers/Unincorp` what was activated and not yet noted in `status`
//! (`TRIGGER AWAITER…`, `-` for nobody).

use super::{PackageInput, database::info_name};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

/// The files of `/var/lib/dpkg/triggers` that change, by name; `read` gives what they hold so far.
pub(super) fn files(
    packages: &[PackageInput],
    read: impl Fn(&str) -> io::Result<Vec<u8>>,
) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut on_paths = Lines::new(read("File")?);
    let mut explicit: BTreeMap<String, Lines> = BTreeMap::new();
    let mut activated = BTreeSet::new();
    for package in packages {
        for line in package.lines("triggers") {
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let mut words = line.split_ascii_whitespace();
            let (Some(directive), Some(trigger)) = (words.next(), words.next()) else { continue };
            let suffix = if directive.ends_with("-noawait") { "/noawait" } else { "" };
            let interested = format!("{}{suffix}", info_name(package));
            if directive.starts_with("activate") {
                activated.insert(trigger.to_owned());
            } else if directive.starts_with("interest") && trigger.starts_with('/') {
                on_paths.add(format!("{trigger} {interested}"));
            } else if directive.starts_with("interest") && is_name(trigger) {
                let mut lines = match explicit.remove(trigger) {
                    Some(lines) => lines,
                    None => Lines::new(read(trigger)?),
                };
                lines.add(interested);
                explicit.insert(trigger.to_owned(), lines);
            }
        }
    }
    for line in &on_paths.0 {
        let watched = line.split(' ').next().unwrap_or_default();
        if packages.iter().any(|package| touches(package, watched)) {
            activated.insert(watched.to_owned());
        }
    }
    let unincorporated = activated.iter().fold(Lines::new(read("Unincorp")?), |mut lines, trigger| {
        lines.add(format!("{trigger} -"));
        lines
    });
    let mut files: BTreeMap<_, _> = explicit.into_iter().map(|(name, lines)| (name, lines.into_bytes())).collect();
    files.insert("File".to_owned(), on_paths.into_bytes());
    files.insert("Unincorp".to_owned(), unincorporated.into_bytes());
    Ok(files)
}

/// Whether the package has something at or below the path `watched`.
fn touches(package: &PackageInput, watched: &str) -> bool {
    let watched = watched.trim_matches('/').as_bytes();
    package.tree.iter().any(|(path, _)| {
        let rest = path.as_bytes().strip_prefix(watched);
        rest.is_some_and(|rest| rest.first().is_none_or(|&byte| byte == b'/'))
    })
}

/// An explicit trigger's name is a file's name, so it must not lead elsewhere.
fn is_name(trigger: &str) -> bool {
    let plain = trigger.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._:".contains(&byte));
    plain && !trigger.starts_with('.') && !matches!(trigger, "File" | "Unincorp" | "Lock")
}

/// Lines of a file, each once, in the order in which they came.
struct Lines(Vec<String>);

impl Lines {
    fn new(data: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&data).into_owned();
        Self(text.lines().map(str::to_owned).collect())
    }

    fn add(&mut self, line: String) {
        if !self.0.contains(&line) {
            self.0.push(line);
        }
    }

    fn into_bytes(self) -> Vec<u8> {
        self.0.into_iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()
    }
}
