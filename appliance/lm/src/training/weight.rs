//! The matrix of a linear layer: whole, or frozen in four bits and unpacked piece by piece where it is multiplied with.

use super::{
    cpu::{is_direct, with},
    gemm::{Threads, View, ViewMut, multiply},
    linear::Input,
    nf4::{self, Maxima, Packed, PackedMaxima, Packer},
    parameter::{Parameter, add_product},
};
use crate::inference::{LoadError, TensorSource};
use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Result, Tensor, bail};
use std::ops::Range;

/// Values of a packed matrix that are unpacked at once.
const PANEL: usize = 1 << 19;

/// A matrix of outputs by inputs.
#[derive(Debug)]
pub enum Weight {
    /// As it is.
    Whole(Parameter),
    /// In four bits.
    Nf4(Nf4Matrix),
}

/// A frozen matrix in four bits.
#[derive(Debug)]
pub struct Nf4Matrix {
    outputs: usize,
    inputs: usize,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Cpu(Packed),
    Device(OnDevice),
}

/// Packed values as tensors of a device.
#[derive(Debug)]
struct OnDevice {
    /// `(blocks, bytes of a block)`.
    codes: Tensor,
    /// What each byte stands for: `(256, 2)`.
    pairs: Tensor,
    /// `(blocks, 1)`, or what it is made from.
    maxima: MaximaOnDevice,
}

#[derive(Debug)]
enum MaximaOnDevice {
    Exact(Tensor),
    Quantised {
        /// `(groups, blocks of a group)`, the last group filled up.
        codes: Tensor,
        /// `(groups, 1)`.
        largest: Tensor,
        mean: f64,
        /// What each code stands for.
        values: Tensor,
    },
}

impl Weight {
    /// `x · selfᵀ`.
    ///
    /// # Errors
    /// Where shapes do not fit or the device has no room.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Whole(parameter) => x.matmul(&parameter.like(x)?.t()?),
            Self::Nf4(matrix) => matrix.forward(x),
        }
    }

    /// The gradient of `x` from `dy`, that of the result.
    ///
    /// # Errors
    /// As [`Weight::forward`].
    pub fn backward(&self, dy: &Tensor, input: Input) -> Result<Option<Tensor>> {
        match (self, input) {
            (_, Input::Ignored) => Ok(None),
            (Self::Whole(parameter), Input::New) => dy.matmul(&parameter.like(dy)?).map(Some),
            (Self::Whole(parameter), Input::AddTo(sum)) => add_product(sum, dy, &parameter.like(dy)?, 1.0).map(Some),
            (Self::Nf4(matrix), Input::New) => {
                let zeros = Tensor::zeros((dy.dim(0)?, matrix.inputs), dy.dtype(), dy.device())?;
                matrix.add_backward(zeros, dy).map(Some)
            }
            (Self::Nf4(matrix), Input::AddTo(sum)) => matrix.add_backward(sum, dy).map(Some),
        }
    }
}

impl Nf4Matrix {
    /// Packs a matrix as it is read.
    ///
    /// # Errors
    /// As [`TensorSource::read`], or where the device has no room.
    pub fn load(
        source: &dyn TensorSource,
        name: &str,
        [outputs, inputs]: [usize; 2],
        maxima: Maxima,
        device: &Device,
    ) -> std::result::Result<Self, LoadError> {
        source.expect(name, &[outputs, inputs])?;
        let mut packer = Packer::with_capacity(outputs * inputs);
        source.read(name, &[outputs, inputs], &mut |values| packer.push(values))?;
        let packed = packer.finish(maxima);
        let held = match device {
            Device::Cpu => Held::Cpu(packed),
            device => Held::Device(OnDevice::new(packed, device)?),
        };
        Ok(Self { outputs, inputs, held })
    }

