//! Signed archives on a mirror that may be down, slow, truncating, lying, expired or unsigned.

// What these tests set up must simply be there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod archive;
mod downloads;
mod interrupted;
mod keys;
mod locking;
mod network;
mod packages;
mod planning;
mod proxy;
mod releases;
mod server;
