//! The products that serving spends its time in: rows of activations by rows of weights.
//!
//! Every value of a result is one dot product whose additions come in one order, however many rows are computed at once
//! and on however many threads. So an answer does not depend on what else the server does at that moment.

#![allow(clippy::indexing_slicing, reason = "ranges follow from lengths that are compared before the loops begin")]

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::array;

/// Values that are packed together; rows are filled up with zeros to whole groups.
pub const GROUP: usize = 64;
/// Lanes of the widest vector that is used.
const LANES: usize = 16;
/// Values that share one scale in [`Q8Group`].
const Q8_BLOCK: usize = 32;
/// Rows that are computed together: as many as a core's cache holds beside the weights.
const ROWS: usize = 48;
/// Columns that one task computes at least, so that it is worth starting.
const TASK: usize = 32;
/// Columns that lie side by side.
const BLOCK: usize = 8;

/// A group of [`GROUP`] activations.
pub type Activations = [f32; GROUP];

/// A group of packed weights.
pub trait Group: Copy + Send + Sync + 'static {
    /// Packs values.
    fn pack(values: &Activations) -> Self;
    /// The values again.
    fn unpack(&self) -> Activations;
    /// The values from `index * S::F32_LANES` on.
    fn vector<S: Simd>(&self, simd: S, index: usize) -> S::f32s;
}

/// Weights as they are computed with.
#[derive(Clone, Copy)]
pub struct F32Group([f32; GROUP]);

/// The upper halves of weights. A word holds values `i` and `i + 16` of 32.
#[derive(Clone, Copy)]
pub struct Bf16Group([u32; GROUP / 2]);

/// Weights as bytes with a scale for each 32 (GGUF's `Q8_0`). A word holds values `i`, `i + 16`, `i + 32` and `i + 48`.
#[derive(Clone, Copy)]
pub struct Q8Group {
    scales: [f32; GROUP / Q8_BLOCK],
    words: [u32; LANES],
}

impl Q8Group {
    /// From bytes and scales that were chosen elsewhere.
    pub fn from_parts(scales: [f32; GROUP / Q8_BLOCK], values: &[i8; GROUP]) -> Self {
        let byte = |index: usize| u32::from((i16::from(values[index]) + 128).cast_unsigned());
        let word = |lane| (0..4).fold(0, |word, quarter| word | byte(quarter * LANES + lane) << (8 * quarter));
        Self { scales, words: array::from_fn(word) }
    }
}

impl Group for F32Group {
    fn pack(values: &Activations) -> Self {
        Self(*values)
    }

    fn unpack(&self) -> Activations {
        self.0
    }

    #[inline(always)]
    fn vector<S: Simd>(&self, _: S, index: usize) -> S::f32s {
        S::as_simd_f32s(&self.0).0[index]
    }
}

impl Group for Bf16Group {
    fn pack(values: &Activations) -> Self {
        // To the nearest, of two to the even one, as `bf16::from_f32` rounds numbers; without its case for what is no number,
        // so that vectors of them are computed.
        let bits = |index: usize| {
            let bits = values[index].to_bits();
            bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16
        };
        Self(array::from_fn(|word| {
            let first = word / LANES * 2 * LANES + word % LANES;
            bits(first) | bits(first + LANES) << 16
        }))
    }

    fn unpack(&self) -> Activations {
        array::from_fn(|index| {
            let word = self.0[index / (2 * LANES) * LANES + index % LANES];
            f32::from_bits(if index % (2 * LANES) < LANES { word << 16 } else { word & 0xffff_0000 })
        })
    }

    #[inline(always)]
    fn vector<S: Simd>(&self, simd: S, index: usize) -> S::f32s {
        let first = index * S::F32_LANES;
        let words = S::as_simd_u32s(&self.0).0[(first / (2 * LANES) * LANES + first % LANES) / S::F32_LANES];
        simd.transmute_f32s_u32s(if first % (2 * LANES) < LANES {
            simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s(16))
        } else {
            simd.and_u32s(words, simd.splat_u32s(0xffff_0000))
        })
    }
}

impl Group for Q8Group {
    fn pack(values: &Activations) -> Self {
        let scales: [f32; GROUP / Q8_BLOCK] = array::from_fn(|block| {
            let largest = values[block * Q8_BLOCK..][..Q8_BLOCK].iter().fold(0f32, |most, value| most.max(value.abs()));
            largest / 127.0
        });
        let quantised: [i8; GROUP] = array::from_fn(|index| {
            let scale = scales[index / Q8_BLOCK];
            if scale > 0.0 { (values[index] / scale).round() as i8 } else { 0 }
        });
        Self::from_parts(scales, &quantised)
    }

