//! Calls of tools: how a model family writes them, how it is made to, and how they are read.

use crate::{
    codec::Codec,
    engine::{Shape, with_spaces},
};
use rand::{Rng, distributions::Alphanumeric};
use serde::Serialize;
use serde_json::{Value, json};

/// How a family writes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`: Qwen, Hermes.
    Tagged,
    /// `[TOOL_CALLS][{"name": …, "arguments": …}]`: Mistral.
    Listed,
    /// `{"name": …, "parameters": …}`: Llama.
    Plain,
}

/// A tool that may be called.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// JSON schema of its arguments.
    pub parameters: Value,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    /// What its result is given back with.
    pub id: String,
    /// `function`.
    pub r#type: &'static str,
    /// What is called.
    pub function: Function,
}

/// A function and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// JSON.
    pub arguments: String,
}

impl Dialect {
    /// What a chat template shows of it.
    pub fn of_template(source: &str) -> Option<Self> {
        if source.contains("<tool_call>") {
            Some(Self::Tagged)
        } else if source.contains("[TOOL_CALLS]") {
            Some(Self::Listed)
        } else if source.contains("\"parameters\"") && source.contains("tools") {
            Some(Self::Plain)
        } else {
            None
        }
    }

    /// What a call begins with.
    const fn opening(self) -> &'static str {
        match self {
            Self::Tagged => "<tool_call>",
            Self::Listed => "[TOOL_CALLS]",
            Self::Plain => "{",
        }
    }

    /// Special tokens that must be seen in an answer.
    pub fn shown(self, codec: &Codec) -> Vec<u32> {
        let names: &[&str] = match self {
            Self::Tagged => &["<tool_call>", "</tool_call>"],
            Self::Listed => &["[TOOL_CALLS]"],
            Self::Plain => &[],
        };
        names.iter().filter_map(|name| codec.token(name)).collect()
    }

    /// An answer that is a call of one of these tools, or several such calls unless it must be a `single` one.
    pub fn required(self, tools: &[Tool], single: bool, codec: &Codec) -> Shape {
        let arguments = if self == Self::Plain { "parameters" } else { "arguments" };
        let each = tools.iter().map(|tool| {
            json!({
                "type": "object",
                "properties": {"name": {"const": tool.name}, arguments: tool.parameters},
                "required": ["name", arguments],
                "additionalProperties": false,
            })
        });
        let each: Vec<Value> = each.collect();
        let spaced = |schema| with_spaces(schema, " ?");
        let token = |name: &str| codec.token(name).map_or_else(|| format!("{name:?}"), |token| format!("<[{token}]>"));
        Shape::Lark(match self {
            Self::Tagged => {
                let (open, close) = (token("<tool_call>"), token("</tool_call>"));
                let more = if single { "" } else { " (\"\\n\" one)*" };
                format!(
                    "start: one{more}\none: {open} \"\\n\" call \"\\n\" {close}\ncall: %json {}\n",
                    spaced(json!({"anyOf": each}))
                )
            }
            Self::Listed => {
                let most = if single { 1 } else { 64 };
                let list = spaced(json!({"type": "array", "items": {"anyOf": each}, "minItems": 1, "maxItems": most}));
                format!("start: {} list\nlist: %json {list}\n", token("[TOOL_CALLS]"))
            }
            Self::Plain => format!("start: call\ncall: %json {}\n", spaced(json!({"anyOf": each}))),
        })
    }
}

/// Reads an answer as it grows: text goes on at once, calls are held until they are whole.
#[derive(Debug)]
pub struct CallReader {
    dialect: Dialect,
    held: String,
    calling: bool,
    /// Text came that is no call; for a family whose calls are whole answers there will be none.
    talking: bool,
}

impl CallReader {
    /// For a family.
    pub const fn new(dialect: Dialect) -> Self {
        Self { dialect, held: String::new(), calling: false, talking: false }
    }

    /// Takes more of an answer; the text that is certainly no part of a call.
    pub fn push(&mut self, text: &str) -> String {
        self.held.push_str(text);
        if self.calling {
            return String::new();
        }
        let opening = self.dialect.opening();
        let start = match self.dialect {
            // Only an answer that is nothing else is a call.
            Dialect::Plain if self.talking => None,
            Dialect::Plain if self.held.trim_start().is_empty() => return String::new(),
            Dialect::Plain => self.held.trim_start().starts_with(opening).then_some(0),
            Dialect::Tagged | Dialect::Listed => self.held.find(opening),
        };
        if let Some(start) = start {
            self.calling = true;
            let call = self.held.split_off(start);
            return std::mem::replace(&mut self.held, call);
        }
        self.talking = true;
        let possible = (1..opening.len())
            .rev()
            .find(|length| opening.get(..*length).is_some_and(|start| self.held.ends_with(start)));
        let rest = self.held.split_off(self.held.len() - possible.unwrap_or_default());
        std::mem::replace(&mut self.held, rest)
    }

