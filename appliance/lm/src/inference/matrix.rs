//! Weights of a linear layer in the form that serving computes with.

use super::kernel::{self, Activations, Bf16Group, Columns, F32Group, Packer, Q8Group};
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, bail};

/// How weights are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits with the range of 32.
    Bf16,
    /// 8 bits and a scale for each 32 weights.
    Q8,
}

impl Precision {
    /// Bits of a weight.
    pub const fn bits(self) -> u32 {
        match self {
            Self::F32 => 32,
            Self::Bf16 => 16,
            Self::Q8 => 8,
        }
    }
}

/// A matrix of `columns` outputs by `width` inputs, one row an output.
pub struct Matrix {
    width: usize,
    columns: usize,
    rows: Rows,
}

enum Rows {
    F32(Vec<F32Group>),
    Bf16(Vec<Bf16Group>),
    Q8(Vec<Q8Group>),
    /// On a GPU.
    Device(Tensor),
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Matrix({} × {})", self.columns, self.width)
    }
}

/// Collects the rows of a [`Matrix`], from one tensor or several that are computed together.
pub struct MatrixBuilder {
    width: usize,
    columns: usize,
    rows: Building,
}

enum Building {
    F32(Packer<F32Group>),
    Bf16(Packer<Bf16Group>),
    Q8(Packer<Q8Group>),
    Device(Vec<f32>, Device, DType),
}

impl MatrixBuilder {
    /// Of rows of `width` values, with room for `columns` rows.
    pub fn new(width: usize, columns: usize, precision: Precision, device: &Device) -> Self {
        let rows = match (device, precision) {
            (Device::Cpu, Precision::F32) => Building::F32(Packer::new(width, columns)),
            (Device::Cpu, Precision::Bf16) => Building::Bf16(Packer::new(width, columns)),
            (Device::Cpu, Precision::Q8) => Building::Q8(Packer::new(width, columns)),
            (_, Precision::F32) => Building::Device(Vec::new(), device.clone(), DType::F32),
            _ => Building::Device(Vec::new(), device.clone(), DType::BF16),
        };
        Self { width, columns: 0, rows }
    }

    /// Adds whole rows.
    pub fn push(&mut self, values: &[f32]) {
        self.columns += values.len() / self.width.max(1);
        match &mut self.rows {
            Building::F32(rows) => rows.push(values),
            Building::Bf16(rows) => rows.push(values),
            Building::Q8(rows) => rows.push(values),
            Building::Device(rows, ..) => rows.extend_from_slice(values),
        }
    }

    /// The matrix.
    ///
    /// # Errors
    /// Where the GPU has no room.
    pub fn finish(self) -> Result<Matrix> {
        let rows = match self.rows {
            Building::F32(rows) => Rows::F32(rows.finish()),
            Building::Bf16(rows) => Rows::Bf16(rows.finish()),
            Building::Q8(rows) => Rows::Q8(rows.finish()),
            Building::Device(rows, device, dtype) => {
                Rows::Device(Tensor::from_vec(rows, (self.columns, self.width), &device)?.to_dtype(dtype)?)
            }
        };
        Ok(Matrix { width: self.width, columns: self.columns, rows })
    }
}

impl Matrix {
    /// Inputs.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Outputs.
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// `x · selfᵀ + bias` for rows of 32-bit activations.
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn forward(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let Rows::Device(weights) = &self.rows else {
            let bias = bias.map(Tensor::to_vec1).transpose()?;
            return x.contiguous()?.apply_op1_no_bwd(&Product { matrix: self, bias });
        };
        let product = x.to_dtype(weights.dtype())?.matmul(&weights.t()?)?.to_dtype(DType::F32)?;
        match bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }

    /// The rows with these indices, as 32-bit values: a matrix of embeddings.
    ///
    /// # Errors
    /// For an index beyond the last row.
    pub fn rows(&self, indices: &[u32], device: &Device) -> Result<Tensor> {
        let mut values = Vec::with_capacity(indices.len() * self.width);
        for &index in indices {
            let index = usize::try_from(index).map_err(candle_core::Error::wrap)?;
            let found = match &self.rows {
                Rows::F32(rows) => Columns::new(rows, self.width).column(index),
                Rows::Bf16(rows) => Columns::new(rows, self.width).column(index),
                Rows::Q8(rows) => Columns::new(rows, self.width).column(index),
                Rows::Device(weights) => {
                    return weights.index_select(&Tensor::new(indices, device)?, 0)?.to_dtype(DType::F32);
                }
            };
            let Some(row) = found else { bail!("row {index} of a matrix that has {}", self.columns) };
            values.extend(row.into_iter().take(self.width));
        }
        Tensor::from_vec(values, (indices.len(), self.width), device)
    }
}

struct Product<'a> {
    matrix: &'a Matrix,
    bias: Option<Vec<f32>>,
}

impl CustomOp1 for Product<'_> {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Matrix { width, columns, rows } = self.matrix;
        let (count, found) = layout.shape().dims2()?;
        if found != *width {
            bail!("rows of {found} values meet weights of {width}");
        }
        if self.bias.as_ref().is_some_and(|bias| bias.len() != *columns) {
            bail!("the bias is not as long as the layer is wide");
        }
        let start = layout.start_offset();
        let Some(values) = storage.as_slice::<f32>()?.get(start..start + count * width) else {
            bail!("a tensor is shorter than its shape")
        };
        let x: Vec<Activations> = kernel::group_activations(values, *width);
        let bias = self.bias.as_deref();
        let mut out = vec![0f32; count * columns];
        match rows {
            Rows::F32(rows) => kernel::product(&x, Columns::new(rows, *width), bias, &mut out),
            Rows::Bf16(rows) => kernel::product(&x, Columns::new(rows, *width), bias, &mut out),
            Rows::Q8(rows) => kernel::product(&x, Columns::new(rows, *width), bias, &mut out),
            Rows::Device(_) => bail!("these weights are not packed"),
        }
        Ok((CpuStorage::F32(out), Shape::from((count, *columns))))
    }
}