    fn unpack(&self) -> Activations {
        array::from_fn(|index| {
            let byte = (self.words[index % LANES] >> (index / LANES * 8)) & 0xff;
            let value = byte as f32 - 128.0;
            value * self.scales[index / Q8_BLOCK]
        })
    }

    #[inline(always)]
    fn vector<S: Simd>(&self, simd: S, index: usize) -> S::f32s {
        let first = index * S::F32_LANES;
        let words = S::as_simd_u32s(&self.words).0[first % LANES / S::F32_LANES];
        let shift = (first / LANES * 8) as u32;
        let bytes = simd.and_u32s(simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s(shift)), simd.splat_u32s(0xff));
        // The byte as the last bits of 2²³ is the number 2²³ + byte.
        let shifted = simd.transmute_f32s_u32s(simd.or_u32s(bytes, simd.splat_u32s(0x4b00_0000)));
        let values = simd.sub_f32s(shifted, simd.splat_f32s(8_388_608.0 + 128.0));
        simd.mul_f32s(values, simd.splat_f32s(self.scales[first / Q8_BLOCK]))
    }
}

/// Packed columns, [`BLOCK`] at a time: the first group of each, then the second of each, and so on; the last block may have
/// fewer. So a product with one row of activations reads all weights from beginning to end, which memory is fastest at.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a, G> {
    weights: &'a [G],
    /// Groups of a column.
    groups: usize,
}

/// Packs columns as they come.
pub struct Packer<G> {
    width: usize,
    packed: Vec<G>,
    /// Columns of a block that is not full yet.
    open: Vec<f32>,
}

impl<G: Group> Packer<G> {
    /// With room for `columns` columns of `width` values.
    pub fn new(width: usize, columns: usize) -> Self {
        let groups = width.div_ceil(GROUP);
        Self { width: width.max(1), packed: Vec::with_capacity(groups * columns), open: Vec::new() }
    }

    /// Adds the weights of whole columns, each filled up with zeros to whole groups.
    pub fn push(&mut self, mut columns: &[f32]) {
        let block = self.width * BLOCK;
        if !self.open.is_empty() {
            let (missing, rest) = columns.split_at(columns.len().min(block - self.open.len()));
            self.open.extend_from_slice(missing);
            columns = rest;
            if self.open.len() == block {
                self.close();
            }
        }
        let (whole, rest) = columns.split_at(columns.len() / block * block);
        whole.chunks_exact(block).for_each(|block| pack(block, self.width, &mut self.packed));
        self.open.extend_from_slice(rest);
    }

    /// All columns.
    pub fn finish(mut self) -> Vec<G> {
        self.close();
        self.packed
    }

    fn close(&mut self) {
        pack(&self.open, self.width, &mut self.packed);
        self.open.clear();
    }
}

/// Packs the columns of a block: the first group of each, then the second of each, and so on.
fn pack<G: Group>(block: &[f32], width: usize, packed: &mut Vec<G>) {
    for first in (0..width).step_by(GROUP) {
        let group = first..width.min(first + GROUP);
        packed.extend(block.chunks_exact(width).map(|column| {
            let values = &column[group.clone()];
            values.try_into().map_or_else(|_| G::pack(&filled(values)), G::pack)
        }));
    }
}

impl<'a, G: Group> Columns<'a, G> {
    /// What a [`Packer`] made of columns of `width` values.
    pub fn new(weights: &'a [G], width: usize) -> Self {
        Self { weights, groups: width.div_ceil(GROUP).max(1) }
    }

    fn count(self) -> usize {
        self.weights.len() / self.groups
    }

    /// Some of them, from a whole block on.
    fn part(self, first: usize, count: usize) -> Self {
        Self { weights: &self.weights[first * self.groups..(first + count) * self.groups], ..self }
    }

    /// The weights of one column, with the zeros that fill up its last group.
    pub fn column(self, index: usize) -> Option<Vec<f32>> {
        let first = index / BLOCK * BLOCK;
        let width = BLOCK.min(self.count().checked_sub(first)?);
        if index - first >= width {
            return None;
        }
        let block = self.weights.get(first * self.groups..(first + width) * self.groups)?;
        Some(block.iter().skip(index - first).step_by(width).flat_map(Group::unpack).collect())
    }
}

