//! Telling the format from the columns of the first rows.

use super::{Columns, Format, FormatError, Schema, Slot};
use crate::Json;
use std::collections::BTreeMap;

/// A row that is looked at.
pub(crate) enum Sample {
    /// Named columns.
    Fields(Vec<(String, Json)>),
    /// Plain text.
    Text,
}

/// Names shown in a message.
const SHOWN: usize = 12;

/// The format that most samples have; at least half of them must.
pub(crate) fn recognise(samples: &[Sample], stated: Option<Format>, named: &Columns) -> Result<Schema, FormatError> {
    let rows: Vec<&[(String, Json)]> = samples
        .iter()
        .filter_map(|sample| match sample {
            Sample::Fields(entries) => Some(entries.as_slice()),
            Sample::Text => None,
        })
        .collect();
    if rows.is_empty() {
        return plain_text(stated);
    }
    let formats: &[Format] = stated.as_ref().map_or(&Format::ALL, std::slice::from_ref);
    let counted = formats.iter().map(|&format| (format, matching(format, &rows, named)));
    // The first of equals: the more particular one.
    let best = counted.rev().max_by_key(|&(_, count)| count);
    match best {
        Some((format, count)) if count * 2 >= rows.len() => schema(format, count, &rows, stated.is_some(), named),
        _ => Err(unknown(stated, &rows, named)),
    }
}

fn plain_text(stated: Option<Format>) -> Result<Schema, FormatError> {
    match stated {
        None | Some(Format::Text) => {
            Ok(Schema { format: Format::Text, columns: Columns::new(), because: "the file is plain text".to_owned() })
        }
        Some(format) => Err(FormatError::Stated {
            format,
            missing: "columns".to_owned(),
            columns: "none: it is plain text".to_owned(),
        }),
    }
}

fn matching(format: Format, rows: &[&[(String, Json)]], named: &Columns) -> usize {
    rows.iter().filter(|row| format.required().iter().all(|&slot| column_in(row, slot, named).is_some())).count()
}

/// The column of a row that holds a part; one that is null is not there.
fn column_in<'a>(row: &'a [(String, Json)], slot: Slot, named: &Columns) -> Option<&'a str> {
    let has = |name: &str| row.iter().find(|(column, value)| column == name && *value != Json::Null);
    let found = match named.get(&slot) {
        Some(name) => has(name),
        None => slot.names().iter().find_map(|name| has(name)),
    };
    found.map(|(column, _)| column.as_str())
}

fn schema(
    format: Format,
    count: usize,
    rows: &[&[(String, Json)]],
    stated: bool,
    named: &Columns,
) -> Result<Schema, FormatError> {
    if let Some(slot) = named.keys().find(|slot| !format.slots().contains(slot)) {
        return Err(FormatError::Slot { format, slot: format!("{slot:?}").to_lowercase() });
    }
    let mut columns = Columns::new();
    for &slot in format.slots() {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for row in rows {
            if let Some(column) = column_in(row, slot, named).filter(|name| !columns.values().any(|used| used == name))
            {
                *votes.entry(column).or_default() += 1;
            }
        }
        if let Some((column, _)) = votes.into_iter().rev().max_by_key(|&(_, votes)| votes) {
            columns.insert(slot, column.to_owned());
        }
    }
    let required: Vec<String> = format
        .required()
        .iter()
        .map(|slot| {
            format!("`{}`", columns.get(slot).map_or(slot.names().first().copied().unwrap_or_default(), |name| name))
        })
        .collect();
    let mut because = format!("{count} of the first {} rows have {}", rows.len(), required.join(" and "));
    if stated {
        because = format!("the options say so, and {because}");
    }
    Ok(Schema { format, columns, because })
}

fn unknown(stated: Option<Format>, rows: &[&[(String, Json)]], named: &Columns) -> FormatError {
    let first = rows.first().copied().unwrap_or_default();
    let mut names: Vec<String> = first
        .iter()
        .take(SHOWN)
        .map(|(name, _)| format!("`{}`", name.chars().take(40).collect::<String>().escape_debug()))
        .collect();
    if first.len() > SHOWN {
        names.push(format!("{} more", first.len() - SHOWN));
    }
    let columns = names.join(", ");
    match stated {
        None => FormatError::Unknown { columns },
        Some(format) => {
            let missing: Vec<String> = format
                .required()
                .iter()
                .filter(|&&slot| !rows.iter().any(|row| column_in(row, slot, named).is_some()))
                .map(|slot| match named.get(slot) {
                    Some(name) => format!("`{name}`"),
                    None => slot.names().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or "),
                })
                .collect();
            let missing = if missing.is_empty() { "all of its parts".to_owned() } else { missing.join(", ") };
            FormatError::Stated { format, missing, columns }
        }
    }
}
