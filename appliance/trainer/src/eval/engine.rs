//! The models that answer: one base in memory, any number of adapters beside it.

use super::example::{Example, Prompt};
use crate::data::{TokenizerError, read_tokenizer};
use candle_core::{D, Tensor};
use gap_lm::{
    chat_template::ChatTemplate,
    device,
    inference::{
        Adapter, Allocation, Decoder, DecoderConfig, KvCache, Lineage, LoadError, Loader, Piece, SafetensorsDirectory,
    },
};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// Tokens that go through the model at once.
const PIECE: usize = 256;

/// Why a model does not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The tokenizer cannot be loaded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Examples are turns, and the model has no template for them.
    #[error("the examples are conversations, and the model in {} has no chat template", .0.display())]
    NoTemplate(PathBuf),
    /// An example does not go through the chat template or the tokenizer.
    #[error("the example {id:?} does not fit the model: {what}")]
    Example {
        /// The example.
        id: String,
        /// The reason.
        what: String,
    },
    /// Computing failed.
    #[error("computing failed: {0}")]
    Compute(#[from] candle_core::Error),
}

/// What predicting a reference came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predicted {
    /// Sum of −log p over the tokens of the reference.
    pub loss: f64,
    /// How many tokens that were.
    pub tokens: u64,
}

/// A base model.
pub struct Engine {
    dir: PathBuf,
    decoder: Decoder,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({})", self.dir.display())
    }
}

/// A text as the model takes it.
struct Encoded {
    tokens: Vec<u32>,
    /// Index of the first token that belongs to the answer.
    answer: usize,
}

impl Engine {
    /// Loads a model directory; on the first GPU where this program can compute on one.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn load(dir: &Path) -> Result<Self, EngineError> {
        let device = device::first()?;
        let config = DecoderConfig::read(dir)?;
        let source = SafetensorsDirectory::open(dir)?;
        let decoder = Decoder::load(config, Loader { source: &source, precision: None, device: &device })?;
        let tokenizer = read_tokenizer(dir, decoder.config().vocabulary)?;
        Ok(Self { dir: dir.to_owned(), decoder, tokenizer, template: ChatTemplate::read(dir)? })
    }

    /// Loads an adapter for this base.
    ///
    /// # Errors
    /// [`EngineError::Load`], also where it was made for a base of another shape or, by its lineage, of another digest.
    pub fn adapter(&self, dir: &Path) -> Result<Adapter, EngineError> {
        Lineage::check(dir, &self.dir)?;
        Ok(Adapter::load(dir, self.decoder.config(), self.decoder.device())?)
    }

    /// The likeliest answer, token by token, of at most `longest` tokens. Empty where the prompt fills the context.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn answer(&self, adapter: Option<&Adapter>, example: &Example, longest: usize) -> Result<String, EngineError> {
        let prompt = self.encode(example, None)?.tokens;
        let context = self.decoder.config().context;
        let longest = longest.min(context.saturating_sub(prompt.len()));
        if longest == 0 || prompt.is_empty() {
            return Ok(String::new());
        }
        let mut pass = Pass::new(&self.decoder, adapter, prompt.len() + longest)?;
        let mut next = pass.feed_and_choose(&prompt)?;
        let mut answer = Vec::new();
        while !self.decoder.config().ends.contains(&next) {
            answer.push(next);
            if answer.len() == longest {
                break;
            }
            next = pass.feed_and_choose(&[next])?;
        }
        let text = self.tokenizer.decode(&answer, true);
        let text = text.map_err(|error| EngineError::Example { id: example.id.clone(), what: error.to_string() })?;
        Ok(text.trim().to_owned())
    }

    /// How well the reference is predicted; none where there is none, or it lies beyond the context.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn predict(&self, adapter: Option<&Adapter>, example: &Example) -> Result<Option<Predicted>, EngineError> {
        let Some(reference) = &example.reference else { return Ok(None) };
        let Encoded { tokens, answer } = self.encode(example, Some(reference))?;
        let first = answer.max(1);
        if tokens.len() > self.decoder.config().context || tokens.len() <= first {
            return Ok(None);
        }
        let mut pass = Pass::new(&self.decoder, adapter, tokens.len())?;
        let mut predicted = Predicted { loss: 0.0, tokens: 0 };
        for start in (0..tokens.len() - 1).step_by(PIECE) {
            let end = (start + PIECE).min(tokens.len() - 1);
            let piece = tokens.get(start..end).unwrap_or_default();
            // The row of position i predicts token i + 1.
            let from = start.max(first - 1).min(end);
            let logits = pass.feed(piece, end - from)?;
            for (row, next) in tokens.get(from + 1..=end).unwrap_or_default().iter().enumerate() {
                predicted.loss += loss(&logits, row, *next)?;
                predicted.tokens += 1;
            }
        }
        Ok(Some(predicted))
    }

    fn encode(&self, example: &Example, reference: Option<&str>) -> Result<Encoded, EngineError> {
        let wrong = |what: String| EngineError::Example { id: example.id.clone(), what };
        let (text, prompt, special) = match (&example.prompt, &self.template) {
            (Prompt::Text(prompt), _) => (format!("{prompt}{}", reference.unwrap_or("")), prompt.len(), true),
            (Prompt::Turns { turns, tools }, Some(template)) => {
                let (text, prompt) = rendered(template, turns, tools.as_ref(), reference).map_err(wrong)?;
                (text, prompt, false)
            }
            (Prompt::Turns { turns, .. }, None) => {
                let prompt = without_template(turns).ok_or_else(|| EngineError::NoTemplate(self.dir.clone()))?;
                (format!("{prompt}{}", reference.unwrap_or("")), prompt.len(), true)
            }
        };
        let encoded = self.tokenizer.encode(text.as_str(), special).map_err(|error| wrong(error.to_string()))?;
        // As in training, a token that begins with the end of the prompt is the first of the answer.
        let reaches = |(begin, end): &(usize, usize)| *end > prompt && end > begin;
        let answer = encoded.get_offsets().iter().position(reaches).unwrap_or(encoded.len());
        Ok(Encoded { tokens: encoded.get_ids().to_vec(), answer })
    }
}

