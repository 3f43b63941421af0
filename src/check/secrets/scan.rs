//! Reading the files of a layer, several at a time.

use super::{
    patterns::{ADDRESS, LITERALS, LONGEST, by_name, is_example, pattern},
    weights::parts_to_search,
};
use crate::{
    layer::tree::{Content, Node, Tree, TreePath},
    parallel::try_map,
};
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Read},
    num::NonZeroUsize,
    ops::Range,
    thread::available_parallelism,
};

/// Bytes looked through at once.
const CHUNK: usize = 1 << 20;
/// Largest file that is read whole because of its name.
const MAX_NAMED: u64 = 1 << 20;
/// How a program or library begins (ELF).
const PROGRAM: &[u8] = b"\x7fELF";
/// Most findings kept of those that count.
const MAX_FINDINGS: usize = 1000;

/// Where something lies that looks like a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Path in the image, absolute; bytes that are no UTF-8 are escaped.
    pub path: String,
    /// Line, from 1; of what follows a tensor counted from there.
    pub line: u64,
    /// What it looks like.
    pub kind: String,
    /// Whether it is a key that came with a package, in its tests, examples or documentation or within a program that
    /// tests itself with it, and so opens nothing.
    pub came_with_package: bool,
}

/// What a scan found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order of their paths and lines.
    pub findings: Vec<Finding>,
    /// Whether there were more that count than are kept.
    pub is_cut: bool,
}

/// Who made the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Publishers of packages: their tests and examples hold keys that open nothing.
    Packages,
    /// The owner of the recipe.
    Owner,
}

/// Looks through all files of a layer. What lies at a path that is `allowed`, or came with a package, takes the place of
/// nothing that counts.
///
/// # Errors
/// What the system said when a file could not be read.
pub fn scan_tree(tree: &Tree, origin: Origin, allowed: &(dyn Fn(&str) -> bool + Sync)) -> io::Result<Found> {
    let files: Vec<(&TreePath, &Content)> = tree
        .iter()
        .filter_map(|(path, node)| match node {
            Node::File { content, .. } => Some((path, content)),
            _ => None,
        })
        .collect();
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let scan = |&(path, content): &(&TreePath, &Content)| {
        let mut findings = scan_file(path.as_bytes(), content, origin)?;
        findings.retain(|finding| !allowed(&finding.path));
        io::Result::Ok(findings)
    };
    let mut findings = try_map(&files, threads, |_| 0, scan)?.concat();
    findings.sort();
    findings.dedup();
    let counting = findings.iter().filter(|finding| !finding.came_with_package).count();
    if findings.len() > MAX_FINDINGS {
        findings.sort_by_key(|finding| finding.came_with_package);
        findings.truncate(MAX_FINDINGS);
        findings.sort();
    }
    Ok(Found { findings, is_cut: counting > MAX_FINDINGS })
}

fn scan_file(path: &[u8], content: &Content, origin: Origin) -> io::Result<Vec<Finding>> {
    let mut harmless = origin == Origin::Packages && is_among_tests(path);
    let mut here: Vec<Finding> = Vec::new();
    let finding = |line: u64, kind: &str, harmless: bool| {
        let came_with_package = kind.ends_with("private key") && harmless;
        Finding { path: format!("/{}", path.escape_ascii()), line, kind: kind.to_owned(), came_with_package }
    };
    for part in parts_to_search(path, content)? {
        let mut reader: Box<dyn Read> = match part.start {
            0 => content.reader()?,
            _ => Box::new(content.reader_of(part.clone())?),
        };
        let mut window = Window::default();
        while !window.is_last {
            let is_beginning = part.start == 0 && window.end == 0;
            window.fill(&mut reader, part.end - part.start)?;
            harmless |= is_beginning && origin == Origin::Packages && window.data.starts_with(PROGRAM);
            window.scan(origin, &mut |line, kind| here.push(finding(line, kind, harmless)));
        }
    }
    if let Some((kind, expression)) = by_name(path)
        && content.len() <= MAX_NAMED
    {
        let data = content.read()?;
        for place in expression.find_iter(&data).filter(|place| !is_example(place.as_bytes())).take(MAX_FINDINGS) {
            // What begins with the end of the line before belongs to this one.
            let start = place.start() + place.as_bytes().iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let line = 1 + count_lines(data.get(..start).unwrap_or_default());
            // The kind of token says more than the name of the file.
            if !here.iter().any(|other| other.line == line) {
                here.push(finding(line, kind, harmless));
            }
        }
    }
    Ok(here)
}

/// A part of a file with the end of the part before, so that nothing is cut in two. What lies in both is found twice.
#[derive(Default)]
struct Window {
    data: Vec<u8>,
    /// Lines before the first byte.
    lines: u64,
    /// Where it ends in the file.
    end: u64,
    /// Whether the file ends with it.
    is_last: bool,
}

impl Window {
    fn fill(&mut self, reader: &mut dyn Read, len: u64) -> io::Result<()> {
        let gone = self.data.len().saturating_sub(2 * LONGEST);
        self.lines += count_lines(self.data.get(..gone).unwrap_or_default());
        self.data.drain(..gone);
        let (old, count) = (self.data.len(), usize::try_from(len - self.end).unwrap_or(CHUNK).min(CHUNK));
        self.data.resize(old + count, 0);
        reader.read_exact(self.data.get_mut(old..).unwrap_or_default())?;
        self.end += count as u64;
        self.is_last = self.end == len;
        Ok(())
    }

    fn scan(&self, origin: Origin, add: &mut dyn FnMut(u64, &str)) {
        let Some(literals) = LITERALS.as_ref() else { return };
        for hit in literals.find_overlapping_iter(&self.data) {
            let Some((kind, expression)) = pattern(hit.pattern().as_usize()) else { continue };
            if kind.name == ADDRESS && origin == Origin::Packages {
                continue;
            }
            if let Some(start) = self.secret_around(expression, hit.start()..hit.end()) {
                add(self.line_of(start), kind.name);
            }
        }
    }

    /// Where the secret begins whose literal is at `literal`, if there is one.
    fn secret_around(&self, expression: &Regex, literal: Range<usize>) -> Option<usize> {
        let from = literal.start.saturating_sub(LONGEST);
        let to = (literal.end + LONGEST).min(self.data.len());
        let near = self.data.get(from..to)?;
        let found = expression.find_iter(near).find(|place| {
            let around = from + place.start() <= literal.start && literal.end <= from + place.end();
            // What runs into the end is seen whole in the next part.
            around && (self.is_last || from + place.end() < self.data.len())
        })?;
        (!is_example(found.as_bytes())).then_some(from + found.start())
    }

    fn line_of(&self, at: usize) -> u64 {
        self.lines + 1 + count_lines(self.data.get(..at).unwrap_or_default())
    }
}

fn count_lines(data: &[u8]) -> u64 {
    data.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Whether a file belongs to the tests, examples or documentation of a package.
fn is_among_tests(path: &[u8]) -> bool {
    let installed = [&b"usr/share/doc/"[..], b"usr/lib/", b"usr/local/lib/", b"usr/share/", b"opt/"];
    let test = |name: &[u8]| {
        matches!(name, b"test" | b"tests" | b"testing" | b"testdata" | b"test_data" | b"examples" | b"certs" | b"doc")
    };
    installed.iter().any(|prefix| path.starts_with(prefix)) && path.split(|&byte| byte == b'/').any(test)
}
