//! Examples as tokens, of which is said whether they count.

use super::{
    rows::{Example, Turns},
    tokenizer::read_tokenizer,
};
use crate::error::{Failed, invalid_model};
use gap_lm::{
    chat_template::ChatTemplate,
    inference::{MAX_CONFIG, read_json},
};
use serde_json::{Map, Value};
use std::{ops::Range, path::Path};
use tokenizers::Tokenizer;

/// Tokens, and which of them count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequence {
    tokens: Vec<(u32, bool)>,
}

impl Sequence {
    /// From tokens of which is said whether they count.
    #[must_use]
    pub fn new(tokens: Vec<(u32, bool)>) -> Self {
        Self { tokens }
    }

    /// The tokens.
    #[must_use]
    pub fn tokens(&self) -> &[(u32, bool)] {
        &self.tokens
    }

    /// Whether one counts that another foretells.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.tokens.iter().skip(1).any(|(_, counts)| *counts)
    }

    /// Cuts off what is longer; how many tokens that were.
    pub fn truncate(&mut self, longest: usize) -> usize {
        let cut = self.tokens.len().saturating_sub(longest);
        self.tokens.truncate(longest);
        cut
    }
}

/// A model's tokenizer and chat template.
#[derive(Debug)]
pub struct Encoder {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    end: Option<String>,
}

impl Encoder {
    /// Reads those of a model directory whose table has `vocabulary` rows.
    ///
    /// # Errors
    /// Where one cannot be read, or the tokenizer has tokens that the model has no row for.
    pub fn read(model: &Path, vocabulary: usize) -> Result<Self, Failed> {
        let tokenizer = read_tokenizer(model, vocabulary).map_err(|error| Failed::model(error.to_string()))?;
        let template = ChatTemplate::read(model).map_err(invalid_model)?;
        Ok(Self { tokenizer, template, end: end_token(model)? })
    }

    /// The sequences of an example: one, or a chosen and a rejected one.
    ///
    /// # Errors
    /// What is wrong with the example.
    pub fn encode(&self, example: &Example, completion_only: bool) -> Result<Vec<Sequence>, String> {
        match example {
            Example::Text(text) => Ok(vec![self.plain("", text, false)?]),
            Example::Completion { prompt, answers } => {
                answers.iter().map(|answer| self.plain(prompt, answer, completion_only)).collect()
            }
            Example::Conversation { turns, tools } => {
                Ok(vec![self.conversation(turns, tools.as_ref(), 0, completion_only)?])
            }
            Example::Reply { prompt, answers, tools } => {
                let one = |answer: &Turns| self.reply(prompt, answer, tools.as_ref(), completion_only);
                answers.iter().map(one).collect()
            }
        }
    }

    fn plain(&self, prompt: &str, answer: &str, completion_only: bool) -> Result<Sequence, String> {
        let mut text = format!("{prompt}{answer}");
        if let Some(end) = self.end.as_deref().filter(|end| !text.ends_with(end)) {
            text.push_str(end);
        }
        let counted = if completion_only { prompt.len()..text.len() } else { 0..text.len() };
        self.tokens(&text, &[counted], true)
    }

    fn reply(
        &self,
        prompt: &Turns,
        answer: &Turns,
        tools: Option<&Value>,
        completion_only: bool,
    ) -> Result<Sequence, String> {
        if self.template.is_none() {
            let (Some(prompt), [answer]) = (without_template(prompt), answer.as_slice()) else {
                return Err("the model has no chat template; give `prompt` and `completion` as texts".to_owned());
            };
            return self.plain(&prompt, content(answer), completion_only);
        }
        let turns: Turns = prompt.iter().chain(answer).cloned().collect();
        self.conversation(&turns, tools, prompt.len(), completion_only)
    }

