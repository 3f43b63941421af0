//! AdamW as PyTorch computes it, and the clipping of gradients.

use candle_core::{CpuStorage, DType, Device, InplaceOp2, InplaceOp3, Layout, Result, Tensor, bail};
use gap_contract::Job;
use gap_lm::training::{Parameter, TrainableDecoder};
use std::collections::BTreeMap;

/// Moments of all trained parameters, by name.
#[derive(Debug, Default)]
pub struct AdamW {
    moments: BTreeMap<String, Moments>,
}

/// Running means of a parameter's gradient and of its square.
#[derive(Debug)]
pub struct Moments {
    /// Of the gradient.
    pub first: Tensor,
    /// Of its square.
    pub second: Tensor,
}

/// The norm of all gradients together.
///
/// # Errors
/// Where the device fails.
pub fn gradient_norm(model: &mut TrainableDecoder) -> Result<f64> {
    let (mut total, mut failed) = (0.0, None);
    model.visit(|parameter| {
        let Some(gradient) = parameter.gradient() else { return };
        let squares = gradient.sqr().and_then(|squares| squares.sum_all()).and_then(|sum| sum.to_scalar::<f32>());
        match squares {
            Ok(squares) => total += f64::from(squares),
            Err(error) => failed = Some(error),
        }
    });
    failed.map_or(Ok(f64::sqrt(total)), Err)
}

impl AdamW {
    /// The moments, by the names of the parameters.
    pub fn moments(&self) -> impl Iterator<Item = (&str, &Moments)> {
        self.moments.iter().map(|(name, moments)| (name.as_str(), moments))
    }

    /// Takes the moments of a checkpoint.
    pub fn restore(&mut self, name: &str, moments: Moments) {
        self.moments.insert(name.to_owned(), moments);
    }

    /// Makes step `step`, counted from 1, with the gradients times `clip`, and forgets them.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn step(&mut self, model: &mut TrainableDecoder, job: &Job, step: u64, rate: f64, clip: f64) -> Result<()> {
        let mut failed = None;
        model.visit(|parameter| {
            if let Some(gradient) = parameter.gradient().cloned() {
                failed = failed.take().or(self.update(parameter, &gradient, job, step, rate, clip).err());
            }
            parameter.clear();
        });
        failed.map_or(Ok(()), Err)
    }

    fn update(
        &mut self,
        parameter: &mut Parameter,
        gradient: &Tensor,
        job: &Job,
        step: u64,
        rate: f64,
        clip: f64,
    ) -> Result<()> {
        let value = parameter.value().clone();
        let moments = match self.moments.entry(parameter.name().to_owned()) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let zeros = || Tensor::zeros(value.shape(), DType::F32, value.device());
                entry.insert(Moments { first: zeros()?, second: zeros()? })
            }
        };
        let (beta1, beta2) = (job.adam_beta1, job.adam_beta2);
        let times = i32::try_from(step).unwrap_or(i32::MAX);
        let change = Change {
            // Biases and norms are exempt.
            keep: if value.rank() < 2 { 1.0 } else { 1.0 - rate * job.weight_decay },
            rate: rate / (1.0 - beta1.powi(times)),
            root: (1.0 - beta2.powi(times)).sqrt(),
            epsilon: job.adam_epsilon,
        };
        if matches!(value.device(), Device::Cpu) {
            moments.first.inplace_op2(gradient, &Mean { beta: beta1, scale: clip, square: false })?;
            moments.second.inplace_op2(gradient, &Mean { beta: beta2, scale: clip, square: true })?;
            return value.inplace_op3(&moments.first, &moments.second, &change);
        }
        let gradient = (gradient * clip)?;
        moments.first = ((&moments.first * beta1)? + (&gradient * (1.0 - beta1))?)?;
        moments.second = ((&moments.second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
        let divisor = ((moments.second.sqrt()? / change.root)? + change.epsilon)?;
        parameter.set(((value * change.keep)? - ((&moments.first / divisor)? * change.rate)?)?)
    }
}

struct Mean {
    beta: f64,
    scale: f64,
    square: bool,
}

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets().and_then(|(start, end)| values.get(start..end)) {
        Some(values) => Ok(values),
        None => bail!("a parameter's values are not contiguous"),
    }
}

fn values_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let CpuStorage::F32(values) = storage else { bail!("a parameter is kept in 32 bits") };
    match layout.contiguous_offsets().and_then(|(start, end)| values.get_mut(start..end)) {
        Some(values) => Ok(values),
        None => bail!("a parameter's values are not contiguous"),
    }
}

impl InplaceOp2 for Mean {
    fn name(&self) -> &'static str {
        "running-mean"
    }

    #[allow(clippy::cast_possible_truncation, reason = "values are kept in 32 bits")]
    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        let (beta, new, scale) = (self.beta as f32, (1.0 - self.beta) as f32, self.scale as f32);
        let means = values_mut(s1, l1)?.iter_mut().zip(values(s2, l2)?);
        if self.square {
            means.for_each(|(mean, value)| *mean = *mean * beta + (value * scale) * (value * scale) * new);
        } else {
            means.for_each(|(mean, value)| *mean = *mean * beta + value * scale * new);
        }
        Ok(())
    }
}

struct Change {
    keep: f64,
    rate: f64,
    root: f64,
    epsilon: f64,
}

impl InplaceOp3 for Change {
    fn name(&self) -> &'static str {
        "adamw"
    }

    #[allow(clippy::cast_possible_truncation, reason = "values are kept in 32 bits")]
    fn cpu_fwd(
        &self,
        s1: &mut CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<()> {
        let (keep, rate, root, epsilon) = (self.keep as f32, self.rate as f32, self.root as f32, self.epsilon as f32);
        let moments = values(s2, l2)?.iter().zip(values(s3, l3)?);
        for (value, (first, second)) in values_mut(s1, l1)?.iter_mut().zip(moments) {
            *value = *value * keep - rate * first / (second.sqrt() / root + epsilon);
        }
        Ok(())
    }
}
