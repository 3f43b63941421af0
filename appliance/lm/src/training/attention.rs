//! Causal attention within the sequences of a batch, and its gradient. Probabilities are computed block by block and
//! again in the backward pass, so that memory grows with the length of sequences and not with its square.

use super::{
    cpu::{exp, is_direct, largest, sum, vectorised, with},
    gemm::{Threads, View, ViewMut, multiply},
};
use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;
use std::ops::Range;

/// Rows of queries that are computed at once.
const BLOCK: usize = 64;
/// The same where operations are composed, as on a GPU, which wants larger products.
const COMPOSED_BLOCK: usize = 128;

/// What sees what.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// Where sequences begin, and where the last one ends.
    pub bounds: &'a [usize],
    /// How many positions each one sees, itself among them; all before it if nothing is said.
    pub window: Option<usize>,
    /// What products of queries and keys are multiplied by.
    pub scale: f32,
}

impl Sight<'_> {
    fn sequences(&self) -> impl Iterator<Item = Range<usize>> {
        self.bounds.windows(2).filter_map(|pair| Some(*pair.first()?..*pair.last()?))
    }
}

/// Attention of `q` `(heads, rows, width)` to `k` and `v` `(key heads, rows, width)`.
///
/// # Errors
/// Where shapes do not fit or the device has no room.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, sight: Sight<'_>) -> Result<Tensor> {
    let shape = Shape::of(q, k)?;
    if !is_direct(q) {
        return composed(q, k, v, sight, shape);
    }
    let out = with::<f32, _>(q, |q| {
        with::<f32, _>(k, |k| {
            with::<f32, _>(v, |v| {
                let mut out = vec![0.0; q.len()];
                let tasks = out.par_chunks_mut(shape.head()).zip(q.par_chunks(shape.head())).enumerate();
                let done: Option<()> = tasks
                    .map(|(head, (out, q))| {
                        forward(out, [q, shape.keys_of(k, head), shape.keys_of(v, head)], sight, shape.width)
                    })
                    .collect();
                done.ok_or_else(misfit).map(|()| out)
            })
        })
    })?;
    Tensor::from_vec(out, q.shape(), q.device())
}

/// What the gradient `dy` of the result means for `q`, `k` and `v`.
///
/// # Errors
/// As [`attend`].
pub fn attend_backward(q: &Tensor, k: &Tensor, v: &Tensor, dy: &Tensor, sight: Sight<'_>) -> Result<[Tensor; 3]> {
    let shape = Shape::of(q, k)?;
    if !is_direct(q) {
        return composed_backward(q, k, v, dy, sight, shape);
    }
    let [dq, dk, dv] = with::<f32, _>(q, |q| {
        with::<f32, _>(k, |k| {
            with::<f32, _>(v, |v| {
                with::<f32, _>(dy, |dy| {
                    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
                    let (one, group) = (shape.head(), shape.head() * shape.group());
                    let outs = dq.par_chunks_mut(group).zip(dk.par_chunks_mut(one)).zip(dv.par_chunks_mut(one));
                    let keys = k.par_chunks(one).zip(v.par_chunks(one));
                    let ins = q.par_chunks(group).zip(dy.par_chunks(group)).zip(keys);
                    let tasks = outs.zip(ins).map(|(((dq, dk), dv), ((q, dy), (k, v)))| {
                        let heads = dq.chunks_mut(one).zip(q.chunks(one)).zip(dy.chunks(one));
                        heads
                            .map(|((dq, q), dy)| backward([dq, &mut *dk, &mut *dv], [q, k, v, dy], sight, shape.width))
                            .collect()
                    });
                    let done: Option<()> = tasks.collect();
                    done.ok_or_else(misfit).map(|()| [dq, dk, dv])
                })
            })
        })
    })?;
    Ok([
        Tensor::from_vec(dq, q.shape(), q.device())?,
        Tensor::from_vec(dk, k.shape(), k.device())?,
        Tensor::from_vec(dv, v.shape(), v.device())?,
    ])
}

fn misfit() -> candle_core::Error {
    candle_core::Error::Msg("queries, keys and sequences do not fit together".to_owned())
}

#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    key_heads: usize,
    rows: usize,
    width: usize,
}

