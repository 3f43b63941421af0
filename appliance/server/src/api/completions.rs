//! `POST /v1/completions`.

use super::{
    Served,
    body::{Body, Fields},
    error::ApiError,
    generation::{Answer, Answers, Common, Envelope, Names, StreamOptions, Usage, Wanted, event, tokens},
    logprobs::OfText,
    stream::respond,
};
use crate::{
    catalogue::Generator,
    engine::{Delta, Event, Place},
};
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};

/// Most prompts of a request.
const MAX_PROMPTS: usize = 16;
/// Tokens of an answer where nothing is said, as with OpenAI.
const DEFAULT_TOKENS: u32 = 16;
/// What this path calls its fields.
const NAMES: Names = Names { prompt: "prompt", max_tokens: "max_tokens", logprobs: "logprobs" };

/// The request.
#[derive(Debug, Deserialize)]
pub struct CompletionRequest {
    #[serde(flatten)]
    common: Common,
    prompt: Prompt,
    max_tokens: Option<u32>,
    logprobs: Option<u32>,
    echo: Option<bool>,
    best_of: Option<u32>,
}

impl Fields for CompletionRequest {
    const KNOWN: &'static [&'static [&'static str]] =
        &[Common::KNOWN, &["prompt", "max_tokens", "logprobs", "echo", "best_of"]];
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// Goes on with a text.
pub async fn complete(
    State(served): State<Served>,
    Body(request, held): Body<CompletionRequest>,
) -> Result<Response, ApiError> {
    let generator = served.catalogue.generator(&request.common.model)?;
    let streaming = request.common.streaming()?;
    if request.best_of.is_some_and(|best| best != 1 || request.common.n.is_some_and(|answers| answers != 1)) {
        return Err(ApiError::invalid("best_of", "`best_of` is not supported: leave it out, and `n` answers come"));
    }
    let prompts = request.prompt.count();
    if !(1..=MAX_PROMPTS).contains(&prompts) {
        return Err(ApiError::invalid("prompt", format!("there must be 1 to {MAX_PROMPTS} prompts")));
    }
    let places = generator.engine.reserve(request.common.answers()? * prompts)?;
    let (answers, echoes) = served.preparing.run(|| request.submit(generator, places)).await?;
    let head = Head {
        envelope: Envelope::new("cmpl-", &request.common, generator),
        logprobs: request.logprobs.is_some(),
        echoes,
    };
    // The answer may take long, and needs nothing of them.
    drop((request, held));
    match streaming {
        Some(options) => Ok(head.stream(answers, options)),
        None => head.whole(answers).await,
    }
}

impl Prompt {
    const fn count(&self) -> usize {
        match self {
            Self::Text(_) | Self::Tokens(_) => 1,
            // An empty list fits every kind of list.
            Self::Texts(texts) => texts.len(),
            Self::TokenLists(lists) => lists.len(),
        }
    }
}

impl CompletionRequest {
    /// Hands all prompts to the engine; the answers, and what each begins with.
    fn submit(&self, generator: &Generator, mut places: Vec<Place>) -> Result<(Answers, Vec<String>), ApiError> {
        let mut echoes = Vec::new();
        let mut all = Answers { prompt: 0, choices: Vec::new() };
        let prompts = self.prompts(generator)?;
        let each = places.len() / prompts.len().max(1);
        for prompt in prompts {
            let echo = if self.echo == Some(true) {
                let codec = generator.engine.codec();
                codec.decode(codec.whole(&prompt)).map_err(ApiError::Internal)?
            } else {
                String::new()
            };
            let wanted = Wanted {
                prompt,
                max_tokens: Some(self.max_tokens.unwrap_or(DEFAULT_TOKENS)),
                logprobs: self.logprobs,
                shape: None,
                shown: Vec::new(),
                continues: true,
                names: NAMES,
            };
            let own = places.drain(..each.min(places.len())).collect();
            let answers = self.common.submit(generator, wanted, own)?;
            all.prompt += answers.prompt;
            echoes.extend(answers.choices.iter().map(|_| echo.clone()));
            all.choices.extend(answers.choices);
        }
        Ok((all, echoes))
    }

    fn prompts(&self, generator: &Generator) -> Result<Vec<Vec<u32>>, ApiError> {
        let encode = |text: &String| tokens(generator, text, true, NAMES.prompt);
        let prompts = match &self.prompt {
            Prompt::Text(text) => vec![encode(text)?],
            Prompt::Texts(texts) => texts.iter().map(encode).collect::<Result<_, _>>()?,
            Prompt::Tokens(tokens) => vec![tokens.clone()],
            Prompt::TokenLists(lists) => lists.clone(),
        };
        match prompts.iter().flatten().find(|token| **token as usize >= generator.vocabulary) {
            Some(token) => Err(ApiError::no_token("prompt", format!("the model has no token {token}"))),
            None => Ok(prompts),
        }
    }
}

/// What all pieces of an answer begin with.
struct Head {
    envelope: Envelope,
    logprobs: bool,
    /// Prompts that are given back before the answers.
    echoes: Vec<String>,
}

impl Head {
    async fn whole(self, answers: Answers) -> Result<Response, ApiError> {
        let prompt = answers.prompt;
        let answers = answers.collect().await?;
        let tokens = answers.iter().map(|answer| answer.tokens).sum();
        let choices = answers.into_iter().zip(&self.echoes).enumerate().map(|(index, (answer, echo))| {
            let Answer { text, logprobs, finish, .. } = answer;
            let told = self.logprobs.then(|| OfText::after(echo).more(&logprobs));
            choice(index, &[echo.as_str(), &text].concat(), told, finish.map(|finish| finish.word()))
        });
        let choices = Value::Array(choices.collect());
        Ok(Json(self.body(&choices, Some(Usage::new(prompt, tokens)))).into_response())
    }

    fn stream(self, answers: Answers, options: StreamOptions) -> Response {
        let prompt = answers.prompt;
        let (mut left, mut tokens) = (answers.choices.len(), 0);
        let mut told: Vec<OfText> = self.echoes.iter().map(|echo| OfText::after(echo)).collect();
        let echoes: Vec<String> = (self.echoes.iter().enumerate())
            .filter(|(_, echo)| !echo.is_empty())
            .map(|(index, echo)| self.piece(choice(index, echo, None, None)))
            .collect();
        let pieces = answers.events().map(move |(index, happened)| match happened {
            Event::More(Delta { text, logprobs }) => {
                let told = told.get_mut(index).filter(|_| self.logprobs && !logprobs.is_empty());
                self.piece(choice(index, &text, told.map(|told| told.more(&logprobs)), None))
            }
            Event::End { finish, tokens: more } => {
                left -= 1;
                tokens += more;
                let told = told.get_mut(index).filter(|_| self.logprobs);
                let mut out = self.piece(choice(index, "", told.map(|told| told.more(&[])), Some(finish.word())));
                if left == 0 && options.include_usage {
                    out += &event(&self.body(&json!([]), Some(Usage::new(prompt, tokens))));
                }
                out
            }
            Event::Failed(reason) => event(&json!({"error": ApiError::Internal(reason).body()})),
        });
        respond(stream::iter(echoes).chain(pieces))
    }

    fn piece(&self, choice: Value) -> String {
        event(&self.body(&json!([choice]), None))
    }

    fn body(&self, choices: &Value, usage: Option<Usage>) -> Value {
        self.envelope.body("text_completion", choices, usage)
    }
}

fn choice(index: usize, text: &str, logprobs: Option<Value>, finish: Option<&str>) -> Value {
    json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish})
}
