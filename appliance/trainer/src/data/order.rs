//! The order in which examples are gone through: a function of the seed and the step alone, so that a resumed run goes
//! on where it stopped.

use super::Examples;
use gap_contract::Job;
use gap_lm::training::{Batch, Key};

/// Numbers the keys for data apart from those for other noise.
const ORDER: u64 = 1;
const PACKING: u64 = 2;

/// What takes one place in a batch: an example, or several packed into one row.
pub type Item = Vec<usize>;

/// Every epoch's order.
#[derive(Debug)]
pub struct Epochs {
    items: Vec<Item>,
    key: Key,
    shuffle: bool,
    batch: usize,
    accumulation: usize,
}

impl Epochs {
    /// For these examples, in batches of `batch`.
    #[must_use]
    pub fn new(examples: &Examples, job: &Job, batch: usize) -> Self {
        let key = Key::new(job.seed);
        let items = if job.packing {
            let lengths: Vec<usize> = (0..examples.sequences.len()).map(|index| examples.length(index)).collect();
            let order = order(lengths.len(), job.shuffle.then(|| key.part(PACKING)));
            pack(&lengths, &order, usize::try_from(job.max_length).unwrap_or(usize::MAX))
        } else {
            (0..examples.sequences.len()).map(|index| vec![index]).collect()
        };
        let accumulation = usize::try_from(job.gradient_accumulation_steps).unwrap_or(usize::MAX);
        Self {
            items,
            key: key.part(ORDER),
            shuffle: job.shuffle,
            batch: batch.max(1),
            accumulation: accumulation.max(1),
        }
    }

    /// Optimiser steps of one epoch.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.items.len().div_ceil(self.batch).div_ceil(self.accumulation) as u64
    }

    /// Optimiser steps of the whole job.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be positive and far below 2^52"
    )]
    pub fn total(&self, job: &Job) -> u64 {
        match (job.max_steps, job.n_epochs) {
            (Some(steps), _) => steps,
            (None, epochs) => ((epochs.unwrap_or(1.0) * self.steps() as f64).ceil() as u64).max(1),
        }
    }

    /// The items of each forward pass of a step, counted from 0.
    #[must_use]
    pub fn batches(&self, step: u64) -> Vec<Vec<&Item>> {
        let (epoch, within) = (step / self.steps().max(1), step % self.steps().max(1));
        let order = order(self.items.len(), self.shuffle.then(|| self.key.part(epoch)));
        let size = self.batch * self.accumulation;
        let first = usize::try_from(within).unwrap_or(usize::MAX).saturating_mul(size);
        let own = order.get(first..order.len().min(first.saturating_add(size))).unwrap_or_default();
        own.chunks(self.batch).map(|batch| batch.iter().filter_map(|index| self.items.get(*index)).collect()).collect()
    }

    /// Tokens of the longest batch that may come.
    #[must_use]
    pub fn longest_batch(&self, examples: &Examples) -> usize {
        let length = |item: &Item| -> usize { item.iter().map(|index| examples.length(*index)).sum() };
        let mut lengths: Vec<usize> = self.items.iter().map(length).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.iter().take(self.batch).sum()
    }
}

/// The batch of some items; of pairs, the chosen ones come first.
#[must_use]
pub fn batch(examples: &Examples, items: &[&Item]) -> Batch {
    let mut batch = Batch::new();
    let of = |index: &usize| examples.sequences.get(*index);
    let all = || items.iter().flat_map(|item| item.iter()).filter_map(of);
    let sides = all().map(Vec::len).max().unwrap_or_default();
    for side in 0..sides {
        for sequence in all().filter_map(|sequences| sequences.get(side)) {
            batch.push(sequence.tokens().iter().copied());
        }
    }
    batch
}

/// All numbers below `count`, shuffled by a key (Fisher–Yates) or as they are.
fn order(count: usize, key: Option<Key>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if let Some(key) = key {
        for last in (1..count).rev() {
            #[allow(clippy::cast_possible_truncation, reason = "below `last`")]
            let other = ((u128::from(key.bits(last as u64)) * (last as u128 + 1)) >> 64) as usize;
            order.swap(last, other);
        }
    }
    order
}

/// Fills rows with the examples in order; each goes into the first row that has room.
fn pack(lengths: &[usize], order: &[usize], longest: usize) -> Vec<Item> {
    /// Rows that are looked at: those before are as good as full.
    const OPEN: usize = 64;
    let mut rows: Vec<(usize, Item)> = Vec::new();
    for index in order {
        let length = lengths.get(*index).copied().unwrap_or_default();
        let open = rows.len().saturating_sub(OPEN);
        match rows.iter_mut().skip(open).find(|(used, _)| used + length <= longest) {
            Some((used, row)) => {
                *used += length;
                row.push(*index);
            }
            None => rows.push((length, vec![*index])),
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_example_comes_once(count in 0usize..200, seed: u64) {
            let mut all = order(count, Some(Key::new(seed)));
            all.sort_unstable();
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
        }

        #[test]
        fn packed_rows_hold_every_example_once_and_no_more_than_they_may(lengths in prop::collection::vec(1usize..40, 0..300)) {
            let rows = pack(&lengths, &order(lengths.len(), None), 40);
            let mut all: Vec<usize> = rows.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for row in rows {
                prop_assert!(row.iter().map(|index| lengths[*index]).sum::<usize>() <= 40);
            }
        }
    }
}
