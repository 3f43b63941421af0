//! A model's tokenizer, as training and evaluation use it.

use gap_lm::inference::{LoadError, read_bounded};
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// Longest `tokenizer.json`, in bytes.
const MAX_TOKENIZER: u64 = 256 << 20;

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] LoadError),
    /// It is something else.
    #[error("{}: it is no tokenizer: {source}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: tokenizers::Error,
    },
    /// It has tokens that the model does not know.
    #[error(
        "{}: it has a token {largest}, but the model has {vocabulary} rows; they are not of one piece", path.display()
    )]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// The largest token.
        largest: u32,
        /// Rows of the model's table.
        vocabulary: usize,
    },
}

/// Reads the tokenizer of a model directory whose table has `vocabulary` rows.
///
/// # Errors
/// [`TokenizerError`].
pub fn read_tokenizer(model: &Path, vocabulary: usize) -> Result<Tokenizer, TokenizerError> {
    let path = model.join("tokenizer.json");
    let bytes = read_bounded(&path, MAX_TOKENIZER)?;
    let damaged = |source| TokenizerError::Damaged { path: path.clone(), source };
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(damaged)?;
    let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or_default();
    if largest as usize >= vocabulary {
        return Err(TokenizerError::OtherModel { path, largest, vocabulary });
    }
    // What a checkpoint says about length and padding must not change what is trained on or asked.
    tokenizer.with_truncation(None).map(|tokenizer| tokenizer.with_padding(None)).map_err(damaged)?;
    Ok(tokenizer)
}
