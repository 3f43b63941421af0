//! What requests for chats and for completions have in common: how tokens are chosen, and how answers are collected.

use super::error::ApiError;
use crate::{
    catalogue::Generator,
    engine::{Delta, Event, Finish, Grammar, Place, Request, Sampling, Shape, TokenLogprobs},
};
use futures::{Stream, stream};
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Most answers to one prompt.
const MAX_CHOICES: u32 = 16;
/// Most texts that end an answer, and the longest.
const MAX_STOPS: (usize, usize) = (16, 64);
/// Most tokens whose probabilities are told.
pub const MAX_LOGPROBS: u32 = 20;

/// What is said where an engine ends before its answer.
const BROKEN_OFF: &str = "the engine stopped while it answered";

/// Fields that both kinds of requests have.
#[derive(Debug, Clone, Deserialize)]
pub struct Common {
    /// Name of a model or adapter.
    pub model: String,
    /// Randomness, 0 to 2.
    pub temperature: Option<f32>,
    /// Part of the probability that is chosen from.
    pub top_p: Option<f32>,
    /// Number of the likeliest tokens that are chosen from.
    pub top_k: Option<u32>,
    /// Least probability as a part of the likeliest.
    pub min_p: Option<f32>,
    /// Answers.
    pub n: Option<u32>,
    /// Texts that end an answer.
    pub stop: Option<OneOrSeveral>,
    /// The same seed gives the same answer.
    pub seed: Option<i64>,
    /// Taken from tokens that were there already.
    pub presence_penalty: Option<f32>,
    /// Taken from tokens for each time that they were there.
    pub frequency_penalty: Option<f32>,
    /// Added to tokens, by their number.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Whether the answer comes as it grows.
    pub stream: Option<bool>,
    /// What else is told then.
    pub stream_options: Option<StreamOptions>,
    /// Whether the answer goes on over the tokens that end a text.
    pub ignore_eos: Option<bool>,
    /// Who asks; nothing is done with it.
    #[serde(rename = "user")]
    pub _user: Option<String>,
}

impl Common {
    /// Names of the fields, and of those that are taken for the sake of clients and change nothing.
    pub const KNOWN: &[&str] = &[
        "model",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "n",
        "stop",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "stream",
        "stream_options",
        "ignore_eos",
        "user",
    ];
}

/// What else is told while an answer grows.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// A last piece with the numbers of tokens.
    #[serde(default)]
    pub include_usage: bool,
}

/// A text or a list of texts.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum OneOrSeveral {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// Numbers of tokens.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: usize,
    /// Of all answers.
    pub completion_tokens: usize,
    /// Of both.
    pub total_tokens: usize,
}

impl Usage {
    /// Of a prompt and answers.
    pub const fn new(prompt: usize, answers: usize) -> Self {
        Self { prompt_tokens: prompt, completion_tokens: answers, total_tokens: prompt + answers }
    }
}

/// Answers that are being computed, and the length of their prompt.
#[derive(Debug)]
pub struct Answers {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Where each answer comes from.
    pub choices: Vec<UnboundedReceiver<Event>>,
}

/// Tokens of a prompt. One that cannot fit is refused before it is cut: tokens take many times the memory of their text.
///
/// # Errors
/// Where it cannot fit, or the tokenizer fails.
pub fn tokens(generator: &Generator, text: &str, special: bool, param: &'static str) -> Result<Vec<u32>, ApiError> {
    let (codec, tokens) = (generator.engine.codec(), generator.engine.longest());
    let most = codec.longest_text(tokens);
    if text.len() > most {
        return Err(ApiError::TooLongUnread { param, bytes: text.len(), tokens, most });
    }
    codec.encode(text, special).map_err(ApiError::Internal)
}

/// A whole answer.
#[derive(Debug, Default)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Probabilities, if asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why it ended.
    pub finish: Option<Finish>,
    /// Its tokens.
    pub tokens: usize,
}

/// What is asked for beside the common fields.
#[derive(Debug)]
pub struct Wanted {
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Most tokens of an answer; as many as there is room for where nothing is said.
    pub max_tokens: Option<u32>,
    /// For how many tokens probabilities are told.
    pub logprobs: Option<u32>,
    /// What the answer must follow, and the field that says so.
    pub shape: Option<(Shape, &'static str)>,
    /// Special tokens that are shown as text.
    pub shown: Vec<u32>,
    /// Whether the text goes on with the prompt's, and is no answer of its own.
    pub continues: bool,
    /// How the request calls these things.
    pub names: Names,
}

/// Fields that the two kinds of requests call differently, for what is wrong with them.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// What the prompt comes from.
    pub prompt: &'static str,
    /// Most tokens of an answer.
    pub max_tokens: &'static str,
    /// For how many tokens probabilities are told.
    pub logprobs: &'static str,
}

