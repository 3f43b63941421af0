//! Telling how a file holds its rows from its name and its first bytes.

use super::{Container, Delimiter};
use serde::Serialize;

/// How a file holds its rows, and why that is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Detected {
    /// How it holds them.
    pub container: Container,
    /// What speaks for it.
    pub because: String,
}

/// Why that cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// Compressed as a whole.
    #[error("it is compressed with {0}; unpack it first")]
    Compressed(&'static str),
    /// Text of another encoding.
    #[error("it is text in {0}; save it as UTF-8")]
    Encoding(&'static str),
    /// A JSON array or one object over several lines.
    #[error("it is {0}; write one object a line, for example with `jq -c {1}`")]
    NotLines(&'static str, &'static str),
    /// Neither name nor content says.
    #[error(
        "neither its name nor its first bytes tell what it is; call it .jsonl, .csv, .parquet or .txt, or name its container"
    )]
    Unknown,
    /// Parquet, and the reader for it was left out.
    #[error("it is Parquet, which this program was built without; convert it to JSON Lines")]
    NoParquet,
    /// Named Parquet, and is none.
    #[error("it is no Parquet file: it does not begin with `PAR1`")]
    NotParquet,
    /// Parquet that cannot be opened.
    #[error("its Parquet metadata are refused: {0}")]
    Parquet(String),
}

const COMPRESSED: [(&[u8], &str); 6] = [
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"\x04\x22\x4d\x18", "lz4"),
];

const ENCODED: [(&[u8], &str); 4] =
    [(b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")];

/// Columns that make a header one of a data set.
const KNOWN_COLUMNS: [&str; 9] =
    ["instruction", "input", "output", "prompt", "completion", "response", "chosen", "rejected", "text"];

/// `head` is the beginning of the file, without a byte order mark; `stated` is what the user says.
pub(crate) fn detect(name: &str, head: &[u8], stated: Option<Container>) -> Result<Detected, DetectError> {
    if head.is_empty() {
        return Err(DetectError::Empty);
    }
    let parquet = head.starts_with(b"PAR1");
    if let Some(container) = stated {
        return match container {
            Container::Parquet if !parquet => Err(DetectError::NotParquet),
            _ => Ok(Detected { container, because: "the options say so".to_owned() }),
        };
    }
    if parquet {
        return Ok(found(Container::Parquet, "it begins with `PAR1`"));
    }
    refuse_other(head)?;
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).unwrap_or_default();
    match end.as_str() {
        "jsonl" | "ndjson" | "json" => json(head, &format!("its name ends in .{end}")),
        "csv" => {
            let (delimiter, because) = delimiter(head);
            Ok(found(Container::Csv { delimiter }, &format!("its name ends in .csv, and {because}")))
        }
        "tsv" => Ok(found(Container::Csv { delimiter: Delimiter::Tab }, "its name ends in .tsv")),
        "txt" | "md" | "text" => Ok(found(Container::Text, &format!("its name ends in .{end}"))),
        "parquet" => Err(DetectError::NotParquet),
        _ => by_content(head),
    }
}

fn found(container: Container, because: &str) -> Detected {
    Detected { container, because: because.to_owned() }
}

fn refuse_other(head: &[u8]) -> Result<(), DetectError> {
    if let Some(&(_, name)) = COMPRESSED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(DetectError::Compressed(name));
    }
    if let Some(&(_, name)) = ENCODED.iter().find(|(mark, _)| head.starts_with(mark)) {
        return Err(DetectError::Encoding(name));
    }
    // Western text in UTF-16 without a mark has a zero in every other byte.
    let sample = head.get(..head.len().min(256)).unwrap_or_default();
    let zeros = sample.iter().filter(|&&byte| byte == 0).count();
    if zeros * 3 > sample.len() {
        return Err(DetectError::Encoding("UTF-16 without a byte order mark"));
    }
    Ok(())
}

