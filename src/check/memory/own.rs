//! Memory of training by the appliance's own trainer: the numbers that it refuses a job by.

use super::{Estimate, Shape, TrainingPlan, context, training::MAX_RANK};
use crate::recipe::{Adapter, Method, Precision, Training};
use gap_contract::{
    Quantization,
    memory::{DecoderSizes, Load},
};

/// Bytes of a parameter's gradient, and of what the optimizer remembers of it.
const GRADIENT: u64 = 4;
const MOMENTS: u64 = 8;

/// Memory that a training takes at its peak on the one device that it uses.
pub(super) fn training(shape: &Shape, plan: &TrainingPlan) -> Estimate {
    let sizes = sizes(shape);
    let projections = shape.projections();
    let targets: Vec<&str> = projections.iter().map(|(name, ..)| *name).filter(|name| chosen(plan, name)).collect();
    let load = load(plan, &targets);
    let (estimate, trained) = (sizes.estimate(&load), sizes.trained(&load));
    let (gradients, optimizer) = (trained * GRADIENT, trained * MOMENTS);
    Estimate {
        weights: (estimate.weights + estimate.training).saturating_sub(gradients + optimizer),
        gradients,
        optimizer,
        activations: estimate.activations,
        context: context(1),
        ..Estimate::default()
    }
}

const fn sizes(shape: &Shape) -> DecoderSizes {
    DecoderSizes {
        hidden: shape.hidden,
        intermediate: shape.inner,
        queries: shape.queries(),
        keys: shape.keys(),
        heads: shape.heads,
        layers: shape.layers,
        vocabulary: shape.vocabulary,
        tied: shape.tied,
    }
}

fn load<'a>(plan: &TrainingPlan, targets: &'a [&'a str]) -> Load<'a> {
    let training = &plan.training;
    let (weight, activation) = widths(training.precision, plan.on_processor);
    let quantization = if plan.double_quantized { Quantization::Nf4DoubleQuant } else { Quantization::Nf4 };
    Load {
        adapter: adapter(training).map(|adapter| (adapter.rank.min(MAX_RANK), targets)),
        quantization: matches!(training.method, Method::Qlora(_)).then_some(quantization),
        reference: false,
        checkpointing: training.checkpointing,
        tokens: training.batch.saturating_mul(training.length),
        longest: training.length,
        weight,
        activation,
    }
}

/// Bytes of a frozen weight and of an activation: processors compute in 32 bits.
const fn widths(precision: Precision, on_processor: bool) -> (u64, u64) {
    match (precision, on_processor) {
        (Precision::Fp32, _) => (4, 4),
        (_, true) => (2, 4),
        (_, false) => (2, 2),
    }
}

const fn adapter(training: &Training) -> Option<&Adapter> {
    match &training.method {
        Method::Full => None,
        Method::Lora(adapter) | Method::Qlora(adapter) => Some(adapter),
    }
}

/// Whether a layer of this name has an adapter.
fn chosen(plan: &TrainingPlan, name: &str) -> bool {
    adapter(&plan.training)
        .is_some_and(|adapter| adapter.targets.is_empty() || adapter.targets.iter().any(|target| target == name))
}
