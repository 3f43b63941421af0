//! Values in four bits as bitsandbytes keeps them for QLoRA: NF4, sixteen quantiles of a normal distribution, in blocks of
//! 64 with the largest absolute value of each block (<https://arxiv.org/abs/2305.14314>).

use super::cpu::vectorised;
use rayon::prelude::*;
use std::{array, sync::LazyLock};

/// Values that share one largest absolute value.
pub const BLOCK: usize = 64;
/// Largest absolute values that share one of their own, where they are quantised as well.
pub const GROUP: usize = 256;
/// Blocks that one task unpacks.
const TASK: usize = 64;
/// What a block is divided by at least.
const LEAST: f32 = 1e-38;

/// What the sixteen codes stand for, before they are multiplied by the block's largest absolute value.
pub const VALUES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// What a byte stands for: the first value is in its upper half.
const PAIRS: [[f32; 2]; 256] = {
    let mut pairs = [[0.0; 2]; 256];
    let mut byte = 0;
    #[allow(clippy::indexing_slicing, reason = "four bits are below sixteen")]
    while byte < pairs.len() {
        pairs[byte] = [VALUES[byte >> 4], VALUES[byte & 15]];
        byte += 1;
    }
    pairs
};

/// What each byte stands for.
pub const fn pairs() -> &'static [[f32; 2]; 256] {
    static ALL: [[f32; 2]; 256] = PAIRS;
    &ALL
}

/// Whether the largest absolute values of blocks are quantised themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maxima {
    /// They are kept in 32 bits.
    Exact,
    /// They are kept in eight bits (bitsandbytes' double quantisation).
    Quantised,
}

/// Packed values.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// Two values a byte; whole blocks, of which the last may hold more than there is.
    pub codes: Vec<u8>,
    /// The largest absolute value of each block.
    pub maxima: PackedMaxima,
}

/// Largest absolute values of blocks.
#[derive(Debug, Clone, PartialEq)]
pub enum PackedMaxima {
    /// As they are.
    Exact(Vec<f32>),
    /// `dynamic value of the code · largest of the group + mean`.
    Quantised {
        /// Of each block.
        codes: Vec<u8>,
        /// Of each [`GROUP`] blocks.
        largest: Vec<f32>,
        /// Of all.
        mean: f32,
    },
}

/// Packs values that come piece by piece.
#[derive(Debug, Default)]
pub struct Packer {
    pending: Vec<f32>,
    codes: Vec<u8>,
    maxima: Vec<f32>,
}

impl Packer {
    /// With room for `count` values.
    pub fn with_capacity(count: usize) -> Self {
        let blocks = count.div_ceil(BLOCK);
        let (codes, maxima) = (Vec::with_capacity(blocks * BLOCK / 2), Vec::with_capacity(blocks));
        Self { pending: Vec::with_capacity(BLOCK), codes, maxima }
    }

    /// Adds values.
    pub fn push(&mut self, mut values: &[f32]) {
        if !self.pending.is_empty() {
            let (own, rest) = values.split_at(values.len().min(BLOCK - self.pending.len()));
            self.pending.extend_from_slice(own);
            values = rest;
            if let Ok(block) = <[f32; BLOCK]>::try_from(self.pending.as_slice()) {
                self.block(&block);
                self.pending.clear();
            }
        }
        let (blocks, rest) = values.as_chunks::<BLOCK>();
        blocks.iter().for_each(|block| self.block(block));
        self.pending.extend_from_slice(rest);
    }

    fn block(&mut self, block: &[f32; BLOCK]) {
        let (codes, most) = vectorised(|| {
            let most = largest(block);
            let scale = 1.0 / most.max(LEAST);
            (pack_block(&block.map(|value| value * scale)), most)
        });
        self.codes.extend_from_slice(&codes);
        self.maxima.push(most);
    }

    /// What was packed.
    pub fn finish(mut self, maxima: Maxima) -> Packed {
        if !self.pending.is_empty() {
            let most = largest(&self.pending).max(LEAST);
            let mut block = [0.0; BLOCK];
            block.iter_mut().zip(&self.pending).for_each(|(scaled, value)| *scaled = value / most);
            self.codes.extend_from_slice(&pack_block(&block));
            self.maxima.push(most);
        }
        let maxima = match maxima {
            Maxima::Exact => PackedMaxima::Exact(self.maxima),
            Maxima::Quantised => quantise_maxima(&self.maxima),
        };
        Packed { codes: self.codes, maxima }
    }
}

