//! `gap-train init`.

use clap::Args;
use gap_train::init::{self, Architecture, Shape};
use std::path::PathBuf;

/// Makes a small model with random weights, and a tokenizer from the texts of a file
#[derive(Args)]
pub struct Init {
    /// The directory to make
    dir: PathBuf,
    /// Its family
    #[arg(long, value_enum, default_value = "llama")]
    arch: Architecture,
    /// Values of a row
    #[arg(long, default_value_t = 64)]
    hidden: usize,
    /// Layers
    #[arg(long, default_value_t = 2)]
    layers: usize,
    /// Heads of queries
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// Heads of keys and values
    #[arg(long, default_value_t = 2)]
    key_heads: usize,
    /// Values inside a feed-forward block; four times `hidden` if not given
    #[arg(long)]
    intermediate: Option<usize>,
    /// Positions
    #[arg(long, default_value_t = 1024)]
    context: usize,
    /// JSON Lines whose texts the vocabulary is made of
    #[arg(long)]
    vocab_from: PathBuf,
    /// The most tokens of the vocabulary
    #[arg(long, default_value_t = 512)]
    vocab: usize,
    /// Everything random follows from it
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

impl Init {
    pub fn run(self) -> Result<(), Box<dyn std::error::Error>> {
        let shape = Shape {
            architecture: self.arch,
            hidden: self.hidden,
            layers: self.layers,
            heads: self.heads,
            key_heads: self.key_heads,
            intermediate: self.intermediate.unwrap_or(4 * self.hidden),
            context: self.context,
            vocabulary: self.vocab,
            seed: self.seed,
        };
        Ok(init::init(&self.dir, &shape, &self.vocab_from)?)
    }
}