/// The conversation by the template, with the reference as last turn if there is one; and where the answer begins.
fn rendered(
    template: &ChatTemplate,
    turns: &[Value],
    tools: Option<&Value>,
    reference: Option<&str>,
) -> Result<(String, usize), String> {
    let render = |turns: &[Value], prompting| {
        template.render(&turns, tools, prompting, &Map::new()).map_err(|error| format!("{error:#}"))
    };
    let prompt = render(turns, true)?;
    let Some(reference) = reference else {
        let length = prompt.len();
        return Ok((prompt, length));
    };
    let mut whole = turns.to_vec();
    whole.push(serde_json::json!({"role": "assistant", "content": reference}));
    let whole = render(&whole, false)?;
    // Some templates write the last turn in another way than the prompt promises.
    let text = if whole.starts_with(&prompt) { whole } else { format!("{prompt}{reference}") };
    Ok((text, prompt.len()))
}

/// Turns as text, for a model that was never taught turns: possible where one asks, after a frame or not.
fn without_template(turns: &[Value]) -> Option<String> {
    let text = |role: &str, turn: &Value| {
        let same = turn.get("role").and_then(Value::as_str) == Some(role);
        turn.get("content").and_then(Value::as_str).filter(|_| same).map(|content| format!("{content}\n\n"))
    };
    match turns {
        [user] => text("user", user),
        [system, user] => Some(text("system", system)? + &text("user", user)?),
        _ => None,
    }
}

/// One sequence on its way through the model.
struct Pass<'a> {
    decoder: &'a Decoder,
    adapter: Option<&'a Adapter>,
    cache: KvCache,
    cached: Allocation,
    length: usize,
}

impl<'a> Pass<'a> {
    fn new(decoder: &'a Decoder, adapter: Option<&'a Adapter>, positions: usize) -> Result<Self, EngineError> {
        let mut cache = KvCache::new(decoder.config(), positions, decoder.device())?;
        let mut cached = Allocation::default();
        if !cache.reserve(&mut cached, positions) {
            return Err(candle_core::Error::msg(format!("there is no room for {positions} positions")).into());
        }
        Ok(Self { decoder, adapter, cache, cached, length: 0 })
    }

    /// Feeds tokens and gives the rows of logits of the last `logits` of them.
    fn feed(&mut self, tokens: &[u32], logits: usize) -> Result<Tensor, EngineError> {
        let piece = Piece { tokens, start: self.length, cached: &self.cached, adapter: self.adapter, logits };
        let rows = self.decoder.forward(&self.cache, &[piece])?;
        self.length += tokens.len();
        Ok(rows)
    }

    /// Feeds tokens and gives the likeliest next one.
    fn feed_and_choose(&mut self, tokens: &[u32]) -> Result<u32, EngineError> {
        let mut next = 0;
        let pieces = tokens.chunks(PIECE);
        let last = pieces.len().saturating_sub(1);
        for (index, piece) in pieces.enumerate() {
            let rows = self.feed(piece, usize::from(index == last))?;
            if index == last {
                next = rows.flatten_all()?.argmax(0)?.to_scalar::<u32>()?;
            }
        }
        Ok(next)
    }
}

/// −log p of a token by a row of logits.
fn loss(logits: &Tensor, row: usize, token: u32) -> Result<f64, EngineError> {
    let row = logits.get(row)?.to_dtype(candle_core::DType::F32)?;
    let sum = row.log_sum_exp(D::Minus1)?.to_scalar::<f32>()?;
    let own = row.get(token as usize)?.to_scalar::<f32>()?;
    Ok(f64::from(sum) - f64::from(own))
}