fn json(head: &[u8], because: &str) -> Result<Detected, DetectError> {
    let text = head.trim_ascii_start();
    if text.starts_with(b"[") {
        return Err(DetectError::NotLines("one JSON array", "'.[]'"));
    }
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    if first == b"{" {
        return Err(DetectError::NotLines("JSON over several lines", "."));
    }
    Ok(found(Container::Jsonl, because))
}

fn by_content(head: &[u8]) -> Result<Detected, DetectError> {
    if head.trim_ascii_start().starts_with(b"{") {
        return json(head, "its first line begins with `{`");
    }
    let first = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let (delimiter, because) = delimiter(head);
    let known = first
        .split(|&byte| byte == delimiter.byte())
        .filter(|field| {
            let field = field.trim_ascii().trim_ascii_start();
            KNOWN_COLUMNS.iter().any(|name| field.eq_ignore_ascii_case(name.as_bytes()))
        })
        .count();
    if known >= 2 {
        return Ok(found(
            Container::Csv { delimiter },
            &format!("its first line names {known} columns of a data set, and {because}"),
        ));
    }
    Err(DetectError::Unknown)
}

/// The delimiter that stands most often in the first line.
fn delimiter(head: &[u8]) -> (Delimiter, String) {
    let first = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let count = |delimiter: Delimiter| first.iter().filter(|&&byte| byte == delimiter.byte()).count();
    // The last of equals wins in `max_by_key`; the comma is the usual one.
    let most = Delimiter::ALL.into_iter().rev().max_by_key(|&delimiter| count(delimiter)).unwrap_or(Delimiter::Comma);
    let name = match most {
        Delimiter::Comma => "commas",
        Delimiter::Semicolon => "semicolons",
        Delimiter::Tab => "tabulators",
    };
    (most, format!("its first line has {} {name}", count(most)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, head: &[u8]) -> Result<Container, DetectError> {
        detect(name, head, None).map(|detected| detected.container)
    }

    #[test]
    fn name_and_content_tell() {
        let csv = |delimiter| Ok(Container::Csv { delimiter });
        assert_eq!(container("a.jsonl", b"{}"), Ok(Container::Jsonl));
        assert_eq!(container("a", b" {\"a\":1}\n"), Ok(Container::Jsonl));
        assert_eq!(container("a.txt", b"{}"), Ok(Container::Text));
        assert_eq!(container("a.txt", b"PAR1"), Ok(Container::Parquet));
        assert_eq!(container("a.csv", b"a;b;c\n1,2"), csv(Delimiter::Semicolon));
        assert_eq!(container("a.csv", b"text\n1"), csv(Delimiter::Comma));
        assert_eq!(container("a.TSV", b"a\tb"), csv(Delimiter::Tab));
        assert_eq!(container("a", b"Prompt\tchosen\trejected\n"), csv(Delimiter::Tab));
        assert_eq!(container("a", b"prose, and more prose"), Err(DetectError::Unknown));
    }

    #[test]
    fn what_is_something_else_is_named() {
        assert_eq!(container("a.jsonl", b""), Err(DetectError::Empty));
        assert_eq!(container("a.jsonl", b"\x1f\x8b\x08"), Err(DetectError::Compressed("gzip")));
        assert_eq!(container("a.csv", b"\xff\xfea\0"), Err(DetectError::Encoding("UTF-16")));
        assert!(matches!(container("a.csv", b"a\0,\0b\0\n\0"), Err(DetectError::Encoding(_))));
        assert!(matches!(container("a.json", b"[\n{}]"), Err(DetectError::NotLines(..))));
        assert!(matches!(container("a.json", b"{\n\"a\": 1}"), Err(DetectError::NotLines(..))));
        assert_eq!(container("a.parquet", b"{}"), Err(DetectError::NotParquet));
        assert_eq!(detect("a", b"{}", Some(Container::Parquet)), Err(DetectError::NotParquet));
    }

    #[test]
    fn what_the_user_says_counts() {
        let text = detect("a.jsonl", b"{}", Some(Container::Text)).unwrap();
        assert_eq!((text.container, text.because.as_str()), (Container::Text, "the options say so"));
    }
}
