//! Images of real layer tars: what is written is what a reader, the kernel and the tools of others see.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "everything here is test code, and a test fails by panicking"
)]

mod entry;
mod kernel;
mod layers;
mod random;
mod reader;
mod runtime;
mod sample;
