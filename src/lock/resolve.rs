//! Locking again: what stays as it is, and what must be resolved anew.

use super::{Archive, Inputs, Lock, LockedLayer, request};
use crate::{
    recipe::{Arch, PlacedLayer},
    source::debian::{LockedPackage, version},
};
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

    /// The packages of the lock before, for resolving the layer in this place with as few changes as may be: its own
    /// first, then those of layers of its name elsewhere, then all others, newest first. So neither a layer that comes to
    /// stand elsewhere nor a new one brings in other versions of what is locked already.
    pub fn preferred(&self, place: &PlacedLayer<'_>) -> Vec<&'l LockedPackage> {
        let layers = self.old.iter().flat_map(|old| &old.layers);
        let mut rows: Vec<(u8, &LockedPackage)> = layers
            .filter_map(|layer| match &layer.inputs {
                Inputs::Debian(rows) => Some((closeness(layer, place), &rows.packages)),
                _ => None,
            })
            .flat_map(|(closeness, packages)| packages.iter().map(move |package| (closeness, package)))
            .collect();
        rows.sort_by(|(a, one), (b, other)| {
            (a, &one.name).cmp(&(b, &other.name)).then_with(|| version::compare(&other.version, &one.version))
        });
        rows.into_iter().map(|(_, package)| package).collect()
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

    /// The rows of these places, as far as they are locked by now.
    pub fn in_stack(&self, places: &[PlacedLayer<'_>]) -> Vec<&LockedLayer> {
        let rows = |place: &PlacedLayer<'_>| self.new.layers.iter().find(|layer| layer.is_at(place));
        places.iter().filter_map(rows).collect()
    }

    /// The new lock, in order.
    pub fn finish(mut self) -> Lock {
        self.new.put_in_order();
        self.new
    }
}

/// How near the rows of a layer are to a place; the least is nearest.
fn closeness(layer: &LockedLayer, place: &PlacedLayer<'_>) -> u8 {
    match (layer.is_at(place), layer.name == place.layer.name) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => 2,
    }
}
