//! What the rows of a data set are: instructions, conversations, preferences or plain text.

mod character;
mod conversation;
mod instruction;
mod preference;
mod recognise;
mod row;
#[cfg(test)]
mod tests;

pub(crate) use recognise::{Sample, recognise};
pub(crate) use row::read_row;

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// What the rows of a data set are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `instruction`, `input`, `output`.
    Instruction,
    /// `conversations` or `messages`: turns with `role` and `content`.
    Conversation,
    /// `prompt`, `chosen`, `rejected`.
    Preference,
    /// `text`.
    Text,
}

impl Format {
    /// In the order in which they are tried: the more particular first.
    const ALL: [Self; 4] = [Self::Preference, Self::Conversation, Self::Instruction, Self::Text];

    /// Its name in options and on cards.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Instruction => "instruction",
            Self::Conversation => "conversation",
            Self::Preference => "preference",
            Self::Text => "text",
        }
    }

    /// What a row of it may hold; the names of each are tried in order.
    const fn slots(self) -> &'static [Slot] {
        match self {
            Self::Instruction => &[Slot::Instruction, Slot::Output, Slot::Input, Slot::System],
            Self::Conversation => &[Slot::Messages, Slot::Tools, Slot::System],
            Self::Preference => &[Slot::Chosen, Slot::Rejected, Slot::Prompt],
            Self::Text => &[Slot::Text],
        }
    }

    /// What a row of it must hold.
    const fn required(self) -> &'static [Slot] {
        match self {
            Self::Instruction => &[Slot::Instruction, Slot::Output],
            Self::Conversation => &[Slot::Messages],
            Self::Preference => &[Slot::Chosen, Slot::Rejected],
            Self::Text => &[Slot::Text],
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A part of an example that a column can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "they are the names of the fields")]
pub enum Slot {
    Instruction,
    Input,
    Output,
    System,
    Messages,
    Tools,
    Prompt,
    Chosen,
    Rejected,
    Text,
}

impl Slot {
    /// The names that columns of this kind have in data sets that are around.
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Instruction => &["instruction", "prompt", "question"],
            Self::Input => &["input", "context"],
            Self::Output => &["output", "response", "completion", "answer"],
            Self::System => &["system", "system_prompt"],
            Self::Messages => &["messages", "conversations", "conversation"],
            Self::Tools => &["tools"],
            Self::Prompt => &["prompt", "instruction", "question"],
            Self::Chosen => &["chosen"],
            Self::Rejected => &["rejected"],
            Self::Text => &["text", "content"],
        }
    }
}

/// Which column holds which part; parts that are not named are found by the names that are usual for them.
pub type Columns = BTreeMap<Slot, String>;

/// The format of a data set and the columns that it is read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Schema {
    /// The format.
    pub format: Format,
    /// The columns.
    pub columns: Columns,
    /// What speaks for it.
    pub because: String,
}

impl Schema {
    /// The name of the column that holds `slot`; the usual one when no row that was looked at has it.
    fn column(&self, slot: Slot) -> &str {
        let usual = || slot.names().first().copied().unwrap_or_default();
        self.columns.get(&slot).map_or_else(usual, String::as_str)
    }
}

/// Why it cannot be told what the rows are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// No row could be looked at.
    #[error("no row of `{file}` can be read, so its format is not known; the first problem: {first}")]
    Unreadable {
        /// The input.
        file: String,
        /// The first problem.
        first: String,
    },
    /// The rows have columns of no format.
    #[error(
        "the rows are of no known format: they have the columns {columns}; name them (`columns = {{ instruction = \"…\", output = \"…\" }}`) or use instruction/input/output, messages, prompt/chosen/rejected or text"
    )]
    Unknown {
        /// The columns of the first row.
        columns: String,
    },
    /// A format whose columns are missing.
    #[error("the format is to be {format}, and no row that was looked at has {missing}; its columns are {columns}")]
    Stated {
        /// The format that was stated.
        format: Format,
        /// What is missing.
        missing: String,
        /// The columns of the first row.
        columns: String,
    },
    /// A column for a part that the format does not have.
    #[error("the format {format} has no part `{slot}` that a column could be named for")]
    Slot {
        /// The format.
        format: Format,
        /// The part.
        slot: String,
    },
}
