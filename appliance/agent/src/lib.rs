//! The appliance's agent: what runs in the verified OS image and answers for it.
//!
//! `gapd` is started by `gap-init` (PID 1), reads what that left in `/run/gap`, verifies the release again by itself,
//! and serves an HTTPS API. [`start`] tells it in order; each other module is one concern and takes the directory that
//! stands for `/`, so that a made-up tree can stand in for a machine.
//!
//! By itself it opens no connection to anywhere: its sockets are the listener, netlink, and DHCP where the site wants that.
//! Beyond those it reaches what the site configuration names by address, and nothing else: time servers ([`clock`]), and
//! endpoints for jobs that the release lets have them ([`work::relay`]).

#![forbid(unsafe_code)]

pub mod access;
pub mod api;
pub mod boot_clock;
pub mod certificate;
pub mod clock;
pub mod console;
pub mod descriptors;
pub mod given;
pub mod gpus;
pub mod lockdown;
pub mod machine;
pub mod metrics;
pub mod modules;
pub mod network;
pub mod recheck;
pub use gap_root as root;
pub mod scrub;
pub mod self_test;
pub mod server;
pub mod start;
pub mod token;
pub mod work;
