//! What jobs and power do to an appliance that runs in a virtual machine, and that nothing is lost, stuck or let in by it.
//! Its state is asked for through the API alone.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on has failed")]

mod agent;
mod blocks;
mod burn_in;
mod client;
mod clock;
mod confinement;
mod excess;
#[path = "../fixture/mod.rs"]
mod fixture;
mod machine;
mod power;
mod uploads;

use std::sync::Mutex;

/// Emulated machines share two cores; one at a time keeps their deadlines honest.
static MACHINE: Mutex<()> = Mutex::new(());