    /// A conversation by the chat template. Counted are the assistant's turns from turn `first` on.
    fn conversation(
        &self,
        turns: &Turns,
        tools: Option<&Value>,
        first: usize,
        completion_only: bool,
    ) -> Result<Sequence, String> {
        let Some(template) = &self.template else {
            return Err("the model has no chat template; give `prompt` and `completion` as texts".to_owned());
        };
        let render = |turns: &[Value], open: bool| {
            let text = template.render(&turns, tools, open, &Map::new());
            text.map_err(|error| format!("the chat template does not take it: {error:#}"))
        };
        let text = render(turns, false)?;
        if !completion_only {
            let all = 0..text.len();
            return self.tokens(&text, &[all], false);
        }
        let mut counted = Vec::new();
        for (index, turn) in turns.iter().enumerate().skip(first) {
            if turn.get("role").and_then(Value::as_str) != Some("assistant") {
                continue;
            }
            let before = render(turns.get(..index).unwrap_or_default(), true)?;
            let until = if index + 1 == turns.len() {
                text.clone()
            } else {
                render(turns.get(..=index).unwrap_or_default(), false)?
            };
            counted.push(span(&text, &before, &until, content(turn)).ok_or_else(|| {
                format!(
                    "the chat template writes turn {} differently within the conversation; end the example there",
                    index + 1
                )
            })?);
        }
        if counted.is_empty() {
            return Err("no turn is the assistant's".to_owned());
        }
        self.tokens(&text, &counted, false)
    }

    /// The tokens of a text; those that have a part inside a span count: a token may begin with the space that the prompt
    /// ends with, and be the first of the answer.
    fn tokens(&self, text: &str, counted: &[Range<usize>], special: bool) -> Result<Sequence, String> {
        let encoding = self.tokenizer.encode(text, special).map_err(|error| format!("the tokenizer fails: {error}"))?;
        // A token without text, which the tokenizer adds, has a place and no part.
        let inside = |span: &Range<usize>, start, end| start < span.end && (end > span.start || start >= span.start);
        let counts = |(start, end): (usize, usize)| counted.iter().any(|span| inside(span, start, end));
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        Ok(Sequence::new(tokens.map(|(token, place)| (*token, counts(*place))).collect()))
    }
}

/// Where an answer lies in the whole text: after what the template writes before it, to where it closes it.
fn span(text: &str, before: &str, until: &str, content: &str) -> Option<Range<usize>> {
    let start = text.starts_with(before).then_some(before.len())?;
    if until.len() >= start && text.starts_with(until) {
        return Some(start..until.len());
    }
    // Some templates write the last turn differently (Qwen3's empty thoughts): take what closes it from there.
    let (content, rest) = (content.trim(), text.get(start..)?);
    let close = until.get(until.rfind(content)? + content.len()..)?;
    let end = rest.find(content)? + content.len();
    rest.get(end..)?.starts_with(close).then_some(start..start + end + close.len())
}

fn content(turn: &Value) -> &str {
    turn.get("content").and_then(Value::as_str).unwrap_or_default()
}

/// Turns as a plain text, each followed by a blank line.
fn without_template(turns: &Turns) -> Option<String> {
    let text = |turn: &Value| Some(format!("{}\n\n", turn.get("content")?.as_str()?));
    turns.iter().map(text).collect()
}

/// The text of the token that ends an example.
fn end_token(model: &Path) -> Result<Option<String>, Failed> {
    let path = model.join("tokenizer_config.json");
    if !path.exists() {
        return Ok(None);
    }
    let config: Map<String, Value> = read_json(&path, MAX_CONFIG).map_err(invalid_model)?;
    let end = config.get("eos_token");
    Ok(end.and_then(|end| end.as_str().or_else(|| end.get("content")?.as_str())).map(ToOwned::to_owned))
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn an_answer_is_found_where_the_template_closes_it() {
        let text = "<u>hi</u><a>yo</a><u>x</u><a>z</a>";
        assert_eq!(span(text, "<u>hi</u><a>", "<u>hi</u><a>yo</a>", "yo"), Some(12..18));
        let last = "<u>hi</u><a>(thought)yo</a>";
        assert_eq!(span(text, "<u>hi</u><a>", last, "yo"), Some(12..18));
        assert_eq!(span(text, "<u>other", last, "yo"), None);
    }
}
