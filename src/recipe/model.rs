//! What a recipe says of a model.

use std::path::PathBuf;

/// The files of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLayer {
    /// Where they come from.
    pub source: ModelSource,
    /// Patterns of the files to take; all when empty.
    pub include: Vec<String>,
    /// Patterns of the files to leave out.
    pub exclude: Vec<String>,
    /// Whether weights that are Python pickles may be taken.
    pub allow_pickle: bool,
}

/// Where the files of a model come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A repository of a model hub.
    Hub {
        /// `ORGANISATION/NAME`.
        repo: String,
        /// Branch, tag or commit; the lock pins the commit.
        revision: String,
    },
    /// A directory beside the recipe.
    Directory {
        /// The directory of the file that names it, on this machine.
        base: PathBuf,
        /// The path as the recipe has it: relative to that directory, without `..`.
        path: String,
        /// `ORGANISATION/NAME` by which programs may ask for it, besides its path.
        name: Option<String>,
    },
}
