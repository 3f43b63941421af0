//! A job made ready: its files read, its sizes known, its memory estimated; nothing is written yet.

use crate::{
    data::{Encoder, Epochs, Examples},
    error::{Failed, invalid_adapter, invalid_model},
    memory,
};
use candle_core::DType;
use gap_contract::{BatchSize, Dtype, FailureCode, Job, Quantization, TargetModules, memory::Estimate};
use gap_lm::{
    device,
    inference::{DecoderConfig, Lineage, SafetensorsDirectory},
    training::{
        AdapterShape, Holding, Key, Maxima, TARGETS, TrainableDecoder, Trained,
        adapter::{self, AdapterConfig},
    },
};

/// The largest batch that `auto` chooses.
const MOST: u64 = 256;
/// The share of the memory that `auto` fills.
const SHARE: f64 = 0.8;
/// What the noise of new adapters follows from beside the seed.
const ADAPTER: u64 = 3;

/// Everything that is known before the first step.
#[derive(Debug)]
pub struct Plan {
    /// The model's shape.
    pub config: DecoderConfig,
    /// The examples that are trained on.
    pub training: Examples,
    /// Those that are measured on.
    pub validation: Option<Examples>,
    /// The order of the examples.
    pub epochs: Epochs,
    /// Optimiser steps of the job.
    pub total: u64,
    /// Examples in a batch.
    pub batch: u64,
    /// Tokens of the longest batch that is trained on. No more are measured on at once, but for an example that has more.
    pub tokens: usize,
    /// The memory that it will take.
    pub estimate: Estimate,
    /// The memory that there is.
    pub available: u64,
    /// What of the model is trained.
    pub trained: Trained,
    /// How it is held.
    pub holding: Holding,
}

impl Plan {
    /// Reads what the job names. A batch size that `auto` chose before is kept if given.
    ///
    /// # Errors
    /// Where something cannot be used, or the job cannot fit into the memory.
    pub fn make(job: &Job, batch: Option<u64>) -> Result<Self, Failed> {
        let config = DecoderConfig::read(&job.model).map_err(invalid_model)?;
        let encoder = Encoder::read(&job.model, config.vocabulary)?;
        let training = Examples::read(&job.training_file, "training_file", job, &encoder)?;
        let validation =
            job.validation_file.as_ref().map(|path| Examples::read(path, "validation_file", job, &encoder));
        let validation = validation.transpose()?;
        let both = || [Some(&training), validation.as_ref()].into_iter().flatten();
        let longest = both().map(Examples::longest_sequence).max().unwrap_or_default();
        within_context(&config, longest)?;
        let trained = trained(job)?;
        let targets: Vec<&str> = match &trained {
            Trained::All => Vec::new(),
            Trained::Adapter(shape) => shape.targets.clone(),
        };
        let holding = holding(job)?;
        let available = memory::available(&holding.device)?;
        let bytes = [holding.weights.size_in_bytes() as u64, holding.activations.size_in_bytes() as u64];
        let sized = |batch: u64| {
            let epochs = Epochs::new(&training, job, usize::try_from(batch).unwrap_or(usize::MAX));
            let tokens = epochs.longest_batch(&training);
            let most = validation.as_ref().map_or(tokens, |validation| tokens.max(validation.longest()));
            let estimate = memory::estimate(&config, job, &targets, [most as u64, longest as u64], bytes);
            (epochs, tokens, estimate)
        };
        let begun = batch.is_some();
        let batch = match (batch, job.batch_size) {
            (Some(batch), _) => batch,
            (None, BatchSize::Examples(batch)) => batch,
            (None, BatchSize::Auto(_)) => {
                #[allow(clippy::cast_precision_loss, reason = "a share")]
                let fits = |batch: &u64| sized(*batch).2.total() as f64 <= available as f64 * SHARE;
                let most = MOST.min(training.sequences.len() as u64).max(1);
                let powers = (0..9).map(|power| 1 << power).filter(|batch| *batch <= most);
                powers.take_while(fits).last().unwrap_or(1)
            }
        };
        let (epochs, tokens, estimate) = sized(batch);
        if estimate.total() > available {
            return Err(too_large(job, estimate, available, |batch| sized(batch).2.total(), batch, begun));
        }
        let total = epochs.total(job);
        Ok(Self { config, training, validation, epochs, total, batch, tokens, estimate, available, trained, holding })
    }

    /// Loads the model, and the adapter that the job starts from.
    ///
    /// # Errors
    /// Where a file is damaged, or the adapter is for another base.
    pub fn load(&self, job: &Job) -> Result<TrainableDecoder, Failed> {
        let source = SafetensorsDirectory::open(&job.model).map_err(invalid_model)?;
        let loaded = TrainableDecoder::load(&source, self.config.clone(), &self.trained, self.holding.clone());
        let mut model = loaded.map_err(invalid_model)?;
        if let Some(dir) = &job.adapter {
            Lineage::check(dir, &job.model).map_err(invalid_adapter)?;
            model.take_adapter(dir).map_err(invalid_adapter)?;
        }
        Ok(model)
    }
}

