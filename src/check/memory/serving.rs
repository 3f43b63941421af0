//! Memory of serving.

use super::{Estimate, Shape, context};
use crate::recipe::{Engine, Serving};

/// Tokens that vLLM takes into one pass while it reads prompts, unless told otherwise.
const PASS: u64 = 8192;
/// What vLLM's CUDA graphs take. An allowance, not a measurement.
const GRAPHS: u64 = 1 << 30;

/// What is served, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingPlan {
    /// As the recipe has it.
    pub serving: Serving,
    /// Among how many GPUs each layer is divided (tensor parallelism).
    pub gpus: u64,
}

/// Memory that serving takes on each GPU, with the key-value cache of all sequences at their full length.
pub fn serving(shape: &Shape, plan: &ServingPlan) -> Estimate {
    let gpus = plan.gpus.max(1);
    let sequences = plan.serving.concurrency;
    let stored = shape.stored.unwrap_or_else(|| 2 * shape.all_parameters());
    // Heads of keys and values are divided as far as there are any, then copied.
    let key_width = shape.kv_heads.div_ceil(gpus.min(shape.kv_heads.max(1))) * shape.head;
    let each_token = 2 * 2 * shape.layers * key_width;
    let cache = each_token.saturating_mul(plan.serving.length).saturating_mul(sequences);
    let tokens = match plan.serving.engine {
        Engine::Vllm => PASS.min(plan.serving.length.saturating_mul(sequences)),
        _ => plan.serving.length.saturating_mul(sequences),
    };
    let f = shape.inner * shape.experts.1;
    // Residual stream and its normalised copy; queries, keys, values; gate, way up and their product.
    let wide = 4 * shape.hidden + (shape.queries() + 2 * shape.keys()).div_ceil(gpus) + (3 * f).div_ceil(gpus);
    let last = if shape.language_model { sequences.saturating_mul(shape.vocabulary).saturating_mul(2 + 4) } else { 0 };
    let graphs = if plan.serving.engine == Engine::Vllm { GRAPHS } else { 0 };
    Estimate {
        weights: stored.div_ceil(gpus),
        activations: tokens.saturating_mul(2 * wide).saturating_add(last),
        cache: if shape.language_model { cache } else { 0 },
        context: context(gpus) + graphs,
        ..Estimate::default()
    }
}

/// Of how much of a GPU's memory an engine makes use, in hundredths.
pub const fn usable(engine: Engine) -> u64 {
    match engine {
        // `gpu_memory_utilization` is 0.9 unless told otherwise.
        Engine::Vllm => 90,
        Engine::Transformers | Engine::GapServe | Engine::Other => 100,
    }
}
