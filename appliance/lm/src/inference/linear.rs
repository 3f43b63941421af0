//! Linear layers whose weights come from one tensor or several that are computed together.

use super::{
    error::LoadError,
    matrix::{Matrix, MatrixBuilder, Precision},
    tensors::TensorSource,
};
use candle_core::{Device, Result, Tensor};

/// Where layers are loaded from, and how they are kept.
#[derive(Clone, Copy)]
pub struct Loader<'a> {
    /// The tensors.
    pub source: &'a dyn TensorSource,
    /// How weights are kept; as they are stored where nothing is said.
    pub precision: Option<Precision>,
    /// Where they are kept.
    pub device: &'a Device,
}

impl std::fmt::Debug for Loader<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Loader({})", self.source.path().display())
    }
}

/// `x · weightᵀ + bias`.
#[derive(Debug)]
pub struct Linear {
    matrix: Matrix,
    bias: Option<Tensor>,
}

impl Loader<'_> {
    /// A vector.
    ///
    /// # Errors
    /// As [`TensorSource::read`].
    pub fn vector(&self, name: &str, length: usize) -> std::result::Result<Tensor, LoadError> {
        self.source.tensor(name, &[length], self.device)
    }

    /// The matrices of these names one below the other: `parts` are names and outputs.
    ///
    /// # Errors
    /// As [`TensorSource::read`].
    pub fn matrix(&self, parts: &[(String, usize)], inputs: usize) -> std::result::Result<Matrix, LoadError> {
        for (name, outputs) in parts {
            self.source.expect(name, &[*outputs, inputs])?;
        }
        let stored = parts.iter().map(|(name, _)| self.source.precision(name));
        let widest = stored.fold(Precision::Q8, |widest, next| if next.bits() > widest.bits() { next } else { widest });
        let outputs = parts.iter().map(|(_, outputs)| outputs).sum();
        let mut builder = MatrixBuilder::new(inputs, outputs, self.precision.unwrap_or(widest), self.device);
        for (name, outputs) in parts {
            self.source.rows(name, [*outputs, inputs], &mut builder)?;
        }
        Ok(builder.finish()?)
    }

    /// Layers computed together: `parts` are their names, without `.weight`, and outputs. Biases are where there are any.
    ///
    /// # Errors
    /// As [`TensorSource::read`].
    pub fn linear(&self, parts: &[(String, usize)], inputs: usize) -> std::result::Result<Linear, LoadError> {
        let weights: Vec<_> = parts.iter().map(|(name, outputs)| (format!("{name}.weight"), *outputs)).collect();
        let mut bias = Vec::new();
        let any = parts.iter().any(|(name, _)| self.source.has(&format!("{name}.bias")));
        for (name, outputs) in parts.iter().filter(|_| any) {
            self.source.read(&format!("{name}.bias"), &[*outputs], &mut |piece| bias.extend_from_slice(piece))?;
        }
        let length = bias.len();
        Ok(Linear {
            matrix: self.matrix(&weights, inputs)?,
            bias: if any { Some(Tensor::from_vec(bias, length, self.device)?) } else { None },
        })
    }
}

impl Linear {
    /// For rows of activations.
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.matrix.forward(x, self.bias.as_ref())
    }
}