fn within_context(config: &DecoderConfig, longest: usize) -> Result<(), Failed> {
    if longest > config.context {
        let message = format!(
            "an example has {longest} tokens, but the model was made for {}; set `max_length` to {0} to cut such examples off",
            config.context
        );
        return Err(Failed::new(FailureCode::InvalidJob, message).about("max_length"));
    }
    Ok(())
}

#[allow(clippy::cast_possible_truncation, reason = "a share in 32 bits")]
fn trained(job: &Job) -> Result<Trained, Failed> {
    let Some(lora) = &job.lora else { return Ok(Trained::All) };
    let unfit = |message: String| Failed::new(FailureCode::InvalidJob, message);
    let targets = match (&lora.target_modules, &job.adapter) {
        (_, Some(dir)) => adapter::targets(dir).map_err(invalid_adapter)?,
        (TargetModules::AllLinear(_), None) => TARGETS.to_vec(),
        (TargetModules::Names(names), None) => {
            if let Some(name) = names.iter().find(|name| !TARGETS.contains(&name.as_str())) {
                let message = format!("the model has no linear layer `{name}`; it has {}", TARGETS.join(", "));
                return Err(unfit(message).about("lora.target_modules"));
            }
            TARGETS.into_iter().filter(|target| names.iter().any(|name| name == target)).collect()
        }
    };
    if let Some(dir) = &job.adapter {
        let config = AdapterConfig::read(dir).map_err(invalid_adapter)?;
        if config.r as u64 != lora.r || (config.scale() - lora.scaling()).abs() > 1e-9 {
            let message = format!(
                "the adapter has rank {} and scale {}, but the job says {} and {}; give `lora` the adapter's `r`, `alpha` and `use_rslora`",
                config.r,
                config.scale(),
                lora.r,
                lora.scaling()
            );
            return Err(unfit(message).about("lora"));
        }
    }
    Ok(Trained::Adapter(AdapterShape {
        rank: usize::try_from(lora.r).unwrap_or(usize::MAX),
        scale: lora.scaling(),
        dropout: lora.dropout as f32,
        targets,
        key: Key::new(job.seed).part(ADAPTER),
    }))
}

fn holding(job: &Job) -> Result<Holding, Failed> {
    let device = device::first()?;
    let (weights, activations) = match (job.dtype, device::computes_bfloat16(&device)?) {
        (Dtype::Float32, _) | (Dtype::Auto, false) => (DType::F32, DType::F32),
        // Without units for it, 32 bits are computed in; the frozen weights are kept in 16.
        (Dtype::Bfloat16, false) => (DType::BF16, DType::F32),
        (Dtype::Bfloat16 | Dtype::Auto, true) => (DType::BF16, DType::BF16),
    };
    let nf4 = job.quantization.map(|quantization| match quantization {
        Quantization::Nf4 => Maxima::Exact,
        Quantization::Nf4DoubleQuant => Maxima::Quantised,
    });
    Ok(Holding { device, weights, activations, nf4, checkpointing: job.gradient_checkpointing })
}

fn too_large(
    job: &Job,
    estimate: Estimate,
    available: u64,
    sized: impl Fn(u64) -> u64,
    batch: u64,
    begun: bool,
) -> Failed {
    let mebi = |bytes: u64| bytes >> 20;
    let smaller =
        (0..20).map(|power| 1_u64 << power).take_while(|size| *size < batch && sized(*size) <= available).last();
    let advice = if begun && !job.gradient_checkpointing {
        "set `gradient_checkpointing` and resume, or begin anew with a lower `batch_size` or `max_length`".to_owned()
    } else if begun {
        "make room and resume, or begin anew with a lower `batch_size` or `max_length`".to_owned()
    } else if let Some(size) = smaller {
        format!("`batch_size` {size} with more `gradient_accumulation_steps` would fit")
    } else if job.lora.is_none() {
        "train an adapter (`lora`) instead of all weights".to_owned()
    } else if !job.gradient_checkpointing {
        "set `gradient_checkpointing`, or lower `max_length`".to_owned()
    } else if job.quantization.is_none() {
        "keep the base in four bits (`quantization`)".to_owned()
    } else {
        "take a smaller model or a machine with more memory".to_owned()
    };
    let message = format!(
        "the job needs {} MiB ({} for weights, {} for what is trained, {} for activations), but there are {} MiB; {advice}",
        mebi(estimate.total()),
        mebi(estimate.weights),
        mebi(estimate.training),
        mebi(estimate.activations),
        mebi(available)
    );
    Failed::new(FailureCode::OutOfMemory, message).about("batch_size")
}
