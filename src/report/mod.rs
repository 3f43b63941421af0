//! What an artifact holds and how two artifacts differ, told to a person or to a program.
//!
//! Nothing here verifies a signature: everything read is a claim, and everything printed is escaped.

pub mod contents;
pub mod difference;
pub mod files;
pub mod output;
pub mod packages;
pub mod runnable;
pub mod summary;

#[cfg(test)]
mod sample;
