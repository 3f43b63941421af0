//! What must hold before the decoder sees a file.

use super::thrift::{Compact, I32, LIST, Malformed, STRUCT};
use parquet::{
    basic::{ConvertedType, LogicalType, Repetition},
    file::metadata::{ColumnChunkMetaData, ParquetMetaData},
    schema::types::Type,
};
use std::{fs::File, io, os::unix::fs::FileExt};

/// Bytes of metadata.
const MAX_FOOTER: u64 = 64 << 20;
/// Columns and groups of columns.
const MAX_ELEMENTS: u64 = 10_000;
/// Levels of nested groups: a list of turns has four.
const MAX_DEPTH: usize = 24;
/// Bytes of one page's header: statistics may hold values.
const MAX_PAGE_HEADER: usize = 1 << 20;
/// Bytes of pages that are in memory at once: one of each column and its dictionary.
const MAX_HELD: u64 = 512 << 20;
/// Values of one column of lists in one row group: all may belong to one row.
const MAX_LIST_VALUES: u64 = 8 << 20;

/// Why a file is not given to the decoder.
#[derive(Debug, thiserror::Error)]
pub(super) enum GuardError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("the file does not end in `PAR1`: it is cut off")]
    CutOff,
    #[error("the file is encrypted")]
    Encrypted,
    #[error("they take {0} bytes, and {MAX_FOOTER} are allowed")]
    Footer(u64),
    #[error("the schema has more than {MAX_ELEMENTS} columns")]
    Columns,
    #[error("the schema is nested more than {MAX_DEPTH} levels deep")]
    Depth,
    #[error("the column `{0}` is repeated without being a list; write it as a list")]
    Repeated(String),
    #[error("a column lies outside of the file")]
    Outside,
    #[error("a page header is longer than {MAX_PAGE_HEADER} bytes")]
    PageHeader,
    #[error("its pages take {0} bytes of memory at once, and {MAX_HELD} are allowed; write smaller pages")]
    Held(u64),
    #[error("a list column has {0} values, and {MAX_LIST_VALUES} are allowed; write smaller row groups")]
    ListValues(u64),
}

/// Checks the end of a file, and the depth of its schema: the decoder recurses over it.
pub(super) fn footer(file: &File, len: u64) -> Result<(), GuardError> {
    let mut end = [0; 8];
    file.read_exact_at(&mut end, len.checked_sub(12).ok_or(GuardError::CutOff)? + 4)?;
    let [a, b, c, d, magic @ ..] = end;
    match &magic {
        b"PAR1" => {}
        b"PARE" => return Err(GuardError::Encrypted),
        _ => return Err(GuardError::CutOff),
    }
    let size = u64::from(u32::from_le_bytes([a, b, c, d]));
    let start = (len - 8).checked_sub(size).filter(|&start| start >= 4).ok_or(GuardError::CutOff)?;
    if size > MAX_FOOTER {
        return Err(GuardError::Footer(size));
    }
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, start)?;
    let mut children = Vec::new();
    Compact::new(&bytes).structure(&mut |walk, number, kind| {
        // FileMetaData.schema
        if (number, kind) != (2, LIST) {
            return Ok(false);
        }
        let (elements, of) = walk.list()?;
        if of != STRUCT {
            return Err(Malformed);
        }
        for _ in 0..elements {
            children.push(children_of_element(walk)?);
        }
        Ok(true)
    })?;
    shape(&children)
}

/// SchemaElement.num_children
fn children_of_element(walk: &mut Compact<'_>) -> Result<u64, Malformed> {
    let mut children = 0;
    walk.structure(&mut |walk, number, kind| {
        if (number, kind) != (5, I32) {
            return Ok(false);
        }
        children = u64::try_from(walk.integer()?).map_err(|_| Malformed)?;
        Ok(true)
    })?;
    Ok(children)
}

