//! The rows of a JSON Lines file as examples.

use crate::error::{Failed, invalid_data};
use gap_contract::Method;
use serde_json::Value;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

/// Longest row that is read, in bytes.
const MAX_ROW: u64 = 64 << 20;

/// A row of a file: an object.
pub type ParsedRow = serde_json::Map<String, Value>;

/// Turns of a conversation, as chat templates take them.
pub type Turns = Vec<Value>;

/// What a row says.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// Everything counts.
    Text(String),
    /// A text, and what follows it.
    Completion {
        /// What it begins with.
        prompt: String,
        /// What follows: one text, or a chosen and a rejected one.
        answers: Vec<String>,
    },
    /// A conversation, of which the assistant's turns count.
    Conversation {
        /// Its turns.
        turns: Turns,
        /// Tools that may be called.
        tools: Option<Value>,
    },
    /// Turns, and those that follow them.
    Reply {
        /// What it begins with.
        prompt: Turns,
        /// What follows: one list, or a chosen and a rejected one.
        answers: Vec<Turns>,
        /// Tools that may be called.
        tools: Option<Value>,
    },
}

/// Gives each row with its line, from 1.
///
/// # Errors
/// Where the file cannot be read, or a row is no JSON object.
pub fn read_rows(path: &Path, mut take: impl FnMut(u64, &ParsedRow) -> Result<(), Failed>) -> Result<(), Failed> {
    let unread = |error: std::io::Error| invalid_data(path, 0, format!("it cannot be read: {error}"));
    let mut file = BufReader::new(File::open(path).map_err(unread)?);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if (&mut file).take(MAX_ROW + 1).read_until(b'\n', &mut bytes).map_err(unread)? == 0 {
            break;
        }
        if bytes.len() as u64 > MAX_ROW {
            return Err(invalid_data(path, line, format!("it is longer than {} MiB", MAX_ROW >> 20)));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row = serde_json::from_slice::<ParsedRow>(&bytes)
            .map_err(|error| invalid_data(path, line, format!("it is no JSON object: {error}")))?;
        take(line, &row)?;
    }
    Ok(())
}

impl Example {
    /// Recognises a row by its fields.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(row: &ParsedRow, method: Method) -> Result<Self, String> {
        match method {
            Method::Supervised => Self::supervised(row),
            Method::Dpo => Self::preference(row),
        }
    }

    fn supervised(row: &ParsedRow) -> Result<Self, String> {
        if let Some(turns) = row.get("messages").or_else(|| row.get("conversations")) {
            return Ok(Self::Conversation { turns: list(turns, "messages")?, tools: tools(row) });
        }
        if row.contains_key("prompt") && row.contains_key("completion") {
            return Self::answered(row, &["completion"]);
        }
        if row.contains_key("instruction") {
            let instruction = text(row, "instruction")?;
            let input = row.get("input").and_then(Value::as_str).filter(|input| !input.is_empty());
            let asked = input.map_or_else(|| instruction.clone(), |input| format!("{instruction}\n\n{input}"));
            let mut prompt = Vec::new();
            if let Some(system) = row.get("system").and_then(Value::as_str).filter(|system| !system.is_empty()) {
                prompt.push(turn("system", system));
            }
            prompt.push(turn("user", &asked));
            return Ok(Self::Reply {
                prompt,
                answers: vec![vec![turn("assistant", &text(row, "output")?)]],
                tools: None,
            });
        }
        if row.contains_key("text") {
            return Ok(Self::Text(text(row, "text")?));
        }
        Err("its fields are of no form: `messages`; `prompt`, `completion`; `instruction`, `output`; or `text`"
            .to_owned())
    }

    fn preference(row: &ParsedRow) -> Result<Self, String> {
        if !["prompt", "chosen", "rejected"].iter().all(|field| row.contains_key(*field)) {
            return Err("a preference has `prompt`, `chosen` and `rejected`".to_owned());
        }
        Self::answered(row, &["chosen", "rejected"])
    }

    fn answered(row: &ParsedRow, fields: &[&str]) -> Result<Self, String> {
        if row.get("prompt").is_some_and(Value::is_string) {
            let answers = fields.iter().map(|field| text(row, field)).collect::<Result<_, _>>()?;
            return Ok(Self::Completion { prompt: text(row, "prompt")?, answers });
        }
        let prompt = list(row.get("prompt").unwrap_or(&Value::Null), "prompt")?;
        let answers = fields.iter().map(|field| list(row.get(*field).unwrap_or(&Value::Null), field));
        Ok(Self::Reply { prompt, answers: answers.collect::<Result<_, _>>()?, tools: tools(row) })
    }
}

fn text(row: &ParsedRow, field: &str) -> Result<String, String> {
    match row.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{field}` is no text")),
        None => Err(format!("`{field}` is missing")),
    }
}

fn list(value: &Value, field: &str) -> Result<Turns, String> {
    let Some(turns) = value.as_array().filter(|turns| !turns.is_empty()) else {
        return Err(format!("`{field}` is no list of turns"));
    };
    if !turns.iter().all(|turn| turn.get("role").is_some_and(Value::is_string)) {
        return Err(format!("a turn in `{field}` has no `role`"));
    }
    Ok(turns.clone())
}

fn tools(row: &ParsedRow) -> Option<Value> {
    row.get("tools").filter(|tools| tools.as_array().is_some_and(|tools| !tools.is_empty())).cloned()
}

fn turn(role: &str, content: &str) -> Value {
    serde_json::json!({"role": role, "content": content})
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(row: Value, method: Method) -> Result<Example, String> {
        Example::of(row.as_object().unwrap(), method)
    }

    #[test]
    fn rows_are_recognised_by_their_fields() {
        let supervised = |row| of(row, Method::Supervised);
        assert_eq!(supervised(json!({"text": "a"})), Ok(Example::Text("a".to_owned())));
        let completion = Example::Completion { prompt: "p".to_owned(), answers: vec!["c".to_owned()] };
        assert_eq!(supervised(json!({"prompt": "p", "completion": "c"})), Ok(completion));
        let reply = supervised(json!({"instruction": "i", "input": "j", "output": "o", "system": "s"})).unwrap();
        let prompt = vec![turn("system", "s"), turn("user", "i\n\nj")];
        assert_eq!(reply, Example::Reply { prompt, answers: vec![vec![turn("assistant", "o")]], tools: None });
        let pair = of(json!({"prompt": "p", "chosen": "c", "rejected": "r"}), Method::Dpo).unwrap();
        assert_eq!(pair, Example::Completion { prompt: "p".to_owned(), answers: vec!["c".to_owned(), "r".to_owned()] });
    }

    #[test]
    fn other_rows_say_what_is_missing() {
        assert!(of(json!({"question": "a"}), Method::Supervised).unwrap_err().contains("of no form"));
        assert!(
            of(json!({"prompt": "p", "completion": 5}), Method::Supervised)
                .unwrap_err()
                .contains("`completion` is no text")
        );
        assert!(of(json!({"messages": []}), Method::Supervised).unwrap_err().contains("no list of turns"));
        assert!(of(json!({"messages": [{"content": "x"}]}), Method::Supervised).unwrap_err().contains("no `role`"));
        assert!(of(json!({"prompt": "p", "completion": "c"}), Method::Dpo).unwrap_err().contains("`chosen`"));
    }
}