fn filled(chunk: &[f32]) -> Activations {
    let mut group = [0.0; GROUP];
    group[..chunk.len()].copy_from_slice(chunk);
    group
}

/// Rows of `width` values as groups.
pub fn group_activations(values: &[f32], width: usize) -> Vec<Activations> {
    values.chunks(width.max(1)).flat_map(|row| row.chunks(GROUP).map(filled)).collect()
}

/// `out[row][column] = x[row] · column + bias[column]`. `x` has as many groups a row as a column has, and `out` is as long as
/// rows times columns.
pub fn product<G: Group>(x: &[Activations], weights: Columns<'_, G>, bias: Option<&[f32]>, out: &mut [f32]) {
    let columns = weights.count();
    if out.is_empty() || columns == 0 {
        return;
    }
    let rows = x.len() / weights.groups;
    let per_task = columns.div_ceil(rayon::current_num_threads() * 2).next_multiple_of(BLOCK).max(TASK);
    let mut tasks: Vec<Vec<&mut [f32]>> = Vec::new();
    tasks.resize_with(columns.div_ceil(per_task), || Vec::with_capacity(rows));
    for row in out.chunks_mut(columns) {
        for (task, piece) in tasks.iter_mut().zip(row.chunks_mut(per_task)) {
            task.push(piece);
        }
    }
    let run = |(index, mut out): (usize, Vec<&mut [f32]>)| {
        let first = index * per_task;
        let weights = weights.part(first, per_task.min(columns - first));
        Arch::new().dispatch(Task { x, weights, out: &mut out });
        if let Some(bias) = bias {
            for row in &mut out {
                for (value, bias) in row.iter_mut().zip(&bias[first..]) {
                    *value += bias;
                }
            }
        }
    };
    if tasks.len() < 2 {
        tasks.into_iter().enumerate().for_each(run);
    } else {
        tasks.into_par_iter().enumerate().for_each(run);
    }
}

/// Some columns with all rows.
struct Task<'a, 'o, G> {
    x: &'a [Activations],
    weights: Columns<'a, G>,
    out: &'a mut [&'o mut [f32]],
}

/// A place in the result, and the block of weights that it is computed from.
#[derive(Clone, Copy)]
struct Place<'a, G> {
    block: &'a [G],
    /// Columns of the block.
    width: usize,
    row: usize,
    /// Column of the task.
    column: usize,
}

impl<G: Group> WithSimd for Task<'_, '_, G> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (columns, groups) = (self.weights.count(), self.weights.groups);
        // Rows of a block stay in the cache while all columns pass by.
        for first in (0..self.out.len()).step_by(ROWS) {
            let rows = first..self.out.len().min(first + ROWS);
            let wide = if rows.len() < 3 { 8 } else { 4 };
            for (block, weights) in self.weights.weights.chunks(groups * BLOCK).enumerate() {
                let width = weights.len() / groups;
                let end = columns.min(block * BLOCK + width);
                let mut column = block * BLOCK;
                while column < end {
                    let step = if column + wide <= end { wide } else { 1 };
                    let mut row = rows.start;
                    while row < rows.end {
                        let place = Place { block: weights, width, row, column };
                        row += match (step, rows.end - row) {
                            (8, _) => self.tile::<S, 1, 8>(simd, place),
                            // As many sums as there are registers for.
                            (4, 4..) if S::REGISTER_COUNT >= 32 => self.tile::<S, 4, 4>(simd, place),
                            (4, 3..) => self.tile::<S, 3, 4>(simd, place),
                            (4, _) => self.tile::<S, 1, 4>(simd, place),
                            (_, 4..) => self.tile::<S, 4, 1>(simd, place),
                            (_, _) => self.tile::<S, 1, 1>(simd, place),
                        };
                    }
                    column += step;
                }
            }
        }
    }
}