/// Walks over a tree that is given by the numbers of children, in depth-first order.
fn shape(children: &[u64]) -> Result<(), GuardError> {
    if children.len() as u64 > MAX_ELEMENTS {
        return Err(GuardError::Columns);
    }
    let mut open: Vec<u64> = Vec::new();
    for &count in children {
        while open.last() == Some(&0) {
            open.pop();
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        if count > MAX_ELEMENTS {
            return Err(GuardError::Columns);
        }
        open.push(count);
        if open.len() > MAX_DEPTH {
            return Err(GuardError::Depth);
        }
    }
    Ok(())
}

/// Refuses repeated fields that are not part of a list or map: the decoder reads them wrongly.
pub(super) fn schema(metadata: &ParquetMetaData) -> Result<(), GuardError> {
    let root = metadata.file_metadata().schema();
    root.get_fields().iter().try_for_each(|field| repeated(field, false))
}

fn repeated(field: &Type, within_list: bool) -> Result<(), GuardError> {
    let info = field.get_basic_info();
    if info.has_repetition() && info.repetition() == Repetition::REPEATED && !within_list {
        return Err(GuardError::Repeated(info.name().chars().take(80).collect()));
    }
    if !field.is_group() {
        return Ok(());
    }
    let list = matches!(info.converted_type(), ConvertedType::LIST | ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE)
        || matches!(info.logical_type_ref(), Some(LogicalType::List | LogicalType::Map));
    field.get_fields().iter().try_for_each(|child| repeated(child, list))
}

/// Walks over the pages of a row group and adds up what decoding them takes.
pub(super) fn pages(file: &File, len: u64, metadata: &ParquetMetaData, group: usize) -> Result<(), GuardError> {
    let Some(group) = metadata.row_groups().get(group) else { return Err(GuardError::Outside) };
    let mut held = 0u64;
    for column in group.columns() {
        let walked = column_pages(file, len, column)?;
        held = held.saturating_add(walked.largest).saturating_add(walked.dictionary);
        if held > MAX_HELD {
            return Err(GuardError::Held(held));
        }
        if column.column_descr().max_rep_level() > 0 && walked.values > MAX_LIST_VALUES {
            return Err(GuardError::ListValues(walked.values));
        }
    }
    Ok(())
}

/// What the pages of one column take.
#[derive(Default)]
struct Walked {
    /// Bytes of the largest page, unpacked or packed.
    largest: u64,
    /// Bytes of dictionaries.
    dictionary: u64,
    /// Values of all pages.
    values: u64,
}

fn column_pages(file: &File, len: u64, column: &ColumnChunkMetaData) -> Result<Walked, GuardError> {
    let outside = |_| GuardError::Outside;
    let start = column.dictionary_page_offset().filter(|&at| at > 0).unwrap_or_else(|| column.data_page_offset());
    let mut at = u64::try_from(start).map_err(outside)?;
    let size = u64::try_from(column.compressed_size()).map_err(outside)?;
    let end = at.checked_add(size).filter(|&end| end <= len).ok_or(GuardError::Outside)?;
    let mut walked = Walked::default();
    while at < end {
        let page = page_header(file, at, end)?;
        let size = page.packed.max(page.unpacked);
        match page.kind {
            DICTIONARY => walked.dictionary = walked.dictionary.saturating_add(size),
            _ => walked.largest = walked.largest.max(size),
        }
        walked.values = walked.values.saturating_add(page.values);
        at = at.checked_add(page.header + page.packed).filter(|&at| at <= end).ok_or(GuardError::Outside)?;
    }
    Ok(walked)
}

/// PageType.DICTIONARY_PAGE
const DICTIONARY: i64 = 2;

#[derive(Default)]
struct Page {
    kind: i64,
    header: u64,
    packed: u64,
    unpacked: u64,
    values: u64,
}

fn page_header(file: &File, at: u64, end: u64) -> Result<Page, GuardError> {
    // Nearly all are short.
    let mut size = 256;
    loop {
        let available = (end - at).min(size as u64) as usize;
        let mut bytes = vec![0; available];
        file.read_exact_at(&mut bytes, at)?;
        match parse_page_header(&bytes) {
            Ok(page) => return Ok(page),
            Err(error) if available < size => return Err(error.into()),
            Err(_) if size >= MAX_PAGE_HEADER => return Err(GuardError::PageHeader),
            Err(_) => size = (size * 16).min(MAX_PAGE_HEADER),
        }
    }
}

fn parse_page_header(bytes: &[u8]) -> Result<Page, Malformed> {
    let mut page = Page::default();
    let mut walk = Compact::new(bytes);
    let unsigned = |value: i64| u64::try_from(value).map_err(|_| Malformed);
    walk.structure(&mut |walk, number, kind| {
        match (number, kind) {
            (1, I32) => page.kind = walk.integer()?,
            (2, I32) => page.unpacked = unsigned(walk.integer()?)?,
            (3, I32) => page.packed = unsigned(walk.integer()?)?,
            // Data page headers of both versions begin with the number of values.
            (5 | 8, STRUCT) => walk.structure(&mut |walk, number, kind| {
                if (number, kind) != (1, I32) {
                    return Ok(false);
                }
                page.values = unsigned(walk.integer()?)?;
                Ok(true)
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    page.header = walk.position() as u64;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_or_wide_schema_is_refused() {
        assert!(shape(&[2, 0, 1, 0]).is_ok());
        assert!(matches!(shape(&[1; 100]), Err(GuardError::Depth)));
        assert!(matches!(shape(&[0; 10_001]), Err(GuardError::Columns)));
        assert!(shape(&[vec![9_000], vec![0; 9_000]].concat()).is_ok());
    }
}
