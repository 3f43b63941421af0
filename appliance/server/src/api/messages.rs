//! Messages of a chat, as OpenAI's clients send them and as chat templates know them.

use super::error::ApiError;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A message.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatMessage {
    role: Role,
    content: Option<Content>,
    name: Option<String>,
    tool_calls: Option<Vec<PastCall>>,
    tool_call_id: Option<String>,
    #[serde(rename = "refusal")]
    _refusal: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(rename = "type")]
    _type: PartKind,
    text: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PartKind {
    Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PastCall {
    id: String,
    #[serde(rename = "type")]
    _type: CallKind,
    function: PastFunction,
}

/// What tools are.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallKind {
    /// Functions.
    Function,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PastFunction {
    name: String,
    arguments: String,
}

/// A message as chat templates know it: content is one text, arguments of calls are JSON and not its text. What a model
/// once called with arguments that were no JSON stays the text that it was.
///
/// # Errors
/// For a message that says nothing.
pub fn for_template(message: &ChatMessage) -> Result<Value, ApiError> {
    // Templates were written before there was a developer.
    let role = match message.role {
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let calls = message.tool_calls.as_deref().unwrap_or_default();
    let content = match &message.content {
        Some(Content::Text(text)) => text.clone(),
        Some(Content::Parts(parts)) => parts.iter().map(|part| part.text.as_str()).collect(),
        None if message.role == Role::Assistant && !calls.is_empty() => String::new(),
        None => return Err(ApiError::invalid("messages", format!("a message of role `{role}` has no content"))),
    };
    let mut out = Map::from_iter([("role".to_owned(), json!(role)), ("content".to_owned(), json!(content))]);
    if !calls.is_empty() {
        out.insert("tool_calls".to_owned(), Value::Array(calls.iter().map(call_for_template).collect()));
    }
    for (name, value) in [("name", &message.name), ("tool_call_id", &message.tool_call_id)] {
        if let Some(value) = value {
            out.insert(name.to_owned(), json!(value));
        }
    }
    Ok(Value::Object(out))
}

fn call_for_template(call: &PastCall) -> Value {
    let text = &call.function.arguments;
    let arguments: Value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
    json!({
        "id": call.id,
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    })
}
