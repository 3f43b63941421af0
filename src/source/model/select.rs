//! Which files of a repository are taken.

use super::ModelError;
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

/// How data sets hold their rows, the best form first; one form is taken where several hold the same.
const DATA_FORMS: [&[&str]; 4] = [&["*.parquet"], &["*.jsonl", "*.ndjson"], &["*.csv", "*.tsv"], &["*.txt"]];

/// Which files are taken.
#[derive(Debug)]
pub struct Selection {
    include: Include,
    exclude: GlobSet,
    never: GlobSet,
}

#[derive(Debug)]
enum Include {
    /// What the recipe names.
    Named(GlobSet),
    /// All, without second forms of the weights where there are safetensors.
    Weights(GlobSet),
    /// What is in the first of these forms.
    FirstForm(Vec<GlobSet>),
}

impl Selection {
    /// What a recipe takes of a model. A glob is one of huggingface_hub's `allow_patterns`: `*` also stands for
    /// `/`, and `directory/` means all below it.
    ///
    /// # Errors
    /// [`ModelError::Glob`].
    pub fn of_model(include: &[String], exclude: &[String]) -> Result<Self, ModelError> {
        Self::new(include, exclude, || Ok(Include::Weights(set(SECOND_FORMS)?)))
    }

    /// What a recipe takes of a data set.
    ///
    /// # Errors
    /// [`ModelError::Glob`].
    pub fn of_data(include: &[String], exclude: &[String]) -> Result<Self, ModelError> {
        Self::new(include, exclude, || {
            Ok(Include::FirstForm(DATA_FORMS.iter().map(|form| set(*form)).collect::<Result<_, _>>()?))
        })
    }

    fn new(
        include: &[String],
        exclude: &[String],
        usual: impl FnOnce() -> Result<Include, ModelError>,
    ) -> Result<Self, ModelError> {
        let include = if include.is_empty() { usual()? } else { Include::Named(set(include)?) };
        Ok(Self { include, exclude: set(exclude)?, never: set(NEVER)? })
    }

    /// Keeps what is taken of `files`. Without `include`, that is of a model all but weights in other forms where the top
    /// directory has safetensors; of a data set the Parquet files, else those of JSON lines, else tables, else text.
    ///
    /// # Errors
    /// [`ModelError::Nothing`] if nothing is left.
    pub fn apply<F>(&self, mut files: Vec<F>, path: impl Fn(&F) -> &str) -> Result<Vec<F>, ModelError> {
        let has: Vec<String> = files.iter().take(NAMED).map(|file| path(file).to_owned()).collect();
        files.retain(|file| !self.never.is_match(path(file)) && !self.exclude.is_match(path(file)));
        match &self.include {
            Include::Named(include) => files.retain(|file| include.is_match(path(file))),
            Include::FirstForm(forms) => {
                let has = |form: &&GlobSet| files.iter().any(|file| form.is_match(path(file)));
                let form = forms.iter().find(has);
                files.retain(|file| form.is_some_and(|form| form.is_match(path(file))));
            }
            Include::Weights(second_forms) => {
                let shards = |path: &str| path.ends_with(".safetensors") && path.starts_with("model");
                if files.iter().any(|file| shards(path(file))) {
                    files.retain(|file| !is_second_form(second_forms, path(file)));
                }
            }
        }
        match files.is_empty() {
            true => Err(ModelError::Nothing { has: has.join(", ") }),
            false => Ok(files),
        }
    }
}

fn is_second_form(second_forms: &GlobSet, path: &str) -> bool {
    second_forms.is_match(path) && !path.ends_with(".safetensors.index.json")
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

    fn owned(globs: &[&str]) -> Vec<String> {
        globs.iter().map(|&glob| glob.to_owned()).collect()
    }

    fn taken(include: &[&str], exclude: &[&str], files: &[&str]) -> Result<Vec<String>, ModelError> {
        Selection::of_model(&owned(include), &owned(exclude))?.apply(owned(files), |file: &String| file)
    }

    fn taken_of_data(include: &[&str], files: &[&str]) -> Result<Vec<String>, ModelError> {
        Selection::of_data(&owned(include), &[])?.apply(owned(files), |file: &String| file)
    }

    #[test]
    fn one_form_of_a_data_set_is_taken_unless_globs_say_which() {
        let files = ["README.md", "data/train-0.parquet", "dataset_infos.json", "train.jsonl", "train.csv"];
        assert_eq!(taken_of_data(&[], &files).unwrap(), ["data/train-0.parquet"]);
        assert_eq!(taken_of_data(&[], &files[2..]).unwrap(), ["train.jsonl"]);
        assert_eq!(taken_of_data(&["train.*"], &files).unwrap(), ["train.jsonl", "train.csv"]);
        assert!(matches!(taken_of_data(&[], &files[..1]), Err(ModelError::Nothing { .. })));
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
