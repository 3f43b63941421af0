//! Memory of training.
//!
//! The peak of a step is one of four moments: the end of the forward pass, when the loss is computed; the beginning of
//! the backward pass, when all activations are there and the gradient of the loss is as large as the distribution over
//! all tokens; its end, when all gradients are there; the step of the optimizer.

use super::{Estimate, Shape, context, own};
use crate::recipe::{Method, Optimizer, Precision, Sharding, Trainer, Training};

/// Parameters whose absolute maximum is stored once in NF4 (bitsandbytes' block size).
const NF4_BLOCK: u64 = 64;
/// Maxima whose own absolute maximum is stored once where they are quantised in turn.
const MAXIMA_BLOCK: u64 = 256;

/// Highest rank that is counted with: the width of the widest models.
pub(super) const MAX_RANK: u64 = 1 << 17;

/// What is trained, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingPlan {
    /// As the recipe has it.
    pub training: Training,
    /// On how many GPUs, all nodes together.
    pub gpus: u64,
    /// Whether the maxima of 4-bit weights are quantised in turn (`bnb_4bit_use_double_quant`).
    pub double_quantized: bool,
    /// Whether the processor computes, not a GPU.
    pub on_processor: bool,
}

/// Memory that a step of training takes on each GPU at its peak.
pub fn training(shape: &Shape, plan: &TrainingPlan) -> Estimate {
    if plan.training.trainer == Trainer::GapTrain {
        return own::training(shape, plan);
    }
    let held = Held::new(shape, plan);
    let work = Work::new(shape, plan);
    let several = plan.gpus > 1;
    // Gradients of earlier passes wait in place; DistributedDataParallel keeps its buckets all the time.
    let buckets = if several && plan.training.sharding == Sharding::Ddp { held.gradients } else { 0 };
    let waiting = buckets + if plan.training.accumulate > 1 { held.gradients } else { 0 };
    let moments = [
        Estimate {
            weights: held.weights + held.copies,
            gradients: waiting,
            activations: work.kept.saturating_add(work.loss_forward),
            ..Estimate::default()
        },
        Estimate {
            // The head's copy is made after all layers, and gone through first.
            weights: held.weights + if work.checkpointing { held.head } else { held.copies },
            gradients: waiting,
            activations: work.kept.saturating_add(work.loss_backward),
            ..Estimate::default()
        },
        // The last layer is gone through backwards, with one matrix in 16 bits again.
        Estimate {
            weights: held.weights + held.unpacked,
            gradients: waiting,
            activations: work.kept.saturating_add(work.stream),
            ..Estimate::default()
        },
        Estimate {
            weights: held.weights,
            gradients: held.gradients + buckets,
            activations: work.last,
            ..Estimate::default()
        },
        Estimate {
            weights: held.weights,
            gradients: held.gradients + buckets,
            optimizer: held.step,
            ..Estimate::default()
        },
    ];
    let peak = moments.into_iter().max_by_key(Estimate::total).unwrap_or_default();
    Estimate {
        optimizer: peak.optimizer + held.moments,
        activations: peak.activations.saturating_add(held.gathered),
        context: context(plan.gpus),
        ..peak
    }
}

/// What lies in memory from step to step.
struct Held {
    weights: u64,
    /// 16-bit copies of 32-bit weights, made in the forward pass and kept for the backward pass.
    copies: u64,
    /// Of those, that of the matrix that gives the distribution over tokens.
    head: u64,
    gradients: u64,
    moments: u64,
    /// What the optimizer needs beside that while it steps.
    step: u64,
    /// Weights of other GPUs that a layer is computed with.
    gathered: u64,
    /// The largest matrix of four bits, in the 16 bits that it is multiplied with.
    unpacked: u64,
}