impl Common {
    /// How many answers to each prompt are wanted.
    ///
    /// # Errors
    /// Where it is none, or too many.
    pub fn answers(&self) -> Result<usize, ApiError> {
        let count = self.n.unwrap_or(1);
        if (1..=MAX_CHOICES).contains(&count) {
            Ok(count as usize)
        } else {
            Err(ApiError::invalid("n", format!("`n` must be 1 to {MAX_CHOICES}")))
        }
    }

    /// Checks everything and hands the request to the engine, once for each place.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub fn submit(&self, generator: &Generator, wanted: Wanted, places: Vec<Place>) -> Result<Answers, ApiError> {
        let engine = &generator.engine;
        let names = wanted.names;
        let sampling = self.sampling(wanted.logprobs, names)?;
        let stop = self.stops()?;
        let (prompt, most) = (wanted.prompt.len(), engine.longest());
        let rest = most.saturating_sub(prompt);
        let max_tokens = wanted.max_tokens.map_or(rest, |most| most as usize);
        if max_tokens == 0 && rest > 0 {
            return Err(ApiError::invalid(names.max_tokens, "at least one token must be wanted"));
        }
        if prompt == 0 {
            return Err(ApiError::invalid(names.prompt, "the prompt has no tokens"));
        }
        if rest == 0 || max_tokens > rest {
            return Err(ApiError::TooLong { param: names.prompt, prompt, wanted: max_tokens.max(1), most });
        }
        let prepare = |(shape, param): &(Shape, &'static str)| {
            engine.grammar(shape).map_err(|reason| ApiError::invalid(param, reason))
        };
        let grammar = wanted.shape.as_ref().map(prepare).transpose()?;
        let mut choices = Vec::with_capacity(places.len());
        for (index, place) in (0..).zip(places) {
            let (events, answer) = unbounded_channel();
            let request = Request {
                prompt: wanted.prompt.clone(),
                max_tokens,
                sampling: Sampling { seed: sampling.seed.wrapping_add(index), ..sampling.clone() },
                stop: stop.clone(),
                ignore_end: self.ignore_eos.unwrap_or_default(),
                grammar: grammar.as_ref().map(Grammar::another),
                shown: wanted.shown.clone(),
                continues: wanted.continues,
                adapter: generator.adapter.clone(),
                events,
            };
            engine.submit(request, place)?;
            choices.push(answer);
        }
        Ok(Answers { prompt, choices })
    }

    fn sampling(&self, logprobs: Option<u32>, names: Names) -> Result<Sampling, ApiError> {
        if logprobs.is_some_and(|count| count > MAX_LOGPROBS) {
            return Err(ApiError::invalid(names.logprobs, format!("at most {MAX_LOGPROBS} are told")));
        }
        let bias = self.logit_bias.iter().flatten().map(|(token, value)| {
            let token = token.parse().ok().filter(|_| (-100.0..=100.0).contains(value));
            token.map(|token| (token, *value))
        });
        let bias: Option<BTreeMap<u32, f32>> = bias.collect();
        let bias = bias
            .ok_or_else(|| ApiError::invalid("logit_bias", "keys are numbers of tokens, and values are -100 to 100"))?;
        Ok(Sampling {
            temperature: within("temperature", self.temperature, 1.0, 0.0, 2.0)?,
            top_p: within("top_p", self.top_p, 1.0, 0.0, 1.0)?,
            min_p: within("min_p", self.min_p, 0.0, 0.0, 1.0)?,
            top_k: self.top_k.unwrap_or_default() as usize,
            presence_penalty: within("presence_penalty", self.presence_penalty, 0.0, -2.0, 2.0)?,
            frequency_penalty: within("frequency_penalty", self.frequency_penalty, 0.0, -2.0, 2.0)?,
            bias,
            seed: self.seed.map_or_else(|| rand::thread_rng().r#gen(), i64::cast_unsigned),
            logprobs: logprobs.map(|count| count as usize),
        })
    }

    fn stops(&self) -> Result<Vec<String>, ApiError> {
        let stops = match self.stop.clone() {
            None => Vec::new(),
            Some(OneOrSeveral::One(stop)) => vec![stop],
            Some(OneOrSeveral::Several(stops)) => stops,
        };
        let (count, length) = MAX_STOPS;
        if stops.len() > count || stops.iter().any(|stop| stop.chars().count() > length) {
            return Err(ApiError::invalid(
                "stop",
                format!("at most {count} texts of {length} letters can end an answer"),
            ));
        }
        Ok(stops)
    }

    /// Whether the answer comes as it grows, and with the numbers of tokens at its end.
    ///
    /// # Errors
    /// Where options come without a stream.
    pub fn streaming(&self) -> Result<Option<StreamOptions>, ApiError> {
        match (self.stream.unwrap_or_default(), self.stream_options) {
            (true, options) => Ok(Some(options.unwrap_or(StreamOptions { include_usage: false }))),
            (false, None) => Ok(None),
            (false, Some(_)) => Err(ApiError::invalid("stream_options", "`stream_options` need `stream: true`")),
        }
    }
}

