//! Whether an uploaded file is good to train on.

use super::content;
use gap_data::{
    Error as DataError, Input, InputError, Options,
    duplicates::{Dedupe, Near},
    pii::PiiAction,
    prepare,
    split::{Ratios, Splitting},
};
use std::{num::NonZeroUsize, path::Path};

/// Longest report of what is wrong with a file that is kept, in bytes.
const MAX_DETAILS: usize = 32 << 10;

/// Checks the content of a file and writes its examples and its card beside it. Rows are neither dropped for resembling
/// another nor changed: who uploads a file decides what is in it, and the card says what was found. Only exact
/// duplicates are left out. Returns one sentence.
pub(super) fn validate(directory: &Path, filename: &str) -> Result<String, DataError> {
    let options = Options {
        dedupe: Dedupe { exact: true, near: Near::Together, ..Dedupe::default() },
        pii: PiiAction::Report,
        split: Ratios::new(100, 0, 0).map_or(Splitting::BySize, Splitting::Fixed),
        // The rest of the machine belongs to the jobs.
        threads: NonZeroUsize::new(2),
        ..Options::default()
    };
    let input = Input::new(filename, &content(directory));
    let prepared = prepare(&[input], &options, directory, gap_data::Watch::unwatched())?;
    let examples = &prepared.card.examples;
    Ok(format!(
        "{} examples of {} rows; {} exact duplicates left out, {} near duplicates",
        examples.kept, examples.rows, examples.exact_duplicates, examples.near_duplicates
    ))
}

/// Whether the disk or the system is to blame and not the file, which may be found good another time.
pub(super) fn is_of_the_system(error: &DataError) -> bool {
    match error {
        DataError::Io { source, .. } | DataError::Input(InputError::Read { source, .. }) => {
            source.raw_os_error().is_some() && source.kind() != std::io::ErrorKind::NotFound
        }
        DataError::Threads { .. } => true,
        _ => false,
    }
}

/// A report of no more than is kept.
pub(super) fn bounded(mut text: String) -> String {
    let end = (0..=MAX_DETAILS.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.truncate(end);
    text
}
