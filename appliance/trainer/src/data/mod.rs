//! From the rows of a file to batches of tokens.

mod encode;
mod order;
mod rows;
mod tokenizer;

pub use encode::{Encoder, Sequence};
pub use order::{Epochs, Item, batch};
pub use rows::{Example, ParsedRow, Turns, read_rows};
pub use tokenizer::{TokenizerError, read_tokenizer};

use crate::error::{Failed, invalid_data};
use gap_contract::{Job, Method};
use std::path::Path;

/// The examples of a file as tokens, and what became of its rows.
#[derive(Debug, Default)]
pub struct Examples {
    /// One for each example that something counts of; two (chosen, rejected) for each pair of preferences.
    pub sequences: Vec<Vec<Sequence>>,
    /// Rows of the file.
    pub rows: u64,
    /// Of how many something was cut off.
    pub truncated: u64,
    /// How many were left out, because nothing that counts was left.
    pub left_out: u64,
    /// Tokens that were cut off.
    pub cut_tokens: u64,
}

impl Examples {
    /// Tokens of an example: of both answers, where there are two.
    #[must_use]
    pub fn length(&self, index: usize) -> usize {
        self.sequences.get(index).map_or(0, |all| all.iter().map(|one| one.tokens().len()).sum())
    }

    /// Tokens of the longest example.
    #[must_use]
    pub fn longest(&self) -> usize {
        (0..self.sequences.len()).map(|index| self.length(index)).max().unwrap_or_default()
    }

    /// Tokens of the longest sequence.
    #[must_use]
    pub fn longest_sequence(&self) -> usize {
        self.sequences.iter().flatten().map(|sequence| sequence.tokens().len()).max().unwrap_or_default()
    }

    /// Reads and encodes a file.
    ///
    /// # Errors
    /// Where it cannot be read, a row is no example of the job's method, or nothing is left to train on.
    pub fn read(path: &Path, param: &str, job: &Job, encoder: &Encoder) -> Result<Self, Failed> {
        let longest = usize::try_from(job.max_length).unwrap_or(usize::MAX);
        let mut examples = Self::default();
        read_rows(path, |line, row| {
            let wrong = |what: String| invalid_data(path, line, what).about(param);
            let example = Example::of(row, job.method).map_err(wrong)?;
            let mut sequences = encoder.encode(&example, job.completion_only_loss).map_err(wrong)?;
            examples.rows += 1;
            let mut cut = 0;
            for sequence in &mut sequences {
                cut += sequence.truncate(longest);
            }
            examples.truncated += u64::from(cut > 0);
            examples.cut_tokens += cut as u64;
            if sequences.iter().all(Sequence::counts) {
                examples.sequences.push(sequences);
            } else {
                examples.left_out += 1;
            }
            Ok(())
        })
        .map_err(|failed| failed.about(param))?;
        if examples.sequences.is_empty() {
            let what = match (examples.rows, job.method) {
                (0, _) => "it has no examples".to_owned(),
                (rows, Method::Supervised) => {
                    format!("of its {rows} examples nothing is left to train on within {longest} tokens")
                }
                (rows, Method::Dpo) => format!("of its {rows} pairs no two answers are left within {longest} tokens"),
            };
            return Err(invalid_data(path, 0, what).about(param));
        }
        Ok(examples)
    }
}
