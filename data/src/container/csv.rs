//! CSV records under a header, each of bounded size.

use super::{Broken, Content, Delimiter, Row, hashed::Hashed, lines::too_long};
use crate::{
    Json,
    problem::{At, Kind},
};
use csv::{ByteRecord, Reader, ReaderBuilder, Terminator};
use gap_format::Digest;
use std::io::{self, Read};

/// Columns accepted in a header.
const MAX_COLUMNS: usize = 1000;
/// What the `csv` crate reads ahead.
const BUFFER: usize = 1 << 16;

/// A source that gives no more than so many bytes for one record: an opened quote that is never closed would otherwise
/// take the rest of the file into memory. Its last line always has an end, so that lines can be counted.
struct Rationed {
    source: Hashed,
    left: usize,
    last: u8,
}

impl Read for Rationed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let most = into.len().min(self.left);
        let count = self.source.read(into.get_mut(..most).unwrap_or_default())?;
        self.left -= count;
        match (into.get(..count).and_then(<[u8]>::last).copied(), into.first_mut()) {
            (Some(last), _) => self.last = last,
            (None, Some(first)) if self.last != b'\n' => {
                (*first, self.last) = (b'\n', b'\n');
                return Ok(1);
            }
            _ => {}
        }
        Ok(count)
    }
}

/// The records of one file.
pub(crate) struct Records {
    reader: Reader<Rationed>,
    limit: usize,
    header: Header,
}

enum Header {
    Unread,
    Read(Vec<String>),
    /// Nothing more can be read.
    Ended,
}

impl Records {
    pub fn new(source: Hashed, delimiter: Delimiter, limit: usize) -> Self {
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter.byte())
            // The usual terminator leaves the line feed after a carriage return for the next record to count.
            .terminator(Terminator::Any(b'\n'))
            .buffer_capacity(BUFFER)
            .from_reader(Rationed { source, left: limit, last: b'\n' });
        Self { reader, limit, header: Header::Unread }
    }

    pub fn bytes_read(&self) -> u64 {
        self.reader.get_ref().source.bytes_read()
    }

    pub fn into_source(self) -> Finished {
        Finished(self.reader.into_inner().source)
    }

    pub fn next_row(&mut self) -> io::Result<Option<Row>> {
        if matches!(self.header, Header::Unread) {
            self.header = Header::Ended;
            let Some(row) = self.record()? else { return Ok(None) };
            let line = row.line;
            match row.fields.and_then(|fields| names(&fields)) {
                Ok(names) => self.header = Header::Read(names),
                Err(content) => return Ok(Some(Row { at: At::Line { line, column: None }, content })),
            }
        }
        let Header::Read(_) = &self.header else { return Ok(None) };
        let Some(Record { line, fields }) = self.record()? else { return Ok(None) };
        let content = match (fields, &self.header) {
            (Ok(record), Header::Read(names)) => content(names, &record),
            (Ok(_), _) => return Ok(None),
            (Err(content), _) => {
                self.header = Header::Ended;
                content
            }
        };
        Ok(Some(Row { at: At::Line { line, column: None }, content }))
    }

    fn record(&mut self) -> io::Result<Option<Record>> {
        let mut record = ByteRecord::new();
        let mut begins;
        let read = loop {
            self.reader.get_mut().left = self.limit;
            begins = self.reader.position().line();
            let read = self.reader.read_byte_record(&mut record);
            if matches!(read, Ok(false) | Err(_)) || record.iter().ne([b"\r"]) {
                break read;
            }
        };
        match read {
            Ok(false) => Ok(None),
            Ok(true) => {
                // Blank lines before it are passed over, so where it begins follows from where it ends.
                let within: usize = record.iter().map(|field| memchr::memchr_iter(b'\n', field).count()).sum();
                let line = self.reader.position().line().saturating_sub(1 + within as u64).max(1);
                Ok(Some(Record { line, fields: Ok(without_carriage_return(record)) }))
            }
            Err(error) => match error.into_kind() {
                csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                    Ok(Some(Record { line: begins, fields: Err(too_long(self.limit)) }))
                }
                csv::ErrorKind::Io(error) => Err(error),
                _ => {
                    Ok(Some(Record { line: begins, fields: Err(broken(Kind::Container, "the record cannot be read")) }))
                }
            },
        }
    }
}

struct Record {
    line: u64,
    fields: Result<ByteRecord, Content>,
}

/// What is left when no more records are wanted.
pub(crate) struct Finished(Hashed);

impl Finished {
    pub fn finish(self) -> io::Result<(u64, Digest)> {
        self.0.finish()
    }
}

/// The record of a line that ends in `\r\n`, without the `\r`.
fn without_carriage_return(record: ByteRecord) -> ByteRecord {
    match record.iter().next_back().and_then(|last| last.strip_suffix(b"\r")) {
        Some(last) => record.iter().take(record.len() - 1).chain([last]).collect(),
        None => record,
    }
}

fn broken(kind: Kind, message: impl Into<String>) -> Content {
    Content::Broken(Broken::new(kind, message))
}

