//! Exact and near duplicates.
//!
//! *Exact*: equal after Unicode normalisation (NFC) and with runs of white space taken as one space ([`key`]).
//!
//! *Near*: the Jaccard similarity of the sets of word shingles reaches a threshold. Candidates come from MinHash
//! signatures cut into bands; each is verified on the sets themselves, so nothing is called a duplicate by chance. What
//! can be missed is a pair that shares no band: at the threshold itself at most 2 % of pairs, and fewer the more alike
//! they are.
//!
//! Examples are taken in the order of the inputs, and one is compared with those kept before it. So what is decided
//! about an example does not depend on what is appended later, nor on threads.

mod buckets;
mod greedy;
mod key;
mod sets;
mod sketch;
#[cfg(test)]
mod tests;
mod words;

pub(crate) use buckets::Buckets;
pub(crate) use greedy::{Placing, place, remove};
pub(crate) use key::{key, split_key};
pub(crate) use sets::{FileSets, SetWriter, Sets};
pub use sketch::{Sketch, Sketcher};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::io;

/// Texts that are sketched at once.
const BATCH: usize = 1 << 16;

/// What happens to near duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Near {
    /// They are not looked for.
    Off,
    /// They are kept, and go into one split together.
    Together,
    /// The first of them is kept.
    #[default]
    Remove,
}

/// How duplicates are found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Dedupe {
    /// Whether only the first of exact duplicates is kept.
    pub exact: bool,
    /// What happens to near duplicates.
    pub near: Near,
    /// From which similarity on examples are near duplicates, 0.5 to 1.
    pub threshold: f64,
    /// Hash functions of a signature, 16 to 1024.
    pub permutations: usize,
    /// Words of a shingle, 1 to 16.
    pub shingle: usize,
}

impl Default for Dedupe {
    fn default() -> Self {
        Self { exact: true, near: Near::Remove, threshold: 0.8, permutations: 128, shingle: 3 }
    }
}

impl Dedupe {
    /// The same with each number within its bounds.
    pub(crate) fn bounded(self) -> Self {
        Self {
            threshold: if self.threshold.is_nan() { 0.8 } else { self.threshold.clamp(0.5, 1.0) },
            permutations: self.permutations.clamp(16, 1024),
            shingle: self.shingle.clamp(1, 16),
            ..self
        }
    }
}

/// For each text the earlier one that it is a near duplicate of, if there is one and it is kept itself; and the number
/// of comparisons that were left out because too many texts shared a band.
///
/// # Errors
/// None of the system's, as all is held in memory; the signature is that of sets that lie in a file.
pub fn near_duplicates<T: AsRef<str> + Sync>(texts: &[T], options: &Dedupe) -> io::Result<(Vec<Option<u32>>, u64)> {
    let options = options.bounded();
    let sketcher = Sketcher::new(&options);
    let mut sets = sets::MemorySets::default();
    let mut bands = Vec::with_capacity(texts.len() * sketcher.bands());
    for some in texts.chunks(BATCH) {
        let sketches: Vec<Sketch> = some.par_iter().map(|text| sketcher.sketch([(0, text.as_ref())])).collect();
        for sketch in &sketches {
            bands.extend_from_slice(sketch.bands());
            sets.push(sketch.shingles());
        }
    }
    let all: Vec<u32> = (0..texts.len() as u32).collect();
    let buckets = Buckets::new(&bands, sketcher.bands(), &all, &sets);
    remove(&all, &buckets, &sets, options.threshold)
}
