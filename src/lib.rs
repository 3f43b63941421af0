//! The connected side of gapimage: recipe → lock → plan → build → pack.

#![forbid(unsafe_code)]

pub mod boot;
pub mod build;
pub mod builtin;
pub mod check;
pub mod cmd;
pub mod hashing;
pub mod image;
pub mod interruption;
pub mod layer;
pub mod lock;
pub mod model;
pub mod pack;
pub mod parallel;
pub mod plan;
pub mod progress;
pub mod random;
pub mod recipe;
pub mod report;
pub mod source;
pub mod store;
pub mod trial;
