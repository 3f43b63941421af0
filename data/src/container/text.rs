//! Plain text by lines, paragraphs or whole files.

use super::{
    Content, Row, TextUnit,
    lines::{Line, Lines, too_long},
};
use crate::problem::At;
use std::io::{self, BufRead};

/// Units of text, without blank ones.
pub(crate) struct Units<R> {
    lines: Lines<R>,
    unit: TextUnit,
    limit: usize,
}

impl<R: BufRead> Units<R> {
    pub fn new(source: R, unit: TextUnit, limit: usize) -> Self {
        Self { lines: Lines::new(source, limit), unit, limit }
    }

    pub fn source(&self) -> &R {
        self.lines.source()
    }

    pub fn into_source(self) -> R {
        self.lines.into_source()
    }

    pub fn next_row(&mut self) -> io::Result<Option<Row>> {
        let mut unit = Vec::new();
        let mut first = None;
        let mut whole = true;
        let mut line = Vec::new();
        while let Some(read) = self.lines.next_line(&mut line)? {
            let blank = read == Line::Whole && line.iter().all(u8::is_ascii_whitespace);
            if blank && first.is_none() {
                continue;
            }
            if blank && self.unit == TextUnit::Paragraph {
                break;
            }
            let begun = first.is_some();
            first.get_or_insert(self.lines.number());
            whole &= read == Line::Whole && unit.len() + line.len() < self.limit;
            if whole {
                if begun {
                    unit.push(b'\n');
                }
                unit.extend_from_slice(&line);
            } else {
                unit.clear();
            }
            if self.unit == TextUnit::Line {
                break;
            }
        }
        let Some(first) = first else { return Ok(None) };
        let content = if whole {
            unit.truncate(unit.trim_ascii_end().len());
            Content::Text(unit)
        } else {
            too_long(self.limit)
        };
        Ok(Some(Row { at: At::Line { line: first, column: None }, content }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn units(text: &str, unit: TextUnit, limit: usize) -> Vec<(u64, Option<String>)> {
        let mut units = Units::new(text.as_bytes(), unit, limit);
        let mut all = Vec::new();
        while let Some(row) = units.next_row().unwrap() {
            let At::Line { line, .. } = row.at else { unreachable!() };
            all.push((
                line,
                match row.content {
                    Content::Text(bytes) => Some(String::from_utf8(bytes).unwrap()),
                    _ => None,
                },
            ));
        }
        all
    }

    #[test]
    fn text_is_cut_as_asked() {
        let text = "\n one\ntwo \n \n\nthree\r\n";
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(units(text, TextUnit::Line, 99), [(2, some(" one")), (3, some("two")), (6, some("three"))]);
        assert_eq!(units(text, TextUnit::Paragraph, 99), [(2, some(" one\ntwo")), (6, some("three"))]);
        assert_eq!(units(text, TextUnit::Document, 99), [(2, some(" one\ntwo \n \n\nthree"))]);
        assert_eq!(units(" \n\n", TextUnit::Document, 99), []);
    }

    #[test]
    fn what_is_too_long_is_said_once_and_the_rest_goes_on() {
        let text = "aaaa\naaaa\naaaa\n\nb\n";
        assert_eq!(units(text, TextUnit::Paragraph, 10), [(1, None), (5, Some("b".to_owned()))]);
        assert_eq!(units(text, TextUnit::Document, 10), [(1, None)]);
        assert_eq!(units("aaaaaaaaaaaaa\nb", TextUnit::Line, 10), [(1, None), (2, Some("b".to_owned()))]);
    }

    proptest! {
        #[test]
        fn every_word_is_in_one_unit(text in "[a \\n\\r]{0,80}") {
            for unit in [TextUnit::Line, TextUnit::Paragraph, TextUnit::Document] {
                let joined: String = units(&text, unit, 1000).into_iter().filter_map(|(_, text)| text).collect();
                let count = |text: &str| text.matches('a').count();
                prop_assert_eq!(count(&joined), count(&text));
            }
        }
    }
}
