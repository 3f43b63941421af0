//! What a recipe says of a data set.

use std::path::PathBuf;

/// A data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetLayer {
    /// Where its files come from.
    pub source: DatasetSource,
}

/// Where the files of a data set come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatasetSource {
    /// A file or directory beside the recipe.
    Path {
        /// The directory of the file that names it, on this machine.
        base: PathBuf,
        /// The path as the recipe has it: relative to that directory, without `..`.
        path: String,
    },
}
