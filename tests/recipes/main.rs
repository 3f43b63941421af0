//! The recipes of the repository, built as they stand and tried: models that Transformers itself made come from a hub on
//! loopback, packages from the archive and the index of the host.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod checklist;
mod connected;
mod finetune_tiny;
#[path = "../fixture/mod.rs"]
mod fixture;
#[path = "../hub/mod.rs"]
mod hub;
mod sentiment;
mod shipped;
mod transformers_training;