    /// How many values it has.
    pub const fn elements(&self) -> usize {
        self.outputs * self.inputs
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Held::Cpu(packed) = &self.held else { return x.matmul(&self.whole(x)?.t()?) };
        if !is_direct(x) {
            return x.matmul(&self.whole(x)?.t()?);
        }
        let (rows, _) = x.dims2()?;
        let out = with::<f32, _>(&x.contiguous()?, |x| {
            let mut out = vec![0.0; rows * self.outputs];
            let mut room = Vec::new();
            for panel in self.panels() {
                let width = panel.len();
                let first = panel.start;
                let done = self.unpacked(packed, panel, &mut room).and_then(|weight| {
                    let out = ViewMut::new(out.get_mut(first..)?, [rows, width], [self.outputs, 1])?;
                    multiply(out, false, View::rows(x, self.inputs)?, weight.transposed(), 1.0, Threads::All)
                });
                if done.is_none() {
                    bail!("{} values do not go through a layer of {} inputs", x.len(), self.inputs);
                }
            }
            Ok(out)
        })?;
        Tensor::from_vec(out, (rows, self.outputs), x.device())
    }

    /// `sum + dy · self`.
    fn add_backward(&self, sum: Tensor, dy: &Tensor) -> Result<Tensor> {
        let Held::Cpu(packed) = &self.held else { return add_product(sum, dy, &self.whole(dy)?, 1.0) };
        if !is_direct(dy) {
            return add_product(sum, dy, &self.whole(dy)?, 1.0);
        }
        sum.inplace_op2(&dy.contiguous()?, &AddBackward { matrix: self, packed })?;
        Ok(sum)
    }

    /// Ranges of outputs that are unpacked together.
    fn panels(&self) -> impl Iterator<Item = Range<usize>> {
        let (outputs, step) = (self.outputs, (PANEL / self.inputs.max(1)).max(1));
        (0..outputs).step_by(step).map(move |first| first..outputs.min(first + step))
    }

    fn unpacked<'r>(&self, packed: &Packed, panel: Range<usize>, room: &'r mut Vec<f32>) -> Option<View<'r>> {
        room.resize(panel.len() * self.inputs, 0.0);
        packed.unpack(panel.start * self.inputs, room);
        View::rows(room, self.inputs)
    }

    /// All of it, in the type of `like`.
    fn whole(&self, like: &Tensor) -> Result<Tensor> {
        match &self.held {
            Held::Cpu(packed) => {
                let mut values = vec![0.0; self.outputs * self.inputs];
                packed.unpack(0, &mut values);
                Tensor::from_vec(values, (self.outputs, self.inputs), like.device())?.to_dtype(like.dtype())
            }
            Held::Device(held) => {
                let values = held.unpack()?.narrow(0, 0, self.outputs * self.inputs)?;
                values.reshape((self.outputs, self.inputs))?.to_dtype(like.dtype())
            }
        }
    }
}

impl OnDevice {
    fn new(packed: Packed, device: &Device) -> Result<Self> {
        let blocks = packed.codes.len() / (nf4::BLOCK / 2);
        let pairs: Vec<f32> = nf4::pairs().iter().flatten().copied().collect();
        let maxima = match packed.maxima {
            PackedMaxima::Exact(maxima) => MaximaOnDevice::Exact(Tensor::from_vec(maxima, (blocks, 1), device)?),
            PackedMaxima::Quantised { mut codes, largest, mean } => {
                let groups = largest.len();
                codes.resize(groups * nf4::GROUP, 0);
                MaximaOnDevice::Quantised {
                    codes: Tensor::from_vec(codes, (groups, nf4::GROUP), device)?,
                    largest: Tensor::from_vec(largest, (groups, 1), device)?,
                    mean: f64::from(mean),
                    values: Tensor::new(nf4::dynamic_values(), device)?,
                }
            }
        };
        Ok(Self {
            codes: Tensor::from_vec(packed.codes, (blocks, nf4::BLOCK / 2), device)?,
            pairs: Tensor::from_vec(pairs, (256, 2), device)?,
            maxima,
        })
    }

    /// All values in 32 bits, the last block filled up.
    fn unpack(&self) -> Result<Tensor> {
        let (blocks, _) = self.codes.dims2()?;
        let scales = match &self.maxima {
            MaximaOnDevice::Exact(maxima) => maxima.clone(),
            MaximaOnDevice::Quantised { codes, largest, mean, values } => {
                let scaled = values.index_select(&codes.flatten_all()?, 0)?.reshape(codes.shape())?;
                let all = (scaled.broadcast_mul(largest)? + *mean)?.flatten_all()?;
                all.narrow(0, 0, blocks)?.reshape((blocks, 1))?
            }
        };
        let values = self.pairs.index_select(&self.codes.flatten_all()?, 0)?.reshape((blocks, nf4::BLOCK))?;
        values.broadcast_mul(&scales)?.flatten_all()
    }
}

