//! A row as an example, or what is wrong with it.

use super::{Format, Schema, Slot, character, conversation, instruction, preference};
use crate::{
    Example, Json,
    container::Content,
    problem::{Fault, Kind, Severity},
};

/// What became of a row.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// The example, unless something is wrong with it.
    pub example: Option<Example>,
    /// What is wrong, warnings among it.
    pub faults: Vec<Fault>,
    /// Names of columns that no part was read from.
    pub unused: Vec<String>,
}

/// Columns of a row, taken out one after the other.
pub(super) struct Taken {
    entries: Vec<(String, Json)>,
    pub faults: Vec<Fault>,
}

impl Taken {
    fn new(entries: Vec<(String, Json)>) -> Self {
        Self { entries, faults: Vec::new() }
    }

    /// The value of a column; none if it is absent or null.
    pub fn take(&mut self, schema: &Schema, slot: Slot) -> Option<Json> {
        let name = schema.column(slot);
        let index = self.entries.iter().position(|(column, _)| column == name)?;
        let (_, value) = self.entries.swap_remove(index);
        (value != Json::Null).then_some(value)
    }

    /// A text that may be absent.
    pub fn optional_text(&mut self, schema: &Schema, slot: Slot) -> Option<String> {
        let value = self.take(schema, slot)?;
        self.text_of(value, schema.column(slot))
    }

    /// A text that must be there and hold something.
    pub fn text(&mut self, schema: &Schema, slot: Slot) -> Option<String> {
        let name = schema.column(slot);
        let Some(value) = self.take(schema, slot) else {
            self.faults.push(Fault::of(Kind::Missing, name, "the field is missing"));
            return None;
        };
        let text = self.text_of(value, name)?;
        if text.trim().is_empty() {
            self.faults.push(Fault::of(Kind::Empty, name, "the field is empty"));
            return None;
        }
        Some(text)
    }

    fn text_of(&mut self, value: Json, name: &str) -> Option<String> {
        match value {
            Json::Text(text) => Some(text),
            // An answer that is a number is an answer.
            Json::Number(number) => Some(number.to_string()),
            other => {
                let message = format!("{} where a text is expected", other.kind());
                self.faults.push(Fault::of(Kind::Type, name, message));
                None
            }
        }
    }
}

/// Makes an example of a row.
pub(crate) fn read_row(content: Content, schema: &Schema) -> Read {
    match content {
        Content::Broken(broken) => Read { faults: vec![broken.0], ..Read::default() },
        Content::Text(bytes) => of_text(bytes, schema),
        Content::Fields(value) => of_value(value, schema),
        Content::Json(bytes) => match Json::parse(&bytes) {
            Ok(value) => of_value(value, schema),
            Err(fault) => {
                let kind = match fault {
                    crate::JsonFault::Encoding { .. } => Kind::Encoding,
                    crate::JsonFault::Syntax { .. } => Kind::Json,
                };
                let fault = Fault { column: Some(fault.column()), ..Fault::new(kind, fault.to_string()) };
                Read { faults: vec![fault], ..Read::default() }
            }
        },
    }
}

fn of_text(bytes: Vec<u8>, schema: &Schema) -> Read {
    if schema.format != Format::Text {
        return Read {
            faults: vec![Fault::new(Kind::Format, "plain text among rows with columns")],
            ..Read::default()
        };
    }
    match String::from_utf8(bytes) {
        Ok(text) => checked(Some(Example::Text { text }), Taken::new(Vec::new())),
        Err(error) => {
            let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let column = 1 + String::from_utf8_lossy(valid).chars().count() as u64;
            let fault = Fault { column: Some(column), ..Fault::new(Kind::Encoding, "a byte that is not UTF-8") };
            Read { faults: vec![fault], ..Read::default() }
        }
    }
}

fn of_value(value: Json, schema: &Schema) -> Read {
    let Json::Object(entries) = value else {
        let fault = Fault::new(Kind::Type, format!("{} where an object is expected", value.kind()));
        return Read { faults: vec![fault], ..Read::default() };
    };
    let mut taken = Taken::new(entries);
    let example = match schema.format {
        Format::Instruction => instruction::read(&mut taken, schema),
        Format::Conversation => conversation::read(&mut taken, schema),
        Format::Preference => preference::read(&mut taken, schema),
        Format::Text => taken.text(schema, Slot::Text).map(|text| Example::Text { text }),
    };
    checked(example, taken)
}

/// Looks at each character, and keeps the example only if nothing is wrong with it.
fn checked(example: Option<Example>, taken: Taken) -> Read {
    let Taken { entries, mut faults } = taken;
    let mut example = example;
    if let Some(example) = &mut example {
        example.each_text(&mut |field, text| {
            // The name is only needed for what is rare.
            let known = faults.len();
            character::check(text, "", &mut faults);
            for fault in faults.iter_mut().skip(known) {
                fault.field = Some(field.to_string());
            }
        });
    }
    let usable = faults.iter().all(|fault| fault.kind.severity() == Severity::Warning);
    let unused = entries.into_iter().map(|(name, _)| name).collect();
    Read { example: example.filter(|_| usable), faults, unused }
}