impl Shape {
    fn of(q: &Tensor, k: &Tensor) -> Result<Self> {
        let (heads, rows, width) = q.dims3()?;
        let (key_heads, ..) = k.dims3()?;
        if key_heads == 0 || heads % key_heads != 0 || rows * width == 0 {
            bail!("{heads} heads of {rows} rows by {width} do not go with {key_heads} key heads");
        }
        Ok(Self { heads, key_heads, rows, width })
    }

    const fn head(self) -> usize {
        self.rows * self.width
    }

    const fn group(self) -> usize {
        self.heads / self.key_heads
    }

    fn keys_of(self, keys: &[f32], head: usize) -> &[f32] {
        let first = head / self.group() * self.head();
        keys.get(first..first + self.head()).unwrap_or_default()
    }
}

/// A block of queries of one sequence, and the keys that any of them sees.
struct Block {
    queries: Range<usize>,
    keys: Range<usize>,
}

fn blocks(sequence: Range<usize>, window: Option<usize>, rows: usize) -> impl Iterator<Item = Block> {
    sequence.clone().step_by(rows).map(move |first| {
        let end = (first + rows).min(sequence.end);
        let seen = window.map_or(sequence.start, |window| sequence.start.max((first + 1).saturating_sub(window)));
        Block { queries: first..end, keys: seen..end }
    })
}

/// Probabilities of a block, into the front of `room`.
fn probabilities<'r>(
    room: &'r mut [f32],
    block: &Block,
    q: View<'_>,
    k: View<'_>,
    sight: Sight<'_>,
) -> Option<&'r mut [f32]> {
    let count = block.keys.len();
    let p = room.get_mut(..block.queries.len() * count)?;
    let (q, k) = (q.slice(block.queries.clone())?, k.slice(block.keys.clone())?);
    multiply(ViewMut::rows(p, count)?, false, q, k.transposed(), sight.scale, Threads::One)?;
    for (row, query) in p.chunks_exact_mut(count).zip(block.queries.clone()) {
        let first =
            sight.window.map_or(0, |window| (query + 1).saturating_sub(window).saturating_sub(block.keys.start));
        let end = query + 1 - block.keys.start;
        row.get_mut(..first)?.fill(0.0);
        row.get_mut(end..)?.fill(0.0);
        let seen = row.get_mut(first..end)?;
        vectorised(|| {
            let most = largest(seen);
            for value in seen.iter_mut() {
                *value = exp(*value - most);
            }
            let scale = 1.0 / sum(seen, |value| value);
            for value in seen.iter_mut() {
                *value *= scale;
            }
        });
    }
    Some(p)
}

fn room(sight: Sight<'_>) -> Vec<f32> {
    let longest = sight.sequences().map(|sequence| sequence.len()).max().unwrap_or_default();
    vec![0.0; BLOCK * longest.min(sight.window.map_or(longest, |window| window.saturating_add(BLOCK)))]
}

fn forward(out: &mut [f32], [q, k, v]: [&[f32]; 3], sight: Sight<'_>, width: usize) -> Option<()> {
    let mut room = room(sight);
    let [q, k, v] = [View::rows(q, width)?, View::rows(k, width)?, View::rows(v, width)?];
    for sequence in sight.sequences() {
        for block in blocks(sequence, sight.window, BLOCK) {
            let p = probabilities(&mut room, &block, q, k, sight)?;
            let out = out.get_mut(block.queries.start * width..block.queries.end * width)?;
            let p = View::rows(p, block.keys.len())?;
            multiply(ViewMut::rows(out, width)?, false, p, v.slice(block.keys)?, 1.0, Threads::One)?;
        }
    }
    Some(())
}

