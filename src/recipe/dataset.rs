//! What a recipe says of a data set.

use super::HubRepository;
use gap_data::{
    BadRows,
    container::{Container, TextUnit},
    duplicates::Near,
    format::{Columns, Format},
    pii::PiiAction,
    split::Splitting,
};
use gap_format::Digest;
use std::{collections::BTreeMap, path::PathBuf};

/// A data set, and how it is prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetLayer {
    /// Where its files come from.
    pub source: DatasetSource,
    /// What of its rows is used, and how.
    pub preparation: Preparation,
    /// SPDX expression of its licence, where the recipe names one.
    pub license: Option<String>,
}

impl DatasetLayer {
    /// The name of the data set whose layer has this name: `dataset/NAME`.
    pub fn name_of(layer: &str) -> &str {
        layer.rsplit('/').next().unwrap_or(layer)
    }

    /// The layer of the model in whose tokens lengths are counted, `model/NAME`.
    pub fn tokenizer_model(&self) -> Option<&str> {
        match &self.preparation.tokenizer {
            Some(TokenizerSource::Model(layer)) => Some(layer),
            Some(TokenizerSource::Beside(_)) | None => None,
        }
    }
}

/// Where the files of a data set come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatasetSource {
    /// A file or directory beside the recipe.
    Path(FileBeside),
    /// A file at an address.
    Url {
        /// The address.
        url: String,
        /// What it must be.
        sha256: Digest,
    },
    /// A repository of a hub that speaks Hugging Face's protocol.
    Hub {
        /// The repository, and which state of it.
        repository: HubRepository,
        /// Globs of the files to take; those of the best form when empty.
        include: Vec<String>,
        /// Globs of files to leave out.
        exclude: Vec<String>,
    },
}

/// A file or directory beside the recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileBeside {
    /// The directory of the file that names it, on this machine.
    pub base: PathBuf,
    /// The path as the recipe has it: relative to that directory, without `..`.
    pub path: String,
}

impl FileBeside {
    /// Where it lies on this machine.
    pub fn place(&self) -> PathBuf {
        self.base.join(&self.path)
    }
}

/// What of the rows of a data set is used, and how; what is not said is recognised or as usual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preparation {
    /// How the files hold their rows.
    pub container: Option<Container>,
    /// What one example of plain text is.
    pub text: TextUnit,
    /// What the rows are.
    pub format: Option<Format>,
    /// Columns with other names than usual.
    pub columns: Columns,
    /// What happens to rows that cannot be used.
    pub bad_rows: BadRows,
    /// Whether only the first of exact duplicates is kept.
    pub exact: bool,
    /// What happens to near duplicates.
    pub near: Near,
    /// From which similarity on examples are near duplicates, in percent.
    pub similarity: u8,
    /// What is done about personal data and secrets.
    pub pii: PiiAction,
    /// Patterns of personal data of the user's own, by name.
    pub patterns: BTreeMap<String, String>,
    /// How large the parts are.
    pub split: Splitting,
    /// What lengths in tokens are counted with.
    pub tokenizer: Option<TokenizerSource>,
}

/// Where the `tokenizer.json` lies that lengths are counted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerSource {
    /// Beside the recipe.
    Beside(FileBeside),
    /// In this layer: that of a model of the recipe, `model/NAME`.
    Model(String),
}

impl Default for Preparation {
    /// Everything is recognised; duplicates from 80 % similarity on and personal data are removed; broken rows are refused.
    fn default() -> Self {
        Self {
            container: None,
            text: TextUnit::default(),
            format: None,
            columns: Columns::new(),
            bad_rows: BadRows::default(),
            exact: true,
            near: Near::default(),
            similarity: 80,
            pii: PiiAction::default(),
            patterns: BTreeMap::new(),
            split: Splitting::default(),
            tokenizer: None,
        }
    }
}
