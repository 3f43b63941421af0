//! Locking again: what stays as it is, and what must be resolved anew.

use super::{Archive, Lock, LockedLayer, request};
use crate::recipe::{Arch, PlacedLayer};
use std::collections::BTreeSet;

/// What an earlier lock says of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Previous<'l> {
    /// The same was asked on the same layers below: the rows still hold. Local sources may have changed all the same.
    Same(&'l LockedLayer),
    /// Something else was asked: resolve, and prefer these versions where they will do.
    Changed(&'l LockedLayer),
    /// Resolve freely: there is nothing, or everything is to be updated.
    Nothing,
}

/// A lock in the making, beside the one before.
#[derive(Debug)]
pub struct Relock<'l> {
    old: Option<&'l Lock>,
    arch: Arch,
    kept: BTreeSet<(String, Vec<String>)>,
    new: Lock,
}

impl<'l> Relock<'l> {
    /// Starts from the lock before, if there is one. To update everything, start from none.
    pub fn new(old: Option<&'l Lock>, arch: Arch) -> Self {
        Self { old, arch, kept: BTreeSet::new(), new: Lock::default() }
    }

    /// What the lock before says of the layer in this place. Ask for layers below first: rows hold only where those
    /// below were kept.
    pub fn previous(&self, place: &PlacedLayer<'_>) -> Previous<'l> {
        let Some(locked) = self.old.and_then(|old| old.layer(place)) else { return Previous::Nothing };
        let below_kept = place.below.iter().enumerate().all(|(index, name)| {
            let stack = place.below.get(..index).unwrap_or_default().iter().map(|&name| name.to_owned());
            self.kept.contains(&((*name).to_owned(), stack.collect()))
        });
        match locked.request == request(place, self.arch) && below_kept {
            true => Previous::Same(locked),
            false => Previous::Changed(locked),
        }
    }

    /// Takes the rows of the lock before over as they are.
    pub fn keep(&mut self, locked: &LockedLayer) {
        self.kept.insert((locked.name.clone(), locked.below.clone()));
        self.new.archives.extend(self.old.iter().flat_map(|old| old.archives.iter().cloned()));
        self.new.layers.push(locked.clone());
    }

    /// Adds newly resolved rows, and the archive releases that they came from.
    pub fn add(&mut self, locked: LockedLayer, archives: impl IntoIterator<Item = Archive>) {
        self.new.archives.extend(archives);
        self.new.layers.push(locked);
    }

    /// The rows of the layers below `place`, bottom to top, as far as they are locked by now.
    pub fn below(&self, place: &PlacedLayer<'_>) -> Vec<&LockedLayer> {
        let stack_of = |index: usize| place.below.get(..index).unwrap_or_default();
        let rows = |(index, name): (usize, &&str)| {
            self.new.layers.iter().find(|layer| layer.name == **name && layer.below == stack_of(index))
        };
        place.below.iter().enumerate().filter_map(rows).collect()
    }

    /// The new lock, in order.
    pub fn finish(mut self) -> Lock {
        self.new.put_in_order();
        self.new
    }
}
