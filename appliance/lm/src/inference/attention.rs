//! Attention of query rows over rows of keys and values.
//!
//! Each query is computed by itself in one order, so its result does not depend on its neighbours, on how a prompt was
//! cut, or on the number of threads.

#![allow(clippy::indexing_slicing, reason = "all rows are compared with the lengths before the loops begin")]

use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, bail};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Queries of one key head that a task computes at least.
const TASK: usize = 4;

/// Heads and scale.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Heads of queries.
    pub queries: usize,
    /// Heads of keys and values; each serves as many heads of queries.
    pub keys: usize,
    /// Values of a head.
    pub width: usize,
    /// What scores are multiplied by.
    pub scale: f32,
}

/// What the rows of one sequence look at.
#[derive(Debug, Clone)]
pub struct Span {
    /// Rows of the queries.
    pub queries: Range<usize>,
    /// Where the keys and values of the sequence lie: row `rows[i / block] * block + i % block` for position `i`.
    pub rows: Vec<u32>,
    /// Positions in one entry of `rows`.
    pub block: usize,
    /// Position of the first query.
    pub start: usize,
    /// How far a query sees.
    pub sight: Sight,
}

/// How far a query sees.
#[derive(Debug, Clone, Copy)]
pub enum Sight {
    /// All positions of the sequence: as many as there are queries.
    Everything,
    /// Itself and what is before it, as far back as the window if there is one.
    Past {
        /// Positions that are seen, itself among them.
        window: Option<usize>,
    },
}

impl Span {
    /// Positions that the query at `row` sees.
    fn seen(&self, row: usize) -> Range<usize> {
        match self.sight {
            Sight::Everything => 0..self.queries.len(),
            Sight::Past { window } => {
                let end = self.start + (row - self.queries.start) + 1;
                end.saturating_sub(window.unwrap_or(end))..end
            }
        }
    }

    fn row(&self, position: usize) -> usize {
        self.rows[position / self.block] as usize * self.block + position % self.block
    }

    /// Whether all positions that are looked at lie within `rows` rows.
    fn is_within(&self, rows: usize) -> bool {
        let positions = match self.sight {
            Sight::Everything => self.queries.len(),
            Sight::Past { .. } => self.start + self.queries.len(),
        };
        positions <= self.rows.len() * self.block && (0..positions).all(|position| self.row(position) < rows)
    }
}

/// Attends: `q` has a row of `heads.queries × heads.width` for each query, `k` and `v` rows of `heads.keys × heads.width`.
/// The spans' queries follow one another and cover all rows of `q`.
///
/// # Errors
/// Where shapes and spans do not fit.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, spans: &[Span]) -> Result<Tensor> {
    match q.device() {
        Device::Cpu => {
            q.contiguous()?.apply_op3_no_bwd(&k.contiguous()?, &v.contiguous()?, &Attention { heads, spans })
        }
        _ => attend_by_products(q, k, v, heads, spans),
    }
}

/// The same with products of matrices, as GPUs like it.
fn attend_by_products(q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, spans: &[Span]) -> Result<Tensor> {
    let (device, dtype) = (q.device(), q.dtype());
    let shared = heads.queries / heads.keys.max(1);
    let mut results = Vec::with_capacity(spans.len());
    for span in spans {
        let count = span.queries.len();
        let end = if matches!(span.sight, Sight::Everything) { count } else { span.start + count };
        let rows: Vec<u32> = (0..end).map(|position| u32::try_from(span.row(position)).unwrap_or(u32::MAX)).collect();
        let rows = Tensor::new(rows, device)?;
        // [keys, positions, width]
        let of_span = |cache: &Tensor| -> Result<Tensor> {
            cache.index_select(&rows, 0)?.reshape((end, heads.keys, heads.width))?.transpose(0, 1)?.contiguous()
        };
        let (keys, values) = (of_span(k)?, of_span(v)?);
        // [keys, shared × queries, width]: the heads that share a key head follow one another.
        let queries = q
            .narrow(0, span.queries.start, count)?
            .reshape((count, heads.keys, shared, heads.width))?
            .permute((1, 2, 0, 3))?
            .contiguous()?
            .reshape((heads.keys, shared * count, heads.width))?;
        let scores = (queries.matmul(&keys.t()?)?.to_dtype(DType::F32)? * f64::from(heads.scale))?;
        let hidden: Vec<f32> = span
            .queries
            .clone()
            .flat_map(|row| {
                let seen = span.seen(row);
                (0..end).map(move |position| if seen.contains(&position) { 0.0 } else { f32::NEG_INFINITY })
            })
            .collect();
        let hidden = Tensor::from_vec(hidden, (1, count, end), device)?;
        let scores = scores.reshape((heads.keys * shared, count, end))?.broadcast_add(&hidden)?;
        let weights = candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(dtype)?;
        let mixed = weights.reshape((heads.keys, shared * count, end))?.matmul(&values)?;
        results.push(
            mixed
                .reshape((heads.keys, shared, count, heads.width))?
                .permute((2, 0, 1, 3))?
                .contiguous()?
                .reshape((count, heads.queries * heads.width))?,
        );
    }
    Tensor::cat(&results, 0)
}

struct Attention<'a> {
    heads: Heads,
    spans: &'a [Span],
}

