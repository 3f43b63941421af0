//! The program itself, driven over its socket with small models whose answers Transformers recorded.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on has failed"
)]

#[path = "../../../lm/tests/reference/gguf.rs"]
mod model_file;
#[path = "../../../lm/tests/reference/mod.rs"]
mod reference;

mod answers;
mod ends;
mod gguf;
mod limits;
mod pieces;
mod process;
mod refusals;
