//! What a command tells about the work that it does, for people and for programs.

use serde::Serialize;
use std::fmt;

/// Stages of what a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Fetching the index of an archive.
    Index,
    /// Finding out what names stand for.
    Resolve,
    /// Fetching sources.
    Fetch,
    /// Building a layer.
    Build,
    /// Waiting for another build that makes the same layer, or fetches files of the same kind.
    Wait,
    /// Trying a test of the recipe.
    Test,
    /// Working the checklist out.
    Check,
    /// Assembling the artifact.
    Assemble,
    /// Verifying an artifact.
    Verify,
}

/// A piece of work that begins; it ends where the next begins.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// Which stage it belongs to.
    pub stage: Stage,
    /// The layer that it is done for, if it is done for one.
    pub layer: Option<&'a str>,
    /// What is done, in words.
    pub text: &'a str,
    /// The bytes that it is about, where that is known beforehand.
    pub bytes: Option<u64>,
}

impl<'a> Work<'a> {
    /// Work for a layer.
    pub const fn on(stage: Stage, layer: &'a str, text: &'a str) -> Self {
        Self { stage, layer: Some(layer), text, bytes: None }
    }

    /// Work for the whole.
    pub const fn whole(stage: Stage, text: &'a str) -> Self {
        Self { stage, layer: None, text, bytes: None }
    }

    /// The same work, about so many bytes.
    pub const fn about(self, bytes: u64) -> Self {
        Self { bytes: Some(bytes), ..self }
    }
}

impl fmt::Display for Work<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "layer `{layer}`: {}", self.text),
            None => f.write_str(self.text),
        }
    }
}

/// Told of each piece of work as it begins.
pub type Begin<'a> = &'a (dyn Fn(&Work<'_>) + Sync);
