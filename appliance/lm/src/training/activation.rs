//! The gated activation of feed-forward blocks, and its gradient.

use super::cpu::{contiguous, exp, is_direct, vectorised};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Values that one task takes.
const TASK: usize = 1 << 14;

/// `silu(gate) · up`.
///
/// # Errors
/// Where shapes differ or the device has no room.
pub fn gated(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if is_direct(gate) {
        return gate.apply_op2_no_bwd(up, &Forward);
    }
    gate.silu()? * up
}

/// What the gradient `dy` of the result means for `gate` and `up`.
///
/// # Errors
/// As [`gated`].
pub fn gated_backward(gate: &Tensor, up: &Tensor, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    if is_direct(gate) {
        let both = gate.apply_op3_no_bwd(up, dy, &Backward)?;
        return Ok((both.get(0)?, both.get(1)?));
    }
    let (gate32, dy32) = (gate.to_dtype(DType::F32)?, dy.to_dtype(DType::F32)?);
    let sigmoid = (gate32.neg()?.exp()? + 1.0)?.recip()?;
    let slope = (&sigmoid * (((1.0 - &sigmoid)? * &gate32)? + 1.0)?)?;
    let d_gate = ((&dy32 * slope)? * up.to_dtype(DType::F32)?)?;
    let d_up = (dy32 * (sigmoid * gate32)?)?;
    Ok((d_gate.to_dtype(gate.dtype())?, d_up.to_dtype(gate.dtype())?))
}

struct Forward;

impl CustomOp2 for Forward {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let gate = contiguous(s1.as_slice::<f32>()?, l1)?;
        let up = contiguous(s2.as_slice::<f32>()?, l2)?;
        if gate.len() != up.len() {
            bail!("{} gates for {} values", gate.len(), up.len());
        }
        let mut out = vec![0.0; gate.len()];
        out.par_chunks_mut(TASK).zip(gate.par_chunks(TASK)).zip(up.par_chunks(TASK)).for_each(|((out, gate), up)| {
            vectorised(|| {
                for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                    *out = gate / (1.0 + exp(-gate)) * up;
                }
            });
        });
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

struct Backward;

impl CustomOp3 for Backward {
    fn name(&self) -> &'static str {
        "gated-backward"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let gate = contiguous(s1.as_slice::<f32>()?, l1)?;
        let up = contiguous(s2.as_slice::<f32>()?, l2)?;
        let dy = contiguous(s3.as_slice::<f32>()?, l3)?;
        if gate.len() != up.len() || gate.len() != dy.len() {
            bail!("{} gates for {} values", gate.len(), up.len());
        }
        let mut out = vec![0.0; 2 * gate.len()];
        let (d_gate, d_up) = out.split_at_mut(gate.len());
        let outs = d_gate.par_chunks_mut(TASK).zip(d_up.par_chunks_mut(TASK));
        let ins = gate.par_chunks(TASK).zip(up.par_chunks(TASK)).zip(dy.par_chunks(TASK));
        outs.zip(ins).for_each(|((d_gate, d_up), ((gate, up), dy))| {
            vectorised(|| {
                let outs = d_gate.iter_mut().zip(d_up);
                for ((d_gate, d_up), ((gate, up), dy)) in outs.zip(gate.iter().zip(up).zip(dy)) {
                    let sigmoid = 1.0 / (1.0 + exp(-gate));
                    *d_gate = dy * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
                    *d_up = dy * gate * sigmoid;
                }
            });
        });
        let mut dims = vec![2];
        dims.extend_from_slice(l1.dims());
        Ok((CpuStorage::F32(out), dims.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_gradient_is_the_slope() {
        let value = |index: usize| (index * 5 % 17) as f32 / 4.0 - 2.0;
        for at in 0..17 {
            let (gate, up, dy) = (value(at), value(at + 3), value(at + 8));
            let one = |value: f32| Tensor::new(&[value], &Device::Cpu).unwrap();
            let scalar = |t: &Tensor| f64::from(t.to_vec1::<f32>().unwrap()[0]);
            let (d_gate, d_up) = gated_backward(&one(gate), &one(up), &one(dy)).unwrap();
            let exact = |gate: f64, up: f64| gate / (1.0 + (-gate).exp()) * up * f64::from(dy);
            let (g, u, step) = (f64::from(gate), f64::from(up), 1e-5);
            assert!((exact(g, u) - scalar(&gated(&one(gate), &one(up)).unwrap()) * f64::from(dy)).abs() < 1e-4);
            let slope = (exact(g + step, u) - exact(g - step, u)) / (2.0 * step);
            assert!((slope - scalar(&d_gate)).abs() < 1e-4, "{slope} {}", scalar(&d_gate));
            let slope = (exact(g, u + step) - exact(g, u - step)) / (2.0 * step);
            assert!((slope - scalar(&d_up)).abs() < 1e-4);
        }
    }
}