/// The names of the columns.
fn names(record: &ByteRecord) -> Result<Vec<String>, Content> {
    if record.len() > MAX_COLUMNS {
        return Err(broken(Kind::Columns, format!("the header has more than {MAX_COLUMNS} columns")));
    }
    let mut names: Vec<String> = Vec::new();
    for (index, field) in record.iter().enumerate() {
        let name = std::str::from_utf8(field)
            .map_err(|_| broken(Kind::Encoding, format!("the name of column {} is not UTF-8", index + 1)))?
            .trim();
        // A first column without name is the index that pandas writes.
        if name.is_empty() && index > 0 {
            return Err(broken(Kind::Columns, format!("column {} has no name", index + 1)));
        }
        if names.iter().any(|other| other == name) {
            return Err(broken(Kind::Columns, format!("column {} has the name of another one", index + 1)));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn content(names: &[String], record: &ByteRecord) -> Content {
    if record.len() != names.len() {
        return broken(Kind::Columns, format!("{} fields, and the header has {}", record.len(), names.len()));
    }
    let mut entries = Vec::with_capacity(names.len());
    for (name, field) in names.iter().zip(record) {
        match std::str::from_utf8(field) {
            Ok(text) => entries.push((name.clone(), Json::Text(text.to_owned()))),
            Err(_) => {
                let mut broken = Broken::new(Kind::Encoding, "a byte that is not UTF-8");
                broken.0.field = Some(name.clone());
                return Content::Broken(broken);
            }
        }
    }
    Content::Fields(Json::Object(entries))
}

#[cfg(test)]
mod tests {
    use super::{super::hashed::tests::holding, *};
    use proptest::prelude::*;

    fn rows(bytes: &[u8], limit: usize) -> Vec<(u64, Result<Vec<String>, Kind>)> {
        let mut records = Records::new(holding(bytes), Delimiter::Comma, limit);
        let mut all = Vec::new();
        while let Some(row) = records.next_row().unwrap() {
            let At::Line { line, .. } = row.at else { unreachable!() };
            all.push((
                line,
                match row.content {
                    Content::Fields(Json::Object(entries)) => Ok(entries
                        .into_iter()
                        .map(|(name, value)| match value {
                            Json::Text(text) => format!("{name}={text}"),
                            _ => unreachable!(),
                        })
                        .collect()),
                    Content::Broken(broken) => Err(broken.0.kind),
                    _ => unreachable!(),
                },
            ));
        }
        assert_eq!(records.into_source().finish().unwrap(), (bytes.len() as u64, Digest::of(bytes)));
        all
    }

    #[test]
    fn records_have_the_line_that_they_begin_at() {
        let rows = rows(b"a,b\r\n1,\"x\ny\"\n\n3,\"q\"\"q\"\n", 100);
        let ok = |fields: [&str; 2]| Ok(fields.map(str::to_owned).to_vec());
        assert_eq!(rows, [(2, ok(["a=1", "b=x\ny"])), (5, ok(["a=3", "b=q\"q"]))]);
    }

    #[test]
    fn broken_records_are_named_and_the_rest_goes_on() {
        let rows = rows(b"a,b\n1\n1,\xff\n1,2\n1,2,3\n", 100);
        let kinds: Vec<_> = rows.iter().map(|(line, row)| (*line, row.as_ref().err().copied())).collect();
        assert_eq!(kinds, [(2, Some(Kind::Columns)), (3, Some(Kind::Encoding)), (4, None), (5, Some(Kind::Columns))]);
    }

    #[test]
    fn bad_headers_end_the_file() {
        assert_eq!(rows(b"a,a\n1,2\n", 100), [(1, Err(Kind::Columns))]);
        assert_eq!(rows(b"a,\n1,2\n", 100), [(1, Err(Kind::Columns))]);
        assert_eq!(rows(b"a,\xff\n1,2\n", 100), [(1, Err(Kind::Encoding))]);
        assert_eq!(rows(&vec![b','; 5000], 10_000), [(1, Err(Kind::Columns))]);
        assert_eq!(rows(b"", 100), []);
    }

    #[test]
    fn a_quote_that_is_never_closed_takes_no_more_than_a_row() {
        let mut bytes = b"a,b\n1,2\n3,\"".to_vec();
        bytes.extend(std::iter::repeat_n(b'x', 1 << 20));
        let rows = rows(&bytes, 1 << 17);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1], (3, Err(Kind::TooLong)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(fields in proptest::collection::vec("[a-z,;\"\\n\\r ü]{0,8}", 2..9)) {
            let mut writer = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Always).from_writer(Vec::new());
            writer.write_record(["a", "b"]).unwrap();
            for pair in fields.chunks_exact(2) {
                writer.write_record(pair).unwrap();
            }
            let read = rows(&writer.into_inner().unwrap(), 1000);
            let read: Vec<_> = read.into_iter().map(|(_, row)| row.unwrap()).collect();
            // What is taken for the end of a line is lost even in quotes.
            let last = |field: &str| field.strip_suffix('\r').unwrap_or(field).to_owned();
            let expected: Vec<Vec<String>> =
                fields.chunks_exact(2).map(|pair| vec![format!("a={}", pair[0]), format!("b={}", last(&pair[1]))]).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = rows(&bytes, 50);
        }
    }
}
