//! Progress outwards, cancellation inwards.

use crate::Error;
use std::{fmt, ops::ControlFlow};

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Inputs are read and checked.
    Read,
    /// Examples are compared.
    Compare,
    /// Files are written.
    Write,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Units done: bytes of the inputs when reading, else examples.
    pub done: u64,
    /// Units in all.
    pub total: u64,
}

/// Whom to tell about the progress; asked at least every few thousand rows whether to go on.
pub struct Watch<'a>(Option<&'a mut dyn FnMut(Progress) -> ControlFlow<()>>);

impl<'a> Watch<'a> {
    /// Calls `watcher` now and then; [`ControlFlow::Break`] ends the work with [`Error::Cancelled`].
    pub fn new(watcher: &'a mut dyn FnMut(Progress) -> ControlFlow<()>) -> Self {
        Self(Some(watcher))
    }

    /// Nobody watches, and the work runs to its end.
    pub const fn unwatched() -> Self {
        Self(None)
    }

    pub(crate) fn at(&mut self, stage: Stage, done: u64, total: u64) -> Result<(), Error> {
        match self.0.as_mut().map(|watcher| watcher(Progress { stage, done, total })) {
            Some(ControlFlow::Break(())) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
