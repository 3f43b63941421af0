//! Rows of positions as heads and back, turned by their positions.

use super::cpu::{is_direct, vectorised, with};
use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

/// Cosines and sines of each row, `(rows, width / 2)` each.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
}

/// `(rows, heads · width)` as `(heads, rows, width)`, turned if `turn` is given.
///
/// # Errors
/// Where shapes do not fit or the device has no room.
pub fn to_heads(x: &Tensor, heads: usize, turn: Option<&Turn>) -> Result<Tensor> {
    let (rows, all) = x.dims2()?;
    let width = all / heads.max(1);
    let Some(turn) = turn else { return x.reshape((rows, heads, width))?.transpose(0, 1)?.contiguous() };
    if !is_direct(x) {
        let split = x.reshape((rows, heads, width))?.transpose(0, 1)?.contiguous()?;
        return rotate(&split, turn, 1.0);
    }
    let out = with::<f32, _>(x, |x| {
        with::<f32, _>(&turn.cos, |cos| {
            with::<f32, _>(&turn.sin, |sin| {
                let mut out = vec![0.0; x.len()];
                out.par_chunks_mut((rows * width).max(1)).enumerate().for_each(|(head, out)| {
                    let from = x
                        .chunks_exact(all.max(1))
                        .map(|row| row.get(head * width..(head + 1) * width).unwrap_or_default());
                    turn_rows(out, from, [cos, sin], width, 1.0);
                });
                Ok(out)
            })
        })
    })?;
    Tensor::from_vec(out, (heads, rows, width), x.device())
}

/// The way back of [`to_heads`], which is also how gradients go: turned the other way round.
///
/// # Errors
/// As [`to_heads`].
pub fn from_heads(x: &Tensor, turn: Option<&Turn>) -> Result<Tensor> {
    let (heads, rows, width) = x.dims3()?;
    let turned = match turn {
        None => x.clone(),
        Some(turn) if is_direct(x) => {
            let out = with::<f32, _>(x, |x| {
                with::<f32, _>(&turn.cos, |cos| {
                    with::<f32, _>(&turn.sin, |sin| {
                        let mut out = vec![0.0; x.len()];
                        let chunk = (rows * width).max(1);
                        out.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(out, x)| {
                            turn_rows(out, x.chunks_exact(width.max(1)), [cos, sin], width, -1.0);
                        });
                        Ok(out)
                    })
                })
            })?;
            Tensor::from_vec(out, (heads, rows, width), x.device())?
        }
        Some(turn) => rotate(x, turn, -1.0)?,
    };
    turned.transpose(0, 1)?.reshape((rows, heads * width))
}

/// Turns each row of `from` by its angle, times `sign`.
fn turn_rows<'a>(
    out: &mut [f32],
    from: impl Iterator<Item = &'a [f32]>,
    [cos, sin]: [&[f32]; 2],
    width: usize,
    sign: f32,
) {
    let half = width / 2;
    vectorised(|| {
        let angles = cos.chunks_exact(half.max(1)).zip(sin.chunks_exact(half.max(1)));
        for ((out, from), (cos, sin)) in out.chunks_exact_mut(width.max(1)).zip(from).zip(angles) {
            let ((first, second), (a, b)) = (out.split_at_mut(half), from.split_at(half));
            for ((((first, second), a), b), (cos, sin)) in
                first.iter_mut().zip(second).zip(a).zip(b).zip(cos.iter().zip(sin))
            {
                *first = a * cos - b * (sin * sign);
                *second = b * cos + a * (sin * sign);
            }
        }
    });
}

fn rotate(x: &Tensor, turn: &Turn, sign: f64) -> Result<Tensor> {
    let width = x.dim(candle_core::D::Minus1)?;
    if width % 2 != 0 {
        bail!("a head of {width} values cannot be turned");
    }
    let cos = turn.cos.to_dtype(x.dtype())?;
    let sin = (turn.sin.to_dtype(x.dtype())? * sign)?;
    let (a, b) = (x.narrow(2, 0, width / 2)?, x.narrow(2, width / 2, width / 2)?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Tensor::cat(&[first, second], 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn the_way_back_undoes_the_turn_in_both_ways_of_computing() {
        let (rows, heads, width) = (5, 3, 8);
        let values: Vec<f32> = (0..rows * heads * width).map(|value| (value % 13) as f32 - 6.0).collect();
        let x = Tensor::from_vec(values, (rows, heads * width), &Device::Cpu).unwrap();
        let angles: Vec<f32> = (0..rows * width / 2).map(|value| value as f32 * 0.37).collect();
        let angles = Tensor::from_vec(angles, (rows, width / 2), &Device::Cpu).unwrap();
        let turn = Turn { cos: angles.cos().unwrap(), sin: angles.sin().unwrap() };
        let close = |a: &Tensor, b: &Tensor| {
            let b = b.to_dtype(DType::F32).unwrap();
            let most =
                (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
            assert!(most < 1e-5, "{most}");
        };
        let heads_of = to_heads(&x, heads, Some(&turn)).unwrap();
        close(&x, &from_heads(&heads_of, Some(&turn)).unwrap());
        close(&heads_of, &to_heads(&x.to_dtype(DType::F64).unwrap(), heads, Some(&turn)).unwrap());
        close(&x, &from_heads(&to_heads(&x, heads, None).unwrap(), None).unwrap());
    }
}
