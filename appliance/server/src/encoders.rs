//! Embeddings and classes of texts: one request at a time goes through a model, in groups of bounded size.

use crate::{
    codec::Codec,
    metrics::{Meters, Typical},
};
use gap_lm::inference::{Classifier, Embedder, EncodedText};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use tokio::sync::Semaphore;

/// Tokens that go through a model at once.
const GROUP: usize = 4096;
/// A text of so many bytes is always read: one with few tokens may be long, of blanks for instance, or of words that the
/// tokenizer knows none of.
const ALWAYS_READ: usize = 64 << 10;

/// What a model makes of texts.
#[derive(Debug)]
pub enum Head {
    /// A vector of each.
    Embedder(Embedder),
    /// A score for each class.
    Classifier(Classifier),
}

/// An encoder, its tokenizer, and the queue before it.
#[derive(Debug)]
pub struct Encoding {
    head: Head,
    codec: Codec,
    turn: Arc<Semaphore>,
    taken: Arc<Semaphore>,
    typical: Typical,
    meters: Arc<Meters>,
}

/// Why texts are not encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Too many requests wait.
    #[error("the server has as many requests as it takes at once; try again after {retry_after} s")]
    Overloaded {
        /// Seconds after which a place is likely.
        retry_after: u64,
    },
    /// A text is too long.
    #[error("text {index} has {found} tokens; the model takes at most {most}")]
    TooLong {
        /// Which one, from 0.
        index: usize,
        /// Its tokens.
        found: usize,
        /// Most tokens.
        most: usize,
    },
    /// A text is so long that it is not cut into tokens at all.
    #[error(
        "text {index} has {bytes} bytes; the model takes at most {tokens} tokens, and no text of more than {most} bytes"
    )]
    TooLongUnread {
        /// Which one, from 0.
        index: usize,
        /// Its bytes.
        bytes: usize,
        /// Most tokens.
        tokens: usize,
        /// Most bytes.
        most: usize,
    },
    /// A text has no tokens.
    #[error("text {0} is empty")]
    Empty(usize),
    /// A token is none of the model's.
    #[error("text {index} has a token {token}; the model has {vocabulary}")]
    NoToken {
        /// Which text, from 0.
        index: usize,
        /// The token.
        token: u32,
        /// Tokens of the model.
        vocabulary: usize,
    },
    /// The tokenizer or the model failed.
    #[error("the model failed: {0}")]
    Failed(String),
}

/// A text as it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// As text.
    Plain(String),
    /// As tokens.
    Tokens(Vec<u32>),
}

impl Encoding {
    /// Behind a queue of `most` requests.
    pub fn new(head: Head, codec: Codec, most: usize, meters: Arc<Meters>) -> Self {
        let (turn, taken) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(most)));
        Self { head, codec, turn, taken, typical: Typical::default(), meters }
    }

    /// What it makes of texts.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// Encodes texts; the rows of the result and the number of tokens. When nobody waits for it any more, it stops after the
    /// group that it is at, and only then is it the next one's turn.
    ///
    /// # Errors
    /// Where too many wait, a text cannot be encoded, or the model fails.
    pub async fn run(self: &Arc<Self>, texts: Vec<Text>) -> Result<(Vec<Vec<f32>>, usize), EncodeError> {
        let taken = self.taken.clone().try_acquire_owned().map_err(|_| {
            self.meters.refused.inc();
            EncodeError::Overloaded { retry_after: self.typical.seconds() }
        })?;
        self.check_lengths(&texts)?;
        let since = Instant::now();
        let turn = self.turn.clone().acquire_owned().await.map_err(|error| EncodeError::Failed(error.to_string()))?;
        let waited_for = Arc::new(AtomicBool::new(true));
        let _given_up = GivenUp(waited_for.clone());
        let this = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            // The work goes on for a while after a client has left, and so does what it holds.
            let _held = (taken, turn);
            this.compute(&texts, &waited_for)
        });
        let done = work.await.map_err(|error| EncodeError::Failed(error.to_string()))?;
        if done.is_ok() {
            self.typical.took(since.elapsed());
        }
        done
    }

    /// Most tokens of a text.
    fn longest(&self) -> usize {
        match &self.head {
            Head::Embedder(embedder) => embedder.longest(),
            Head::Classifier(classifier) => classifier.config().longest(),
        }
    }

    /// Refuses what cannot fit before it is cut: tokens take many times the memory of their text.
    fn check_lengths(&self, texts: &[Text]) -> Result<(), EncodeError> {
        let tokens = self.longest();
        let most = self.codec.longest_text(tokens).max(ALWAYS_READ);
        let too_long = |(index, text): (usize, &Text)| match text {
            Text::Plain(text) if text.len() > most => {
                Some(EncodeError::TooLongUnread { index, bytes: text.len(), tokens, most })
            }
            Text::Tokens(found) if found.len() > tokens => {
                Some(EncodeError::TooLong { index, found: found.len(), most: tokens })
            }
            Text::Plain(_) | Text::Tokens(_) => None,
        };
        texts.iter().enumerate().find_map(too_long).map_or(Ok(()), Err)
    }

    fn compute(&self, texts: &[Text], waited_for: &AtomicBool) -> Result<(Vec<Vec<f32>>, usize), EncodeError> {
        let encoded = texts.iter().enumerate().map(|(index, text)| self.encode(index, text));
        let encoded = encoded.collect::<Result<Vec<_>, _>>()?;
        let tokens = encoded.iter().map(|text| text.tokens.len()).sum();
        let mut rows = Vec::with_capacity(encoded.len());
        let mut rest = encoded.as_slice();
        while !rest.is_empty() && waited_for.load(Ordering::Acquire) {
            let mut size = 0;
            let fitting = rest.iter().take_while(|text| {
                size += text.tokens.len();
                size <= GROUP
            });
            let (group, others) = rest.split_at(fitting.count().max(1));
            rows.extend(self.forward(group)?);
            rest = others;
        }
        self.meters.encoder_tokens.inc_by(tokens as u64);
        Ok((rows, tokens))
    }

    fn forward(&self, group: &[EncodedText]) -> Result<Vec<Vec<f32>>, EncodeError> {
        let rows = rayon::scope(|_| match &self.head {
            Head::Embedder(embedder) => embedder.embed(group),
            Head::Classifier(classifier) => classifier.forward(group),
        });
        let rows = rows.map_err(|error| EncodeError::Failed(error.to_string()))?;
        if rows.iter().flatten().all(|value| value.is_finite()) {
            Ok(rows)
        } else {
            Err(EncodeError::Failed("its result is not a number".to_owned()))
        }
    }

    fn encode(&self, index: usize, text: &Text) -> Result<EncodedText, EncodeError> {
        let most = self.longest();
        let (config, prompt) = match &self.head {
            Head::Embedder(embedder) => (embedder.config(), embedder.prompt()),
            Head::Classifier(classifier) => (classifier.config(), ""),
        };
        let encoded = match text {
            Text::Plain(text) => self.codec.encode_typed(&[prompt, text].concat()).map_err(EncodeError::Failed)?,
            Text::Tokens(tokens) => EncodedText { tokens: tokens.clone(), types: vec![0; tokens.len()] },
        };
        if encoded.tokens.is_empty() {
            return Err(EncodeError::Empty(index));
        }
        if encoded.tokens.len() > most {
            return Err(EncodeError::TooLong { index, found: encoded.tokens.len(), most });
        }
        match encoded.tokens.iter().find(|token| **token as usize >= config.vocabulary) {
            Some(token) => Err(EncodeError::NoToken { index, token: *token, vocabulary: config.vocabulary }),
            None => Ok(encoded),
        }
    }
}

