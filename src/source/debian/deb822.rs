//! The paragraphs of `Packages`, `Release`, `control` and `.sources` files (deb822(5)).

/// Why a text is not deb822.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Deb822Error {
    /// A line is neither a field nor the continuation of one.
    #[error("line {line}: `{text}` is neither `Field: value` nor a continuation")]
    NotAField {
        /// Line number, from 1.
        line: usize,
        /// The line, shortened.
        text: String,
    },
    /// A paragraph has more fields than any real one.
    #[error("line {line}: a paragraph has more than {limit} fields", limit = MAX_FIELDS)]
    TooManyFields {
        /// Line number, from 1.
        line: usize,
    },
}

/// Fields accepted in one paragraph; real ones have about 30.
const MAX_FIELDS: usize = 1000;

/// One paragraph: fields in order, values trimmed, continuation lines kept with their line breaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paragraph<'a> {
    fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Paragraph<'a> {
    /// The fields in order.
    pub fn fields(&self) -> &[(&'a str, &'a str)] {
        &self.fields
    }

    /// The value of the first field of that name, in any case.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|&(_, value)| value)
    }
}

/// Reads paragraphs one after the other, without copying.
#[derive(Debug, Clone)]
pub struct Parser<'a> {
    text: &'a str,
    position: usize,
    line: usize,
}

impl<'a> Parser<'a> {
    /// Starts at the beginning of `text`.
    pub const fn new(text: &'a str) -> Self {
        Self { text, position: 0, line: 0 }
    }

    /// The number of the line read last, from 1.
    pub const fn line(&self) -> usize {
        self.line
    }

    /// Reads the next paragraph into `paragraph`, whose memory is used again; `false` at the end.
    ///
    /// # Errors
    /// [`Deb822Error`] with the line number.
    pub fn read(&mut self, paragraph: &mut Paragraph<'a>) -> Result<bool, Deb822Error> {
        paragraph.fields.clear();
        // Where the value of the field being read begins and ends.
        let mut open: Option<(&'a str, usize, usize)> = None;
        while let Some((start, line)) = self.next_line() {
            let end = start + line.len();
            match line.as_bytes().first() {
                None if open.is_none() => {}
                None => break,
                Some(b'#') => {}
                Some(b' ' | b'\t') => match open.as_mut() {
                    Some((_, _, value_end)) => *value_end = end,
                    None if line.trim().is_empty() => {}
                    None => return Err(self.not_a_field(line)),
                },
                Some(_) => {
                    let (name, value) = line.split_once(':').ok_or_else(|| self.not_a_field(line))?;
                    if name.is_empty() || name.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
                        return Err(self.not_a_field(line));
                    }
                    self.close(paragraph, open.replace((name, end - value.len(), end)))?;
                }
            }
        }
        self.close(paragraph, open)?;
        Ok(!paragraph.fields.is_empty())
    }

    fn close(&self, paragraph: &mut Paragraph<'a>, open: Option<(&'a str, usize, usize)>) -> Result<(), Deb822Error> {
        if let Some((name, start, end)) = open {
            if paragraph.fields.len() >= MAX_FIELDS {
                return Err(Deb822Error::TooManyFields { line: self.line });
            }
            paragraph.fields.push((name, self.text.get(start..end).unwrap_or_default().trim()));
        }
        Ok(())
    }

    fn next_line(&mut self) -> Option<(usize, &'a str)> {
        let start = self.position;
        let rest = self.text.get(start..).filter(|rest| !rest.is_empty())?;
        let line = match rest.find('\n') {
            Some(end) => {
                self.position = start + end + 1;
                rest.get(..end).unwrap_or_default()
            }
            None => {
                self.position = self.text.len();
                rest
            }
        };
        self.line += 1;
        Some((start, line.strip_suffix('\r').unwrap_or(line)))
    }

    fn not_a_field(&self, line: &str) -> Deb822Error {
        Deb822Error::NotAField { line: self.line, text: line.chars().take(80).collect() }
    }
}

/// Reads all paragraphs of a small file.
///
/// # Errors
/// [`Deb822Error`] with the line number.
pub fn parse(text: &str) -> Result<Vec<Paragraph<'_>>, Deb822Error> {
    let mut parser = Parser::new(text);
    let mut paragraphs = Vec::new();
    let mut paragraph = Paragraph::default();
    while parser.read(&mut paragraph)? {
        paragraphs.push(std::mem::take(&mut paragraph));
    }
    Ok(paragraphs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paragraphs_fields_and_continuations_are_read() {
        let text = "\n\nPackage: a\nDescription: one\n two\n .\n\n# remark\nPackage:b\r\nVersion: 1\n\n\n";
        let paragraphs = parse(text).unwrap();
        assert_eq!(paragraphs.len(), 2);
        assert_eq!(paragraphs[0].get("description"), Some("one\n two\n ."));
        assert_eq!(paragraphs[1].fields(), [("Package", "b"), ("Version", "1")]);
    }

    #[test]
    fn stray_lines_are_refused_with_their_number() {
        let error = parse("Package: a\nnonsense\n").unwrap_err();
        assert!(matches!(error, Deb822Error::NotAField { line: 2, .. }), "{error}");
        assert!(parse(" leading\n").is_err());
        assert!(parse("a b: c\n").is_err());
        assert!(parse(&"F: x\n".repeat(1001)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "[a:# \\n\\rü]{0,60}") {
            let _ = parse(&text);
        }
    }
}
