//! The agent's server as its clients, good and bad, see it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod api;
mod appliance;
mod claim;
mod daemon;
mod load;
mod machine;
mod network;
mod openapi;
mod overhead;
mod programs;
mod promotion;
mod proofs;
mod release;
mod whole;
mod work;
