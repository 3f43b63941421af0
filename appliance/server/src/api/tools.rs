//! Calls of tools: how a model family writes them, how it is made to, and how they are read.

use crate::{
    codec::Codec,
    engine::{Shape, with_spaces},
};
use rand::{Rng, distributions::Alphanumeric};
use serde::Serialize;
use serde_json::{Deserializer, Map, Value, json};

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
        // References in a schema begin at its root, which is here the root of all tools' schemas.
        let schemas: Map<String, Value> =
            tools.iter().enumerate().map(|(number, tool)| moved(number, tool.parameters.clone())).collect();
        let each = tools.iter().enumerate().map(|(number, tool)| {
            json!({
                "type": "object",
                "properties": {"name": {"const": tool.name}, arguments: {"$ref": schema_of(number)}},
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
                    spaced(json!({"anyOf": each, "$defs": schemas}))
                )
            }
            Self::Listed => {
                let most = if single { 1 } else { 64 };
                let list = spaced(json!({
                    "type": "array", "items": {"anyOf": each}, "minItems": 1, "maxItems": most, "$defs": schemas,
                }));
                format!("start: {} list\nlist: %json {list}\n", token("[TOOL_CALLS]"))
            }
            Self::Plain => format!("start: call\ncall: %json {}\n", spaced(json!({"anyOf": each, "$defs": schemas}))),
        })
    }
}

/// Where the schema of a tool's arguments is found among those of all tools.
fn schema_of(number: usize) -> String {
    format!("#/$defs/{number}")
}

/// A tool's schema for its place among those of all tools: what referred to its root refers to that place.
fn moved(number: usize, mut schema: Value) -> (String, Value) {
    move_references(&mut schema, &schema_of(number));
    (number.to_string(), schema)
}

