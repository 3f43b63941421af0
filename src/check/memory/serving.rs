//! Memory of serving.

use super::{Estimate, Shape, context};
use crate::recipe::{Engine, Gpu, Serving};

/// What vLLM's CUDA graphs take. An allowance, not a measurement.
const GRAPHS: u64 = 1 << 30;
/// Positions that vLLM and the appliance's own server give to a sequence at once.
const VLLM_BLOCK: u64 = 16;
const OWN_BLOCK: u64 = 32;

/// What is served, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingPlan {
    /// As the recipe has it.
    pub serving: Serving,
    /// Among how many GPUs each layer is divided (tensor parallelism).
    pub gpus: u64,
    /// Tokens that are read in one pass.
    pub pass: u64,
}

/// Memory that serving takes on each GPU, with the key-value cache of all sequences at their full length.
pub fn serving(shape: &Shape, plan: &ServingPlan) -> Estimate {
    let engine = plan.serving.engine;
    let gpus = plan.gpus.max(1);
    let (length, sequences) = (plan.serving.length, plan.serving.concurrency);
    // What is computed with: vLLM makes 16 bits of everything larger, the others take weights as they are stored.
    let width = if engine == Engine::Vllm { 2 } else { shape.stored_width() };
    let whole = width * shape.all_parameters();
    let weights = shape.stored.map_or(whole, |stored| if engine == Engine::Vllm { stored.min(whole) } else { stored });
    let tokens = plan.pass.min(length.saturating_mul(sequences));
    let f = shape.inner * shape.experts.1;
    // Residual stream and its normalised copy; queries, keys, values; gate, way up and their product.
    let wide = 4 * shape.hidden + (shape.queries() + 2 * shape.keys()).div_ceil(gpus) + (3 * f).div_ceil(gpus);
    let last = if shape.language_model { sequences.saturating_mul(shape.vocabulary).saturating_mul(2 + 4) } else { 0 };
    let graphs = if engine == Engine::Vllm { GRAPHS } else { 0 };
    Estimate {
        weights: weights.div_ceil(gpus),
        activations: tokens.saturating_mul(width * wide).saturating_add(last),
        cache: if shape.language_model { cache(shape, &plan.serving, gpus, width) } else { 0 },
        context: context(gpus) + graphs,
        ..Estimate::default()
    }
}

/// The key-value cache of all sequences at their full length.
fn cache(shape: &Shape, serving: &Serving, gpus: u64, width: u64) -> u64 {
    let (width, block) = match serving.engine {
        Engine::Vllm => (width, VLLM_BLOCK),
        Engine::GapServe => (4, OWN_BLOCK),
        Engine::Transformers | Engine::Other => (width, 1),
    };
    let each_token = match shape.latent {
        // One vector for keys and values of all heads, on every GPU; Transformers unpacks it before it caches.
        Some(latent) if serving.engine == Engine::Vllm => latent,
        // Heads of keys and values are divided as far as there are any, then copied.
        _ => 2 * shape.kv_heads.div_ceil(gpus.min(shape.kv_heads.max(1))) * shape.head,
    };
    let positions = serving.length.div_ceil(block).saturating_mul(block).saturating_mul(serving.concurrency);
    (width * shape.layers * each_token).saturating_mul(positions)
}

/// Tokens that an engine takes into one pass while it reads prompts, unless told otherwise: vLLM's own choice by the
/// GPU (`max_num_batched_tokens` of its server); the others read all prompts that come at once.
pub fn pass(engine: Engine, gpu: Option<&Gpu>) -> u64 {
    const GIB: u64 = 1 << 30;
    match (engine, gpu) {
        (Engine::Vllm, Some(gpu)) if gpu.memory >= 160 * GIB => 16384,
        (Engine::Vllm, Some(gpu)) if gpu.memory >= 70 * GIB && !gpu.name.starts_with("A100") => 8192,
        (Engine::Vllm, _) => 2048,
        (Engine::Transformers | Engine::GapServe | Engine::Other, _) => u64::MAX,
    }
}
