//! What a finished job leaves: the adapter as PEFT reads it, or the model, and the lineage.

use crate::{
    error::{Failed, storage, unwritten},
    files::{self, Growing},
    tensors::{self, WriteError},
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
    let growing = Growing::begin(&place).map_err(storage("write", &place))?;
    let digests = match &job.lora {
        Some(lora) => adapter(&growing, lora, job, model),
        None => whole(&growing, &job.model, model),
    };
    let digests = digests.map_err(unwritten("write", &place))?;
    growing.finish().map_err(storage("write", &place))?;
    let place = place.strip_prefix(output.dir()).unwrap_or(&place);
    Ok(digests.into_iter().map(|(name, digest)| (place.join(name), digest)).collect())
}

/// The room that it takes on the disk, in bytes.
///
/// # Errors
/// Where it cannot be laid out, or a file of the base not be looked at.
pub fn size(job: &Job, model: &mut TrainableDecoder) -> Result<u64, Failed> {
    let mut size = files::ROUNDING;
    if job.lora.is_none() {
        for path in TAKEN_OVER.map(|name| job.model.join(name)).iter().filter(|path| path.is_file()) {
            size += fs::metadata(path).map_err(storage("look at", path))?.len();
        }
    }
    let tensors = tensors::of(model, job.lora.is_none());
    let weights = tensors::size(&tensors, notes());
    Ok(size + weights.map_err(|error| Failed::new(FailureCode::Internal, error.to_string()))?)
}

/// Names of files and their digests.
type Digests = Vec<(&'static str, String)>;

fn adapter(growing: &Growing, lora: &Lora, job: &Job, model: &mut TrainableDecoder) -> Result<Digests, WriteError> {
    let tensors = tensors::of(model, false);
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
    let (weights, about) = ("adapter_model.safetensors", "adapter_config.json");
    let config = serde_json::to_vec_pretty(&config).map_err(std::io::Error::from)?;
    Ok(vec![(weights, tensors::save(growing, weights, &tensors, notes())?), (about, growing.write(about, &config)?)])
}

fn whole(growing: &Growing, base: &Path, model: &mut TrainableDecoder) -> Result<Digests, WriteError> {
    let mut digests = Vec::new();
    for name in TAKEN_OVER {
        let from = base.join(name);
        if from.is_file() {
            digests.push((name, growing.write(name, &fs::read(from)?)?));
        }
    }
    let weights = "model.safetensors";
    digests.push((weights, tensors::save(growing, weights, &tensors::of(model, true), notes())?));
    Ok(digests)
}

/// What Transformers wants to find in a file of weights.
fn notes() -> HashMap<String, String> {
    HashMap::from([("format".to_owned(), "pt".to_owned())])
}