    /// At the end of the answer: the calls, or text that turned out to be none.
    pub fn finish(self) -> (String, Vec<Call>) {
        if !self.calling {
            return (self.held, Vec::new());
        }
        match read_calls(self.dialect, &self.held) {
            Some(calls) if !calls.is_empty() => (String::new(), calls),
            _ => (self.held, Vec::new()),
        }
    }
}

fn read_calls(dialect: Dialect, text: &str) -> Option<Vec<Call>> {
    match dialect {
        Dialect::Tagged => {
            let pieces = text.split("<tool_call>").skip(1);
            let inner = pieces.map(|piece| piece.split("</tool_call>").next().unwrap_or_default());
            inner.map(|inner| read_call(&serde_json::from_str(inner.trim()).ok()?)).collect()
        }
        Dialect::Listed => {
            let list = text.trim().strip_prefix("[TOOL_CALLS]")?.trim();
            if let Ok(Value::Array(list)) = serde_json::from_str(list) {
                return list.iter().map(read_call).collect();
            }
            // Newer ones write `name[ARGS]{…}` or `name{…}` for each.
            list.split("[TOOL_CALLS]").map(read_named_call).collect()
        }
        Dialect::Plain => {
            let calls = text.trim().split(';').map(|call| read_call(&serde_json::from_str(call.trim()).ok()?));
            calls
                .collect::<Option<Vec<_>>>()
                .or_else(|| Some(vec![read_call(&serde_json::from_str(text.trim()).ok()?)?]))
        }
    }
}

fn read_call(value: &Value) -> Option<Call> {
    let arguments = value.get("arguments").or_else(|| value.get("parameters"))?;
    Some(Call::new(value.get("name")?.as_str()?, arguments))
}

fn read_named_call(text: &str) -> Option<Call> {
    let (name, arguments) = text.split_at_checked(text.find('{')?)?;
    Some(Call::new(name.trim().trim_end_matches("[ARGS]").trim(), &serde_json::from_str(arguments.trim()).ok()?))
}

impl Call {
    fn new(name: &str, arguments: &Value) -> Self {
        let arguments = match arguments {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // Nine letters and digits: Mistral's templates take no others.
        let id = rand::thread_rng().sample_iter(Alphanumeric).take(9).map(char::from).collect();
        Self { id, r#type: "function", function: Function { name: name.to_owned(), arguments } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the pieces: text, and name and arguments of each call.
    fn read(dialect: Dialect, text: &str) -> (String, Vec<(String, String)>) {
        let mut results = [1, 3, 1000].map(|size| {
            let mut reader = CallReader::new(dialect);
            let letters: Vec<char> = text.chars().collect();
            let mut out: String =
                letters.chunks(size).map(|piece| reader.push(&piece.iter().collect::<String>())).collect();
            let (rest, calls) = reader.finish();
            out += &rest;
            (out, calls.into_iter().map(|call| (call.function.name, call.function.arguments)).collect::<Vec<_>>())
        });
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{results:?}");
        std::mem::take(&mut results[0])
    }

    fn call(name: &str, arguments: &str) -> (String, String) {
        (name.to_owned(), arguments.to_owned())
    }

    #[test]
    fn tagged_calls_follow_text() {
        let text = "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";
        let expected = vec![call("f", "{\"a\":1}"), call("g", "{}")];
        assert_eq!(read(Dialect::Tagged, text), ("Let me see.\n".to_owned(), expected));
    }

    #[test]
    fn listed_calls_are_read_in_both_forms() {
        let old = "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", \"arguments\": {}}]";
        let expected = vec![call("f", "{\"a\":1}"), call("g", "{}")];
        assert_eq!(read(Dialect::Listed, old), (String::new(), expected.clone()));
        let new = "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g{}";
        assert_eq!(read(Dialect::Listed, new), (String::new(), expected));
    }

    #[test]
    fn plain_calls_are_whole_answers() {
        let one = "{\"name\": \"f\", \"parameters\": {\"a\": \"x; y\"}}";
        assert_eq!(read(Dialect::Plain, one), (String::new(), vec![call("f", "{\"a\":\"x; y\"}")]));
        let text = "see {\"name\": \"f\", \"parameters\": {}}";
        assert_eq!(read(Dialect::Plain, text), (text.to_owned(), vec![]));
    }

    #[test]
    fn what_is_no_call_stays_text() {
        for text in ["a < b <tool", "<tool_call>{broken", "{\"a\": 1}"] {
            assert_eq!(read(Dialect::Tagged, text), (text.to_owned(), vec![]));
        }
        assert_eq!(read(Dialect::Plain, "{\"a\": 1}"), ("{\"a\": 1}".to_owned(), vec![]));
        assert_eq!(read(Dialect::Plain, " text"), (" text".to_owned(), vec![]));
    }
}