fn backward([dq, dk, dv]: [&mut [f32]; 3], [q, k, v, dy]: [&[f32]; 4], sight: Sight<'_>, width: usize) -> Option<()> {
    let (mut room_p, mut room_d) = (room(sight), room(sight));
    let [q, k, v, dy] = [View::rows(q, width)?, View::rows(k, width)?, View::rows(v, width)?, View::rows(dy, width)?];
    for sequence in sight.sequences() {
        for block in blocks(sequence, sight.window, BLOCK) {
            let count = block.keys.len();
            let p = probabilities(&mut room_p, &block, q, k, sight)?;
            let ds = room_d.get_mut(..p.len())?;
            let (block_q, block_dy) = (q.slice(block.queries.clone())?, dy.slice(block.queries.clone())?);
            let (block_k, block_v) = (k.slice(block.keys.clone())?, v.slice(block.keys.clone())?);
            multiply(ViewMut::rows(ds, count)?, false, block_dy, block_v.transposed(), 1.0, Threads::One)?;
            vectorised(|| {
                for (ds, p) in ds.chunks_exact_mut(count).zip(p.chunks_exact(count)) {
                    let along = super::cpu::dot(ds, p);
                    for (ds, p) in ds.iter_mut().zip(p) {
                        *ds = p * (*ds - along);
                    }
                }
            });
            let (p, ds) = (View::rows(p, count)?, View::rows(ds, count)?);
            let own_q = dq.get_mut(block.queries.start * width..block.queries.end * width)?;
            multiply(ViewMut::rows(own_q, width)?, false, ds, block_k, sight.scale, Threads::One)?;
            let keys = block.keys.start * width..block.keys.end * width;
            let own_k = dk.get_mut(keys.clone())?;
            multiply(ViewMut::rows(own_k, width)?, true, ds.transposed(), block_q, sight.scale, Threads::One)?;
            let own_v = dv.get_mut(keys)?;
            multiply(ViewMut::rows(own_v, width)?, true, p.transposed(), block_dy, 1.0, Threads::One)?;
        }
    }
    Some(())
}

/// Some rows of queries under their key heads, or of keys or values.
fn own(x: &Tensor, rows: &Range<usize>, key_heads: usize) -> Result<Tensor> {
    let width = x.dim(2)?;
    x.narrow(1, rows.start, rows.len())?.contiguous()?.reshape((key_heads, (), width))
}

/// What sums of probabilities are computed in.
fn wide(x: &Tensor) -> DType {
    if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
}

/// Probabilities of a block, `(key heads, rows, keys)`, of its queries under their key heads and of the keys that they see.
fn composed_probabilities(q: &Tensor, k: &Tensor, block: &Block, sight: Sight<'_>) -> Result<Tensor> {
    let (count, seen) = (block.queries.len(), block.keys.len());
    let scores = (q.matmul(&k.t()?)?.to_dtype(wide(q))? * f64::from(sight.scale))?;
    let hidden = block.queries.clone().flat_map(|query| {
        let first = sight.window.map_or(0, |window| (query + 1).saturating_sub(window));
        block.keys.clone().map(move |key| if key < first || key > query { f32::NEG_INFINITY } else { 0.0 })
    });
    let mask = Tensor::from_iter(hidden, q.device())?.reshape((1, 1, count, seen))?.to_dtype(wide(q))?;
    let (key_heads, rows, _) = q.dims3()?;
    let scores = scores.reshape((key_heads, rows / count, count, seen))?.broadcast_add(&mask)?;
    candle_nn::ops::softmax(&scores, candle_core::D::Minus1)?.reshape((key_heads, rows, seen))
}

fn composed(q: &Tensor, k: &Tensor, v: &Tensor, sight: Sight<'_>, shape: Shape) -> Result<Tensor> {
    let mut parts = Vec::new();
    for block in sight.sequences().flat_map(|sequence| blocks(sequence, sight.window, COMPOSED_BLOCK)) {
        let (q, k) = (own(q, &block.queries, shape.key_heads)?, own(k, &block.keys, shape.key_heads)?);
        let p = composed_probabilities(&q, &k, &block, sight)?.to_dtype(q.dtype())?;
        let out = p.matmul(&own(v, &block.keys, shape.key_heads)?)?;
        parts.push(out.reshape((shape.heads, block.queries.len(), shape.width))?);
    }
    Tensor::cat(&parts, 1)
}

