//! The data card: what a prepared data set is, for people and for machines.

mod histogram;
mod markdown;

use crate::{
    Problems,
    duplicates::Near,
    format::Schema,
    pii::{PiiAction, PiiReport},
    prepare::{Compared, Gathered, Intake},
    split::{Ratios, SMALL, Split, Splitting},
};
use gap_format::Digest;
pub use histogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of the card's own format.
const VERSION: u32 = 1;

/// A data card. It holds counts, digests and places, and nothing of the data's content.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Card {
    /// Version of this format.
    pub version: u32,
    /// The format of the rows, and how it was recognised.
    pub schema: Schema,
    /// The files that were read.
    pub inputs: Vec<InputCard>,
    /// What became of the rows.
    pub examples: Examples,
    /// The files that were written.
    pub files: Vec<FileCard>,
    /// How rows were distributed.
    pub split: SplitCard,
    /// How duplicates were found.
    pub duplicates: DuplicatesCard,
    /// Personal data and secrets.
    pub pii: PiiCard,
    /// Lengths of the kept examples.
    pub lengths: Lengths,
    /// What was wrong with rows.
    pub problems: Problems,
    /// Columns that no part was read from, and in how many rows they are.
    pub unused_columns: BTreeMap<String, u64>,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InputCard {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
    /// How it holds its rows.
    pub container: String,
    /// How that was found out.
    pub because: String,
    /// Its rows.
    pub rows: u64,
}

/// What became of the rows; the numbers below `rows` add up to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Examples {
    /// Rows that were read.
    pub rows: u64,
    /// Rows that cannot be used.
    pub bad: u64,
    /// Rows that say the same as an earlier one.
    pub exact_duplicates: u64,
    /// Rows that say nearly the same as a kept one.
    pub near_duplicates: u64,
    /// Rows that resemble rows of two parts, and would carry knowledge from one into the other.
    pub between_parts: u64,
    /// Rows that were written.
    pub kept: u64,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileCard {
    /// Its name.
    pub name: String,
    /// The part.
    pub split: Split,
    /// Its lines.
    pub examples: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
}

/// How rows were distributed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SplitCard {
    /// Percentages of training, validation and test.
    pub ratios: Ratios,
    /// How they were chosen.
    pub because: String,
}

/// How duplicates were found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DuplicatesCard {
    /// Whether exact duplicates were left out.
    pub exact: bool,
    /// What happened to near ones.
    pub near: Near,
    /// The similarity from which on examples are near duplicates, in thousandths.
    pub threshold_per_mille: u32,
    /// Hash functions of a signature.
    pub permutations: usize,
    /// Words of a shingle.
    pub shingle: usize,
    /// Examples for which not all comparisons were made.
    pub not_fully_compared: u64,
}

/// Personal data and secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PiiCard {
    /// What was done about them.
    pub action: PiiAction,
    /// What was found.
    #[serde(flatten)]
    pub report: PiiReport,
}

/// Lengths of the kept examples: of their contents, without what a chat template adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// In characters (Unicode scalar values).
    pub characters: Histogram,
    /// In tokens, if a tokenizer was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenLengths>,
}

/// Lengths in tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenLengths {
    /// The digest of the tokenizer.
    pub tokenizer: Digest,
    /// The lengths.
    #[serde(flatten)]
    pub histogram: Histogram,
}

impl Card {
    pub(crate) fn new(intake: &Intake<'_>, gathered: &Gathered, compared: &Compared, files: Vec<FileCard>) -> Self {
        let options = intake.options;
        let tally = &gathered.tally;
        let kept = files.iter().map(|file| file.examples).sum();
        let lengths = |all: &[u32]| {
            let placed = all.iter().zip(&compared.places).filter(|(_, place)| place.is_some());
            Histogram::of(placed.map(|(&length, _)| length).collect())
        };
        let dedupe = options.dedupe.bounded();
        Self {
            version: VERSION,
            schema: intake.schema.clone(),
            inputs: gathered.inputs.clone(),
            examples: Examples {
                rows: tally.rows,
                bad: tally.bad,
                exact_duplicates: gathered.exact_duplicates,
                near_duplicates: compared.near_duplicates,
                between_parts: compared.between,
                kept,
            },
            files,
            split: SplitCard { ratios: compared.ratios, because: split_because(options.split, compared.ratios) },
            duplicates: DuplicatesCard {
                exact: dedupe.exact,
                near: dedupe.near,
                threshold_per_mille: (dedupe.threshold * 1000.0).round() as u32,
                permutations: dedupe.permutations,
                shingle: dedupe.shingle,
                not_fully_compared: compared.cut,
            },
            pii: PiiCard { action: options.pii, report: tally.pii.clone() },
            lengths: Lengths {
                characters: lengths(&gathered.characters),
                tokens: options.tokenizer.as_ref().map(|tokenizer| TokenLengths {
                    tokenizer: tokenizer.digest(),
                    histogram: lengths(&gathered.tokens),
                }),
            },
            problems: tally.problems.clone(),
            unused_columns: tally.unused.clone(),
        }
    }

    /// The card for machines, with a line feed at the end.
    pub fn to_json(&self) -> String {
        // Numbers, texts and lists: there is nothing in it that JSON could not hold.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The card for people.
    pub fn to_markdown(&self) -> String {
        markdown::card(self)
    }
}

fn split_because(splitting: Splitting, ratios: Ratios) -> String {
    match splitting {
        Splitting::Fixed(_) => "the options say so".to_owned(),
        Splitting::BySize if ratios == Ratios::SMALL => format!("fewer than {SMALL} examples"),
        Splitting::BySize => format!("{SMALL} examples or more"),
    }
}
