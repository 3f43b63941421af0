//! Sources: where the contents of layers come from, resolved online to pinned digests.

pub mod cargo;
pub mod dataset;
pub mod debian;
mod entries;
pub mod files;
pub mod http;
pub mod licence;
pub mod model;
pub mod wheels;
