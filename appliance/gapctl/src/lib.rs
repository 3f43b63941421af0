//! Talks to an appliance: for the person with a laptop beside the rack.
//!
//! It opens one connection to the server that it is told, and none to anywhere else: no proxy is asked and nothing is
//! followed.

pub mod client;
pub mod cmd;
mod profile;
mod terminal;
pub mod upload;
