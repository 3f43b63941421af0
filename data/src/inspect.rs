//! Looking at a data set without writing anything.

use crate::{
    Error, Input, Options, Problems, Watch,
    card::InputCard,
    format::Schema,
    pii::PiiReport,
    prepare::{Intake, Tally},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a data set is, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The files.
    pub inputs: Vec<InputCard>,
    /// The format, and how it was recognised.
    pub schema: Schema,
    /// Rows in all.
    pub rows: u64,
    /// Rows that cannot be used.
    pub bad: u64,
    /// What is wrong with them, and with others.
    pub problems: Problems,
    /// Personal data and secrets.
    pub pii: PiiReport,
    /// Columns that no part was read from, and in how many rows they are.
    pub unused_columns: BTreeMap<String, u64>,
}

/// Reads and checks a data set and searches it for personal data, and writes nothing. Rows that are broken are
/// reported, not refused; duplicates are not looked for.
///
/// # Errors
/// [`Error`] if files cannot be read or their format is not recognised.
pub fn inspect(inputs: &[Input], options: &Options, mut watch: Watch<'_>) -> Result<Inspection, Error> {
    let mut options = options.clone();
    options.dedupe.near = crate::duplicates::Near::Off;
    options.tokenizer = None;
    let intake = Intake::open(inputs, &options)?;
    let mut tally = Tally::default();
    let inputs = intake.run(&mut watch, &mut |file, worked| {
        tally.count(file, worked, &options.limits);
        Ok(())
    })?;
    let Tally { rows, bad, problems, pii, unused } = tally;
    Ok(Inspection { inputs, schema: intake.schema, rows, bad, problems, pii, unused_columns: unused })
}
