//! Layers of prepared data sets: `/data/NAME/` with the parts and the data card.

use super::{
    files::FILES_DATE,
    model::tokenizer_path,
    tree::{Content, Meta, Node, PathError, Tree, TreePath},
};
use crate::{
    recipe::{DatasetLayer, TokenizerSource},
    source::dataset::LockedDataset,
};
use gap_data::{
    CountTokens as _, Input, Options, Tokenizer, TokenizerError, Watch,
    container::Reading,
    duplicates::Dedupe,
    pii::{OwnPattern, PatternError},
    prepare,
};
use gap_format::Digest;
use std::{fs, io, path::Path, sync::Arc};

/// Where data sets lie in an image.
const DATA: &str = "data";

/// Why a data set cannot become a layer.
#[derive(Debug, thiserror::Error)]
pub enum DatasetLayerError {
    /// It cannot be prepared.
    #[error(transparent)]
    Prepare(#[from] gap_data::Error),
    /// The tokenizer cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A pattern cannot be used.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A file is not the one that was locked.
    #[error("`{name}` is {found}, and {locked} was locked; run `gapimage lock`")]
    Changed {
        /// The file.
        name: String,
        /// What it is.
        found: String,
        /// What it should be.
        locked: String,
    },
    /// The model whose tokens are to be counted has no tokenizer of the kind that can be.
    #[error("`{model}` has no tokenizer.json to count tokens with; name one beside the recipe: `tokenizer = \"PATH\"`")]
    NoTokenizer {
        /// The model's layer.
        model: String,
    },
    /// See [`PathError`].
    #[error("{0}")]
    Path(#[from] PathError),
    /// Writing failed.
    #[error("preparing the data set: {0}")]
    Io(#[from] io::Error),
}

/// Prepares the data set `name` of these `inputs`, which must be those of the lock, in a directory of its own below
/// `session`, and takes what was made. In `model` lies the tokenizer, where it is a model's.
///
/// # Errors
/// [`DatasetLayerError`].
pub fn dataset_tree(
    name: &str,
    layer: &DatasetLayer,
    rows: &LockedDataset,
    inputs: &[Input],
    model: &Tree,
    session: &Path,
) -> Result<Tree, DatasetLayerError> {
    let mut options = options(layer)?;
    options.tokenizer = tokenizer(layer, rows, model)?.map(|tokenizer| Arc::new(tokenizer) as _);
    // It goes when the store's session ends: until then, the tree reads from it.
    let directory = tempfile::tempdir_in(session)?.keep();
    let prepared = prepare(inputs, &options, &directory, Watch::unwatched())?;
    for (found, locked) in pairs(prepared.card.inputs.iter().map(|input| (input.name.as_str(), input.sha256)), rows) {
        if found != locked {
            let shown =
                |side: Option<(&str, Digest)>| side.map_or("not there".to_owned(), |(_, digest)| digest.to_string());
            let name = found.or(locked).map(|(name, _)| name.to_owned()).unwrap_or_default();
            return Err(DatasetLayerError::Changed { name, found: shown(found), locked: shown(locked) });
        }
    }
    let mut tree = Tree::new();
    let place = TreePath::new(DATA)?.join(name)?;
    tree.insert(place.clone(), Node::Directory { meta: Meta::root_owned(0o755, FILES_DATE), opaque: false });
    for (file, _) in &prepared.files {
        let path = directory.join(file);
        let content = Content::Path { len: fs::metadata(&path)?.len(), path: path.into() };
        tree.insert(place.join(file)?, Node::File { meta: Meta::root_owned(0o644, FILES_DATE), content });
    }
    Ok(tree)
}

type Named<'a> = Option<(&'a str, Digest)>;

/// What was read beside what was locked, both in order.
fn pairs<'a>(found: impl Iterator<Item = (&'a str, Digest)>, rows: &'a LockedDataset) -> Vec<(Named<'a>, Named<'a>)> {
    let mut found: Vec<_> = found.collect();
    found.sort();
    let len = found.len().max(rows.files.len());
    let locked = |index: usize| rows.files.get(index).map(|file| (file.name.as_str(), file.sha256));
    (0..len).map(|index| (found.get(index).copied(), locked(index))).collect()
}

fn options(layer: &DatasetLayer) -> Result<Options, DatasetLayerError> {
    let wanted = &layer.preparation;
    let patterns = wanted.patterns.iter().map(|(name, pattern)| OwnPattern::new(name, pattern));
    Ok(Options {
        reading: Reading { container: wanted.container, text_unit: wanted.text },
        format: wanted.format,
        columns: wanted.columns.clone(),
        bad_rows: wanted.bad_rows,
        dedupe: Dedupe {
            exact: wanted.exact,
            near: wanted.near,
            threshold: f64::from(wanted.similarity) / 100.0,
            ..Dedupe::default()
        },
        pii: wanted.pii,
        patterns: patterns.collect::<Result<_, _>>()?,
        split: wanted.split,
        ..Options::default()
    })
}

/// What lengths in tokens are counted with: the file beside the recipe that was locked, or that of a model.
fn tokenizer(layer: &DatasetLayer, rows: &LockedDataset, model: &Tree) -> Result<Option<Tokenizer>, DatasetLayerError> {
    match &layer.preparation.tokenizer {
        None => Ok(None),
        Some(TokenizerSource::Beside(path)) => {
            let tokenizer = Tokenizer::open(&path.place())?;
            if rows.tokenizer != Some(tokenizer.digest()) {
                let locked = rows.tokenizer.map_or("nothing".to_owned(), |digest| digest.to_string());
                let (name, found) = (path.path.clone(), tokenizer.digest().to_string());
                return Err(DatasetLayerError::Changed { name, found, locked });
            }
            Ok(Some(tokenizer))
        }
        Some(TokenizerSource::Model(layer)) => {
            let path = tokenizer_path(layer)?;
            let Some(content) = model.file(&path) else {
                return Err(DatasetLayerError::NoTokenizer { model: layer.clone() });
            };
            Ok(Some(Tokenizer::read(&path.to_string(), content.len(), || content.read())?))
        }
    }
}
