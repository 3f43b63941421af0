//! A PEFT adapter: what it changes in its base, and by how much.

use crate::{
    digest::{self, DigestError},
    shards::{Shard, ShardError},
};
use candle_core::{DType, Tensor};
use gap_contract::Lineage;
use regex::Regex;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// What every name in an adapter starts with: PEFT's model around the model.
const PREFIX: &str = "base_model.model.";
/// The largest configuration or lineage that is read, in bytes.
const MAX_JSON: u64 = 16 << 20;

/// Why an adapter cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// A file cannot be read.
    #[error("the adapter's {} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file is not as expected.
    #[error("the adapter's {} is not as expected: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
    /// Something that is not LoRA or RS-LoRA.
    #[error("the adapter in {} uses {what}, which cannot be merged; LoRA and RS-LoRA can", dir.display())]
    Unsupported {
        /// The adapter's directory.
        dir: PathBuf,
        /// What it uses.
        what: String,
    },
    /// A part is missing or has a shape that does not fit.
    #[error("the adapter's `{name}` does not fit: {what}")]
    Misfit {
        /// The tensor.
        name: String,
        /// What does not fit.
        what: String,
    },
    /// A number that is not finite.
    #[error("the adapter's `{0}` has numbers that are not finite")]
    NotFinite(String),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] ShardError),
    /// A digest could not be computed.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// Computing failed.
    #[error("the change of `{name}` cannot be computed: {source}")]
    Compute {
        /// The tensor of the base.
        name: String,
        /// The reason.
        source: candle_core::Error,
    },
}

/// `adapter_config.json`, the parts that decide about numbers.
#[derive(Debug, Deserialize)]
struct Config {
    peft_type: String,
    r: u32,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    rank_pattern: BTreeMap<String, u32>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
}

/// How one tensor of the base is changed.
#[derive(Debug)]
enum Change {
    /// B·A times the scaling is added; both as named in the adapter.
    Product { a: String, b: String, scaling: f64, embedding: bool },
    /// It is replaced.
    Whole(String),
}

/// An adapter.
#[derive(Debug)]
pub struct Adapter {
    weights: Shard,
    changes: BTreeMap<String, Change>,
    base: Option<String>,
}

impl Adapter {
    /// Reads `adapter_config.json`, `adapter_model.safetensors` and, if it is there, the lineage.
    ///
    /// # Errors
    /// [`AdapterError`].
    pub fn read(dir: &Path) -> Result<Self, AdapterError> {
        let config: Config = json(&dir.join("adapter_config.json"))?;
        let unsupported = |what: &str| Err(AdapterError::Unsupported { dir: dir.to_owned(), what: what.to_owned() });
        match &config {
            config if config.peft_type != "LORA" => return unsupported(&config.peft_type),
            Config { use_dora: true, .. } => return unsupported("DoRA"),
            Config { fan_in_fan_out: true, .. } => return unsupported("transposed weights (`fan_in_fan_out`)"),
            _ => {}
        }
        let path = dir.join("adapter_model.safetensors");
        let weights = Shard::open(&path)?;
        let changes = changes(dir, &config, &weights)?;
        let base = trained_on(dir, &path)?;
        Ok(Self { weights, changes, base })
    }

    /// Digest of the base that the adapter was trained on, if its lineage was found.
    #[must_use]
    pub fn base_digest(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// The tensors of the base that it changes, sorted.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.changes.keys().map(String::as_str)
    }

    /// Whether it changes a tensor of the base.
    #[must_use]
    pub fn changes(&self, target: &str) -> bool {
        self.changes.contains_key(target)
    }

    /// The shape that the changed tensor must have.
    ///
    /// # Errors
    /// [`AdapterError::Misfit`] if the adapter's own parts do not fit each other.
    pub fn shape(&self, target: &str) -> Result<Vec<usize>, AdapterError> {
        let shape = |name: &str| {
            let misfit = || AdapterError::Misfit { name: name.to_owned(), what: "it is not there".to_owned() };
            self.weights.shape(name).map(<[usize]>::to_vec).ok_or_else(misfit)
        };
        match self.changes.get(target) {
            Some(Change::Whole(name)) => shape(name),
            Some(Change::Product { a, b, embedding, .. }) => match (shape(a)?.as_slice(), shape(b)?.as_slice()) {
                (&[rank, columns], &[rows, other]) if rank == other => {
                    Ok(if *embedding { vec![columns, rows] } else { vec![rows, columns] })
                }
                (first, second) => {
                    let what = format!("it has the shape {first:?}, its counterpart {second:?}");
                    Err(AdapterError::Misfit { name: a.clone(), what })
                }
            },
            None => {
                Err(AdapterError::Misfit { name: target.to_owned(), what: "the adapter does not change it".to_owned() })
            }
        }
    }

