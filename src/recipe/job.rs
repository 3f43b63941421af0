//! Jobs and steps: what the images of an appliance are made to do.

use gap_handover::site::EndpointName;
use std::{collections::BTreeMap, num::NonZeroU16, path::PathBuf};

/// `[job.NAME]`: something that the appliance can be told to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name in the recipe.
    pub name: String,
    /// The image that it runs in.
    pub image: String,
    /// What it does, as far as its needs can be computed.
    pub work: Work,
    /// Program and arguments; the image's own when empty.
    pub run: Vec<String>,
    /// Configuration files beside the recipe that it goes by.
    pub configs: Vec<ConfigPath>,
    /// How many GPUs it takes on each node: 0 for a job of the processor, all of the target's when absent.
    pub gpus: Option<u32>,
    /// Endpoints of the site that it is to reach, by the names that a site configuration gives them, and the port of its
    /// own loopback on which it finds each.
    pub endpoints: BTreeMap<EndpointName, NonZeroU16>,
}

impl Job {
    /// Whether it is one for the processor, whatever GPUs there are.
    pub const fn is_for_processor(&self) -> bool {
        matches!(self.gpus, Some(0))
    }
}

/// `[step.NAME]`: one step of a chain of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name in the recipe.
    pub name: String,
    /// The image that it runs in.
    pub image: String,
    /// Steps that come before it.
    pub needs: Vec<String>,
    /// Program and arguments.
    pub run: Vec<String>,
    /// Configuration files beside the recipe that it goes by.
    pub configs: Vec<ConfigPath>,
}

/// A configuration file (JSON, YAML or TOML by its suffix) beside the recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigPath {
    /// The path as the recipe has it: relative to the recipe, without `..`.
    pub shown: String,
    /// Where it lies on this machine.
    pub path: PathBuf,
}

/// The kinds of work whose needs are known; a job chooses one by the key of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Training a model.
    Train(Training),
    /// Serving a model.
    Serve(Serving),
    /// Something else.
    Other,
}

/// Training of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Training {
    /// The model, by its name in the recipe.
    pub model: String,
    /// The data sets, by their names in the recipe.
    pub datasets: Vec<String>,
    /// The program that trains.
    pub trainer: Trainer,
    /// Which parameters are trained.
    pub method: Method,
    /// The numbers that are computed with.
    pub precision: Precision,
    /// Sequences in one pass over one GPU.
    pub batch: u64,
    /// Tokens in a sequence.
    pub length: u64,
    /// Passes whose gradients are added up before a step.
    pub accumulate: u64,
    /// Whether activations are computed again rather than kept (gradient checkpointing).
    pub checkpointing: bool,
    /// What turns gradients into steps.
    pub optimizer: Optimizer,
    /// What the GPUs share out among them.
    pub sharding: Sharding,
    /// The highest learning rate; the trainer's own when absent.
    pub learning_rate: Option<serde_json::Number>,
    /// How often all examples are gone through; the trainer's own when absent.
    pub epochs: Option<u64>,
}

/// Serving of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// The model, by its name in the recipe.
    pub model: String,
    /// The program that serves.
    pub engine: Engine,
    /// Tokens in the longest sequence, prompt and answer together.
    pub length: u64,
    /// Sequences at a time.
    pub concurrency: u64,
}

/// Which parameters are trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// All.
    Full,
    /// Low-rank adapters beside frozen weights.
    Lora(Adapter),
    /// Low-rank adapters beside frozen weights of four bits (NF4).
    Qlora(Adapter),
}

/// Low-rank adapters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// Their rank.
    pub rank: u64,
    /// What they are multiplied by, times their rank; the trainer's own when absent.
    pub alpha: Option<u64>,
    /// The projections that have one (`q_proj`); all linear ones of a layer when empty.
    pub targets: Vec<String>,
}

/// A choice of names in a recipe.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in recipes.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

choice! {
    /// Programs that train.
    Trainer {
        /// The Trainer of Hugging Face Transformers.
        Transformers = "transformers",
        /// Hugging Face TRL, on top of Transformers.
        Trl = "trl",
        /// The appliance's own.
        GapTrain = "gap-train",
        /// Another.
        Other = "other",
    }
}

choice! {
    /// Programs that serve.
    Engine {
        /// vLLM.
        Vllm = "vllm",
        /// Hugging Face Transformers.
        Transformers = "transformers",
        /// The appliance's own.
        GapServe = "gap-serve",
        /// Another.
        Other = "other",
    }
}

choice! {
    /// The numbers that are computed with.
    Precision {
        /// 32 bits throughout.
        Fp32 = "fp32",
        /// Mixed: 16 bits (IEEE 754 binary16) for products, 32 bits for trained weights.
        Fp16 = "fp16",
        /// Mixed: 16 bits (bfloat16) for products, 32 bits for trained weights.
        Bf16 = "bf16",
        /// bfloat16 throughout, trained weights and optimizer as well.
        PureBf16 = "pure-bf16",
    }
}

choice! {
    /// What turns gradients into steps.
    Optimizer {
        /// AdamW: two moments for each parameter.
        AdamW = "adamw",
        /// AdamW of bitsandbytes: two moments of eight bits.
        AdamW8bit = "adamw-8bit",
        /// Adafactor: factored moments.
        Adafactor = "adafactor",
        /// Gradient descent without momentum.
        Sgd = "sgd",
    }
}

choice! {
    /// What GPUs share out among them.
    Sharding {
        /// Nothing: each GPU has its copy of all (DistributedDataParallel).
        Ddp = "ddp",
        /// The optimizer's moments (DeepSpeed ZeRO, stage 1).
        Zero1 = "zero1",
        /// Moments and gradients (DeepSpeed ZeRO, stage 2).
        Zero2 = "zero2",
        /// Moments, gradients and weights (DeepSpeed ZeRO, stage 3).
        Zero3 = "zero3",
        /// The same by PyTorch (FullyShardedDataParallel).
        Fsdp = "fsdp",
    }
}