#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, value| if value.abs() > most { value.abs() } else { most })
}

/// The codes of values from −1 to 1: how many borders between neighbours they are above.
#[inline(always)]
fn pack_block(scaled: &[f32; BLOCK]) -> [u8; BLOCK / 2] {
    let mut codes = [0_u32; BLOCK];
    for (low, high) in VALUES.iter().zip(VALUES.iter().skip(1)) {
        let border = (low + high) / 2.0;
        for (code, value) in codes.iter_mut().zip(scaled) {
            *code += u32::from(*value > border);
        }
    }
    let (pairs, _) = codes.as_chunks::<2>();
    let mut bytes = [0; BLOCK / 2];
    #[allow(clippy::cast_possible_truncation, reason = "codes are below sixteen")]
    bytes.iter_mut().zip(pairs).for_each(|(byte, [first, second])| *byte = (first << 4 | second) as u8);
    bytes
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a mean of 32-bit values")]
fn quantise_maxima(maxima: &[f32]) -> PackedMaxima {
    let mean = (maxima.iter().map(|value| f64::from(*value)).sum::<f64>() / maxima.len().max(1) as f64) as f32;
    let dynamic = dynamic_values();
    let borders: [f32; GROUP - 1] = array::from_fn(|index| match dynamic.get(index..index + 2) {
        Some([low, high]) => (low + high) / 2.0,
        _ => f32::INFINITY,
    });
    let mut codes = Vec::with_capacity(maxima.len());
    let mut all_largest = Vec::with_capacity(maxima.len().div_ceil(GROUP));
    for group in maxima.chunks(GROUP) {
        let most = group.iter().fold(0.0_f32, |most, value| most.max((value - mean).abs()));
        let scale = 1.0 / most.max(LEAST);
        codes.extend(group.iter().map(|value| {
            let scaled = (value - mean) * scale;
            u8::try_from(borders.partition_point(|border| *border < scaled)).unwrap_or(u8::MAX)
        }));
        all_largest.push(most);
    }
    PackedMaxima::Quantised { codes, largest: all_largest, mean }
}

/// What the 256 codes of bitsandbytes' signed dynamic eight-bit type stand for, from the least to 1
/// (<https://arxiv.org/abs/1511.04561>): seven decades with 1 to 64 evenly spaced values of either sign, 0, and 1.
pub fn dynamic_values() -> &'static [f32; 256] {
    static VALUES: LazyLock<[f32; 256]> = LazyLock::new(|| {
        let mut values = vec![0.0_f32, 1.0];
        for decade in 0..7_i32 {
            let steps = 1_u16 << decade;
            let step = (1.0 - 0.1) / f32::from(steps);
            // As a range is divided evenly in 32 bits, from both of its ends.
            let border = |at: u16| {
                if at * 2 < steps + 1 { 0.1 + step * f32::from(at) } else { 1.0 - step * f32::from(steps - at) }
            };
            let scale = 10_f64.powi(decade - 6) as f32;
            for at in 0..steps {
                let mean = (border(at) + border(at + 1)) / 2.0 * scale;
                values.extend([mean, -mean]);
            }
        }
        values.sort_by(f32::total_cmp);
        array::from_fn(|index| values.get(index).copied().unwrap_or(1.0))
    });
    &VALUES
}

impl PackedMaxima {
    fn of(&self, block: usize) -> f32 {
        match self {
            Self::Exact(maxima) => maxima.get(block).copied().unwrap_or_default(),
            Self::Quantised { codes, largest, mean } => {
                let code = codes.get(block).copied().unwrap_or_default();
                let value = dynamic_values().get(usize::from(code)).copied().unwrap_or_default();
                value * largest.get(block / GROUP).copied().unwrap_or_default() + mean
            }
        }
    }
}

