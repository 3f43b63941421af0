//! Rotary position embeddings: the angles by which queries and keys are turned.

use super::decoder_config::{Rope, Scaling};
use candle_core::{Device, Result, Tensor};
use std::f32::consts::PI;

/// Frequencies of the pairs of a head.
#[derive(Debug, Clone)]
pub struct Rotation {
    frequencies: Vec<f32>,
    amplitude: f32,
}

impl Rotation {
    /// For heads of `width` values.
    pub fn new(rope: Rope, width: usize) -> Self {
        let plain = (0..width / 2).map(|pair| 1.0 / rope.theta.powf((2 * pair) as f32 / width as f32));
        let (frequencies, amplitude): (Vec<f32>, f32) = match rope.scaling {
            Scaling::None => (plain.collect(), 1.0),
            Scaling::Linear { factor } => (plain.map(|frequency| frequency / factor).collect(), 1.0),
            Scaling::Llama3 { factor, low, high, original } => {
                let stretch = |frequency: f32| {
                    let length = 2.0 * PI / frequency;
                    if length > original / low {
                        frequency / factor
                    } else if length < original / high {
                        frequency
                    } else {
                        let smooth = (original / length - low) / (high - low);
                        (1.0 - smooth) * frequency / factor + smooth * frequency
                    }
                };
                (plain.map(stretch).collect(), 1.0)
            }
            Scaling::Yarn { factor, attention, fast, slow, original, truncate } => {
                let border =
                    |rotations: f32| width as f32 * (original / (rotations * 2.0 * PI)).ln() / (2.0 * rope.theta.ln());
                let (low, high) = (border(fast), border(slow));
                let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.0), high.min(width as f32 - 1.0));
                let high = if (high - low).abs() < f32::EPSILON { high + 0.001 } else { high };
                let mix = |(pair, frequency): (usize, f32)| {
                    let long = ((pair as f32 - low) / (high - low)).clamp(0.0, 1.0);
                    frequency / factor * long + frequency * (1.0 - long)
                };
                (plain.enumerate().map(mix).collect(), attention)
            }
        };
        Self { frequencies, amplitude }
    }

    /// Whether each frequency is that of `plain` divided by its factor.
    pub fn is_divided(&self, plain: &Self, factors: &[f32]) -> bool {
        let close = |((own, plain), factor): ((&f32, &f32), &f32)| (own * factor / plain - 1.0).abs() < 1e-3;
        factors.len() == plain.frequencies.len()
            && self.frequencies.iter().zip(&plain.frequencies).zip(factors).all(close)
    }

    /// Cosines and sines for rows at these positions.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn at(&self, positions: &[usize], device: &Device) -> Result<(Tensor, Tensor)> {
        let angles: Vec<f32> = positions
            .iter()
            .flat_map(|position| self.frequencies.iter().map(move |frequency| *position as f32 * frequency))
            .collect();
        let shape = (positions.len(), self.frequencies.len());
        let turned = |function: fn(f32) -> f32| {
            let values = angles.iter().map(|angle| function(*angle) * self.amplitude).collect::<Vec<_>>();
            Tensor::from_vec(values, shape, device)
        };
        Ok((turned(f32::cos)?, turned(f32::sin)?))
    }
}
