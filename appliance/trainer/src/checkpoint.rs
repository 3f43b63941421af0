//! Checkpoints: everything to go on from after a step. They appear whole, carry the digests of their files, and are
//! checked before use.

use crate::{
    digest,
    error::{Failed, storage, unwritten},
    files::{self, Growing},
    optimizer::{AdamW, Moments},
    origin::Origin,
    tensors::{self, Tensors},
};
use candle_core::{Device, Tensor};
use gap_contract::{FailureCode, Output};
use gap_lm::{
    inference::{SafetensorsDirectory, TensorSource},
    training::TrainableDecoder,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

const STATE: &str = "state.json";
const PARAMETERS: &str = "parameters.safetensors";
const MOMENTS: &str = "moments.safetensors";

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps that are done.
    pub step: u64,
    /// Tokens gone through.
    pub trained_tokens: u64,
    /// Seconds since 1970 when the first run began.
    pub started_at: i64,
    /// Examples in a batch, which `auto` may choose otherwise on another machine.
    pub batch: u64,
    /// Digest of the job and the data that it began with.
    pub job_sha256: String,
    /// The base and the adapter that it began with. A checkpoint on request may be made before they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The peak of the learning rate, which may be another when the run goes on.
    pub learning_rate: f64,
    /// Loss of the last step.
    pub train_loss: f64,
    /// The last validation loss.
    pub valid_loss: Option<f64>,
    /// The best validation loss and its step.
    pub best: Option<(f64, u64)>,
    /// Measurements since the best one.
    pub without_improvement: u64,
    /// How many times in a row the validation loss rose.
    pub rising: u64,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    state: State,
    digests: BTreeMap<String, String>,
}

/// Writes the checkpoint of a state.
///
/// # Errors
/// Where it cannot be written; then nothing of it is there.
pub fn write(output: &Output, state: &State, model: &mut TrainableDecoder, optimizer: &AdamW) -> Result<(), Failed> {
    let place = output.checkpoint(state.step);
    let failed = || storage("write the checkpoint", &place);
    let mut moments = Tensors::new();
    for (name, of) in optimizer.moments() {
        moments.insert(format!("first.{name}"), of.first.clone());
        moments.insert(format!("second.{name}"), of.second.clone());
    }
    let growing = Growing::begin(&place).map_err(failed())?;
    let mut digests = BTreeMap::new();
    for (name, tensors) in [(PARAMETERS, tensors::of(model, false)), (MOMENTS, moments)] {
        let digest = tensors::save(&growing, name, &tensors, HashMap::new());
        digests.insert(name.to_owned(), digest.map_err(unwritten("write the checkpoint", &place))?);
    }
    let stored = serde_json::to_vec_pretty(&Stored { state: state.clone(), digests });
    let stored = stored.map_err(|error| failed()(error.into()))?;
    growing.write(STATE, &stored).map_err(failed())?;
    growing.finish().map_err(failed())
}

/// The room that a checkpoint takes on the disk, in bytes: the files and what they are rounded up to.
///
/// # Errors
/// Where it cannot be laid out.
pub fn size(model: &mut TrainableDecoder) -> Result<u64, Failed> {
    let parameters = tensors::of(model, false);
    // Moments have the shape of their parameter.
    let halves =
        |(name, tensor): (&String, &Tensor)| ["first", "second"].map(|half| (format!("{half}.{name}"), tensor.clone()));
    let moments = parameters.iter().flat_map(halves).collect();
    let size = |tensors: &Tensors| {
        tensors::size(tensors, HashMap::new())
            .map_err(|error| Failed::new(FailureCode::Internal, format!("a checkpoint cannot be made: {error}")))
    };
    Ok(size(&parameters)? + size(&moments)? + files::ROUNDING)
}