impl Packed {
    /// Gives the values from `first` on.
    pub fn unpack(&self, first: usize, out: &mut [f32]) {
        // Up to the next whole block, and then whole ones.
        let (head, rest) = out.split_at_mut(out.len().min(first.next_multiple_of(BLOCK) - first));
        if !head.is_empty() {
            let mut block = [0.0; BLOCK];
            self.unpack_blocks(first / BLOCK, &mut block);
            let own = block.get(first % BLOCK..).unwrap_or_default();
            head.iter_mut().zip(own).for_each(|(out, value)| *out = *value);
        }
        let next = first.div_ceil(BLOCK);
        rest.par_chunks_mut(BLOCK * TASK)
            .enumerate()
            .for_each(|(task, out)| self.unpack_blocks(next + task * TASK, out));
    }

    fn unpack_blocks(&self, first: usize, out: &mut [f32]) {
        let codes = self.codes.get(first * BLOCK / 2..).unwrap_or_default().chunks(BLOCK / 2);
        vectorised(|| {
            for ((out, codes), block) in out.chunks_mut(BLOCK).zip(codes).zip(first..) {
                let scale = self.maxima.of(block);
                for (out, byte) in out.chunks_mut(2).zip(codes) {
                    #[allow(clippy::indexing_slicing, reason = "there are as many pairs as bytes")]
                    let pair = &pairs()[usize::from(*byte)];
                    out.iter_mut().zip(pair).for_each(|(out, value)| *out = value * scale);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pack(values: &[f32], cut: usize, maxima: Maxima) -> Packed {
        let mut packer = Packer::with_capacity(values.len());
        let (first, second) = values.split_at(cut.min(values.len()));
        packer.push(first);
        packer.push(second);
        packer.finish(maxima)
    }

    proptest! {
        #[test]
        fn every_value_becomes_the_nearest_of_its_block(values in prop::collection::vec(-2.0_f32..2.0, 1..400), cut in 0_usize..400) {
            let packed = pack(&values, cut, Maxima::Exact);
            prop_assert_eq!(&packed, &pack(&values, 0, Maxima::Exact));
            let mut found = vec![0.0; values.len()];
            packed.unpack(0, &mut found);
            for (block, found) in values.chunks(BLOCK).zip(found.chunks(BLOCK)) {
                let most = block.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                for (value, found) in block.iter().zip(found) {
                    let least = VALUES.iter().map(|code| (code * most - value).abs()).fold(f32::INFINITY, f32::min);
                    prop_assert!((value - found).abs() <= least + most * 1e-6);
                }
            }
        }

        #[test]
        fn any_part_is_what_it_is_in_the_whole(count in 1_usize..9000, first in 0_usize..9000) {
            let values: Vec<f32> = (0..count).map(|index| ((index * 37) % 101) as f32 / 50.0 - 1.0).collect();
            let packed = pack(&values, 0, Maxima::Quantised);
            let mut whole = vec![0.0; count];
            packed.unpack(0, &mut whole);
            let first = first.min(count);
            let mut part = vec![0.0; count - first];
            packed.unpack(first, &mut part);
            prop_assert_eq!(&whole[first..], &part[..]);
        }
    }

    #[test]
    fn quantised_maxima_are_near_the_exact_ones() {
        let values: Vec<f32> = (0..BLOCK * 1000).map(|index| ((index * 7919) % 10_007) as f32 / 5000.0 - 1.0).collect();
        let (exact, quantised) = (pack(&values, 0, Maxima::Exact), pack(&values, 0, Maxima::Quantised));
        for block in 0..1000 {
            let (exact, near) = (exact.maxima.of(block), quantised.maxima.of(block));
            assert!((exact - near).abs() < 0.02 * exact, "{exact} {near}");
        }
    }

    #[test]
    fn the_dynamic_type_is_that_of_bitsandbytes() {
        let values = dynamic_values();
        assert_eq!(
            [values[0], values[1], values[127], values[128], values[255]],
            [-0.992_968_74, -0.978_906_3, 0.0, 5.500_000_4e-7, 1.0]
        );
        assert!(values.is_sorted());
    }

    #[test]
    fn blocks_of_nothing_but_zeros_stay_zeros() {
        for maxima in [Maxima::Exact, Maxima::Quantised] {
            let mut out = [1.0; 70];
            pack(&[0.0; 70], 3, maxima).unpack(0, &mut out);
            assert!(out.iter().all(|value| value.abs() < 1e-30), "{out:?}");
        }
    }
}
