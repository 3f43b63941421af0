//! Whether an adapter was made for a base: what its `lineage.json` says, if it has one.

use super::{
    error::LoadError,
    json_file::{MAX_CONFIG, read_json},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{
    cell::OnceCell,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// The part of `lineage.json` that names the base.
#[derive(Debug, Deserialize)]
pub struct Lineage {
    base: Base,
}

#[derive(Debug, Deserialize)]
struct Base {
    name: String,
    digest: String,
}

/// A model that adapters are compared with. Its digest is one of all its weights: it is computed once, for the first adapter
/// that has a lineage.
#[derive(Debug)]
pub struct BaseModel {
    path: PathBuf,
    digest: OnceCell<String>,
}

impl BaseModel {
    /// That lies there.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), digest: OnceCell::new() }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn digest(&self) -> Result<&str, LoadError> {
        if let Some(digest) = self.digest.get() {
            return Ok(digest);
        }
        let digest = digest_of_model(&self.path)?;
        Ok(self.digest.get_or_init(|| digest))
    }
}

/// What an adapter's lineage says of a base that it does not contradict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kinship {
    /// It was trained on this base.
    Proven,
    /// Nothing: there is no lineage.
    Unsaid,
    /// It was trained on a base of this name. The model here is one file, which has no digest to compare.
    Unproven {
        /// The base's name.
        trained_on: String,
    },
}

impl Lineage {
    /// Compares the base that an adapter was trained on with a model. An adapter without a lineage, and one for a model that is
    /// one file and no directory, is compared by its shapes alone, when it is loaded.
    ///
    /// # Errors
    /// Where they differ, or a file cannot be read.
    pub fn check(adapter: &Path, base: &Path) -> Result<Kinship, LoadError> {
        Self::check_with(adapter, &BaseModel::new(base))
    }

    /// The same for one of several adapters of a base.
    ///
    /// # Errors
    /// As [`Lineage::check`].
    pub fn check_with(adapter: &Path, base: &BaseModel) -> Result<Kinship, LoadError> {
        let beside = [Some(adapter), adapter.parent()].into_iter().flatten().map(|path| path.join("lineage.json"));
        let Some(path) = beside.into_iter().find(|path| path.exists()) else { return Ok(Kinship::Unsaid) };
        let lineage: Self = read_json(&path, MAX_CONFIG)?;
        // The digest is one of files that a conversion to GGUF leaves behind.
        if base.path.is_file() {
            return Ok(Kinship::Unproven { trained_on: lineage.base.name });
        }
        let found = base.digest()?;
        if found == lineage.base.digest {
            return Ok(Kinship::Proven);
        }
        Err(LoadError::damaged(
            &path,
            format!(
                "the adapter was trained on `{}` with digest {}, but {} has digest {found}: serve it with its own base",
                lineage.base.name,
                lineage.base.digest,
                base.path.display()
            ),
        ))
    }
}

/// SHA-256 over lines `digest  name` of `config.json` and every `*.safetensors` of a directory, sorted by name.
fn digest_of_model(directory: &Path) -> Result<String, LoadError> {
    let entries = fs::read_dir(directory).map_err(LoadError::reading(directory))?;
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for entry in entries {
        let entry = entry.map_err(LoadError::reading(directory))?;
        if let Ok(name) = entry.file_name().into_string()
            && (name == "config.json" || name.ends_with(".safetensors"))
        {
            files.push((name, entry.path()));
        }
    }
    files.sort();
    let mut lines = Sha256::new();
    for (name, path) in files {
        let mut hash = Sha256::new();
        let mut file = File::open(&path).map_err(LoadError::reading(&path))?;
        io::copy(&mut file, &mut hash).map_err(LoadError::reading(&path))?;
        lines.update(format!("{}  {name}\n", hexadecimal(&hash.finalize())));
    }
    Ok(hexadecimal(&lines.finalize()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
