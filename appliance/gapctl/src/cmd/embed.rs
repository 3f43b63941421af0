//! `gapctl embed`.

use super::{Outcome, Session, chat, show};
use crate::client::Request;
use clap::Args;
use serde::Deserialize;
use serde_json::{Number, json};

/// What is embedded.
#[derive(Debug, Args)]
pub struct Embed {
    /// The model, which must be served
    model: String,
    /// The texts; standard input is one when absent
    texts: Vec<String>,
}

#[derive(Deserialize)]
struct Embeddings {
    data: Vec<Embedding>,
}

#[derive(Deserialize)]
struct Embedding {
    embedding: Vec<Number>,
}

/// Prints the vector of each text, one JSON array a line.
pub fn embed(session: &Session, embed: &Embed) -> Outcome {
    let texts = match embed.texts.is_empty() {
        true => vec![chat::input()?.trim_end().to_owned()],
        false => embed.texts.clone(),
    };
    let wanted = json!({"model": embed.model, "input": texts});
    let answer = session.client.ask(Request::post_json(&["v1", "embeddings"], &wanted)?.patience(chat::PATIENCE))?;
    if session.json {
        return session.print(&answer);
    }
    for one in answer.read::<Embeddings>()?.data {
        show::line(show::json_line(&json!(one.embedding)));
    }
    Ok(())
}