/// Tells, when it is dropped, that nobody waits any more.
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::write_model;
    use candle_core::Device;
    use gap_lm::inference::{EncoderConfig, Loader, SafetensorsDirectory};
    use std::time::Duration;

    fn encoding() -> Arc<Encoding> {
        let directory = tempfile::tempdir().unwrap();
        write_model("bert", directory.path());
        let source = SafetensorsDirectory::open(directory.path()).unwrap();
        let config = EncoderConfig::read(directory.path()).unwrap();
        let codec = Codec::read(directory.path(), config.vocabulary).unwrap();
        let loader = Loader { source: &source, precision: None, device: &Device::Cpu };
        let embedder = Embedder::load(directory.path(), config, loader).unwrap();
        Arc::new(Encoding::new(Head::Embedder(embedder), codec, 4, Arc::default()))
    }

    #[test]
    fn a_text_that_cannot_fit_is_refused_unread() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let encoding = encoding();
        let texts = vec![Text::Plain("x".to_owned()), Text::Plain("x q ".repeat(2 << 20))];
        // Its turn would never come: it is refused without.
        let turn = encoding.turn.clone().try_acquire_owned().unwrap();
        let refused = runtime.block_on(encoding.run(texts)).unwrap_err();
        assert!(matches!(refused, EncodeError::TooLongUnread { index: 1, bytes: 0x80_0000, .. }), "{refused}");
        drop(turn);
        // A shorter one is read: its tokens decide.
        let read = vec![Text::Plain("x ".repeat(20 << 10))];
        let refused = runtime.block_on(encoding.run(read)).unwrap_err();
        assert!(matches!(refused, EncodeError::TooLong { index: 0, .. }), "{refused}");
        assert_eq!(encoding.taken.available_permits(), 4);
    }

    #[test]
    fn more_requests_than_places_are_counted_and_told_how_long_others_took() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let encoding = encoding();
        encoding.typical.took(Duration::from_secs(7));
        let taken = encoding.taken.clone().try_acquire_many_owned(4).unwrap();
        let refused = runtime.block_on(encoding.run(vec![Text::Tokens(vec![40])])).unwrap_err();
        assert!(matches!(refused, EncodeError::Overloaded { retry_after: 7 }), "{refused}");
        assert_eq!(encoding.meters.refused.get(), 1);
        drop(taken);
        runtime.block_on(encoding.run(vec![Text::Tokens(vec![40])])).unwrap();
        assert_eq!(encoding.meters.refused.get(), 1);
    }

    #[test]
    fn work_that_goes_on_after_its_client_left_keeps_its_turn_and_its_place() {
        // Work has one thread, and that is busy: what is begun stays begun for as long as the test wants.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(1).build().unwrap();
        let (release, busy) = std::sync::mpsc::channel::<()>();
        runtime.spawn_blocking(move || busy.recv().is_ok());
        let encoding = encoding();
        runtime.block_on(async {
            let asking = tokio::spawn({
                let encoding = encoding.clone();
                async move { encoding.run(vec![Text::Tokens(vec![40]); 2]).await.map(|_| ()) }
            });
            while encoding.turn.available_permits() == 1 {
                tokio::task::yield_now().await;
            }
            asking.abort();
            assert!(asking.await.unwrap_err().is_cancelled());
            assert_eq!((encoding.turn.available_permits(), encoding.taken.available_permits()), (0, 3));
            drop(release);
            // Nobody waits for it: it stops at once, and the next one's turn comes.
            encoding.run(vec![Text::Tokens(vec![40])]).await.unwrap();
        });
    }
}
