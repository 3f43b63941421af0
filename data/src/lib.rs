//! Data sets for training language models: read, checked, freed of duplicates and of personal data, split and
//! described.
//!
//! Both sides of the air gap use it: the connected side when it bakes a data set into an image, the appliance for data
//! that is born inside. It opens no socket, reads no clock, and what it writes depends on nothing but the bytes of its
//! inputs and its options: not on threads, paths, times or locales.
//!
//! [`inspect`] looks and writes nothing; [`prepare`] writes `train.jsonl`, `validation.jsonl`, `test.jsonl` and a data
//! card (`card.json`, `card.md`) into a directory:
//!
//! ```no_run
//! use gap_data::{Input, Options, Watch, prepare};
//! use std::path::Path;
//!
//! let inputs = Input::find("tickets", Path::new("tickets.jsonl"))?;
//! let prepared = prepare(&inputs, &Options::default(), Path::new("out"), Watch::unwatched())?;
//! println!("{} examples", prepared.card.examples.kept);
//! # Ok::<(), gap_data::Error>(())
//! ```
//!
//! Rows flow one way: [`container`] takes a file apart into rows, [`format`] makes an [`Example`] of each and says what
//! is wrong with it, [`pii`] replaces personal data, [`duplicates`] compares, [`split`] distributes, [`card`]
//! describes.

#![forbid(unsafe_code)]

pub mod card;
pub mod container;
pub mod duplicates;
mod error;
mod example;
pub mod format;
mod input;
mod inspect;
mod limits;
pub mod pii;
mod prepare;
mod problem;
pub mod split;
mod tokens;
mod value;
mod watch;

/// Raised when [`prepare`] gives other bytes for the same inputs and options.
pub const PREPARATION: u64 = 1;

pub use error::Error;
pub use example::{Example, Role, Side, Turn};
pub use input::{Input, InputError};
pub use inspect::{Inspection, inspect};
pub use limits::Limits;
pub use prepare::{BadRows, Options, Prepared, prepare};
pub use problem::{At, Kind, Place, Problem, Problems, Severity};
#[cfg(feature = "tokens")]
pub use tokens::Tokenizer;
pub use tokens::{CountTokens, TokenizerError};
pub use value::{Json, JsonFault};
pub use watch::{Progress, Stage, Watch};
