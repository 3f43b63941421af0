//! Which examples share a band.

use super::sets::Sets;
use rayon::prelude::*;

/// For each example the buckets that it lies in. A bucket is a band and a hash that at least two examples have: most
/// hashes belong to one example, and that example need not be looked at again.
pub(crate) struct Buckets {
    /// Where the entries of each example end.
    ends: Vec<u32>,
    /// Numbers of buckets.
    entries: Vec<u32>,
    /// How many buckets there are.
    count: usize,
}

impl Buckets {
    /// `bands` holds `width` hashes for each example; those of `wanted` are looked at. Examples without shingles are in
    /// no bucket.
    pub fn new(bands: &[u32], width: usize, wanted: &[u32], sets: &dyn Sets) -> Self {
        let wanted: Vec<u32> = wanted.iter().copied().filter(|&id| sets.len(id) > 0).collect();
        let examples = bands.len().checked_div(width).unwrap_or_default();
        let found: Vec<Vec<(u32, u32)>> =
            (0..width).into_par_iter().map(|band| of_band(bands, width, band, &wanted)).collect();
        let mut ends = vec![0u32; examples];
        for &(id, _) in found.iter().flatten() {
            if let Some(count) = ends.get_mut(id as usize) {
                *count += 1;
            }
        }
        let mut total = 0;
        for end in &mut ends {
            total += *end;
            *end = total;
        }
        let mut entries = vec![0; total as usize];
        let mut next: Vec<u32> = std::iter::once(0).chain(ends.iter().copied()).collect();
        let mut before = 0;
        for band in found {
            let count = band.iter().map(|&(_, bucket)| bucket + 1).max().unwrap_or_default();
            for (id, bucket) in band {
                let Some(at) = next.get_mut(id as usize) else { continue };
                if let Some(entry) = entries.get_mut(*at as usize) {
                    *entry = before + bucket;
                }
                *at += 1;
            }
            before += count;
        }
        Self { ends, entries, count: before as usize }
    }

    /// The buckets of an example, as positions in all entries and numbers of buckets.
    pub fn of(&self, id: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let id = id as usize;
        let start = id.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        let end = self.ends.get(id).copied().unwrap_or_default();
        let entries = self.entries.get(start as usize..end as usize).unwrap_or_default();
        (start..).zip(entries.iter().copied())
    }

    /// How many entries all examples have together.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// How many buckets there are.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// Examples and the buckets of one band, numbered from 0.
fn of_band(bands: &[u32], width: usize, band: usize, wanted: &[u32]) -> Vec<(u32, u32)> {
    // Hash above, example below: sorting brings equal hashes together.
    let hash = |id: u32| bands.get(id as usize * width + band).copied().unwrap_or_default();
    let mut sorted: Vec<u64> = wanted.iter().map(|&id| u64::from(hash(id)) << 32 | u64::from(id)).collect();
    sorted.sort_unstable();
    let runs = sorted.chunk_by(|a, b| a >> 32 == b >> 32).filter(|run| run.len() > 1);
    runs.zip(0u32..).flat_map(|(run, bucket)| run.iter().map(move |&value| (value as u32, bucket))).collect()
}
