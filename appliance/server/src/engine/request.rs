//! What is asked of an engine, and what it answers.

use super::{grammar::Grammar, sampler::Sampling};
use gap_lm::inference::Adapter;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// One answer that is wanted.
pub struct Request {
    /// Tokens that it begins from, at least one.
    pub prompt: Vec<u32>,
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end it.
    pub stop: Vec<String>,
    /// Whether it goes on over the tokens that end a text.
    pub ignore_end: bool,
    /// What it must follow.
    pub grammar: Option<Grammar>,
    /// Special tokens that are shown as text.
    pub shown: Vec<u32>,
    /// Whether the text goes on with the prompt's, and is no answer of its own.
    pub continues: bool,
    /// The adapter that is applied.
    pub adapter: Option<Arc<Adapter>>,
    /// Where events go. When nobody receives them any more, the answer is given up.
    pub events: UnboundedSender<Event>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Request({} tokens)", self.prompt.len())
    }
}

/// What happens to an answer.
#[derive(Debug)]
pub enum Event {
    /// More of it.
    More(Delta),
    /// Its end.
    End {
        /// Why.
        finish: Finish,
        /// Tokens of the answer.
        tokens: usize,
    },
    /// It cannot be given.
    Failed(String),
}

/// A piece of an answer.
#[derive(Debug, Default)]
pub struct Delta {
    /// Text that is certain. It may belong to earlier tokens than those beside it.
    pub text: String,
    /// Probabilities of the tokens that came, if asked for.
    pub logprobs: Vec<TokenLogprobs>,
}

/// Probability of a token.
#[derive(Debug, Clone)]
pub struct TokenLogprobs {
    /// Its bytes, which may be part of a character.
    pub bytes: Vec<u8>,
    /// Whether the text has them: special tokens are told, and most are not written.
    pub written: bool,
    /// Logarithm of its probability.
    pub logprob: f32,
    /// The likeliest in its place, with theirs.
    pub best: Vec<(Vec<u8>, f32)>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// By itself or by a stop text.
    Stop,
    /// By the number of tokens.
    Length,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many are waiting.
    #[error("the server has as many requests as it takes at once; try again later")]
    Overloaded {
        /// Seconds after which a place is likely.
        retry_after: u64,
    },
    /// More answers are wanted than the server ever takes.
    #[error("{wanted} answers are wanted; the server takes at most {most} at once, however long one waits")]
    NeverFits {
        /// Answers that are wanted.
        wanted: usize,
        /// Most answers.
        most: usize,
    },
    /// The engine is gone.
    #[error("the engine has stopped")]
    Stopped,
}
