//! x
pub mod boot_clock;
pub mod console;
pub mod given;
pub mod machine;
pub mod modules;
pub mod network;
pub mod root;
pub mod scrub;
pub mod token;