/// Adds `dy · matrix`, panel by panel.
struct AddBackward<'a> {
    matrix: &'a Nf4Matrix,
    packed: &'a Packed,
}

impl InplaceOp2 for AddBackward<'_> {
    fn name(&self) -> &'static str {
        "nf4-backward"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        let Nf4Matrix { outputs, inputs, .. } = *self.matrix;
        let (rows, _) = l1.shape().dims2()?;
        let CpuStorage::F32(sum) = s1 else { bail!("sums are of 32 bits") };
        let sum = l1.contiguous_offsets().and_then(|(start, end)| sum.get_mut(start..end));
        let dy = super::cpu::contiguous(s2.as_slice::<f32>()?, l2)?;
        let Some(sum) = sum.filter(|sum| sum.len() == rows * inputs && dy.len() == rows * outputs) else {
            bail!("{:?} is no gradient of a layer of {inputs} by {outputs}", l1.dims());
        };
        let mut room = Vec::new();
        for panel in self.matrix.panels() {
            let (first, width) = (panel.start, panel.len());
            let done = self.matrix.unpacked(self.packed, panel, &mut room).and_then(|weight| {
                let dy = View::new(dy.get(first..)?, [rows, width], [outputs, 1])?;
                multiply(ViewMut::rows(sum, inputs)?, true, dy, weight, 1.0, Threads::All)
            });
            if done.is_none() {
                bail!("{:?} is no gradient of a layer of {inputs} by {outputs}", l1.dims());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    struct Source(Vec<f32>, Vec<usize>);

    impl TensorSource for Source {
        fn shape(&self, _: &str) -> Option<Vec<usize>> {
            Some(self.1.clone())
        }

        fn precision(&self, _: &str) -> crate::inference::Precision {
            crate::inference::Precision::F32
        }

        fn read(&self, _: &str, _: &[usize], take: &mut dyn FnMut(&[f32])) -> std::result::Result<(), LoadError> {
            self.0.chunks(self.1[1] * 3).for_each(take);
            Ok(())
        }

        fn path(&self) -> &std::path::Path {
            std::path::Path::new("model")
        }
    }

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    fn most(a: &Tensor, b: &Tensor) -> f64 {
        let difference = (a.to_dtype(DType::F64).unwrap() - b.to_dtype(DType::F64).unwrap()).unwrap().abs().unwrap();
        difference.flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn products_are_those_of_the_unpacked_matrix_in_every_way_of_holding_it() {
        let (rows, device) = (5, &Device::Cpu);
        // Rows that are no whole blocks, and so many that there is more than one panel.
        for (outputs, inputs) in [(7, 40), (600, 1000), (24, 64)] {
            for maxima in [Maxima::Exact, Maxima::Quantised] {
                let source = Source(values(outputs * inputs, 1), vec![outputs, inputs]);
                let matrix = Nf4Matrix::load(&source, "w", [outputs, inputs], maxima, device).unwrap();
                let x = Tensor::from_vec(values(rows * inputs, 2), (rows, inputs), device).unwrap();
                let dy = Tensor::from_vec(values(rows * outputs, 3), (rows, outputs), device).unwrap();
                let whole = matrix.whole(&x).unwrap();
                assert!(most(&whole, &Tensor::from_vec(source.0, (outputs, inputs), device).unwrap()) < 0.2);
                let Held::Cpu(packed) = &matrix.held else { panic!("it is on the CPU") };
                let held = OnDevice::new(packed.clone(), device).unwrap();
                let composed = held.unpack().unwrap().narrow(0, 0, outputs * inputs).unwrap();
                assert!(most(&whole.flatten_all().unwrap(), &composed) < 1e-6);
                let weight = Weight::Nf4(matrix);
                let y = weight.forward(&x).unwrap();
                assert!(most(&y, &x.matmul(&whole.t().unwrap()).unwrap()) < 1e-3);
                let sum = weight.backward(&dy, Input::New).unwrap().unwrap();
                let exact = dy.matmul(&whole).unwrap();
                assert!(most(&sum, &exact) < 1e-3);
                let twice = weight.backward(&dy, Input::AddTo(sum)).unwrap().unwrap();
                assert!(most(&twice, &(exact * 2.0).unwrap()) < 1e-3);
            }
        }
    }
}
