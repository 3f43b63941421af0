//! Root-mean-square norm, and its gradient.

use super::cpu::{contiguous, dot, is_direct, vectorised};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Rows that one task takes.
const TASK: usize = 16;

/// `x / √(mean x² + ε) · weight`, over the last dimension.
///
/// # Errors
/// Where shapes do not fit or the device has no room.
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
    if is_direct(x) {
        return x.apply_op2_no_bwd(weight, &Forward { epsilon });
    }
    let (normed, _) = normalised(x, epsilon)?;
    normed.to_dtype(x.dtype())?.broadcast_mul(&weight.to_dtype(x.dtype())?)
}

/// What the gradient `dy` of the result means for `x`.
///
/// # Errors
/// As [`rms_norm`].
pub fn rms_norm_backward(x: &Tensor, weight: &Tensor, dy: &Tensor, epsilon: f32) -> Result<Tensor> {
    if is_direct(x) {
        return x.apply_op3_no_bwd(weight, dy, &Backward { epsilon });
    }
    let (normed, inverse) = normalised(x, epsilon)?;
    let dn = dy.to_dtype(DType::F32)?.broadcast_mul(&weight.to_dtype(DType::F32)?)?;
    let along = (&dn * &normed)?.mean_keepdim(candle_core::D::Minus1)?;
    (dn - normed.broadcast_mul(&along)?)?.broadcast_mul(&inverse)?.to_dtype(x.dtype())
}

/// What it means for `weight`, summed over all rows.
///
/// # Errors
/// As [`rms_norm`].
pub fn rms_norm_weight_gradient(x: &Tensor, dy: &Tensor, epsilon: f32) -> Result<Tensor> {
    let width = x.dim(candle_core::D::Minus1)?;
    let (normed, _) = normalised(x, epsilon)?;
    (normed * dy.to_dtype(DType::F32)?)?.reshape(((), width))?.sum(0)
}

fn normalised(x: &Tensor, epsilon: f32) -> Result<(Tensor, Tensor)> {
    let x = x.to_dtype(DType::F32)?;
    let inverse = (x.sqr()?.mean_keepdim(candle_core::D::Minus1)? + f64::from(epsilon))?.sqrt()?.recip()?;
    Ok((x.broadcast_mul(&inverse)?, inverse))
}

struct Forward {
    epsilon: f32,
}

#[inline(always)]
#[allow(clippy::cast_precision_loss, reason = "a row is far shorter than 2²⁴")]
fn inverse(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}

impl CustomOp2 for Forward {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(s1.as_slice::<f32>()?, l1)?;
        let weight = contiguous(s2.as_slice::<f32>()?, l2)?;
        let width = weight.len();
        if width == 0 || !x.len().is_multiple_of(width) {
            bail!("a norm of {width} values does not fit {} values", x.len());
        }
        let mut out = vec![0.0; x.len()];
        let task = |(out, x): (&mut [f32], &[f32])| {
            vectorised(|| {
                for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    let inverse = inverse(x, self.epsilon);
                    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                        *out = x * inverse * weight;
                    }
                }
            });
        };
        out.par_chunks_mut(width * TASK).zip(x.par_chunks(width * TASK)).for_each(task);
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

struct Backward {
    epsilon: f32,
}

impl CustomOp3 for Backward {
    fn name(&self) -> &'static str {
        "rms-norm-backward"
    }

    #[allow(clippy::cast_precision_loss, reason = "a row is far shorter than 2²⁴")]
    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(s1.as_slice::<f32>()?, l1)?;
        let weight = contiguous(s2.as_slice::<f32>()?, l2)?;
        let dy = contiguous(s3.as_slice::<f32>()?, l3)?;
        let width = weight.len();
        if width == 0 || !x.len().is_multiple_of(width) || x.len() != dy.len() {
            bail!("the gradient of a norm of {width} values does not fit {} values", x.len());
        }
        let mut out = vec![0.0; x.len()];
        let task = |((out, x), dy): ((&mut [f32], &[f32]), &[f32])| {
            vectorised(|| {
                let rows = out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(dy.chunks_exact(width));
                for ((out, x), dy) in rows {
                    let inverse = inverse(x, self.epsilon);
                    for ((out, dy), weight) in out.iter_mut().zip(dy).zip(weight) {
                        *out = dy * weight;
                    }
                    let along = dot(out, x) * inverse * inverse / width as f32;
                    for (out, x) in out.iter_mut().zip(x) {
                        *out = (*out - x * along) * inverse;
                    }
                }
            });
        };
        out.par_chunks_mut(width * TASK)
            .zip(x.par_chunks(width * TASK))
            .zip(dy.par_chunks(width * TASK))
            .for_each(task);
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::cpu::with, *};
    use candle_core::Device;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 37 + seed * 11) % 29) as f32 / 14.0 - 1.0).collect()
    }

    #[test]
    fn the_gradient_is_the_slope() {
        let (rows, width, epsilon) = (3, 8, 1e-5);
        let device = &Device::Cpu;
        let x = Tensor::from_vec(values(rows * width, 1), (rows, width), device).unwrap();
        let weight = Tensor::from_vec(values(width, 2), width, device).unwrap();
        let dy = Tensor::from_vec(values(rows * width, 3), (rows, width), device).unwrap();
        let loss = |x: &Tensor, weight: &Tensor| {
            let (normed, _) = normalised(&x.to_dtype(DType::F32).unwrap(), epsilon).unwrap();
            let y = normed.broadcast_mul(weight).unwrap();
            let direct = rms_norm(x, weight, epsilon).unwrap();
            let is_same =
                with::<f32, _>(&(y.clone() - direct).unwrap(), |d| Ok(d.iter().all(|d| d.abs() < 1e-5))).unwrap();
            assert!(is_same);
            (y * &dy).unwrap().to_dtype(DType::F64).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        let dx: Vec<f32> =
            rms_norm_backward(&x, &weight, &dy, epsilon).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let dw: Vec<f32> = rms_norm_weight_gradient(&x, &dy, epsilon).unwrap().to_vec1().unwrap();
        let step = 1e-2;
        let bump = |t: &Tensor, at: usize, by: f32| {
            let mut v: Vec<f32> = t.flatten_all().unwrap().to_vec1().unwrap();
            v[at] += by;
            Tensor::from_vec(v, t.shape(), device).unwrap()
        };
        for (at, dx) in dx.into_iter().enumerate() {
            let slope =
                (loss(&bump(&x, at, step), &weight) - loss(&bump(&x, at, -step), &weight)) / f64::from(2.0 * step);
            assert!((slope - f64::from(dx)).abs() < 5e-3, "{at}: {slope} {dx}");
        }
        for (at, dw) in dw.into_iter().enumerate() {
            let slope =
                (loss(&x, &bump(&weight, at, step)) - loss(&x, &bump(&weight, at, -step))) / f64::from(2.0 * step);
            assert!((slope - f64::from(dw)).abs() < 5e-3, "{at}: {slope} {dw}");
        }
    }
}