fn composed_backward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    dy: &Tensor,
    sight: Sight<'_>,
    shape: Shape,
) -> Result<[Tensor; 3]> {
    let mut parts: [Vec<Tensor>; 3] = Default::default();
    for sequence in sight.sequences() {
        let mut sums: [Option<Tensor>; 2] = [None, None];
        for block in blocks(sequence.clone(), sight.window, COMPOSED_BLOCK) {
            let [q, dy] = [q, dy].map(|x| own(x, &block.queries, shape.key_heads));
            let [k, v] = [k, v].map(|x| own(x, &block.keys, shape.key_heads));
            let (q, k, v, dy) = (q?, k?, v?, dy?);
            let p = composed_probabilities(&q, &k, &block, sight)?;
            let dp = dy.matmul(&v.t()?)?.to_dtype(wide(&q))?;
            let along = (&dp * &p)?.sum_keepdim(candle_core::D::Minus1)?;
            let ds = ((dp.broadcast_sub(&along)? * &p)? * f64::from(sight.scale))?.to_dtype(q.dtype())?;
            let p = p.to_dtype(q.dtype())?;
            let (transposed_p, transposed_ds) = (p.t()?.contiguous()?, ds.t()?.contiguous()?);
            let [all_q, ..] = &mut parts;
            all_q.push(ds.matmul(&k)?.reshape((shape.heads, block.queries.len(), shape.width))?);
            for (sum, part) in sums.iter_mut().zip([transposed_ds.matmul(&q)?, transposed_p.matmul(&dy)?]) {
                let (before, after) = (block.keys.start - sequence.start, sequence.end - block.keys.end);
                // Blocks are summed in more bits than they may have.
                let part = part.to_dtype(wide(&part))?.pad_with_zeros(1, before, after)?;
                *sum = Some(match sum.take() {
                    Some(sum) => (sum + part)?,
                    None => part,
                });
            }
        }
        let [_, all_k, all_v] = &mut parts;
        for (all, sum) in [all_k, all_v].into_iter().zip(sums) {
            all.extend(sum.map(|sum| sum.to_dtype(k.dtype())).transpose()?);
        }
    }
    let [all_q, all_k, all_v] = &parts;
    Ok([Tensor::cat(all_q, 1)?, Tensor::cat(all_k, 1)?, Tensor::cat(all_v, 1)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn random(heads: usize, rows: usize, seed: u64) -> Tensor {
        let mut state = seed;
        let values: Vec<f32> = (0..heads * rows * 8)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 40) as f32 / 8_388_608.0 - 1.0
            })
            .collect();
        Tensor::from_vec(values, (heads, rows, 8), &Device::Cpu).unwrap()
    }

    fn most(a: &Tensor, b: &Tensor) -> f64 {
        let difference = (a.to_dtype(DType::F64).unwrap() - b.to_dtype(DType::F64).unwrap()).unwrap().abs().unwrap();
        difference.flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn blocks_give_what_the_composed_form_gives_and_gradients_are_slopes() {
        for (bounds, window) in [(vec![0, 5, 6, 150], None), (vec![0, 150], Some(7)), (vec![0, 150], Some(90))] {
            let (q, k, v, dy) = (random(4, 150, 1), random(2, 150, 2), random(2, 150, 3), random(4, 150, 4));
            let sight = Sight { bounds: &bounds, window, scale: 0.35 };
            let wide = |x: &Tensor| x.to_dtype(DType::F64).unwrap();
            let out = attend(&q, &k, &v, sight).unwrap();
            assert!(most(&out, &attend(&wide(&q), &wide(&k), &wide(&v), sight).unwrap()) < 1e-5);
            let ours = attend_backward(&q, &k, &v, &dy, sight).unwrap();
            let exact = attend_backward(&wide(&q), &wide(&k), &wide(&v), &wide(&dy), sight).unwrap();
            for (ours, exact) in ours.iter().zip(&exact) {
                assert!(most(ours, exact) < 1e-5);
            }
            let along = |q: &Tensor, k: &Tensor, v: &Tensor| {
                let out = attend(q, k, v, sight).unwrap();
                (out * wide(&dy)).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
            };
            let step = 1e-3;
            for (which, gradient) in exact.iter().enumerate() {
                let inputs = [&q, &k, &v].map(wide);
                let direction = random(if which == 0 { 4 } else { 2 }, 150, 9).to_dtype(DType::F64).unwrap();
                let moved = |by: f64| {
                    let mut inputs = inputs.clone();
                    inputs[which] = (&inputs[which] + (&direction * by).unwrap()).unwrap();
                    along(&inputs[0], &inputs[1], &inputs[2])
                };
                let slope = (moved(step) - moved(-step)) / (2.0 * step);
                let told = (gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
                assert!((slope - told).abs() < 1e-3 * slope.abs().max(1.0), "{which}: {slope} {told}");
            }
        }
    }
}
