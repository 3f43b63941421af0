//! Removing what differs from run to run, and what no image should carry.

use crate::layer::tree::{Content, Node, Tree, TreePath};
use std::{collections::BTreeSet, io, sync::Arc};

const SECONDS_A_DAY: i64 = 86_400;
/// Position of the date of the last change in a line of shadow(5), days since 1970.
const SHADOW_DATE: usize = 2;
/// Bytes 4–7 of a `.pyc` file: 0 = valid by the source's time, 1 = by hash and never checked,
/// 3 = by hash and checked (PEP 552).
const PYC_FLAGS: std::ops::Range<usize> = 4..8;

/// What becomes of a file.
enum Fate {
    Keep,
    Remove,
    /// Stays, with no content.
    Empty,
    /// A table of passwords, whose dates are set.
    Shadow,
    /// Compiled Python: verified with the image, so never to be checked against its source.
    Bytecode,
}

/// Cleans a configured root. What `lower` has in the same form stays as it is.
pub(super) fn scrub(tree: &mut Tree, lower: &Tree, source_date: i64) -> io::Result<()> {
    let fates = tree
        .iter()
        .map(|(path, node)| (path.clone(), fate(path, node)))
        .filter(|(_, fate)| !matches!(fate, Fate::Keep));
    let fates: Vec<_> = fates.collect();
    let linked: BTreeSet<TreePath> = tree
        .iter()
        .filter_map(|(_, node)| if let Node::HardLink { target } = node { Some(target.clone()) } else { None })
        .collect();
    for (path, fate) in fates {
        if matches!(fate, Fate::Remove) {
            // A file that other names share is none of those that are removed here.
            if !linked.contains(&path) {
                tree.remove(&path);
            }
            continue;
        }
        let before = match lower.get(&path) {
            Some(Node::File { content, .. }) => content.read()?,
            _ => Vec::new(),
        };
        let Some(Node::File { content, .. }) = tree.get_mut(&path) else { continue };
        let clean = match fate {
            Fate::Keep | Fate::Remove => None,
            Fate::Empty => (!content.is_empty()).then(Vec::new),
            Fate::Shadow => Some(dated(&content.read()?, &before, source_date.div_euclid(SECONDS_A_DAY))),
            Fate::Bytecode => unchecked(content.read()?),
        };
        if let Some(clean) = clean {
            *content = Content::Bytes(Arc::from(clean));
        }
    }
    Ok(())
}

fn fate(path: &TreePath, node: &Node) -> Fate {
    let path = path.as_bytes();
    let is_file = matches!(node, Node::File { .. });
    let below = |directory: &str| path.strip_prefix(directory.as_bytes()).filter(|rest| !rest.is_empty());
    let ends = |end: &str| path.ends_with(end.as_bytes());
    match path {
        _ if below("run/").is_some() || below("tmp/").is_some() || below("var/tmp/").is_some() => Fate::Remove,
        _ if !is_file => Fate::Keep,
        b"etc/machine-id" => Fate::Empty,
        b"var/lib/dbus/machine-id" | b"var/lib/systemd/random-seed" | b"var/cache/ldconfig/aux-cache" => Fate::Remove,
        b"etc/shadow" => Fate::Shadow,
        b"etc/passwd-" | b"etc/group-" | b"etc/shadow-" | b"etc/gshadow-" | b"etc/subuid-" | b"etc/subgid-" => {
            Fate::Remove
        }
        b"var/lib/dpkg/lock" | b"var/lib/dpkg/lock-frontend" | b"var/lib/dpkg/triggers/Lock" => Fate::Remove,
        _ if below("var/lib/dpkg/").is_some_and(|name| !name.contains(&b'/')) && ends("-old") => Fate::Remove,
        _ if below("var/cache/debconf/").is_some() && ends("-old") => Fate::Remove,
        _ if below("var/cache/apt/").is_some() || below("var/lib/apt/lists/").is_some() => Fate::Remove,
        // Keys of one machine; it makes its own.
        _ if below("etc/ssh/ssh_host_").is_some_and(|name| name.windows(4).any(|part| part == b"_key")) => Fate::Remove,
        _ if below("var/log/").is_some() && (ends(".log") || below("var/log/apt/").is_some()) => Fate::Remove,
        _ if below("var/log/").is_some() => Fate::Empty,
        _ if ends(".pyc") => Fate::Bytecode,
        _ => Fate::Keep,
    }
}

/// The lines of shadow(5), those that are not in `before` with `day` as their date.
fn dated(shadow: &[u8], before: &[u8], day: i64) -> Vec<u8> {
    let known: BTreeSet<&[u8]> = before.split(|&byte| byte == b'\n').collect();
    let lines = shadow.split(|&byte| byte == b'\n').map(|line| {
        let mut fields: Vec<Vec<u8>> = line.split(|&byte| byte == b':').map(<[u8]>::to_vec).collect();
        match fields.get_mut(SHADOW_DATE) {
            Some(date) if !known.contains(line) && !date.is_empty() => *date = day.to_string().into_bytes(),
            _ => return line.to_vec(),
        }
        fields.join(&b':')
    });
    lines.collect::<Vec<_>>().join(&b'\n')
}

/// The bytecode marked as never to be checked, if it is marked as valid by hash.
fn unchecked(mut bytecode: Vec<u8>) -> Option<Vec<u8>> {
    let flags = bytecode.get_mut(PYC_FLAGS)?;
    if flags != [3, 0, 0, 0] {
        return None;
    }
    flags.copy_from_slice(&[1, 0, 0, 0]);
    Some(bytecode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_lines_of_shadow_get_the_date() {
        let before = b"root:*:19000:0:99999:7:::\n";
        let shadow = b"root:*:19000:0:99999:7:::\nnew:!:20777::::::\nodd\nunset:!::::::\n";
        assert_eq!(
            dated(shadow, before, 19_675),
            b"root:*:19000:0:99999:7:::\nnew:!:19675::::::\nodd\nunset:!::::::\n"
        );
    }

    #[test]
    fn bytecode_is_never_checked_against_its_source() {
        assert_eq!(unchecked(b"\xf3\r\r\n\x03\0\0\0hash".to_vec()).unwrap(), b"\xf3\r\r\n\x01\0\0\0hash");
        assert_eq!(unchecked(b"\xf3\r\r\n\0\0\0\0time".to_vec()), None);
        assert_eq!(unchecked(b"short".to_vec()), None);
    }
}