impl Held {
    fn new(shape: &Shape, plan: &TrainingPlan) -> Self {
        let training = &plan.training;
        let trained = trained(shape, &training.method);
        let frozen = frozen(shape, plan);
        let width = if training.precision == Precision::PureBf16 && training.method == Method::Full { 2 } else { 4 };
        let mixed = matches!(training.precision, Precision::Fp16 | Precision::Bf16);
        let multiplied = match training.method {
            // Input vectors are looked up, not multiplied with.
            Method::Full if shape.tied => trained,
            Method::Full => trained.saturating_sub(shape.embedding()),
            // `prepare_model_for_kbit_training` makes 32 bits of the head, and autocast 16 again.
            Method::Qlora(_) if shape.language_model => trained + shape.embedding(),
            Method::Lora(_) | Method::Qlora(_) => trained,
        };
        let copies = if mixed { 2 * multiplied } else { 0 };
        let has_copy = !matches!(training.method, Method::Lora(_));
        let head = if mixed && has_copy && shape.language_model { 2 * shape.embedding() } else { 0 };
        let whole = trained * width + frozen;
        let sharding = training.sharding;
        let share = |bytes: u64, sharded: bool| if sharded { bytes.div_ceil(plan.gpus.max(1)) } else { bytes };
        let weights_shared = matches!(sharding, Sharding::Zero3 | Sharding::Fsdp);
        let gradients_shared = weights_shared || sharding == Sharding::Zero2;
        let moments_shared = gradients_shared || sharding == Sharding::Zero1;
        let layer = whole.saturating_sub(shape.embedding() * width) / shape.layers.max(1);
        Self {
            weights: share(whole, weights_shared),
            copies: share(copies, weights_shared),
            head: share(head, weights_shared),
            gradients: share(trained * width, gradients_shared),
            moments: share(moments(training.optimizer, trained, width), moments_shared),
            step: share(step(training.optimizer, trained, width), moments_shared),
            // One layer is computed while the next is fetched.
            gathered: if weights_shared && plan.gpus > 1 { 2 * layer } else { 0 },
            unpacked: match training.method {
                Method::Qlora(_) => 2 * shape.hidden * shape.inner.max(shape.queries()),
                Method::Full | Method::Lora(_) => 0,
            },
        }
    }
}

/// Parameters that are trained.
fn trained(shape: &Shape, method: &Method) -> u64 {
    let adapter = match method {
        Method::Full => return shape.all_parameters(),
        Method::Lora(adapter) | Method::Qlora(adapter) => adapter,
    };
    let chosen = |name: &str| adapter.targets.is_empty() || adapter.targets.iter().any(|target| target == name);
    let layer = shape.projections().into_iter().filter(|(name, ..)| chosen(name));
    let widths: u64 = layer.map(|(_, input, output)| input + output).sum();
    adapter.rank.min(MAX_RANK) * widths * shape.layers
}

/// Bytes of weights that are not trained.
fn frozen(shape: &Shape, plan: &TrainingPlan) -> u64 {
    let all = shape.all_parameters();
    let training = &plan.training;
    let width = if training.precision == Precision::Fp32 { 4 } else { 2 };
    match training.method {
        Method::Full => 0,
        Method::Lora(_) => all * width,
        // Linear layers have 4 bits and a maximum for each block; what is left is held in 32 bits
        // (`peft.prepare_model_for_kbit_training`).
        Method::Qlora(_) => {
            let quantized = shape.linear().min(all);
            let maxima = quantized / NF4_BLOCK;
            let scales = if plan.double_quantized { maxima + 4 * (maxima / MAXIMA_BLOCK) } else { 4 * maxima };
            quantized / 2 + scales + 4 * (all - quantized)
        }
    }
}

const fn moments(optimizer: Optimizer, trained: u64, width: u64) -> u64 {
    match optimizer {
        Optimizer::AdamW => 2 * width * trained,
        // Two bytes, and two 32-bit maxima for each block of 256.
        Optimizer::AdamW8bit => 2 * trained + trained / 32,
        // One row and one column for each matrix.
        Optimizer::Adafactor => width * trained / 256,
        Optimizer::Sgd => 0,
    }
}

const fn step(optimizer: Optimizer, trained: u64, width: u64) -> u64 {
    match optimizer {
        // An update as large as all parameters is made before it is added.
        Optimizer::Adafactor => width * trained,
        // The fused kernel works in place.
        Optimizer::AdamW | Optimizer::AdamW8bit | Optimizer::Sgd => 0,
    }
}

/// What a pass over a batch takes.
struct Work {
    checkpointing: bool,
    /// Kept from the forward for the backward pass.
    kept: u64,
    /// All of one layer, and the gradients of that.
    last: u64,
    /// What passes from layer to layer.
    stream: u64,
    loss_forward: u64,
    loss_backward: u64,
}

impl Work {
    fn new(shape: &Shape, plan: &TrainingPlan) -> Self {
        let training = &plan.training;
        let tokens = training.batch.saturating_mul(training.length);
        let (others, scores) = (tokens.saturating_mul(per_token(shape, training)), scores(shape, plan));
        let layer = others.saturating_add(scores);
        let stream = tokens.saturating_mul(shape.hidden * stream_width(training));
        let kept = if training.checkpointing { stream } else { layer };
        let distribution = if shape.language_model { tokens.saturating_mul(shape.vocabulary) } else { 0 };
        // Forward: 16 bits, the same in 32, its logarithm. Backward: the logarithm and two gradients in 32 bits.
        let low = if training.precision == Precision::Fp32 { 8 } else { 10 };
        Self {
            checkpointing: training.checkpointing,
            kept: kept.saturating_mul(shape.layers),
            // Gradients of scores take the place of scores.
            last: layer.saturating_add(others),
            stream,
            loss_forward: distribution.saturating_mul(low),
            loss_backward: distribution.saturating_mul(12),
        }
    }
}