impl CustomOp3 for Attention<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let heads = self.heads;
        let (count, q_width) = q_layout.shape().dims2()?;
        let (rows, k_width) = k_layout.shape().dims2()?;
        let fits = q_width == heads.queries * heads.width
            && k_width == heads.keys * heads.width
            && k_layout.shape() == v_layout.shape()
            && heads.keys > 0
            && heads.width > 0
            && heads.queries.is_multiple_of(heads.keys);
        if !fits || !self.spans.iter().all(|span| span.is_within(rows)) {
            bail!("queries, keys and values of attention do not fit together");
        }
        let mut owners = Vec::with_capacity(count);
        for span in self.spans {
            if span.queries.start != owners.len() {
                bail!("the spans do not follow one another");
            }
            owners.resize(span.queries.end, span);
        }
        if owners.len() != count {
            bail!("the spans do not cover the queries");
        }
        let task =
            Task { heads, owners: &owners, q: slice(q, q_layout)?, k: slice(k, k_layout)?, v: slice(v, v_layout)? };
        let mut out = vec![0f32; count * q_width];
        let width = q_width / heads.keys;
        out.par_chunks_mut(width).enumerate().with_min_len(TASK).for_each_init(Vec::new, |scores, (index, out)| {
            Arch::new().dispatch(Query {
                task: &task,
                row: index / heads.keys,
                key_head: index % heads.keys,
                scores,
                out,
            });
        });
        Ok((CpuStorage::F32(out), Shape::from((count, q_width))))
    }
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let start = layout.start_offset();
    match storage.as_slice::<f32>()?.get(start..start + layout.shape().elem_count()) {
        Some(values) if layout.is_contiguous() => Ok(values),
        _ => bail!("attention takes contiguous tensors"),
    }
}

struct Task<'a> {
    heads: Heads,
    /// The span of each query row.
    owners: &'a [&'a Span],
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

/// One query row with the heads that share a key head.
struct Query<'a> {
    task: &'a Task<'a>,
    row: usize,
    key_head: usize,
    scores: &'a mut Vec<f32>,
    out: &'a mut [f32],
}

impl WithSimd for Query<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Task { heads, owners, q, k, v } = self.task;
        let span = owners[self.row];
        let seen = span.seen(self.row);
        let (width, stride) = (heads.width, heads.keys * heads.width);
        let at = |position: usize| span.row(position) * stride + self.key_head * width;
        let queries = &q[(self.row * heads.keys + self.key_head) * self.out.len()..][..self.out.len()];
        for (query, out) in queries.chunks(width).zip(self.out.chunks_mut(width)) {
            self.scores.clear();
            let mut most = f32::NEG_INFINITY;
            for position in seen.clone() {
                let score = dot(simd, query, &k[at(position)..][..width]) * heads.scale;
                most = most.max(score);
                self.scores.push(score);
            }
            let mut sum = 0.0;
            for score in self.scores.iter_mut() {
                *score = (*score - most).exp();
                sum += *score;
            }
            for (position, weight) in seen.clone().zip(self.scores.iter()) {
                add_scaled(simd, out, weight / sum, &v[at(position)..][..width]);
            }
        }
    }
}

#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
    let mut sum = simd.splat_f32s(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = simd.mul_add_e_f32s(*a, *b, sum);
    }
    a_rest.iter().zip(b_rest).fold(simd.reduce_sum_f32s(sum), |sum, (a, b)| sum + a * b)
}

#[inline(always)]
fn add_scaled<S: Simd>(simd: S, out: &mut [f32], scale: f32, values: &[f32]) {
    let ((out, out_rest), (values, values_rest)) = (S::as_mut_simd_f32s(out), S::as_simd_f32s(values));
    let scales = simd.splat_f32s(scale);
    for (out, value) in out.iter_mut().zip(values) {
        *out = simd.mul_add_e_f32s(scales, *value, *out);
    }
    for (out, value) in out_rest.iter_mut().zip(values_rest) {
        *out += scale * value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(rows: usize, width: usize) -> Tensor {
        Tensor::randn(0f32, 1.0, (rows, width), &Device::Cpu).unwrap()
    }

    fn past(queries: Range<usize>, rows: Vec<u32>, start: usize, window: Option<usize>) -> Span {
        Span { queries, rows, block: 4, start, sight: Sight::Past { window } }
    }

    #[test]
    fn both_ways_to_attend_agree() {
        let heads = Heads { queries: 6, keys: 2, width: 20, scale: 0.3 };
        let (q, k, v) = (random(8, 120), random(24, 40), random(24, 40));
        let spans = [
            past(0..1, vec![5, 1], 6, None),
            past(1..5, vec![2, 0], 0, Some(2)),
            Span { queries: 5..8, rows: vec![3], block: 4, start: 0, sight: Sight::Everything },
        ];
        let fused = attend(&q, &k, &v, heads, &spans).unwrap();
        let products = attend_by_products(&q, &k, &v, heads, &spans).unwrap();
        let difference = (fused - products).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn a_query_gives_the_same_bits_however_the_prompt_was_cut() {
        let heads = Heads { queries: 4, keys: 2, width: 16, scale: 0.25 };
        let (q, k, v) = (random(6, 64), random(8, 32), random(8, 32));
        let whole = attend(&q, &k, &v, heads, &[past(0..6, vec![0, 1], 0, None)]).unwrap().to_vec2::<f32>().unwrap();
        let tail = attend(&q.narrow(0, 4, 2).unwrap(), &k, &v, heads, &[past(0..2, vec![0, 1], 4, None)]).unwrap();
        assert_eq!(whole[4..], tail.to_vec2::<f32>().unwrap());
    }

    #[test]
    fn rows_outside_the_cache_are_refused() {
        let heads = Heads { queries: 2, keys: 2, width: 8, scale: 1.0 };
        let (q, k) = (random(1, 16), random(4, 16));
        for span in [past(0..1, vec![1], 0, None), past(0..1, vec![0], 4, None), past(1..2, vec![0], 0, None)] {
            assert!(attend(&q, &k, &k, heads, &[span]).is_err());
        }
    }
}
