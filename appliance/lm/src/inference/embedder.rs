//! Embeddings of texts, by what a sentence-transformers directory says comes after the encoder.

use super::{
    encoder::{EncodedText, Encoder},
    encoder_config::EncoderConfig,
    error::LoadError,
    json_file::{MAX_CONFIG, read_json},
    linear::{Linear, Loader},
    tensors::SafetensorsDirectory,
};
use candle_core::{D, IndexOp, Result, Tensor};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

const SUPPORTED: &str = "modules are Transformer, Pooling (one mode of cls, mean, max, lasttoken), Dense and Normalize";

/// An encoder and what makes one vector of its rows.
#[derive(Debug)]
pub struct Embedder {
    encoder: Encoder,
    steps: Vec<Step>,
    longest: usize,
    prompt: String,
    dimensions: usize,
}

#[derive(Debug)]
enum Step {
    Pool(Pooling),
    Dense { linear: Linear, tanh: bool },
    Normalise,
}

#[derive(Debug, Clone, Copy)]
enum Pooling {
    First,
    Mean,
    Max,
    Last,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    r#type: String,
}

#[derive(Deserialize)]
struct TransformerConfig {
    max_seq_length: Option<usize>,
}

#[derive(Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    activation_function: String,
}

#[derive(Deserialize)]
struct Prompts {
    #[serde(default)]
    prompts: BTreeMap<String, String>,
    default_prompt_name: Option<String>,
}

impl Embedder {
    /// Loads a directory. Without `modules.json` rows are averaged, as sentence-transformers does.
    ///
    /// # Errors
    /// As [`Encoder::load`], and for modules that are not supported.
    pub fn load(directory: &Path, config: EncoderConfig, loader: Loader<'_>) -> std::result::Result<Self, LoadError> {
        let mut dimensions = config.hidden;
        let mut longest = config.longest();
        let mut steps = Vec::new();
        let list = directory.join("modules.json");
        if list.exists() {
            for Module { path, r#type } in read_json::<Vec<Module>>(&list, MAX_CONFIG)? {
                let unsupported =
                    |what: String| LoadError::Unsupported { path: list.clone(), what, supported: SUPPORTED };
                let inside = directory.join(&path);
                if !Path::new(&path).components().all(|part| matches!(part, Component::Normal(_))) {
                    return Err(LoadError::damaged(&list, format!("{path:?} is no directory inside the model's")));
                }
                match r#type.rsplit('.').next().unwrap_or_default() {
                    "Transformer" => longest = longest.min(max_sequence(directory)?.unwrap_or(longest)),
                    "Pooling" => {
                        let Some(pooling) = Pooling::read(&inside)? else {
                            return Err(unsupported(format!("pooling in {}", inside.display())));
                        };
                        steps.push(Step::Pool(pooling));
                    }
                    "Dense" => {
                        let dense: DenseConfig = read_json(&inside.join("config.json"), MAX_CONFIG)?;
                        let activation = dense.activation_function.rsplit('.').next().unwrap_or_default();
                        if !["Tanh", "Identity"].contains(&activation) || dense.in_features != dimensions {
                            return Err(unsupported(format!("dense layer in {}", inside.display())));
                        }
                        let source = SafetensorsDirectory::open(&inside)?;
                        let loader = Loader { source: &source, ..loader };
                        let parts = [("linear".to_owned(), dense.out_features)];
                        steps.push(Step::Dense {
                            linear: loader.linear(&parts, dense.in_features)?,
                            tanh: activation == "Tanh",
                        });
                        dimensions = dense.out_features;
                    }
                    "Normalize" => steps.push(Step::Normalise),
                    other => return Err(unsupported(format!("module `{other}`"))),
                }
            }
            if steps.iter().filter(|step| matches!(step, Step::Pool(_))).count() != 1 {
                return Err(LoadError::damaged(&list, "it has not exactly one Pooling"));
            }
            if !matches!(steps.first(), Some(Step::Pool(_))) {
                return Err(LoadError::damaged(&list, "Pooling does not come right after Transformer"));
            }
        } else {
            steps.push(Step::Pool(Pooling::Mean));
        }
        let prompt = default_prompt(directory)?;
        Ok(Self { encoder: Encoder::load(config, loader)?, steps, longest, prompt, dimensions })
    }

    /// Most tokens of a text.
    pub const fn longest(&self) -> usize {
        self.longest
    }

    /// Values of an embedding.
    pub const fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// What the model wants before each text.
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// Its shape.
    pub const fn config(&self) -> &EncoderConfig {
        self.encoder.config()
    }

    /// A vector for each text.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn embed(&self, texts: &[EncodedText]) -> Result<Vec<Vec<f32>>> {
        self.encoder.forward(texts)?.into_iter().map(|rows| self.finish(rows)?.i(0)?.to_vec1()).collect()
    }

    fn finish(&self, rows: Tensor) -> Result<Tensor> {
        self.steps.iter().try_fold(rows, |x, step| match step {
            Step::Pool(Pooling::First) => x.i(0..1),
            Step::Pool(Pooling::Last) => x.narrow(0, x.dim(0)?.saturating_sub(1), 1),
            Step::Pool(Pooling::Mean) => x.mean_keepdim(0),
            Step::Pool(Pooling::Max) => x.max_keepdim(0),
            Step::Dense { linear, tanh: true } => linear.forward(&x)?.tanh(),
            Step::Dense { linear, tanh: false } => linear.forward(&x),
            Step::Normalise => x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?),
        })
    }
}

impl Pooling {
    /// The one mode that is on.
    fn read(directory: &Path) -> std::result::Result<Option<Self>, LoadError> {
        let config: BTreeMap<String, serde_json::Value> = read_json(&directory.join("config.json"), MAX_CONFIG)?;
        let mode = |name: &str| match name {
            "pooling_mode_cls_token" | "cls" => Some(Self::First),
            "pooling_mode_mean_tokens" | "mean" => Some(Self::Mean),
            "pooling_mode_max_tokens" | "max" => Some(Self::Max),
            "pooling_mode_lasttoken" | "lasttoken" => Some(Self::Last),
            _ => None,
        };
        if let Some(name) = config.get("pooling_mode").and_then(serde_json::Value::as_str) {
            return Ok(mode(name));
        }
        let on = |(name, value): (&String, &serde_json::Value)| {
            (name.starts_with("pooling_mode_") && value.as_bool() == Some(true)).then(|| mode(name))
        };
        let on: Vec<_> = config.iter().filter_map(on).collect();
        Ok(match on.as_slice() {
            [mode] => *mode,
            _ => None,
        })
    }
}

fn max_sequence(directory: &Path) -> std::result::Result<Option<usize>, LoadError> {
    let path: PathBuf = directory.join("sentence_bert_config.json");
    if !path.exists() {
        return Ok(None);
    }
    Ok(read_json::<TransformerConfig>(&path, MAX_CONFIG)?.max_seq_length)
}

fn default_prompt(directory: &Path) -> std::result::Result<String, LoadError> {
    let path = directory.join("config_sentence_transformers.json");
    if !path.exists() {
        return Ok(String::new());
    }
    let Prompts { mut prompts, default_prompt_name } = read_json(&path, MAX_CONFIG)?;
    match default_prompt_name {
        None => Ok(String::new()),
        Some(name) => prompts
            .remove(&name)
            .ok_or_else(|| LoadError::damaged(&path, format!("its default prompt {name:?} is not among its prompts"))),
    }
}
