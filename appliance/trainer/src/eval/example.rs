//! Examples to answer: what is asked, and the answer that is known to be right.

use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

/// The longest row that is read, in bytes.
const MAX_ROW: u64 = 64 << 20;

/// Why examples cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExampleError {
    /// The file cannot be read.
    #[error("the examples in {} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A row that is no example.
    #[error("line {line} of {} {what}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// No rows.
    #[error("{} has no examples", .0.display())]
    Empty(PathBuf),
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// A text to continue.
    Text(String),
    /// Turns to answer.
    Turns {
        /// `role` and `content` of each.
        turns: Vec<Value>,
        /// Tools that may be called.
        tools: Option<Value>,
    },
}

/// An example.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// What it is called: its `id`, or the number of its line.
    pub id: String,
    /// What is asked. Empty text where the whole example is to be predicted.
    pub prompt: Prompt,
    /// The right answer, if one is given.
    pub reference: Option<String>,
}

impl Example {
    /// What is asked, in the words of the one who asks.
    #[must_use]
    pub fn question(&self) -> &str {
        match &self.prompt {
            Prompt::Text(text) => text,
            Prompt::Turns { turns, .. } => {
                let asked = |turn: &&Value| turn.get("role").and_then(Value::as_str) == Some("user");
                let asked = turns.iter().rev().find(asked);
                asked.and_then(|turn| turn.get("content")).and_then(Value::as_str).unwrap_or("")
            }
        }
    }

    /// Whether there is something to answer, and not only to predict.
    #[must_use]
    pub fn asks(&self) -> bool {
        !matches!(&self.prompt, Prompt::Text(text) if text.is_empty())
    }
}

/// Reads the examples of a file, at most `limit`.
///
/// # Errors
/// [`ExampleError`].
pub fn read(path: &Path, limit: Option<usize>) -> Result<Vec<Example>, ExampleError> {
    let mut examples: Vec<Example> = Vec::new();
    let mut ids = BTreeSet::new();
    for (line, row) in rows(path)? {
        if limit.is_some_and(|limit| examples.len() >= limit) {
            break;
        }
        let wrong = |what: String| ExampleError::Row { path: path.to_owned(), line, what };
        let example = example(&row, line).map_err(wrong)?;
        if !ids.insert(example.id.clone()) {
            return Err(wrong(format!("has the id {:?}, as an earlier one", example.id)));
        }
        examples.push(example);
    }
    if examples.is_empty() { Err(ExampleError::Empty(path.to_owned())) } else { Ok(examples) }
}

