//! Which files of a repository are taken.

use super::ModelError;
use crate::recipe::ModelLayer;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// How many files are named where none is left.
const NAMED: usize = 8;

/// Weights in a form that is not needed beside safetensors, and what only the hub's own pages use.
const SECOND_FORMS: [&str; 20] = [
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.pkl",
    "*.pickle",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.onnx",
    "*.onnx_data",
    "*.tflite",
    "*.gguf",
    "onnx/*",
    "openvino/*",
    "coreml/*",
    "original/*",
    "consolidated*",
    "*.index.json",
    "rust_model*",
];
/// Never part of what a model needs.
const NEVER: [&str; 3] = [".gitattributes", ".gitignore", ".git/*"];

/// Which files are taken.
#[derive(Debug)]
pub struct Selection {
    include: Option<GlobSet>,
    exclude: GlobSet,
    second_forms: GlobSet,
    never: GlobSet,
}

impl Selection {
    /// The selection that a recipe asks for. A glob is one of huggingface_hub's `allow_patterns`: `*` also stands for
    /// `/`, and `directory/` means all below it.
    ///
    /// # Errors
    /// [`ModelError::Glob`].
    pub fn new(layer: &ModelLayer) -> Result<Self, ModelError> {
        let include = (!layer.include.is_empty()).then(|| set(&layer.include)).transpose()?;
        Ok(Self { include, exclude: set(&layer.exclude)?, second_forms: set(SECOND_FORMS)?, never: set(NEVER)? })
    }

    /// Keeps what is taken of `files`. Without `include`, weights in other forms are left out where the top directory
    /// has safetensors.
    ///
    /// # Errors
    /// [`ModelError::Nothing`] if nothing is left.
    pub fn apply<F>(&self, mut files: Vec<F>, path: impl Fn(&F) -> &str) -> Result<Vec<F>, ModelError> {
        let has: Vec<String> = files.iter().take(NAMED).map(|file| path(file).to_owned()).collect();
        files.retain(|file| !self.never.is_match(path(file)) && !self.exclude.is_match(path(file)));
        match &self.include {
            Some(include) => files.retain(|file| include.is_match(path(file))),
            None => {
                let shards = |path: &str| path.ends_with(".safetensors") && path.starts_with("model");
                if files.iter().any(|file| shards(path(file))) {
                    files.retain(|file| !self.is_second_form(path(file)));
                }
            }
        }
        match files.is_empty() {
            true => Err(ModelError::Nothing { has: has.join(", ") }),
            false => Ok(files),
        }
    }

    fn is_second_form(&self, path: &str) -> bool {
        self.second_forms.is_match(path) && !path.ends_with(".safetensors.index.json")
    }
}

fn set<G: AsRef<str>>(globs: impl IntoIterator<Item = G>) -> Result<GlobSet, ModelError> {
    let mut builder = GlobSetBuilder::new();
    for glob in globs {
        let glob = glob.as_ref();
        let whole = if glob.ends_with('/') { format!("{glob}*") } else { glob.to_owned() };
        let failed = |error: globset::Error| ModelError::Glob { glob: glob.to_owned(), what: error.kind().to_string() };
        builder.add(GlobBuilder::new(&whole).literal_separator(false).backslash_escape(true).build().map_err(failed)?);
    }
    builder.build().map_err(|error| ModelError::Glob { glob: String::new(), what: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{ModelSource, PicklePolicy};

    fn taken(include: &[&str], exclude: &[&str], files: &[&str]) -> Result<Vec<String>, ModelError> {
        let owned = |globs: &[&str]| globs.iter().map(|&glob| glob.to_owned()).collect();
        let layer = ModelLayer {
            source: ModelSource::Directory { base: "/".into(), path: "m".to_owned(), name: None },
            include: owned(include),
            exclude: owned(exclude),
            allow_pickle: PicklePolicy::Refuse,
        };
        let files = files.iter().map(|&file| file.to_owned()).collect();
        Selection::new(&layer)?.apply(files, |file: &String| file)
    }

    #[test]
    fn without_include_second_forms_of_the_weights_are_left_out() {
        let files = [
            ".gitattributes",
            "config.json",
            "consolidated.safetensors",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "onnx/model.onnx",
            "original/consolidated.00.pth",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "tf_model.h5",
            "1_Pooling/config.json",
        ];
        let kept = [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "1_Pooling/config.json",
        ];
        assert_eq!(taken(&[], &[], &files).unwrap(), kept);
        assert_eq!(
            taken(&[], &[], &["config.json", "pytorch_model.bin"]).unwrap(),
            ["config.json", "pytorch_model.bin"]
        );
    }

    #[test]
    fn globs_are_those_of_the_hubs_own_tools() {
        let files = ["a.json", "deep/b.json", "deep/c.txt", "model.safetensors", "pytorch_model.bin"];
        assert_eq!(taken(&["*.json", "*.bin"], &[], &files).unwrap(), ["a.json", "deep/b.json", "pytorch_model.bin"]);
        assert_eq!(taken(&["deep/"], &["*.txt"], &files).unwrap(), ["deep/b.json"]);
        assert!(matches!(taken(&["nothing"], &[], &files), Err(ModelError::Nothing { .. })));
        assert!(matches!(taken(&["[a"], &[], &files), Err(ModelError::Glob { .. })));
    }
}
