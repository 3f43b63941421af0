//! The preflight: what can be known of an appliance before it crosses the gap, worked out by the machine.
//!
//! [`Facts`] is all that is judged: plain values, no files and no network. Each rule of [`rules`] reads them and adds
//! lines to the [`Report`]; every item of the checklist has at least one. A thing that cannot be known is `unresolved`,
//! never guessed. Where the tables come from is in `docs/check.md`.

pub mod cuda;
pub mod facts;
pub mod gather;
pub mod licence;
pub mod memory;
pub mod python;
pub mod report;
mod rules;
pub mod secrets;

pub use facts::Facts;
pub use report::{Findings, Group, Line, Report, Status, Subject, Summary};
pub use rules::check;