/// The steps of the checkpoints that are there, in order.
///
/// # Errors
/// Where the directory cannot be read.
pub fn steps(output: &Output) -> Result<Vec<u64>, Failed> {
    let dir = output.checkpoints();
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(storage("read", &dir))?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut steps: Vec<u64> = names.filter_map(|name| Output::checkpoint_step(&name)).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// Reads the state of a checkpoint after its files were compared with their digests.
///
/// # Errors
/// Where one is missing or damaged.
pub fn state(output: &Output, step: u64) -> Result<State, Failed> {
    let dir = output.checkpoint(step);
    let read = |path: &Path| fs::read(path).map_err(storage("read", path));
    let damaged = |what: String| {
        Failed::new(FailureCode::Storage, format!("the checkpoint {} is damaged: {what}", dir.display()))
    };
    let stored = read(&dir.join(STATE))?;
    let stored: Stored = serde_json::from_slice(&stored).map_err(|error| damaged(error.to_string()))?;
    for name in [PARAMETERS, MOMENTS] {
        let found = digest::of_file(&dir.join(name)).map_err(|error| damaged(error.to_string()))?;
        if stored.digests.get(name) != Some(&found) {
            return Err(damaged(format!("`{name}` is not what was written")));
        }
    }
    Ok(stored.state)
}

/// Sets a checkpoint aside that cannot be used, under a name by which none is found; where it lies then.
///
/// # Errors
/// Where it cannot be moved.
pub fn set_aside(output: &Output, step: u64) -> Result<PathBuf, Failed> {
    let dir = output.checkpoint(step);
    let aside = dir.with_file_name(format!("damaged-{}", dir.file_name().unwrap_or_default().to_string_lossy()));
    let failed = || storage("set aside", &dir);
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(failed())?;
    }
    fs::rename(&dir, &aside).map_err(failed())?;
    Ok(aside)
}

/// Puts the parameters of a checkpoint into a model.
///
/// # Errors
/// Where they do not fit.
pub fn load_parameters(output: &Output, step: u64, model: &mut TrainableDecoder) -> Result<(), Failed> {
    let source = open(&output.checkpoint(step).join(PARAMETERS))?;
    let mut failed = None;
    model.visit(|parameter| {
        if parameter.is_trainable() && failed.is_none() {
            let value = source.tensor(parameter.name(), parameter.value().dims(), parameter.value().device());
            failed = value.map_err(|error| unfit(&error)).and_then(|value| Ok(parameter.set(value)?)).err();
        }
    });
    failed.map_or(Ok(()), Err)
}

/// The optimiser's moments of a checkpoint.
///
/// # Errors
/// Where they cannot be read.
pub fn load_moments(output: &Output, step: u64, device: &Device) -> Result<AdamW, Failed> {
    let source = open(&output.checkpoint(step).join(MOMENTS))?;
    let mut optimizer = AdamW::default();
    for name in source.names().filter_map(|name| name.strip_prefix("first.")) {
        let one = |half: &str| {
            let full = format!("{half}.{name}");
            let shape = source.shape(&full).unwrap_or_default();
            source.tensor(&full, &shape, device).map_err(|error| unfit(&error))
        };
        optimizer.restore(name, Moments { first: one("first")?, second: one("second")? });
    }
    Ok(optimizer)
}

fn open(path: &Path) -> Result<SafetensorsDirectory, Failed> {
    SafetensorsDirectory::open_file(path).map_err(|error| unfit(&error))
}

fn unfit(error: &dyn std::error::Error) -> Failed {
    Failed::new(FailureCode::Storage, format!("the checkpoint does not fit the job: {error}"))
}

/// Takes away the oldest beyond `limit`, but not the best one.
///
/// # Errors
/// Where one cannot be removed.
pub fn prune(output: &Output, limit: Option<u64>, best: Option<u64>) -> Result<(), Failed> {
    let Some(limit) = limit else { return Ok(()) };
    let steps = steps(output)?;
    let spare = steps.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    for step in steps.iter().take(spare).filter(|step| Some(**step) != best) {
        let dir = output.checkpoint(*step);
        fs::remove_dir_all(&dir).map_err(storage("remove", &dir))?;
    }
    Ok(())
}