/// Bytes of a number of the residual stream.
const fn stream_width(training: &Training) -> u64 {
    match (&training.method, training.precision) {
        (_, Precision::Fp32) | (Method::Full | Method::Qlora(_), Precision::Fp16 | Precision::Bf16) => 4,
        (Method::Qlora(_), Precision::PureBf16) => 4,
        (Method::Full | Method::Lora(_), _) => 2,
    }
}

/// Bytes that one layer keeps of one token for the backward pass: what each operation of Transformers' models saves.
fn per_token(shape: &Shape, training: &Training) -> u64 {
    let (h, q, k) = (shape.hidden, shape.queries(), shape.keys());
    let f = shape.inner * shape.experts.1;
    let (norms, attention, feed_forward) = match (&training.method, training.precision) {
        // Residual stream, normalised and 32-bit; cast once for each product that reads it.
        (Method::Full, Precision::Fp16 | Precision::Bf16) => {
            let reads = if shape.gated { 3 + 2 } else { 3 + 1 };
            (2 * 4 * h + 2 * 4 * h + reads * 2 * h, 2, 2)
        }
        (Method::Full, Precision::PureBf16) => (2 * (4 + 2 + 2) * h, 2, 2),
        (Method::Full, Precision::Fp32) => (2 * 12 * h, 4, 4),
        (Method::Lora(_) | Method::Qlora(_), Precision::Fp32) => (2 * 4 * h, 4, 4),
        (Method::Lora(_), _) => (2 * 4 * h, 2, 2),
        // Products of 4-bit layers are handed on in 32 bits.
        (Method::Qlora(_), _) => (2 * 4 * h, 2, 4),
    };
    let frozen = training.method != Method::Full;
    // The RMSNorm of Transformers keeps one value more than a LayerNorm does.
    let norms = if shape.gated || frozen { norms } else { norms - 2 * 4 * h };
    // The input of a product is kept for the gradient of its weights.
    let ways = if shape.gated { 3 } else { shape.activation };
    let products = (ways + u64::from(!frozen)) * f;
    let dropout = if shape.gated { 0 } else { 2 * h };
    let heads = 4 * shape.heads;
    let adapters = if frozen { adapter_inputs(shape, training) } else { 0 };
    // A norm over each head keeps, of queries and keys, what the norms of the residual stream keep of that.
    let of_heads = match (&training.method, training.precision) {
        _ if !shape.normed_heads => 0,
        (Method::Full, Precision::Fp32) => 12,
        (Method::Full, Precision::PureBf16) => 8,
        (Method::Full, _) => 6,
        (Method::Lora(_) | Method::Qlora(_), _) => 4,
    };
    let norms = norms + of_heads * (q + k);
    norms + attention * (2 * q + 2 * k) + feed_forward * products + dropout + heads + adapters
}

/// Bytes of attention's scores that one layer keeps of a batch. A GPU computes them anew for the backward pass. PyTorch's
/// kernel for processors does too, but knows no dropout; what stands in for it keeps scores, what was left out of them and
/// what is left, all in 32 bits, and queries, keys and values in 32 bits beside those in 16.
fn scores(shape: &Shape, plan: &TrainingPlan) -> u64 {
    let training = &plan.training;
    if !(plan.on_processor && shape.drops_attention) {
        return 0;
    }
    let tokens = training.batch.saturating_mul(training.length);
    let of_token = 3 * 4 * shape.heads.saturating_mul(training.length);
    let widened = if training.precision == Precision::Fp32 { 0 } else { 2 * (shape.queries() + 2 * shape.keys()) };
    tokens.saturating_mul(of_token.saturating_add(widened))
}

/// What adapters keep of one token: in 16 bits the input of each, cast for it alone; in 32 bits, where nothing is cast,
/// inputs that others keep already only once.
fn adapter_inputs(shape: &Shape, training: &Training) -> u64 {
    const SHARED: [&str; 9] = ["k_proj", "v_proj", "o_proj", "up_proj", "key", "value", "k_lin", "v_lin", "out_lin"];
    let (Method::Lora(adapter) | Method::Qlora(adapter)) = &training.method else { return 0 };
    let is_whole = training.precision == Precision::Fp32;
    let chosen = |name: &str| adapter.targets.is_empty() || adapter.targets.iter().any(|target| target == name);
    let projections = shape.projections();
    let kept = projections.iter().filter(|(name, ..)| chosen(name) && !(is_whole && SHARED.contains(name)));
    let inputs: u64 = kept.map(|(_, input, _)| input).sum();
    (if is_whole { 4 } else { 2 }) * (inputs + adapter.rank.min(MAX_RANK) * projections.len() as u64)
}
