//! Models from a hub that behaves and from one that does not, down to what Python finds in the image.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "everything here is test code, and a test fails by panicking"
)]

#[path = "../fixture/mod.rs"]
mod fixture;
#[path = "../hub/mod.rs"]
mod hub;

mod bad_hub;
mod build;
mod data;
mod protocol;
mod python;
mod sample;
