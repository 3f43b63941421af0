//! What the files of a model say: formats of weights, its description, and whether everything it needs is there.
//!
//! Everything is read with bounds: headers only, never a tensor. Nothing that is read is run.

mod completeness;
mod config;
mod description;
mod family;
mod file;
pub mod gguf;
pub mod pickle;
pub mod safetensors;
mod tokenizer;
mod weights;

pub use completeness::{Finding, Inspection, Level, inspect};
pub use config::Config;
pub use description::{DescribedFile, ModelDescription, Quantization};
pub use family::Family;
pub use file::{ModelFile, ModelReader};
pub use weights::{Format, format_of, is_weights};

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

/// Largest file that is read whole, in bytes: configurations, indexes, templates.
const TEXT_MAX: u64 = 64 << 20;

/// The files of a model by their paths within it, wherever they lie. One that is not here yet is listed all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelFiles(BTreeMap<String, ModelFile>);

impl ModelFiles {
    /// The paths, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All files by path, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ModelFile)> {
        self.0.iter().map(|(path, file)| (path.as_str(), file))
    }

    /// Whether the model has this file.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The file at `path`.
    pub fn get(&self, path: &str) -> Option<&ModelFile> {
        self.0.get(path)
    }

    /// Whether the file is on this machine in its full length.
    pub fn is_here(&self, path: &str) -> bool {
        self.0.get(path).is_some_and(ModelFile::is_here)
    }

    /// Opens the file; `None` if the model has none of this path.
    fn open(&self, path: &str) -> Option<io::Result<ModelReader>> {
        self.0.get(path).map(ModelFile::open)
    }

    /// Reads a small file whole; `None` if the model has none of this path.
    fn read(&self, path: &str) -> Option<io::Result<Vec<u8>>> {
        let file = self.open(path)?;
        Some(file.and_then(|file| {
            let mut data = Vec::new();
            file.take(TEXT_MAX + 1).read_to_end(&mut data)?;
            if data.len() as u64 > TEXT_MAX {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 64 MiB"));
            }
            Ok(data)
        }))
    }
}

impl IntoIterator for ModelFiles {
    type Item = (String, ModelFile);
    type IntoIter = std::collections::btree_map::IntoIter<String, ModelFile>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<(String, ModelFile)> for ModelFiles {
    fn from_iter<I: IntoIterator<Item = (String, ModelFile)>>(files: I) -> Self {
        Self(files.into_iter().collect())
    }
}