/// The rows of a file of JSON Lines with their line numbers.
pub(super) fn rows(path: &Path) -> Result<Vec<(usize, Value)>, ExampleError> {
    let io = |source| ExampleError::Io { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    let mut rows = Vec::new();
    for line in 1.. {
        let wrong = |what: String| ExampleError::Row { path: path.to_owned(), line, what };
        let mut text = Vec::new();
        let length = reader.by_ref().take(MAX_ROW).read_until(b'\n', &mut text).map_err(io)?;
        if length == 0 {
            break;
        }
        if length as u64 == MAX_ROW {
            return Err(wrong(format!("has more than {MAX_ROW} bytes")));
        }
        if !text.trim_ascii().is_empty() {
            rows.push((line, serde_json::from_slice(&text).map_err(|error| wrong(format!("is no JSON: {error}")))?));
        }
    }
    Ok(rows)
}

fn example(row: &Value, line: usize) -> Result<Example, String> {
    let id = match row.get("id") {
        None | Some(Value::Null) => line.to_string(),
        Some(Value::String(id)) => id.clone(),
        Some(other) => other.to_string(),
    };
    let text = |name: &str| row.get(name).and_then(Value::as_str);
    let turns = |name: &str| row.get(name).and_then(Value::as_array).cloned();
    let answered = ["completion", "chosen"].iter().any(|name| row.get(*name).is_some());
    let tools = row.get("tools").filter(|tools| !tools.is_null()).cloned();
    // The order is that of training: a row with the fields of several forms is of the first.
    let (prompt, reference) = if let Some(mut turns) = turns("messages").or_else(|| turns("conversations")) {
        let answers = |turn: &Value| turn.get("role").and_then(Value::as_str) == Some("assistant");
        let reference = turns.pop_if(|turn| answers(turn)).and_then(|turn| content(&turn));
        (Prompt::Turns { turns, tools }, reference)
    } else if let (Some(prompt), true) = (text("prompt"), answered || text("instruction").is_none()) {
        let reference = text("completion").or_else(|| text("chosen")).map(str::to_owned);
        (Prompt::Text(prompt.to_owned()), reference)
    } else if let (Some(mut prompt), true) = (turns("prompt"), answered || text("instruction").is_none()) {
        let mut answer = turns("completion").or_else(|| turns("chosen")).unwrap_or_default();
        let reference = answer.pop().as_ref().and_then(content);
        // What comes before the last answer is given to it.
        prompt.append(&mut answer);
        (Prompt::Turns { turns: prompt, tools }, reference)
    } else if let Some(instruction) = text("instruction") {
        (instructed(text("system"), instruction, text("input")), text("output").map(str::to_owned))
    } else if let Some(text) = text("text") {
        (Prompt::Text(String::new()), Some(text.to_owned()))
    } else {
        return Err("has none of `messages`, `prompt`, `instruction`, `text`".to_owned());
    };
    if matches!(&prompt, Prompt::Turns { turns, .. } if turns.is_empty()) {
        return Err("asks nothing".to_owned());
    }
    Ok(Example { id, prompt, reference })
}

fn content(turn: &Value) -> Option<String> {
    turn.get("content").and_then(Value::as_str).map(str::to_owned)
}

fn instructed(system: Option<&str>, instruction: &str, input: Option<&str>) -> Prompt {
    let asked = match input.filter(|input| !input.is_empty()) {
        Some(input) => format!("{instruction}\n\n{input}"),
        None => instruction.to_owned(),
    };
    let system = system.filter(|system| !system.is_empty()).map(|system| json!({"role": "system", "content": system}));
    let turns = system.into_iter().chain([json!({"role": "user", "content": asked})]).collect();
    Prompt::Turns { turns, tools: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_rows(rows: &[Value]) -> Result<Vec<Example>, ExampleError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.jsonl");
        std::fs::write(&path, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
        read(&path, None)
    }

    #[test]
    fn every_form_of_example_gives_question_and_reference() {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let examples = read_rows(&[
            json!({"id": "m", "messages": [turn("user", "q"), turn("assistant", "a")]}),
            json!({"instruction": "q", "input": "", "output": "a"}),
            json!({"prompt": "q", "completion": "a"}),
            json!({"prompt": [turn("user", "q")], "chosen": [turn("assistant", "a")], "rejected": []}),
        ])
        .unwrap();
        assert_eq!(examples.iter().map(|example| example.id.as_str()).collect::<Vec<_>>(), ["m", "2", "3", "4"]);
        for example in &examples {
            assert_eq!((example.question(), example.reference.as_deref(), example.asks()), ("q", Some("a"), true));
        }
        let text = read_rows(&[json!({"text": "t"})]).unwrap();
        assert!(!text[0].asks());
    }

    #[test]
    fn a_row_of_several_forms_is_of_the_one_that_training_takes() {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let examples = read_rows(&[
            json!({"conversations": [turn("user", "q"), turn("assistant", "a")], "text": "t", "instruction": "i"}),
            json!({"prompt": "q", "completion": "a", "instruction": "i", "output": "o", "text": "t"}),
            json!({"instruction": "q", "output": "a", "prompt": "p", "text": "t"}),
        ])
        .unwrap();
        for example in &examples {
            assert_eq!((example.question(), example.reference.as_deref()), ("q", Some("a")), "{example:?}");
        }
    }

    #[test]
    fn of_several_turns_that_follow_a_prompt_the_last_is_the_answer_and_the_others_are_given() {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let (asked, called) = (turn("user", "q"), turn("assistant", "call"));
        for name in ["completion", "chosen"] {
            let found = turn("tool", "found");
            let row = json!({"prompt": [asked], name: [called, found, turn("assistant", "a")]});
            let example = read_rows(&[row]).unwrap().remove(0);
            let turns = vec![asked.clone(), called.clone(), found];
            assert_eq!(example.prompt, Prompt::Turns { turns, tools: None });
            assert_eq!(example.reference.as_deref(), Some("a"));
        }
    }

    #[test]
    fn what_is_no_example_is_named_with_its_line() {
        for (rows, expected) in [
            (vec![json!({"text": "t"}), json!({"x": 1})], "line 2"),
            (vec![json!({"messages": []})], "asks nothing"),
            (vec![json!({"id": "a", "text": "t"}), json!({"id": "a", "text": "t"})], "as an earlier one"),
            (vec![], "has no examples"),
        ] {
            let found = read_rows(&rows).unwrap_err().to_string();
            assert!(found.contains(expected), "{found}");
        }
    }
}