    /// A tensor of the base (f32) with the change.
    ///
    /// # Errors
    /// [`AdapterError`].
    pub fn change(&self, target: &str, weight: &Tensor) -> Result<Tensor, AdapterError> {
        let compute = |source| AdapterError::Compute { name: target.to_owned(), source };
        match self.changes.get(target) {
            None => Ok(weight.clone()),
            Some(Change::Whole(name)) => self.part(name),
            Some(Change::Product { a, b, scaling, embedding }) => {
                let product = self.part(b)?.matmul(&self.part(a)?).and_then(|product| product.affine(*scaling, 0.0));
                let product = product.map_err(compute)?;
                let product = if *embedding { product.t().map_err(compute)? } else { product };
                weight.add(&product).map_err(compute)
            }
        }
    }

    fn part(&self, name: &str) -> Result<Tensor, AdapterError> {
        let compute = |source| AdapterError::Compute { name: name.to_owned(), source };
        let part = self.weights.tensor(name)?.to_dtype(DType::F32).map_err(compute)?;
        let numbers = part.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).map_err(compute)?;
        if !numbers.iter().all(|number| number.is_finite()) {
            return Err(AdapterError::NotFinite(name.to_owned()));
        }
        Ok(part)
    }
}

/// What each tensor in the adapter does to the base.
fn changes(dir: &Path, config: &Config, weights: &Shard) -> Result<BTreeMap<String, Change>, AdapterError> {
    let names: BTreeSet<String> = weights.names().into_iter().collect();
    let unsupported = |what: String| AdapterError::Unsupported { dir: dir.to_owned(), what };
    let mut changes = BTreeMap::new();
    for name in &names {
        let own = name.strip_prefix(PREFIX).ok_or_else(|| unsupported(format!("the name `{name}`")))?;
        let pairs = [(".lora_A.weight", ".lora_B.weight", false), (".lora_embedding_A", ".lora_embedding_B", true)];
        if let Some((module, (_, other, embedding))) =
            pairs.iter().find_map(|pair| own.strip_suffix(pair.0).map(|module| (module, pair)))
        {
            let b = format!("{PREFIX}{module}{other}");
            if !names.contains(&b) {
                return Err(AdapterError::Misfit { name: name.clone(), what: format!("`{b}` is missing") });
            }
            let scaling = scaling(config, module).map_err(unsupported)?;
            let change = Change::Product { a: name.clone(), b, scaling, embedding: *embedding };
            changes.insert(format!("{module}.weight"), change);
        } else if let Some(module) = pairs.iter().find_map(|pair| own.strip_suffix(pair.1)) {
            let a = pairs.iter().map(|pair| format!("{PREFIX}{module}{}", pair.0));
            if !a.into_iter().any(|a| names.contains(&a)) {
                return Err(AdapterError::Misfit { name: name.clone(), what: "its counterpart is missing".to_owned() });
            }
        } else if own.contains(".lora_") {
            return Err(unsupported(format!("`{name}`")));
        } else {
            changes.insert(own.to_owned(), Change::Whole(name.clone()));
        }
    }
    Ok(changes)
}

/// What the product of a module is multiplied by.
fn scaling(config: &Config, module: &str) -> Result<f64, String> {
    let r = f64::from(by_pattern(&config.rank_pattern, module)?.unwrap_or(config.r));
    let alpha = by_pattern(&config.alpha_pattern, module)?.unwrap_or(config.lora_alpha);
    if r < 1.0 || !alpha.is_finite() {
        return Err(format!("rank {r} and alpha {alpha}"));
    }
    Ok(alpha / if config.use_rslora { r.sqrt() } else { r })
}

/// PEFT's rule: the first pattern that matches the end of the name, from a dot on.
fn by_pattern<T: Copy>(patterns: &BTreeMap<String, T>, module: &str) -> Result<Option<T>, String> {
    for (pattern, value) in patterns {
        let regex =
            Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$")).map_err(|error| format!("the pattern {error}"))?;
        if regex.is_match(module) {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

/// The base by the lineage that lies in the adapter's directory or beside it, if it is this adapter's.
fn trained_on(dir: &Path, weights: &Path) -> Result<Option<String>, AdapterError> {
    let beside = dir.parent().map(|parent| parent.join("lineage.json"));
    let Some(path) = [Some(dir.join("lineage.json")), beside].into_iter().flatten().find(|path| path.is_file()) else {
        return Ok(None);
    };
    let lineage: Lineage = json(&path)?;
    let own = digest::of_file(weights)?;
    Ok(lineage.result.values().any(|digest| *digest == own).then_some(lineage.base.digest))
}

fn json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, AdapterError> {
    let io = |source| AdapterError::Io { path: path.to_owned(), source };
    if fs::metadata(path).map_err(io)?.len() > MAX_JSON {
        return Err(io(io::Error::other(format!("it has more than {MAX_JSON} bytes"))));
    }
    let bytes = fs::read(path).map_err(io)?;
    serde_json::from_slice(&bytes).map_err(|source| AdapterError::Json { path: path.to_owned(), source })
}
