//! Lines of bounded length, and JSON Lines made of them.

use super::{Broken, Content, Row};
use crate::problem::{At, Kind};
use std::io::{self, BufRead};

/// Reads lines one after the other. What is longer than the limit is skipped, not kept.
pub(crate) struct Lines<R> {
    source: R,
    limit: usize,
    number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Whole,
    TooLong,
}

impl<R: BufRead> Lines<R> {
    pub fn new(source: R, limit: usize) -> Self {
        Self { source, limit, number: 0 }
    }

    pub fn source(&self) -> &R {
        &self.source
    }

    pub fn into_source(self) -> R {
        self.source
    }

    /// Number of the line read last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Reads the next line into `line`, without its end (`\n` or `\r\n`); none at the end of the file.
    pub fn next_line(&mut self, line: &mut Vec<u8>) -> io::Result<Option<Line>> {
        line.clear();
        let mut result = Line::Whole;
        let mut begun = false;
        loop {
            let available = self.source.fill_buf()?;
            if available.is_empty() {
                break;
            }
            if !begun {
                self.number += 1;
                begun = true;
            }
            let end = memchr::memchr(b'\n', available);
            let piece = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            if line.len() + piece.len() > self.limit {
                result = Line::TooLong;
                line.clear();
            } else if result == Line::Whole {
                line.extend_from_slice(piece);
            }
            let taken = piece.len() + usize::from(end.is_some());
            self.source.consume(taken);
            if end.is_some() {
                break;
            }
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(begun.then_some(result))
    }
}

pub(super) fn too_long(limit: usize) -> Content {
    Content::Broken(Broken::new(
        Kind::TooLong,
        format!("longer than the {limit} bytes that are allowed for one example"),
    ))
}

/// One JSON value a line; blank lines count as lines and are skipped.
pub(crate) struct Jsonl<R>(Lines<R>);

impl<R: BufRead> Jsonl<R> {
    pub fn new(source: R, limit: usize) -> Self {
        Self(Lines::new(source, limit))
    }

    pub fn source(&self) -> &R {
        self.0.source()
    }

    pub fn into_source(self) -> R {
        self.0.into_source()
    }

    pub fn next_row(&mut self) -> io::Result<Option<Row>> {
        let mut line = Vec::new();
        loop {
            let content = match self.0.next_line(&mut line)? {
                None => return Ok(None),
                Some(Line::TooLong) => too_long(self.0.limit),
                Some(Line::Whole) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Some(Line::Whole) => Content::Json(line),
            };
            return Ok(Some(Row { at: At::Line { line: self.0.number(), column: None }, content }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::BufReader;

    fn lines(bytes: &[u8], limit: usize, buffer: usize) -> Vec<Option<Vec<u8>>> {
        let mut lines = Lines::new(BufReader::with_capacity(buffer, bytes), limit);
        let mut line = Vec::new();
        let mut all = Vec::new();
        while let Some(read) = lines.next_line(&mut line).unwrap() {
            all.push((read == Line::Whole).then(|| line.clone()));
            assert_eq!(lines.number(), all.len() as u64);
        }
        all
    }

    #[test]
    fn line_ends_and_limits_are_kept() {
        let whole = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(lines(b"a\r\n\nbb\nc", 3, 2), [whole("a"), whole(""), whole("bb"), whole("c")]);
        assert_eq!(lines(b"abcd\nabc\nxxxxxxxxx", 3, 2), [None, whole("abc"), None]);
        assert_eq!(lines(b"", 3, 2), []);
    }

    #[test]
    fn blank_lines_are_counted_and_skipped() {
        let mut rows = Jsonl::new(&b"\n {} \n\n\n[1]"[..], 10);
        let mut at = Vec::new();
        while let Some(row) = rows.next_row().unwrap() {
            at.push(row.at);
        }
        assert_eq!(at, [2, 5].map(|line| At::Line { line, column: None }));
    }

    proptest! {
        #[test]
        fn no_line_is_lost_whatever_the_buffer(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x')], 0..60), buffer in 1usize..9) {
            let mut expected: Vec<Option<Vec<u8>>> = bytes
                .split(|&byte| byte == b'\n')
                .map(|line| (line.len() <= 9).then(|| line.strip_suffix(b"\r").unwrap_or(line).to_vec()))
                .collect();
            if bytes.is_empty() || bytes.ends_with(b"\n") {
                expected.pop();
            }
            prop_assert_eq!(lines(&bytes, 9, buffer), expected);
        }
    }
}
