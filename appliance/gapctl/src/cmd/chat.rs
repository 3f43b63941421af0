//! `gapctl chat`.

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
const PATIENCE: Duration = Duration::from_secs(600);
/// Longest text that is read from standard input, in bytes.
const MAX_TEXT: u64 = 8 << 20;
/// Longest answer that is taken for part of the conversation, in bytes.
const MAX_ANSWER: usize = 64 << 20;

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
    let mut text = String::new();
    let read = io::stdin().take(MAX_TEXT).read_to_string(&mut text);
    read.map_err(|error| Failure::could_not(format!("reading standard input: {error}"), "it must be UTF-8"))?;
    answer(session, chat, &mut messages, text.trim_end())
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
    let mut wanted = Map::new();
    wanted.insert("model".to_owned(), json!(chat.model));
    wanted.insert("messages".to_owned(), json!(messages));
    let settings =
        [("max_tokens", json!(chat.max_tokens)), ("temperature", json!(chat.temperature)), ("seed", json!(chat.seed))];
    wanted.extend(
        settings.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value)),
    );
    let parts = ["v1", "chat", "completions"];
    if session.json {
        let reply = session.client.ask(Request::post_json(&parts, &wanted)?.patience(PATIENCE))?;
        return session.print(&reply);
    }
    wanted.insert("stream".to_owned(), json!(true));
    let (mut stream, mut failed) = (Stream::default(), None);
    session.client.stream(Request::post_json(&parts, &wanted)?.patience(PATIENCE), |piece| {
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
    if let Some(error) = stream.error {
        return Err(Failure::could_not(
            format!("the model broke off: {error}"),
            "ask again; `gapctl job list` shows its server",
        ));
    }
    messages.push(json!({"role": "assistant", "content": stream.text}));
    Ok(())
}

/// An answer as server-sent events (OpenAI's): `data: JSON`, ended by `data: [DONE]`.
#[derive(Debug, Default)]
struct Stream {
    lines: Lines,
    text: String,
    error: Option<String>,
    ended: bool,
}

impl Stream {
    /// The text that these bytes add.
    ///
    /// # Errors
    /// [`ClientError`] when it is longer than anything that is kept.
    fn push(&mut self, piece: &[u8]) -> Result<String, ClientError> {
        let mut added = String::new();
        let Self { lines, error, ended, .. } = self;
        // It is broken off where it has ended.
        let _ = lines.push(piece, |line| {
            let line = String::from_utf8_lossy(line);
            let Some(data) = line.trim_end().strip_prefix("data:") else { return ControlFlow::Continue(()) };
            if data.trim() == "[DONE]" {
                *ended = true;
                return ControlFlow::Break(());
            }
            let Ok(event) = serde_json::from_str::<Value>(data) else { return ControlFlow::Continue(()) };
            added += event.pointer("/choices/0/delta/content").and_then(Value::as_str).unwrap_or_default();
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
            let mut stream = Stream::default();
            let text: String = whole.as_bytes().chunks(size).map(|piece| stream.push(piece).unwrap()).collect();
            assert_eq!((text.as_str(), stream.ended), ("Grüß Gott", true));
        }
    }

    #[test]
    fn an_error_in_the_middle_ends_it() {
        let mut stream = Stream::default();
        stream.push(b"data: {\"error\":{\"message\":\"no memory\"}}\n\n").unwrap();
        assert_eq!((stream.error.as_deref(), stream.ended), (Some("no memory"), true));
    }
}
