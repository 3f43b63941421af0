//! One example in the form in which trainers take it.

use crate::Json;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// One example. Serialised, it is a line of the prepared files:
///
/// | format | fields |
/// |---|---|
/// | instruction | `instruction`, `input` (may be empty), `output`, and `system` if there is one |
/// | conversation | `messages`: a list of `role` and `content`; and `tools` if there are any |
/// | preference | `prompt`, `chosen`, `rejected`: all texts, or all lists of turns |
/// | text | `text` |
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Example {
    /// Something to do, and how it is done.
    Instruction {
        /// Frame of the whole.
        #[serde(skip_serializing_if = "Option::is_none")]
        system: Option<String>,
        /// What to do.
        instruction: String,
        /// What to do it with; may be empty.
        input: String,
        /// The answer.
        output: String,
    },
    /// Turns.
    Conversation {
        /// The turns, at least one of them the assistant's.
        messages: Vec<Turn>,
        /// Definitions of tools, as they were given.
        #[serde(skip_serializing_if = "Option::is_none")]
        tools: Option<Json>,
    },
    /// A better and a worse answer.
    Preference {
        /// What is answered.
        prompt: Side,
        /// The better answer.
        chosen: Side,
        /// The worse one.
        rejected: Side,
    },
    /// Text to continue.
    Text {
        /// The text.
        text: String,
    },
}

/// A part of a preference: a text or turns.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Side {
    /// A text.
    Text(String),
    /// Turns.
    Turns(Vec<Turn>),
}

/// A turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said; empty only beside calls of tools.
    pub content: String,
    /// The speaker's or the tool's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Calls of tools, as they were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Json>,
    /// The call that a tool answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The frame of the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool that the model called.
    Tool,
}

impl Role {
    /// The role that a name stands for: those of chat templates, and the older `human` and `gpt`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "system" | "developer" => Some(Self::System),
            "user" | "human" => Some(Self::User),
            "assistant" | "gpt" | "model" | "bot" => Some(Self::Assistant),
            "tool" | "function" | "observation" => Some(Self::Tool),
            _ => None,
        }
    }
}

/// The field of an example that a text stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Named(&'static str),
    Turn(&'static str, usize, &'static str),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Turn(list, index, name) => write!(f, "{list}[{index}].{name}"),
        }
    }
}

/// The side of a preference that a text belongs to; other formats have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Prompt,
    Chosen,
    Rejected,
}

/// A text of an example, and what it is there.
pub(crate) struct Content<'a> {
    pub part: Part,
    /// The field or the role: one letter, which is part of what is hashed.
    pub tag: u8,
    pub text: Cow<'a, str>,
}

impl Example {
    /// Calls `change` with each text, in the order in which they are written.
    pub(crate) fn each_text(&mut self, change: &mut dyn FnMut(Field, &mut String)) {
        match self {
            Self::Instruction { system, instruction, input, output } => {
                if let Some(system) = system {
                    change(Field::Named("system"), system);
                }
                change(Field::Named("instruction"), instruction);
                change(Field::Named("input"), input);
                change(Field::Named("output"), output);
            }
            Self::Conversation { messages, tools } => {
                each_of_turns("messages", messages, change);
                if let Some(tools) = tools {
                    tools.each_text(&mut |text| change(Field::Named("tools"), text));
                }
            }
            Self::Preference { prompt, chosen, rejected } => {
                for (name, side) in [("prompt", prompt), ("chosen", chosen), ("rejected", rejected)] {
                    match side {
                        Side::Text(text) => change(Field::Named(name), text),
                        Side::Turns(turns) => each_of_turns(name, turns, change),
                    }
                }
            }
            Self::Text { text } => change(Field::Named("text"), text),
        }
    }

    /// The texts that say what the example is about, calls of tools among them. Names and definitions are left out.
    pub(crate) fn contents(&self) -> Vec<Content<'_>> {
        let mut all = Vec::new();
        let mut add = |part, tag, text| all.push(Content { part, tag, text });
        match self {
            Self::Instruction { system, instruction, input, output } => {
                let texts =
                    [(b'f', system.as_deref().unwrap_or_default()), (b'i', instruction), (b'n', input), (b'o', output)];
                texts.into_iter().for_each(|(tag, text)| add(Part::Prompt, tag, Cow::Borrowed(text)));
            }
            Self::Conversation { messages, .. } => of_turns(Part::Prompt, messages, &mut all),
            Self::Preference { prompt, chosen, rejected } => {
                for (part, side) in [(Part::Prompt, prompt), (Part::Chosen, chosen), (Part::Rejected, rejected)] {
                    match side {
                        Side::Text(text) => all.push(Content { part, tag: b'x', text: Cow::Borrowed(text.as_str()) }),
                        Side::Turns(turns) => of_turns(part, turns, &mut all),
                    }
                }
            }
            Self::Text { text } => add(Part::Prompt, b'x', Cow::Borrowed(text.as_str())),
        }
        all
    }
}

fn each_of_turns(list: &'static str, turns: &mut [Turn], change: &mut dyn FnMut(Field, &mut String)) {
    for (index, turn) in turns.iter_mut().enumerate() {
        let field = |name| Field::Turn(list, index, name);
        change(field("content"), &mut turn.content);
        if let Some(name) = &mut turn.name {
            change(field("name"), name);
        }
        if let Some(calls) = &mut turn.tool_calls {
            calls.each_text(&mut |text| change(field("tool_calls"), text));
        }
        if let Some(id) = &mut turn.tool_call_id {
            change(field("tool_call_id"), id);
        }
    }
}

fn of_turns<'a>(part: Part, turns: &'a [Turn], all: &mut Vec<Content<'a>>) {
    for turn in turns {
        let tag = match turn.role {
            Role::System => b's',
            Role::User => b'u',
            Role::Assistant => b'a',
            Role::Tool => b't',
        };
        all.push(Content { part, tag, text: Cow::Borrowed(turn.content.as_str()) });
        if let Some(calls) = &turn.tool_calls {
            all.push(Content { part, tag: b'c', text: Cow::Owned(serde_json::to_string(calls).unwrap_or_default()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_fields_of_their_format() {
        let turn = |role, content: &str| Turn {
            role,
            content: content.to_owned(),
            name: None,
            tool_calls: None,
            tool_call_id: None,
        };
        let line = |example: &Example| serde_json::to_string(example).unwrap();
        let instruction =
            Example::Instruction { system: None, instruction: "a".into(), input: String::new(), output: "ü\n".into() };
        assert_eq!(line(&instruction), r#"{"instruction":"a","input":"","output":"ü\n"}"#);
        let messages = vec![turn(Role::User, "a"), turn(Role::Assistant, "b")];
        assert_eq!(
            line(&Example::Conversation { messages: messages.clone(), tools: None }),
            r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#
        );
        let mut preference = Example::Preference {
            prompt: Side::Text("p".into()),
            chosen: Side::Text("c".into()),
            rejected: Side::Turns(messages),
        };
        let mut fields = Vec::new();
        preference.each_text(&mut |field, text| fields.push(format!("{field}={text}")));
        assert_eq!(fields, ["prompt=p", "chosen=c", "rejected[0].content=a", "rejected[1].content=b"]);
    }
}
