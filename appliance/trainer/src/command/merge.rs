//! `gap-train merge`

use gap_train::merge;
use std::{error::Error, path::PathBuf};

/// Merge an adapter into its base: a model that needs no adapter
#[derive(clap::Args)]
pub struct Merge {
    /// Directory of the base model
    model: PathBuf,
    /// Directory of the adapter
    adapter: PathBuf,
    /// Directory to make
    #[arg(short, long)]
    output: PathBuf,
}

impl Merge {
    pub fn run(self) -> Result<(), Box<dyn Error>> {
        let merged = merge::merge(&self.model, &self.adapter, &self.output)?;
        println!(
            "{} of {} tensors changed; base {}, merged {}",
            merged.changed, merged.tensors, merged.base, merged.digest
        );
        Ok(())
    }
}
