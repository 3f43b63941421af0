//! `RECORD`: the files of an installed project with digests and lengths (PEP 376, PEP 427; CSV as Python's `csv` writes
//! it).

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use gap_format::Digest;
use std::collections::BTreeMap;

/// Longest `RECORD` read, in bytes.
pub(super) const MAX_LEN: u64 = 64 << 20;

/// What a `RECORD` says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its SHA-256, base64 for addresses without padding; `None` where nothing is said.
    pub sha256: Option<String>,
    /// Its length in bytes, if said.
    pub size: Option<u64>,
}

/// Why a `RECORD` is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is not UTF-8.
    #[error("RECORD is not UTF-8")]
    Encoding,
    /// A line that is none of its three fields.
    #[error("line {0} of RECORD is not `path,digest,size`")]
    Line(usize),
    /// A file twice.
    #[error("RECORD names `{0}` twice")]
    Twice(String),
    /// A digest of a kind that proves nothing.
    #[error("RECORD gives `{path}` a digest of the kind `{kind}`; only sha256 is taken")]
    Digest {
        /// The file.
        path: String,
        /// The kind.
        kind: String,
    },
}

/// Reads a `RECORD`: files by path.
///
/// # Errors
/// [`RecordError`].
pub fn parse(data: &[u8]) -> Result<BTreeMap<String, Recorded>, RecordError> {
    let text = std::str::from_utf8(data).map_err(|_| RecordError::Encoding)?;
    let mut files = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let fields = fields(line).ok_or(RecordError::Line(number + 1))?;
        let [path, digest, size] = fields.as_slice() else { return Err(RecordError::Line(number + 1)) };
        let size = match size.as_str() {
            "" => None,
            size => Some(size.parse().map_err(|_| RecordError::Line(number + 1))?),
        };
        let sha256 = match digest.split_once('=') {
            None if digest.is_empty() => None,
            Some(("sha256", value)) => Some(value.trim_end_matches('=').to_owned()),
            _ => {
                let kind = digest.split('=').next().unwrap_or_default().escape_debug().to_string();
                return Err(RecordError::Digest { path: path.escape_debug().to_string(), kind });
            }
        };
        if files.insert(path.clone(), Recorded { sha256, size }).is_some() {
            return Err(RecordError::Twice(path.escape_debug().to_string()));
        }
    }
    Ok(files)
}

/// The fields of one line of CSV; `None` if its quotes do not match.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                (field.to_owned(), after)
            }
        };
        fields.push(field);
        if after.is_empty() {
            return Some(fields);
        }
        rest = after.strip_prefix(',')?;
    }
}

/// A field up to its closing quote, doubled ones undone, and what follows.
fn quoted_field(mut rest: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, after)),
        }
    }
}

/// Writes a `RECORD`, its lines sorted by path.
pub(super) fn write(files: &BTreeMap<String, Recorded>) -> String {
    let mut text = String::new();
    for (path, recorded) in files {
        let quoted = match path.contains([',', '"']) {
            true => format!("\"{}\"", path.replace('"', "\"\"")),
            false => path.clone(),
        };
        let digest = recorded.sha256.as_ref().map(|value| format!("sha256={value}")).unwrap_or_default();
        let size = recorded.size.map(|size| size.to_string()).unwrap_or_default();
        text.push_str(&format!("{quoted},{digest},{size}\n"));
    }
    text
}

/// A digest as `RECORD` writes it.
pub(super) fn encoded(digest: &Digest) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest.as_bytes())
}

/// What a `RECORD` says of these bytes.
pub(super) fn of_bytes(data: &[u8]) -> Recorded {
    Recorded { sha256: Some(encoded(&Digest::of(data))), size: Some(data.len() as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_are_read() {
        let files = parse(b"a.py,sha256=abc,3\n\"b,\"\"c\"\".py\",sha256=d==,\nx/RECORD,,\n").unwrap();
        assert_eq!(files["a.py"], Recorded { sha256: Some("abc".to_owned()), size: Some(3) });
        assert_eq!(files["b,\"c\".py"].sha256.as_deref(), Some("d"));
        assert_eq!(files["x/RECORD"], Recorded { sha256: None, size: None });
    }

    #[test]
    fn odd_records_are_refused() {
        assert_eq!(parse(b"a,b\n"), Err(RecordError::Line(1)));
        assert_eq!(parse(b"a,,1\nb,,x\n"), Err(RecordError::Line(2)));
        assert_eq!(parse(b"\"a,,1\n"), Err(RecordError::Line(1)));
        assert_eq!(parse(b"a,,\na,,\n"), Err(RecordError::Twice("a".to_owned())));
        assert!(matches!(parse(b"a,md5=x,1\n"), Err(RecordError::Digest { .. })));
        assert_eq!(parse(b"\xff"), Err(RecordError::Encoding));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(paths in prop::collection::btree_map("[a-z,\"/ .]{1,20}", any::<u64>(), 0..8)) {
            let files: BTreeMap<String, Recorded> = paths
                .into_iter()
                .map(|(path, size)| (path, Recorded { sha256: Some(format!("x{size}")), size: Some(size) }))
                .collect();
            prop_assert_eq!(parse(write(&files).as_bytes()).unwrap(), files);
        }
    }
}
