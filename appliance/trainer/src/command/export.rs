//! `gap-train export`

use gap_train::gguf::{self, Quant};
use std::{error::Error, path::PathBuf};

/// Write a model as one GGUF file, for llama.cpp and its relatives
#[derive(clap::Args)]
pub struct Export {
    /// Directory of the model
    model: PathBuf,
    /// File to write
    #[arg(short, long, value_name = "FILE.gguf")]
    output: PathBuf,
    /// How matrices are stored
    #[arg(long, default_value = "q8_0")]
    quant: Quant,
}

impl Export {
    pub fn run(self) -> Result<(), Box<dyn Error>> {
        let exported = gguf::export(&self.model, &self.output, self.quant)?;
        println!("{}: {} tensors, {} bytes", self.output.display(), exported.tensors, exported.bytes);
        Ok(())
    }
}
