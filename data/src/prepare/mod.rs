//! From inputs to prepared files and their card.

mod compare;
mod gather;
mod intake;
mod lines;
#[cfg(test)]
mod tests;
mod work;
mod write;

pub(crate) use compare::Compared;
pub(crate) use gather::{Gathered, Tally};
pub(crate) use intake::Intake;

use crate::{
    CountTokens, Error, Input, Limits, Stage, Watch,
    card::Card,
    container::Reading,
    duplicates::Dedupe,
    format::{Columns, Format},
    pii::{OwnPattern, PiiAction},
    split::Splitting,
};
use gap_format::Digest;
use serde::{Deserialize, Serialize};
use std::{fs, num::NonZeroUsize, path::Path, sync::Arc};

/// How a data set is prepared.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How files are read.
    pub reading: Reading,
    /// The format, if it is not to be recognised.
    pub format: Option<Format>,
    /// Columns with other names than usual.
    pub columns: Columns,
    /// What happens to rows that cannot be used.
    pub bad_rows: BadRows,
    /// How duplicates are found.
    pub dedupe: Dedupe,
    /// What is done about personal data.
    pub pii: PiiAction,
    /// Patterns of the user's own, besides the built-in kinds.
    pub patterns: Vec<OwnPattern>,
    /// How large the parts are.
    pub split: Splitting,
    /// Counts lengths in tokens.
    pub tokenizer: Option<Arc<dyn CountTokens>>,
    /// Bounds on what is read.
    pub limits: Limits,
    /// Threads; as many as there are processors when absent. The result does not depend on it.
    pub threads: Option<NonZeroUsize>,
}

/// What happens to rows that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BadRows {
    /// The data set is refused, with all that is wrong.
    #[default]
    Refuse,
    /// They are left out, counted and listed on the card.
    LeaveOut,
}

/// A data set that was prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The card, as it was written beside the data.
    pub card: Card,
    /// Names and digests of all files that were written, sorted by name.
    pub files: Vec<(String, Digest)>,
}

/// Reads, checks, frees of duplicates and personal data, splits and describes a data set; writes the parts that the
/// split has (`train.jsonl`, `validation.jsonl`, `test.jsonl`), `card.json` and `card.md` into the directory `into`,
/// which is made.
///
/// The files have their final names only when all of them are complete. The same inputs and options give the same
/// bytes.
///
/// # Errors
/// [`Error`]; nothing was written under a final name then.
pub fn prepare(inputs: &[Input], options: &Options, into: &Path, mut watch: Watch<'_>) -> Result<Prepared, Error> {
    fs::create_dir_all(into).map_err(Error::io(format!("make the directory {}", into.display())))?;
    let intake = Intake::open(inputs, options)?;
    let gathered = Gathered::read(&intake, into, &mut watch)?;
    let all = gathered.len() as u64;
    watch.at(Stage::Compare, 0, all)?;
    let compared = compare::compare(&gathered, &intake)?;
    watch.at(Stage::Compare, all, all)?;
    let parts = write::Parts::write(&gathered, &compared, into, &mut watch)?;
    let card = Card::new(&intake, &gathered, &compared, parts.cards());
    let files = parts.publish(&card, into)?;
    Ok(Prepared { card, files })
}
