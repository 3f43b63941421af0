//! An adapter merged into its base: a model directory that needs no adapter.
//!
//! The files of weights keep their names, their headers and the order and type of their tensors; only the tensors that the
//! adapter changes get other numbers. Nothing but one tensor is in memory at a time.

mod adapter;

pub use adapter::{Adapter, AdapterError};

use crate::{
    digest::{self, DigestError},
    shards::{Shard, ShardError, Shards},
};
use candle_core::{DType, Tensor};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// Why an adapter cannot be merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The base.
    #[error(transparent)]
    Weights(#[from] ShardError),
    /// A digest could not be computed.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The adapter says which base it was trained on, and it is another one.
    #[error(
        "the adapter was trained on the base {trained_on} (SHA-256), and {} is {found}; merge it into the base that it \
         was trained on", model.display()
    )]
    OtherBase {
        /// The directory that was given as base.
        model: PathBuf,
        /// Digest of the base that the lineage names.
        trained_on: String,
        /// Digest of the base that was given.
        found: String,
    },
    /// The adapter changes what the base does not have.
    #[error(
        "the adapter changes `{tensor}`, and {} (base {found}) has no such tensor{}; it was trained on another base",
        model.display(), if *tied { ", because its output head is its embedding" } else { "" }
    )]
    NoSuchTensor {
        /// The directory that was given as base.
        model: PathBuf,
        /// Its digest.
        found: String,
        /// The name.
        tensor: String,
        /// Whether it is the output head of a model that shares it with the embedding.
        tied: bool,
    },
    /// The adapter changes a tensor of another shape.
    #[error(
        "the adapter is made for a `{tensor}` of the shape {wanted:?}; that of {} (base {found}) has {shape:?}: it was \
         trained on another base", model.display()
    )]
    OtherShape {
        /// The directory that was given as base.
        model: PathBuf,
        /// Its digest.
        found: String,
        /// The name.
        tensor: String,
        /// The shape that the adapter changes.
        wanted: Vec<usize>,
        /// The shape of the base.
        shape: Vec<usize>,
    },
    /// Merged numbers that are not finite.
    #[error("`{0}` has numbers that are not finite after merging; base or adapter is damaged")]
    NotFinite(String),
    /// Computing failed.
    #[error("`{tensor}` cannot be merged: {source}")]
    Compute {
        /// The name.
        tensor: String,
        /// The reason.
        source: candle_core::Error,
    },
    /// Something is there already.
    #[error("{} is there already; name a directory that is not", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// What was merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// Tensors that the adapter changed.
    pub changed: usize,
    /// Tensors of the model.
    pub tensors: usize,
    /// Digest of the base.
    pub base: String,
    /// Digest of the merged model.
    pub digest: String,
}

/// Writes the model in `model` with the adapter merged into it to the directory `to`; whole or not at all.
///
/// # Errors
/// [`MergeError`].
pub fn merge(model: &Path, adapter: &Path, to: &Path) -> Result<Merged, MergeError> {
    if to.exists() {
        return Err(MergeError::Exists(to.to_owned()));
    }
    let shards = Shards::open(model)?;
    let adapter = Adapter::read(adapter)?;
    let base = digest::of_model(model)?;
    check(model, &shards, &adapter, &base)?;

    let parent = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| MergeError::Io { path, source }
    };
    let staging = tempfile::Builder::new().prefix(".merge-").tempdir_in(parent).map_err(failed(parent))?;
    copy_beside(model, staging.path())?;
    for shard in shards.files() {
        write_shard(shard, &adapter, staging.path())?;
    }
    let digest = digest::of_model(staging.path())?;
    sync(staging.path()).map_err(failed(staging.path()))?;
    readable_by_all(staging.path()).map_err(failed(staging.path()))?;
    fs::rename(staging.path(), to).map_err(failed(to))?;
    // There is nothing left to take away.
    let _moved = staging.keep();
    sync(parent).map_err(failed(parent))?;
    Ok(Merged { changed: adapter.targets().count(), tensors: shards.names().count(), base, digest })
}

