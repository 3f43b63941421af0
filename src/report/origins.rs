//! Where everything in a release comes from: recipe, lock, and which layers went where.

use super::components::{self, Component};
use crate::{
    check,
    lock::{Lock, LockedLayer},
    recipe::Recipe,
    trial::Record,
};
use gap_format::{Digest, statement::Release};
use std::collections::BTreeSet;

/// What documents call the EFI system partition, which the firmware starts. Names of images have no capitals.
pub const BOOT: &str = "ESP";

/// What the documents of a release are made from.
pub struct Origins<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Its lock.
    pub lock: &'a Lock,
    /// What the release statement will say.
    pub release: Release,
    /// The trust file that the appliance will go by.
    pub trust: Digest,
    /// For each image in the order of the recipe, its layers from the lowest.
    pub images: Vec<Vec<Tar<'a>>>,
    /// The tests that were passed, in the order of the recipe.
    pub tests: Vec<Record>,
    /// The checklist as it came out.
    pub checklist: &'a check::Report,
}

/// A layer of an image, as its tar in the artifact.
#[derive(Debug, Clone)]
pub struct Tar<'a> {
    /// Its name.
    pub name: String,
    /// Its number among the layers of the artifact.
    pub number: usize,
    /// The rows of the lock that it was made from. Several tars may come from the rows of one layer.
    pub locked: &'a LockedLayer,
}

/// The rows of one layer of the recipe, the tars that were made from them and what they stand for.
pub struct Source<'a> {
    /// The rows.
    pub locked: &'a LockedLayer,
    /// The tars by number; none for what only the boot partition holds.
    pub tars: Vec<usize>,
    /// What the rows stand for.
    pub components: Vec<Component>,
}

impl<'a> Origins<'a> {
    /// What an image is made from, each layer of the recipe once, from the lowest.
    pub fn of_image(&self, image: usize) -> Vec<Source<'a>> {
        let mut sources: Vec<Source<'a>> = Vec::new();
        for tar in self.images.get(image).into_iter().flatten() {
            match sources.iter_mut().find(|source| std::ptr::eq(source.locked, tar.locked)) {
                Some(source) => source.tars.push(tar.number),
                None => sources.push(self.source(tar.locked, vec![tar.number])),
            }
        }
        sources
    }

    /// What the boot partition is made from besides the image that it starts: the layers of the EFI stub and of `/init`.
    pub fn of_boot(&self) -> Vec<Source<'a>> {
        let Some(boot) = &self.recipe.boot else { return Vec::new() };
        let names = BTreeSet::from([&boot.stub, &boot.init]);
        let layers = self.lock.layers.iter().filter(|layer| layer.below.is_empty() && names.contains(&layer.name));
        layers.map(|locked| self.source(locked, Vec::new())).collect()
    }

    /// Every layer of the lock, whether it is in an image or was only needed to make one.
    pub fn of_everything(&self) -> Vec<Source<'a>> {
        let tars = |locked| {
            let tars = self.images.iter().flatten().filter(|tar| std::ptr::eq(tar.locked, locked));
            tars.map(|tar| tar.number).collect::<BTreeSet<_>>().into_iter().collect()
        };
        self.lock.layers.iter().map(|locked| self.source(locked, tars(locked))).collect()
    }

    /// The number of the image that boots.
    pub fn boot_image(&self) -> Option<usize> {
        self.recipe.boot.as_ref().and_then(|_| self.recipe.images.iter().position(|image| image.boot))
    }

    fn source(&self, locked: &'a LockedLayer, tars: Vec<usize>) -> Source<'a> {
        Source { locked, tars, components: components::of_layer(self.recipe, self.lock, locked) }
    }
}