impl<G: Group> Task<'_, '_, G> {
    /// `M` rows by `N` columns; how many rows were done.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const N: usize>(&mut self, simd: S, place: Place<'_, G>) -> usize {
        let Place { block, width, row, column } = place;
        let (all_x, groups) = (self.x, self.weights.groups);
        let x: [&[Activations]; M] = array::from_fn(|m| &all_x[(row + m) * groups..][..groups]);
        let mut sums = [[simd.splat_f32s(0.0); N]; M];
        for (group, weights) in block.chunks_exact(width).enumerate() {
            let weights = &weights[column % BLOCK..][..N];
            if M == 1 {
                // Weights in the order in which they lie: memory is what one row waits for.
                for n in 0..N {
                    for (index, values) in S::as_simd_f32s(&x[0][group]).0.iter().enumerate() {
                        sums[0][n] = simd.mul_add_e_f32s(*values, weights[n].vector(simd, index), sums[0][n]);
                    }
                }
                continue;
            }
            for index in 0..GROUP / S::F32_LANES {
                let values: [S::f32s; M] = array::from_fn(|m| S::as_simd_f32s(&x[m][group]).0[index]);
                for n in 0..N {
                    let weight = weights[n].vector(simd, index);
                    for m in 0..M {
                        sums[m][n] = simd.mul_add_e_f32s(values[m], weight, sums[m][n]);
                    }
                }
            }
        }
        for (out, sums) in self.out[row..].iter_mut().zip(sums) {
            for (out, sum) in out[column..].iter_mut().zip(sums) {
                *out = simd.reduce_sum_f32s(sum);
            }
        }
        M
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(seed: u32, count: usize) -> Vec<f32> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn packed<G: Group>(weights: &[f32], width: usize) -> Vec<G> {
        let mut packer = Packer::new(width, weights.len() / width);
        // In pieces that end within blocks.
        weights.chunks(width * 11).for_each(|columns| packer.push(columns));
        packer.finish()
    }

    fn compare<G: Group>(rows: usize, columns: usize, width: usize, tolerance: f32) {
        let x = values(7, rows * width);
        let weights = values(11, columns * width);
        let bias = values(13, columns);
        let packed = packed::<G>(&weights, width);
        let mut out = vec![0.0; rows * columns];
        product(&group_activations(&x, width), Columns::new(&packed, width), Some(&bias), &mut out);
        for row in 0..rows {
            for column in 0..columns {
                let exact: f64 = (0..width)
                    .map(|k| f64::from(x[row * width + k]) * f64::from(weights[column * width + k]))
                    .sum::<f64>()
                    + f64::from(bias[column]);
                let found = f64::from(out[row * columns + column]);
                assert!((found - exact).abs() < f64::from(tolerance), "{row},{column}: {found} is not {exact}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn products_are_right_for_every_shape(rows in 1usize..9, columns in 1usize..150, width in 1usize..200) {
            compare::<F32Group>(rows, columns, width, 1e-4);
            compare::<Bf16Group>(rows, columns, width, 0.2);
            compare::<Q8Group>(rows, columns, width, 0.2);
        }

        #[test]
        fn a_row_gives_the_same_bits_alone_and_among_others(rows in 2usize..9, columns in 1usize..150) {
            let (width, groups) = (128, 2);
            let x = group_activations(&values(3, rows * width), width);
            let weights = packed::<Bf16Group>(&values(5, columns * width), width);
            let mut together = vec![0.0; rows * columns];
            let weights = Columns::new(&weights, width);
            product(&x, weights, None, &mut together);
            for row in 0..rows {
                let mut alone = vec![0.0; columns];
                product(&x[row * groups..][..groups], weights, None, &mut alone);
                prop_assert_eq!(&alone[..], &together[row * columns..][..columns]);
            }
        }
    }

    #[test]
    fn every_column_is_found_again() {
        let (columns, width) = (21, 100);
        let weights = values(19, columns * width);
        let packed = packed::<F32Group>(&weights, width);
        let packed = Columns::new(&packed, width);
        for (index, column) in weights.chunks(width).enumerate() {
            assert_eq!(&packed.column(index).unwrap()[..width], column);
        }
        assert!(packed.column(columns).is_none() && packed.column(usize::MAX).is_none());
    }

    #[test]
    fn packing_and_unpacking_agree() {
        let group: Activations = values(17, GROUP).try_into().unwrap();
        assert_eq!(F32Group::pack(&group).unpack(), group);
        for (found, value) in Bf16Group::pack(&group).unpack().iter().zip(group) {
            assert_eq!(*found, half::bf16::from_f32(value).to_f32());
        }
        for (found, value) in Q8Group::pack(&group).unpack().iter().zip(group) {
            assert!((found - value).abs() <= 0.5 / 127.0);
        }
        assert_eq!(Q8Group::pack(&[0.0; GROUP]).unpack(), [0.0; GROUP]);
    }
}
