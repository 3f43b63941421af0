//! Lengths in tokens, by a model's own tokenizer.

use gap_format::Digest;
use std::fmt;

/// Counts tokens.
pub trait CountTokens: fmt::Debug + Send + Sync {
    /// The digest of what it was made from, for the data card.
    fn digest(&self) -> Digest;

    /// The tokens of a text, without those that mark its beginning and end.
    ///
    /// # Errors
    /// [`TokenizerError::Count`] if the tokenizer cannot take the text.
    fn count(&self, text: &str) -> Result<u32, TokenizerError>;
}

/// Why tokens cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error("cannot read the tokenizer {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than any tokenizer.
    #[error("the tokenizer {path} has {size} bytes, and {limit} are allowed")]
    Size {
        /// The file.
        path: String,
        /// Its length.
        size: u64,
        /// Longest allowed.
        limit: u64,
    },
    /// The file is no tokenizer.
    #[error("{path} is no tokenizer.json: {reason}")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A text cannot be counted.
    #[error("the tokenizer cannot take a text of the data set: {0}")]
    Count(String),
}

#[cfg(feature = "tokens")]
pub use tokenizer_json::Tokenizer;

#[cfg(feature = "tokens")]
mod tokenizer_json {
    use super::{CountTokens, TokenizerError};
    use gap_format::Digest;
    use std::{
        fmt,
        fs::File,
        io::{self, Read},
        panic::{AssertUnwindSafe, catch_unwind},
        path::Path,
    };

    /// The largest known has 35 MB.
    const MAX_SIZE: u64 = 256 << 20;

    /// A tokenizer from a `tokenizer.json`, as the `tokenizers` library writes it.
    pub struct Tokenizer {
        digest: Digest,
        inner: tokenizers::Tokenizer,
    }

    impl Tokenizer {
        /// Reads a `tokenizer.json`. What it says about truncation and padding is set aside: lengths are true lengths.
        ///
        /// # Errors
        /// [`TokenizerError`].
        pub fn open(path: &Path) -> Result<Self, TokenizerError> {
            let shown = path.display().to_string();
            let unreadable = |source| TokenizerError::Read { path: shown.clone(), source };
            let file = File::open(path).map_err(unreadable)?;
            let size = file.metadata().map_err(unreadable)?.len();
            Self::read(&shown, size, || {
                let mut bytes = Vec::new();
                file.take(MAX_SIZE).read_to_end(&mut bytes).map(|_| bytes)
            })
        }

        /// The same of the `size` bytes that `read` gives; errors call them `shown`.
        ///
        /// # Errors
        /// [`TokenizerError`].
        pub fn read(
            shown: &str,
            size: u64,
            read: impl FnOnce() -> io::Result<Vec<u8>>,
        ) -> Result<Self, TokenizerError> {
            let path = || shown.to_owned();
            if size > MAX_SIZE {
                return Err(TokenizerError::Size { path: path(), size, limit: MAX_SIZE });
            }
            let bytes = read().map_err(|source| TokenizerError::Read { path: path(), source })?;
            let refused = |reason: String| TokenizerError::Parse { path: path(), reason };
            let mut inner = catch_unwind(|| tokenizers::Tokenizer::from_bytes(&bytes))
                .map_err(|_| refused("it makes no sense".to_owned()))?
                .map_err(|error| refused(error.to_string().chars().take(200).collect()))?;
            inner.with_padding(None);
            inner.with_truncation(None).map_err(|error| refused(error.to_string()))?;
            Ok(Self { digest: Digest::of(&bytes), inner })
        }
    }

    impl CountTokens for Tokenizer {
        fn digest(&self) -> Digest {
            self.digest
        }

        fn count(&self, text: &str) -> Result<u32, TokenizerError> {
            // Its messages may repeat the text.
            let failed = || TokenizerError::Count(format!("a text of {} bytes", text.len()));
            let encoded = catch_unwind(AssertUnwindSafe(|| self.inner.encode_fast(text, false)))
                .map_err(|_| failed())?
                .map_err(|_| failed())?;
            u32::try_from(encoded.len()).map_err(|_| failed())
        }
    }

    impl fmt::Debug for Tokenizer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "Tokenizer({})", self.digest)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const WORDS: &str = r#"{"version":"1.0","truncation":{"direction":"Right","max_length":2,"strategy":"LongestFirst","stride":0},
            "padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,
            "decoder":null,"model":{"type":"WordLevel","vocab":{"a":0,"[UNK]":1},"unk_token":"[UNK]"}}"#;

        fn open(text: &str) -> Result<Tokenizer, TokenizerError> {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("tokenizer.json");
            std::fs::write(&path, text).unwrap();
            Tokenizer::open(&path)
        }

        #[test]
        fn true_lengths_are_counted() {
            let tokenizer = open(WORDS).unwrap();
            assert_eq!(tokenizer.count("a b, a").unwrap(), 4);
            assert_eq!(tokenizer.count("").unwrap(), 0);
            assert_eq!(tokenizer.digest(), Digest::of(WORDS.as_bytes()));
        }

        #[test]
        fn what_is_no_tokenizer_is_refused() {
            assert!(matches!(open("{}"), Err(TokenizerError::Parse { .. })));
            assert!(matches!(open(""), Err(TokenizerError::Parse { .. })));
            assert!(matches!(Tokenizer::open(Path::new("/nonexistent")), Err(TokenizerError::Read { .. })));
        }
    }
}