fn within(name: &'static str, value: Option<f32>, default: f32, least: f32, most: f32) -> Result<f32, ApiError> {
    let value = value.unwrap_or(default);
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(ApiError::invalid(name, format!("`{name}` must be {least} to {most}")))
    }
}

impl Answers {
    /// Waits for all of them.
    ///
    /// # Errors
    /// Where one fails.
    pub async fn collect(self) -> Result<Vec<Answer>, ApiError> {
        let mut answers = Vec::with_capacity(self.choices.len());
        for mut events in self.choices {
            let mut answer = Answer::default();
            loop {
                match events.recv().await {
                    Some(Event::More(Delta { text, logprobs })) => {
                        answer.text += &text;
                        answer.logprobs.extend(logprobs);
                    }
                    Some(Event::End { finish, tokens }) => {
                        (answer.finish, answer.tokens) = (Some(finish), tokens);
                        break;
                    }
                    Some(Event::Failed(reason)) => return Err(ApiError::Internal(reason)),
                    None => return Err(ApiError::Internal(BROKEN_OFF.to_owned())),
                }
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Their events as they come, with the number of the answer. One that breaks off without its end has failed.
    pub fn events(self) -> impl Stream<Item = (usize, Event)> {
        let each = self.choices.into_iter().enumerate().map(|(index, events)| {
            let next = |events: Option<UnboundedReceiver<Event>>| async move {
                let mut events = events?;
                let event = events.recv().await.unwrap_or_else(|| Event::Failed(BROKEN_OFF.to_owned()));
                let more = matches!(event, Event::More(_));
                Some((event, more.then_some(events)))
            };
            let events = stream::unfold(Some(events), next);
            Box::pin(futures::StreamExt::map(events, move |event| (index, event)))
        });
        stream::select_all(each)
    }
}

impl Finish {
    /// OpenAI's word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// What an answer, and every piece of it, says of itself.
#[derive(Debug, Clone)]
pub struct Envelope {
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
}

impl Envelope {
    /// Of a new answer, whose identifier begins with `prefix`.
    pub fn new(prefix: &str, asked: &Common, generator: &Generator) -> Self {
        Self {
            id: identifier(prefix),
            created: super::now(),
            model: asked.model.clone(),
            fingerprint: generator.fingerprint.clone(),
        }
    }

    /// The body of an `object` with these choices; without a usage it is null.
    pub fn body(&self, object: &str, choices: &Value, usage: Option<Usage>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
            "usage": usage,
        })
    }
}

/// A new random identifier with a prefix.
pub fn identifier(prefix: &str) -> String {
    let random: u128 = rand::thread_rng().r#gen();
    format!("{prefix}{random:032x}")
}

/// A piece of a stream.
pub fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    #[test]
    fn an_answer_that_breaks_off_has_failed() {
        let piece = || Event::More(Delta { text: "so".to_owned(), logprobs: Vec::new() });
        let end = || Event::End { finish: Finish::Stop, tokens: 1 };
        let events = |sent: [Vec<Event>; 2]| {
            let choices = sent.map(|sent| {
                let (events, answer) = unbounded_channel();
                sent.into_iter().for_each(|event| events.send(event).unwrap());
                answer
            });
            let all = Answers { prompt: 1, choices: choices.into() }.events().collect::<Vec<_>>();
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(all)
        };
        let of = |events: &[(usize, Event)], choice: usize| -> Vec<&'static str> {
            let own = events.iter().filter(|(index, _)| *index == choice);
            own.map(|(_, event)| match event {
                Event::More(_) => "more",
                Event::End { .. } => "end",
                Event::Failed(_) => "failed",
            })
            .collect()
        };
        let found = events([vec![piece(), end()], vec![piece()]]);
        assert_eq!(of(&found, 0), ["more", "end"]);
        assert_eq!(of(&found, 1), ["more", "failed"]);
    }
}
