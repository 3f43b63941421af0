//! Access to the values of tensors on the CPU, and vectorised loops over them.

use candle_core::{DType, Device, Layout, Result, Storage, Tensor, WithDType, bail};
use pulp::{Arch, Simd, WithSimd};

/// Whether values can be worked on directly.
pub fn is_direct(tensor: &Tensor) -> bool {
    matches!(tensor.device(), Device::Cpu) && tensor.dtype() == DType::F32
}

/// Gives the values of a contiguous tensor on the CPU.
///
/// # Errors
/// Where it is something else.
pub fn with<T: WithDType, R>(tensor: &Tensor, take: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("values are not on the CPU") };
    take(contiguous(storage.as_slice::<T>()?, layout)?)
}

/// The values of a contiguous layout.
///
/// # Errors
/// Where it is not contiguous.
pub fn contiguous<'a, T>(values: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("values are not contiguous") };
    match values.get(start..end) {
        Some(values) => Ok(values),
        None => bail!("a layout reaches beyond its values"),
    }
}

/// Runs a loop with the widest vectors that the machine has: what is inlined into it is compiled for each kind.
#[inline(always)]
pub fn vectorised<R>(run: impl FnOnce() -> R) -> R {
    struct Loop<F>(F);
    impl<R, F: FnOnce() -> R> WithSimd for Loop<F> {
        type Output = R;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> R {
            (self.0)()
        }
    }
    Arch::new().dispatch(Loop(run))
}

/// eˣ to about one unit in the last place, in a form that compilers vectorise. Below −87 it is 0.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, clippy::excessive_precision, reason = "the exponent is within ±128")]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * 0.693_359_375) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_2e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    let bits = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    if x < -87.3 { 0.0 } else { value * f32::from_bits(bits) }
}

/// The sum of what `of` makes of values, in an order that does not depend on the width of vectors.
#[inline(always)]
pub fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (whole, rest) = values.as_chunks::<16>();
    for values in whole {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane += of(*value);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|value| of(*value)).sum::<f32>()
}

/// The largest value.
#[inline(always)]
pub fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (whole, rest) = values.as_chunks::<16>();
    for values in whole {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = larger(*lane, *value);
        }
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, larger)
}

/// The dot product, in the same order.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (a_whole, a_rest) = a.as_chunks::<16>();
    let (b_whole, b_rest) = b.as_chunks::<16>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_exponential_is_right_to_the_last_places() {
        for step in -8700..8800 {
            let x = step as f32 / 100.0;
            let exact = f64::from(x).exp();
            let found = f64::from(super::exp(x));
            assert!((found - exact).abs() <= exact * 3e-7, "exp({x}) = {found}, not {exact}");
        }
        assert_eq!(super::exp(-1e30), 0.0);
        assert_eq!(super::exp(f32::NEG_INFINITY), 0.0);
        assert!(super::exp(f32::NAN).is_nan());
    }
}
