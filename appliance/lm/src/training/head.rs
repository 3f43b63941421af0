//! The output layer and the loss. Only rows that count are computed, a few at a time, and their logits are turned into
//! gradients in place.

use super::{
    cpu::{exp, is_direct, largest, sum, vectorised, with},
    gemm::{Threads, View, ViewMut, multiply},
    norm::{rms_norm, rms_norm_backward, rms_norm_weight_gradient},
    parameter::Parameter,
};
use candle_core::{D, DType, Result, Tensor, bail};
use rayon::prelude::*;

/// Logits that are held at once.
const LOGITS: usize = 4 << 20;

/// Norm and output layer.
pub struct Head<'a> {
    /// The norm before it.
    pub norm: &'a mut Parameter,
    /// The output layer, or the table of embeddings.
    pub weight: &'a mut Parameter,
    /// What keeps the norm from dividing by zero.
    pub epsilon: f32,
}

/// Logarithms of the probabilities of targets, and what they mean for the rows.
pub struct Scored {
    /// For each row.
    pub log_probabilities: Vec<f32>,
    /// The gradient of the rows; nothing if none was asked for.
    pub gradient: Option<Tensor>,
}

/// Scores `targets` by the rows of `hidden`. With `slopes`, what each logarithm means for the loss, gradients follow.
///
/// # Errors
/// Where a target is none of the tokens, shapes do not fit or the device has no room.
pub fn score(head: Head<'_>, hidden: &Tensor, targets: &[u32], slopes: Option<&[f32]>) -> Result<Scored> {
    let (rows, _) = hidden.dims2()?;
    let (vocabulary, _) = head.weight.value().dims2()?;
    if rows != targets.len() || slopes.is_some_and(|slopes| slopes.len() != rows) {
        bail!("{rows} rows for {} targets", targets.len());
    }
    if let Some(target) = targets.iter().find(|target| **target as usize >= vocabulary) {
        bail!("token {target} is none of the model's {vocabulary}");
    }
    let weight = head.weight.like(hidden)?;
    let mut scored = Scored { log_probabilities: Vec::with_capacity(rows), gradient: None };
    let mut gradients = Vec::new();
    let step = (LOGITS / vocabulary.max(1)).clamp(16, 4096);
    let mut first = 0;
    let mut room = Vec::new();
    while first < rows {
        let count = step.min(rows - first);
        let x = hidden.narrow(0, first, count)?.contiguous()?;
        let normed = rms_norm(&x, &head.norm.like(&x)?, head.epsilon)?;
        let range = first..first + count;
        let (Some(targets), slopes) = (targets.get(range.clone()), slopes.and_then(|slopes| slopes.get(range))) else {
            bail!("{rows} rows for {} targets", targets.len());
        };
        let (logs, logits) = if is_direct(&normed) {
            direct(&normed, &weight, targets, slopes, &mut room)?
        } else {
            composed(&normed, &weight, targets, slopes)?
        };
        scored.log_probabilities.extend(logs);
        if let Some(d_logits) = logits {
            let d_normed = d_logits.matmul(&weight)?;
            if head.weight.is_trainable() {
                head.weight.accumulate_product(&d_logits, &normed, 1.0)?;
            }
            if head.norm.is_trainable() {
                head.norm.accumulate(&rms_norm_weight_gradient(&x, &d_normed, head.epsilon)?)?;
            }
            gradients.push(rms_norm_backward(&x, &head.norm.like(&x)?, &d_normed, head.epsilon)?);
        }
        first += count;
    }
    if slopes.is_some() {
        scored.gradient = Some(match gradients.as_slice() {
            [] => hidden.zeros_like()?,
            all => Tensor::cat(all, 0)?,
        });
    }
    Ok(scored)
}

type Logits = (Vec<f32>, Option<Tensor>);

fn direct(
    normed: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    slopes: Option<&[f32]>,
    room: &mut Vec<f32>,
) -> Result<Logits> {
    let (vocabulary, hidden) = weight.dims2()?;
    let mut logits = std::mem::take(room);
    logits.resize(targets.len() * vocabulary, 0.0);
    let done = with::<f32, _>(normed, |normed| {
        with::<f32, _>(weight, |weight| {
            let views =
                View::rows(normed, hidden).zip(View::rows(weight, hidden)).zip(ViewMut::rows(&mut logits, vocabulary));
            Ok(views.and_then(|((normed, weight), out)| {
                multiply(out, false, normed, weight.transposed(), 1.0, Threads::All)
            }))
        })
    })?;
    if done.is_none() {
        bail!("the output layer does not fit its rows");
    }
    let mut logs = vec![0.0; targets.len()];
    let rows = logits.par_chunks_mut(vocabulary.max(1)).zip(logs.par_iter_mut()).zip(targets.par_iter().enumerate());
    rows.for_each(|((row, log), (index, target))| {
        let target = *target as usize;
        let slope = slopes.and_then(|slopes| slopes.get(index)).copied();
        vectorised(|| {
            let most = largest(row);
            let own = row.get(target).copied().unwrap_or(f32::NAN) - most;
            let Some(slope) = slope else {
                *log = own - sum(row, |value| exp(value - most)).ln();
                return;
            };
            for value in row.iter_mut() {
                *value = exp(*value - most);
            }
            let total = sum(row, |value| value);
            *log = own - total.ln();
            let scale = -slope / total;
            for value in row.iter_mut() {
                *value *= scale;
            }
            if let Some(value) = row.get_mut(target) {
                *value += slope;
            }
        });
    });
    if slopes.is_none() {
        *room = logits;
        return Ok((logs, None));
    }
    let gradient = Tensor::from_vec(logits, (targets.len(), vocabulary), normed.device())?;
    Ok((logs, Some(gradient)))
}

fn composed(normed: &Tensor, weight: &Tensor, targets: &[u32], slopes: Option<&[f32]>) -> Result<Logits> {
    let device = normed.device();
    let logits = normed.matmul(&weight.t()?)?.to_dtype(DType::F32)?;
    let all = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
    let targets = Tensor::new(targets, device)?.unsqueeze(1)?;
    let logs = all.gather(&targets, 1)?.squeeze(1)?.to_vec1::<f32>()?;
    let Some(slopes) = slopes else { return Ok((logs, None)) };
    let slopes = Tensor::new(slopes, device)?.unsqueeze(1)?;
    let spread = all.exp()?.broadcast_mul(&slopes.neg()?)?;
    let gradient = spread.scatter_add(&targets, &slopes, 1)?;
    Ok((logs, Some(gradient.to_dtype(normed.dtype())?)))
}
