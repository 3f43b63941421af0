//! What a finished job leaves: the adapter as PEFT reads it, or the model, and the lineage.

use crate::{
    digest,
    error::{Failed, storage},
    files::{self, Growing},
};
use gap_contract::{FailureCode, Job, Lora, Output};
use gap_lm::training::{TARGETS, TrainableDecoder, adapter::AdapterConfig};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

/// Files of a model directory that a fine-tuned model takes over as they are.
const TAKEN_OVER: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// Writes the adapter or model of a job; the digests of its files, by their places in the output directory.
///
/// # Errors
/// Where it cannot be written.
pub fn write(output: &Output, job: &Job, model: &mut TrainableDecoder) -> Result<BTreeMap<PathBuf, String>, Failed> {
    let place = if job.lora.is_some() { output.adapter() } else { output.model() };
    let failed = || storage("write", &place);
    let growing = Growing::begin(&place).map_err(failed())?;
    match &job.lora {
        Some(lora) => adapter(&growing, lora, job, model).map_err(|error| error.about_place(&place))?,
        None => whole(&growing, &job.model, model).map_err(|error| error.about_place(&place))?,
    }
    growing.finish().map_err(failed())?;
    digests(output, &place)
}

enum WriteError {
    Io(std::io::Error),
    Other(Failed),
}

impl WriteError {
    fn about_place(self, place: &Path) -> Failed {
        match self {
            Self::Io(error) => storage("write", place)(error),
            Self::Other(failed) => failed,
        }
    }
}

impl From<std::io::Error> for WriteError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<candle_core::Error> for WriteError {
    fn from(error: candle_core::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<safetensors::SafeTensorError> for WriteError {
    fn from(error: safetensors::SafeTensorError) -> Self {
        Self::Other(Failed::new(FailureCode::Internal, format!("the result cannot be laid out: {error}")))
    }
}

fn adapter(growing: &Growing, lora: &Lora, job: &Job, model: &mut TrainableDecoder) -> Result<(), WriteError> {
    let tensors = files::parameters(model, false)?;
    let trained = |target: &&str| tensors.keys().any(|name| name.contains(&format!(".{target}.lora_A.")));
    let config = AdapterConfig {
        peft_type: "LORA".to_owned(),
        task_type: Some("CAUSAL_LM".to_owned()),
        base_model_name_or_path: Some(job.model.to_string_lossy().into_owned()),
        r: usize::try_from(lora.r).unwrap_or(usize::MAX),
        lora_alpha: lora.alpha,
        lora_dropout: lora.dropout,
        target_modules: TARGETS.into_iter().filter(trained).collect::<Vec<_>>().into(),
        use_rslora: lora.use_rslora,
        bias: "none".to_owned(),
        fan_in_fan_out: false,
        use_dora: false,
        inference_mode: true,
        modules_to_save: None,
        rank_pattern: BTreeMap::new(),
        alpha_pattern: BTreeMap::new(),
    };
    let weights = files::safetensors(&tensors, HashMap::from([("format".to_owned(), "pt".to_owned())]))?;
    growing.write("adapter_model.safetensors", &weights)?;
    let config = serde_json::to_vec_pretty(&config).map_err(std::io::Error::from)?;
    Ok(growing.write("adapter_config.json", &config)?)
}

fn whole(growing: &Growing, base: &Path, model: &mut TrainableDecoder) -> Result<(), WriteError> {
    for name in TAKEN_OVER {
        let from = base.join(name);
        if from.is_file() {
            growing.write(name, &fs::read(from)?)?;
        }
    }
    let tensors = files::parameters(model, true)?;
    let weights = files::safetensors(&tensors, HashMap::from([("format".to_owned(), "pt".to_owned())]))?;
    Ok(growing.write("model.safetensors", &weights)?)
}

fn digests(output: &Output, place: &Path) -> Result<BTreeMap<PathBuf, String>, Failed> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(place).map_err(storage("read", place))? {
        let path = entry.map_err(storage("read", place))?.path();
        let digest = digest::of_file(&path).map_err(|error| Failed::new(FailureCode::Storage, error.to_string()))?;
        all.insert(path.strip_prefix(output.dir()).unwrap_or(&path).to_owned(), digest);
    }
    Ok(all)
}
