//! Rows of a prompt, a better and a worse answer; as texts or as turns.

use super::{
    Schema, Slot,
    conversation::{check_order, turns},
    row::Taken,
};
use crate::{
    Example, Json, Role, Side, Turn,
    problem::{Fault, Kind},
};

pub(super) fn read(taken: &mut Taken, schema: &Schema) -> Option<Example> {
    let example = match (column(taken, schema, Slot::Chosen), column(taken, schema, Slot::Rejected)) {
        (Some(chosen @ Json::List(_)), Some(rejected @ Json::List(_))) => of_turns(chosen, rejected, taken, schema),
        (Some(Json::Text(chosen)), Some(Json::Text(rejected))) => of_texts(chosen, rejected, taken, schema),
        (Some(Json::Text(_) | Json::List(_)), Some(other)) | (Some(other), Some(_)) => {
            let message = format!("{} where both answers must be texts or both lists of turns", other.kind());
            taken.faults.push(Fault::of(Kind::Type, schema.column(Slot::Rejected), message));
            None
        }
        _ => None,
    }?;
    if let Example::Preference { chosen, rejected, .. } = &example
        && chosen == rejected
    {
        taken.faults.push(Fault::of(
            Kind::NoPreference,
            schema.column(Slot::Rejected),
            "the same as the better answer",
        ));
    }
    Some(example)
}

fn column(taken: &mut Taken, schema: &Schema, slot: Slot) -> Option<Json> {
    let value = taken.take(schema, slot);
    if value.is_none() {
        taken.faults.push(Fault::of(Kind::Missing, schema.column(slot), "the field is missing"));
    }
    value
}

fn of_texts(chosen: String, rejected: String, taken: &mut Taken, schema: &Schema) -> Option<Example> {
    let prompt = taken.text(schema, Slot::Prompt);
    for (slot, text) in [(Slot::Chosen, &chosen), (Slot::Rejected, &rejected)] {
        if text.trim().is_empty() {
            taken.faults.push(Fault::of(Kind::Empty, schema.column(slot), "the field is empty"));
        }
    }
    Some(Example::Preference {
        prompt: Side::Text(prompt?),
        chosen: Side::Text(chosen),
        rejected: Side::Text(rejected),
    })
}

/// The answers are only the assistant's turns after a prompt of its own, or whole conversations that begin alike.
fn of_turns(chosen: Json, rejected: Json, taken: &mut Taken, schema: &Schema) -> Option<Example> {
    let chosen = turns(chosen, schema.column(Slot::Chosen), &mut taken.faults);
    let rejected = turns(rejected, schema.column(Slot::Rejected), &mut taken.faults);
    let prompt = taken.take(schema, Slot::Prompt);
    let (mut chosen, mut rejected) = (chosen?, rejected?);
    let answers = |turns: &[Turn]| turns.first().is_some_and(|turn| turn.role == Role::Assistant);
    let prompt = match prompt {
        Some(Json::Text(text)) if answers(&chosen) && answers(&rejected) && !text.trim().is_empty() => {
            vec![Turn { role: Role::User, content: text, name: None, tool_calls: None, tool_call_id: None }]
        }
        Some(value @ Json::List(_)) if answers(&chosen) && answers(&rejected) => {
            turns(value, schema.column(Slot::Prompt), &mut taken.faults)?
        }
        // Whole conversations: the prompt is what both begin with, and a column for it says the same again.
        _ => {
            let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
            // The answers themselves may begin alike; one turn of each must be left.
            let shared = shared.min(chosen.len() - 1).min(rejected.len() - 1);
            rejected.drain(..shared);
            chosen.drain(..shared).collect()
        }
    };
    if prompt.is_empty() {
        let message = "nothing that both answers answer";
        taken.faults.push(Fault::of(Kind::Missing, schema.column(Slot::Prompt), message));
        return None;
    }
    for (slot, answer) in [(Slot::Chosen, &chosen), (Slot::Rejected, &rejected)] {
        let whole: Vec<Turn> = prompt.iter().chain(answer).cloned().collect();
        check_order(&whole, schema.column(slot), &mut taken.faults);
        if !answer.iter().any(|turn| turn.role == Role::Assistant) {
            taken.faults.push(Fault::of(Kind::NoAssistant, schema.column(slot), "the assistant has no turn"));
        }
    }
    Some(Example::Preference {
        prompt: Side::Turns(prompt),
        chosen: Side::Turns(chosen),
        rejected: Side::Turns(rejected),
    })
}
