//! `gapctl chat` and `gapctl complete`.

use super::{Failure, Outcome, Session, lines::Lines, show};
use crate::client::{ClientError, Request};
use clap::Args;
use serde_json::{Map, Value, json};
use std::{
    io::{self, IsTerminal, Read, Write},
    ops::ControlFlow,
    time::Duration,
};

/// Longest silence of a model.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// Longest text that is read from standard input, in bytes.
const MAX_TEXT: u64 = 8 << 20;
/// Longest answer that is taken for part of the conversation, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// Where in an event the text stands that it adds.
const OF_CHAT: &str = "/choices/0/delta/content";
const OF_COMPLETION: &str = "/choices/0/text";

/// What is asked, and how.
#[derive(Debug, Args)]
pub struct Chat {
    /// The model, which must be served
    model: String,
    /// The text; standard input when absent, where a terminal makes a conversation of it
    text: Option<String>,
    /// What the model is told beforehand
    #[arg(long)]
    system: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

/// What is to be continued, and how.
#[derive(Debug, Args)]
pub struct Complete {
    /// The model, which must be served
    model: String,
    /// The text; standard input when absent
    text: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

/// How an answer is made.
#[derive(Debug, Args)]
struct Settings {
    /// Most tokens of the answer
    #[arg(long)]
    max_tokens: Option<u64>,
    /// 0 takes the likeliest token each time
    #[arg(long)]
    temperature: Option<f64>,
    /// Everything random follows from it
    #[arg(long)]
    seed: Option<u64>,
}

impl Settings {
    /// A request to this model with those that were said.
    fn of_model(&self, model: &str) -> Map<String, Value> {
        let said = [
            ("model", json!(model)),
            ("max_tokens", json!(self.max_tokens)),
            ("temperature", json!(self.temperature)),
            ("seed", json!(self.seed)),
        ];
        said.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

pub fn complete(session: &Session, complete: &Complete) -> Outcome {
    let mut wanted = complete.settings.of_model(&complete.model);
    // Blanks at its end are part of what is continued.
    wanted.insert("prompt".to_owned(), json!(complete.text.clone().map_or_else(input, Ok)?));
    ask(session, &["v1", "completions"], wanted, OF_COMPLETION).map(drop)
}

pub fn chat(session: &Session, chat: &Chat) -> Outcome {
    let mut messages: Vec<Value> = Vec::new();
    if let Some(system) = &chat.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    if let Some(text) = &chat.text {
        return answer(session, chat, &mut messages, text);
    }
    if io::stdin().is_terminal() && !session.json {
        return converse(session, chat, &mut messages);
    }
    let text = input()?;
    answer(session, chat, &mut messages, text.trim_end())
}

/// What standard input holds.
pub fn input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = io::stdin().take(MAX_TEXT).read_to_string(&mut text);
    read.map_err(|error| Failure::could_not(format!("reading standard input: {error}"), "it must be UTF-8"))?;
    Ok(text)
}

/// One line, one answer, until the end of input.
fn converse(session: &Session, chat: &Chat, messages: &mut Vec<Value>) -> Outcome {
    let failed = |error: io::Error| Failure::could_not(error, "is this a terminal?");
    loop {
        eprint!("> ");
        io::stderr().flush().map_err(failed)?;
        let mut line = String::new();
        if io::stdin().read_line(&mut line).map_err(failed)? == 0 {
            return Ok(());
        }
        if !line.trim().is_empty() {
            answer(session, chat, messages, line.trim_end())?;
        }
    }
}

/// Asks and shows the answer as it comes; both are part of the conversation then.
fn answer(session: &Session, chat: &Chat, messages: &mut Vec<Value>, text: &str) -> Outcome {
    messages.push(json!({"role": "user", "content": text}));
    let mut wanted = chat.settings.of_model(&chat.model);
    wanted.insert("messages".to_owned(), json!(messages));
    let said = ask(session, &["v1", "chat", "completions"], wanted, OF_CHAT)?;
    messages.push(json!({"role": "assistant", "content": said}));
    Ok(())
}

/// Asks and shows the answer as it comes, which is returned; for programs it is printed whole, as it came.
fn ask(
    session: &Session,
    path: &[&str],
    mut wanted: Map<String, Value>,
    place: &'static str,
) -> Result<String, Failure> {
    if session.json {
        let reply = session.client.ask(Request::post_json(path, &wanted)?.patience(PATIENCE))?;
        session.print(&reply)?;
        return Ok(String::new());
    }
    wanted.insert("stream".to_owned(), json!(true));
    let (mut stream, mut failed) = (Stream::of(place), None);
    session.client.stream(Request::post_json(path, &wanted)?.patience(PATIENCE), |piece| {
        match stream.push(piece) {
            Ok(text) => show::text(&show::plain_lines(&text)),
            Err(error) => failed = Some(error),
        }
        if stream.ended || failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    show::line("");
    if let Some(error) = failed {
        return Err(error.into());
    }
    match stream.error {
        None => Ok(stream.text),
        Some(error) => Err(Failure::could_not(
            format!("the model broke off: {error}"),
            "ask again; `gapctl job list` shows its server",
        )),
    }
}

/// An answer as server-sent events (OpenAI's): `data: JSON`, ended by `data: [DONE]`.
#[derive(Debug)]
struct Stream {
    /// Where in an event its text stands.
    place: &'static str,
    lines: Lines,
    text: String,
    error: Option<String>,
    ended: bool,
}

impl Stream {
    fn of(place: &'static str) -> Self {
        Self { place, lines: Lines::default(), text: String::new(), error: None, ended: false }
    }

    /// The text that these bytes add.
    ///
    /// # Errors
    /// [`ClientError`] when it is longer than anything that is kept.
    fn push(&mut self, piece: &[u8]) -> Result<String, ClientError> {
        let mut added = String::new();
        let Self { place, lines, error, ended, .. } = self;
        // It is broken off where it has ended.
        let _ = lines.push(piece, |line| {
            let line = String::from_utf8_lossy(line);
            let Some(data) = line.trim_end().strip_prefix("data:") else { return ControlFlow::Continue(()) };
            if data.trim() == "[DONE]" {
                *ended = true;
                return ControlFlow::Break(());
            }
            let Ok(event) = serde_json::from_str::<Value>(data) else { return ControlFlow::Continue(()) };
            added += event.pointer(place).and_then(Value::as_str).unwrap_or_default();
            let Some(told) = event.get("error") else { return ControlFlow::Continue(()) };
            *error = Some(told.get("message").and_then(Value::as_str).unwrap_or("no reason").to_owned());
            *ended = true;
            ControlFlow::Break(())
        })?;
        if self.text.len().saturating_add(added.len()) > MAX_ANSWER {
            return Err(ClientError::TooLong(MAX_ANSWER));
        }
        self.text += &added;
        Ok(added)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_put_together_wherever_it_was_cut() {
        let whole = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n\
                     data: {\"choices\":[{\"delta\":{\"content\":\"Grüß \"}}]}\n\n\
                     data: {\"choices\":[{\"delta\":{\"content\":\"Gott\"}}]}\n\ndata: [DONE]\n\n";
        for size in 1..whole.len() {
            let mut stream = Stream::of(OF_CHAT);
            let text: String = whole.as_bytes().chunks(size).map(|piece| stream.push(piece).unwrap()).collect();
            assert_eq!((text.as_str(), stream.ended), ("Grüß Gott", true));
        }
    }

    #[test]
    fn an_error_in_the_middle_ends_it() {
        let mut stream = Stream::of(OF_CHAT);
        stream.push(b"data: {\"error\":{\"message\":\"no memory\"}}\n\n").unwrap();
        assert_eq!((stream.error.as_deref(), stream.ended), (Some("no memory"), true));
    }
}