fn move_references(schema: &mut Value, root: &str) {
    match schema {
        Value::Object(keywords) => {
            for (keyword, value) in keywords.iter_mut() {
                match (keyword.as_str(), value) {
                    ("$ref", Value::String(reference)) => {
                        if let Some(path) =
                            reference.strip_prefix('#').filter(|path| path.is_empty() || path.starts_with('/'))
                        {
                            *reference = format!("{root}{}", path.trim_end_matches('/'));
                        }
                    }
                    // Values of answers, and no schemas.
                    ("const" | "enum" | "default" | "examples", _) => {}
                    // Schemas by names that are the tool's own.
                    (
                        "properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions",
                        Value::Object(named),
                    ) => {
                        named.values_mut().for_each(|schema| move_references(schema, root));
                    }
                    (_, value) => move_references(value, root),
                }
            }
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(|schema| move_references(schema, root)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Reads an answer as it grows: text goes on at once, calls are held until they are whole.
#[derive(Debug)]
pub struct CallReader {
    dialect: Dialect,
    /// Only the first call counts.
    single: bool,
    held: String,
    calling: bool,
    /// Text came that is no call; for a family whose calls are whole answers there will be none.
    talking: bool,
}

impl CallReader {
    /// For a family; of a `single` call those that follow it are left out.
    pub const fn new(dialect: Dialect, single: bool) -> Self {
        Self { dialect, single, held: String::new(), calling: false, talking: false }
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
            Some(mut calls) if !calls.is_empty() => {
                calls.truncate(if self.single { 1 } else { usize::MAX });
                (String::new(), calls)
            }
            _ => (self.held, Vec::new()),
        }
    }
}

/// All calls of an answer. None where it has anything that is no call: what separates calls may also stand in a text of an
/// argument, so that each is read to its end as JSON.
fn read_calls(dialect: Dialect, text: &str) -> Option<Vec<Call>> {
    match dialect {
        Dialect::Tagged => read_tagged_calls(text),
        Dialect::Listed => read_listed_calls(text),
        Dialect::Plain => read_plain_calls(text),
    }
}

/// The JSON value that a text begins with, and the text after it.
fn first_value(text: &str) -> Option<(Value, &str)> {
    let mut values = Deserializer::from_str(text).into_iter();
    let value = values.next()?.ok()?;
    Some((value, text.get(values.byte_offset()..)?.trim_start()))
}

fn read_tagged_calls(mut text: &str) -> Option<Vec<Call>> {
    const OPEN: &str = Dialect::Tagged.opening();
    let mut calls = Vec::new();
    while let Some((_, inner)) = text.split_once(OPEN) {
        let (value, rest) = first_value(inner)?;
        // The last one may lack its end.
        if !(rest.is_empty() || rest.starts_with(OPEN) || rest.starts_with("</tool_call>")) {
            return None;
        }
        calls.push(read_call(&value)?);
        text = rest;
    }
    Some(calls)
}

fn read_listed_calls(mut text: &str) -> Option<Vec<Call>> {
    let mut calls = Vec::new();
    while !text.trim_start().is_empty() {
        let piece = text.trim_start().strip_prefix(Dialect::Listed.opening())?.trim_start();
        if piece.starts_with('[') {
            let (list, rest) = first_value(piece)?;
            calls.extend(list.as_array()?.iter().map(read_call).collect::<Option<Vec<_>>>()?);
            text = rest;
            continue;
        }
        // Newer ones write `name[ARGS]{…}` or `name{…}` for each.
        let (name, arguments) = piece.split_at_checked(piece.find('{')?)?;
        let (arguments, rest) = first_value(arguments)?;
        calls.push(Call::new(name.trim().trim_end_matches("[ARGS]").trim(), &arguments));
        text = rest;
    }
    Some(calls)
}

fn read_plain_calls(mut text: &str) -> Option<Vec<Call>> {
    let mut calls = Vec::new();
    loop {
        let (value, rest) = first_value(text)?;
        calls.push(read_call(&value)?);
        if rest.is_empty() {
            return Some(calls);
        }
        text = rest.strip_prefix(';')?;
    }
}

fn read_call(value: &Value) -> Option<Call> {
    let arguments = value.get("arguments").or_else(|| value.get("parameters"))?;
    Some(Call::new(value.get("name")?.as_str()?, arguments))
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
            let mut reader = CallReader::new(dialect, false);
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
    fn what_separates_calls_may_stand_in_their_arguments() {
        let tagged = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"<tool_call> </tool_call> ;\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";
        let first = call("f", "{\"a\":\"<tool_call> </tool_call> ;\"}");
        assert_eq!(read(Dialect::Tagged, tagged), (String::new(), vec![first, call("g", "{}")]));
        let listed = "[TOOL_CALLS]f{\"a\": \"[TOOL_CALLS]g{}\"}[TOOL_CALLS]g{}";
        let first = call("f", "{\"a\":\"[TOOL_CALLS]g{}\"}");
        assert_eq!(read(Dialect::Listed, listed), (String::new(), vec![first, call("g", "{}")]));
        let plain = "{\"name\": \"f\", \"parameters\": {\"a\": \"x; y\"}}; {\"name\": \"g\", \"parameters\": {}}";
        let first = call("f", "{\"a\":\"x; y\"}");
        assert_eq!(read(Dialect::Plain, plain), (String::new(), vec![first, call("g", "{}")]));
    }

    #[test]
    fn of_a_single_call_those_that_follow_are_left_out() {
        let mut reader = CallReader::new(Dialect::Listed, true);
        let text = "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {}}]";
        assert_eq!(reader.push(text), "");
        let (rest, calls) = reader.finish();
        let names: Vec<&str> = calls.iter().map(|call| call.function.name.as_str()).collect();
        assert_eq!((rest.as_str(), names), ("", vec!["f"]));
    }

    #[test]
    fn references_of_a_tool_s_schema_follow_it() {
        let schema = json!({
            "properties": {"one": {"$ref": "#/$defs/A"}, "itself": {"$ref": "#"}, "$ref": {"type": "string"},
                "const": {"$ref": "#/$defs/A"}, "fixed": {"const": {"$ref": "#/$defs/A"}}},
            "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/B"}, {"$ref": "elsewhere#/a"}]}, "B": {}},
        });
        let expected = json!({
            "properties": {"one": {"$ref": "#/$defs/3/$defs/A"}, "itself": {"$ref": "#/$defs/3"}, "$ref": {"type": "string"},
                "const": {"$ref": "#/$defs/3/$defs/A"}, "fixed": {"const": {"$ref": "#/$defs/A"}}},
            "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/3/$defs/B"}, {"$ref": "elsewhere#/a"}]}, "B": {}},
        });
        assert_eq!(moved(3, schema), ("3".to_owned(), expected));
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
