//! What a release holds, told to a person or to a program: the documents that travel in the artifact (bills of
//! materials, provenance, licences, passed tests, the checklist), and what an artifact holds or how two differ.
//!
//! Nothing here verifies a signature: everything read is a claim, and everything printed is escaped.

pub mod attachments;
pub mod checklist;
pub mod components;
pub mod contents;
pub mod difference;
pub mod documents;
pub mod files;
pub mod jobs;
pub mod licences;
pub mod origins;
pub mod output;
pub mod packages;
pub mod provenance;
pub mod purl;
pub mod runnable;
pub mod sbom;
pub mod summary;
pub mod trials;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
