//! Rows of instruction, input and output.

use super::{Schema, Slot, row::Taken};
use crate::Example;

pub(super) fn read(taken: &mut Taken, schema: &Schema) -> Option<Example> {
    let system = taken.optional_text(schema, Slot::System).filter(|text| !text.trim().is_empty());
    let instruction = taken.text(schema, Slot::Instruction);
    let input = taken.optional_text(schema, Slot::Input).unwrap_or_default();
    let output = taken.text(schema, Slot::Output);
    Some(Example::Instruction { system, instruction: instruction?, input, output: output? })
}
