//! Rows of turns: `role` and `content`, or the older `from` and `value`.

use super::{Schema, Slot, row::Taken};
use crate::{
    Example, Json, Role, Turn,
    problem::{Fault, Kind},
};

/// Turns accepted in one conversation.
const MAX_TURNS: usize = 10_000;

pub(super) fn read(taken: &mut Taken, schema: &Schema) -> Option<Example> {
    let name = schema.column(Slot::Messages);
    let Some(value) = taken.take(schema, Slot::Messages) else {
        taken.faults.push(Fault::of(Kind::Missing, name, "the field is missing"));
        return None;
    };
    let system = taken.optional_text(schema, Slot::System).filter(|text| !text.trim().is_empty());
    let tools = taken.take(schema, Slot::Tools).filter(|tools| !matches!(tools, Json::List(list) if list.is_empty()));
    let mut messages = turns(value, name, &mut taken.faults)?;
    if let Some(content) = system.filter(|_| messages.first().is_none_or(|turn| turn.role != Role::System)) {
        messages.insert(0, Turn { role: Role::System, content, name: None, tool_calls: None, tool_call_id: None });
    }
    check_order(&messages, name, &mut taken.faults);
    if !messages.iter().any(|turn| turn.role == Role::Assistant) {
        taken.faults.push(Fault::of(Kind::NoAssistant, name, "the assistant has no turn"));
    } else if messages.last().is_some_and(|turn| turn.role != Role::Assistant) {
        taken.faults.push(Fault::of(Kind::OpenEnd, name, "the last turn is not the assistant's"));
    }
    Some(Example::Conversation { messages, tools })
}

/// The turns of a list, or of a text that holds one as JSON, as CSV must.
pub(super) fn turns(value: Json, name: &str, faults: &mut Vec<Fault>) -> Option<Vec<Turn>> {
    let value = match value {
        Json::Text(text) if text.trim_start().starts_with('[') => match Json::parse(text.as_bytes()) {
            Ok(value) => value,
            Err(fault) => {
                faults.push(Fault::of(
                    Kind::Json,
                    name,
                    format!("{fault} at character {} of the text", fault.column()),
                ));
                return None;
            }
        },
        other => other,
    };
    let Json::List(items) = value else {
        faults.push(Fault::of(Kind::Type, name, format!("{} where a list of turns is expected", value.kind())));
        return None;
    };
    if items.is_empty() || items.len() > MAX_TURNS {
        let message = format!("{} turns; a conversation has 1 to {MAX_TURNS}", items.len());
        faults.push(Fault::of(Kind::Empty, name, message));
        return None;
    }
    let known = faults.len();
    let turns: Vec<Turn> = items
        .into_iter()
        .enumerate()
        .filter_map(|(index, item)| turn(item, &format!("{name}[{index}]"), faults))
        .collect();
    // Turns that are missing would be reported as an order that is wrong.
    (faults.len() == known).then_some(turns)
}

fn turn(item: Json, name: &str, faults: &mut Vec<Fault>) -> Option<Turn> {
    let Json::Object(mut entries) = item else {
        faults.push(Fault::of(Kind::Type, name, format!("{} where an object is expected", item.kind())));
        return None;
    };
    let mut take = |names: &[&str]| {
        let index = entries.iter().position(|(key, value)| names.contains(&key.as_str()) && *value != Json::Null)?;
        Some(entries.swap_remove(index).1)
    };
    let role = match take(&["role", "from"]) {
        Some(Json::Text(text)) => {
            Role::from_name(&text).ok_or_else(|| Fault::of(Kind::Role, format!("{name}.role"), "the role is not known"))
        }
        Some(other) => {
            Err(Fault::of(Kind::Type, format!("{name}.role"), format!("{} where a text is expected", other.kind())))
        }
        None => Err(Fault::of(Kind::Missing, format!("{name}.role"), "the field is missing")),
    };
    let role = match role {
        Ok(role) => role,
        Err(fault) => {
            faults.push(fault);
            return None;
        }
    };
    let tool_calls = take(&["tool_calls"]).filter(|calls| !matches!(calls, Json::List(list) if list.is_empty()));
    let mut text = |key: &str| match take(&[key]) {
        Some(Json::Text(text)) => Some(text),
        _ => None,
    };
    let (speaker, tool_call_id) = (text("name"), text("tool_call_id"));
    let field = format!("{name}.content");
    let content = match take(&["content", "value"]).map(joined) {
        Some(Ok(text)) => text,
        Some(Err(kind)) => {
            faults.push(Fault::of(Kind::Type, field, format!("{kind} where a text is expected")));
            return None;
        }
        None if tool_calls.is_some() => String::new(),
        None => {
            faults.push(Fault::of(Kind::Missing, field, "the field is missing"));
            return None;
        }
    };
    if content.trim().is_empty() && tool_calls.is_none() && role != Role::Tool {
        faults.push(Fault::of(Kind::Empty, field, "the turn says nothing"));
        return None;
    }
    Some(Turn { role, content, name: speaker, tool_calls, tool_call_id })
}

/// A content that is a text, or a list of parts that are all texts.
fn joined(value: Json) -> Result<String, &'static str> {
    let parts = match value {
        Json::Text(text) => return Ok(text),
        Json::List(parts) => parts,
        other => return Err(other.kind()),
    };
    let texts = parts.into_iter().map(|part| match part {
        Json::Text(text) => Ok(text),
        Json::Object(entries) => entries
            .into_iter()
            .find_map(|(key, value)| match value {
                Json::Text(text) if key == "text" => Some(text),
                _ => None,
            })
            .ok_or("a part that is no text"),
        _ => Err("a part that is no text"),
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// The order that chat templates take: perhaps a system turn, then user and assistant in turn; between two turns of the
/// assistant, answers of the tools that it called.
pub(super) fn check_order(turns: &[Turn], name: &str, faults: &mut Vec<Fault>) {
    let mut before: Option<&Turn> = None;
    for (index, turn) in turns.iter().enumerate() {
        let called = before.is_some_and(|before| before.role == Role::Tool || before.tool_calls.is_some());
        let wrong = match (before.map(|turn| turn.role), turn.role) {
            (None, Role::System | Role::User) | (Some(Role::System), Role::User) => None,
            (Some(Role::User), Role::Assistant) | (Some(Role::Tool), Role::Assistant) => None,
            (Some(Role::Assistant), Role::User) | (Some(Role::Tool), Role::User) => None,
            (Some(Role::Assistant | Role::Tool), Role::Tool) if called => None,
            (_, Role::System) => Some("a system turn that is not the first"),
            (_, Role::Tool) => Some("a tool's answer without a call"),
            (_, Role::User) => Some("two turns of the user in a row"),
            (Some(Role::Assistant), Role::Assistant) => Some("two turns of the assistant in a row"),
            (_, Role::Assistant) => Some("the assistant speaks before the user"),
        };
        if let Some(wrong) = wrong {
            // What follows is wrong only because of this.
            faults.push(Fault::of(Kind::RoleOrder, format!("{name}[{index}]"), wrong));
            return;
        }
        before = Some(turn);
    }
}