/// Whether the adapter belongs to this base: by the digest in its lineage if it has one, and by names and shapes.
fn check(model: &Path, shards: &Shards, adapter: &Adapter, base: &str) -> Result<(), MergeError> {
    if let Some(trained_on) = adapter.base_digest()
        && trained_on != base
    {
        let (trained_on, found) = (trained_on.to_owned(), base.to_owned());
        return Err(MergeError::OtherBase { model: model.to_owned(), trained_on, found });
    }
    for target in adapter.targets() {
        let (model, found, tensor) = (model.to_owned(), base.to_owned(), target.to_owned());
        if !shards.has(target) {
            let tied = target == "lm_head.weight" && shards.has("model.embed_tokens.weight");
            return Err(MergeError::NoSuchTensor { model, found, tensor, tied });
        }
        let (wanted, shape) = (adapter.shape(target)?, shards.shape(target)?.to_vec());
        if wanted != shape {
            return Err(MergeError::OtherShape { model, found, tensor, wanted, shape });
        }
    }
    Ok(())
}

/// Everything of the model directory but its weights: configuration, tokenizer, template, index, licence.
fn copy_beside(model: &Path, to: &Path) -> Result<(), MergeError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| MergeError::Io { path, source }
    };
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(model).map_err(failed(model))? {
        names.insert(entry.map_err(failed(model))?.file_name());
    }
    for name in names {
        let path = model.join(&name);
        let weights = path.extension().is_some_and(|extension| extension == "safetensors" || extension == "bin");
        if !weights && path.is_file() {
            fs::copy(&path, to.join(&name)).map_err(failed(&path))?;
        }
    }
    Ok(())
}

fn write_shard(shard: &Shard, adapter: &Adapter, dir: &Path) -> Result<(), MergeError> {
    let name = shard.path().file_name().unwrap_or_default();
    let path = dir.join(name);
    let failed = |source| MergeError::Io { path: path.clone(), source };
    let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
    file.write_all(shard.header()).map_err(failed)?;
    for tensor in shard.names() {
        let bytes = if adapter.changes(&tensor) { merged(shard, adapter, &tensor)? } else { shard.bytes(&tensor)? };
        file.write_all(&bytes).map_err(failed)?;
    }
    file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)
}

/// A tensor with the adapter's change, computed in f32 and stored in the type that it had.
fn merged(shard: &Shard, adapter: &Adapter, name: &str) -> Result<Vec<u8>, MergeError> {
    let compute = |source| MergeError::Compute { tensor: name.to_owned(), source };
    let weight = shard.tensor(name)?;
    let stored = weight.dtype();
    let changed = adapter.change(name, &weight.to_dtype(DType::F32).map_err(compute)?)?;
    let bytes = raw(&changed.to_dtype(stored).map_err(compute)?).map_err(compute)?;
    bytes.ok_or_else(|| MergeError::NotFinite(name.to_owned()))
}

/// The bytes of a tensor, none if a number in it is not finite.
fn raw(tensor: &Tensor) -> candle_core::Result<Option<Vec<u8>>> {
    let flat = tensor.flatten_all()?;
    let as_f32 = flat.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    if !as_f32.iter().all(|number| number.is_finite()) {
        return Ok(None);
    }
    let bytes = match tensor.dtype() {
        DType::F16 => flat.to_vec1::<half::f16>()?.iter().flat_map(|number| number.to_le_bytes()).collect(),
        DType::BF16 => flat.to_vec1::<half::bf16>()?.iter().flat_map(|number| number.to_le_bytes()).collect(),
        _ => as_f32.iter().flat_map(|number| number.to_le_bytes()).collect(),
    };
    Ok(Some(bytes))
}

/// Temporary directories are their owner's alone; a model is not.
fn readable_by_all(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
