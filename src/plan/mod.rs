//! The plan: what will be built from what, why each layer is or is not cached, how large, whether it fits.

mod cargo;
mod dataset;
mod debian;
mod files;
mod ingredients;
mod layers;
mod model;
mod part;
mod run;
pub mod space;
pub mod wheels;

pub use ingredients::Ingredients;
pub use layers::{LARGE, State};
pub use part::{Part, Wanted};

use crate::{
    layer::{model::ModelPlaceError, tree::Tree},
    lock::{Lock, LockedLayer},
    recipe::{PlacedLayer, Recipe},
    store::{LayerKey, Roots, Store, StoreError},
};
use gap_format::Digest;
use std::{collections::BTreeSet, path::Path};

/// Bytes of an artifact beyond its layers and trees: kernel and initramfs, documents, padding, tables.
const BOOT_OVERHEAD: u64 = 96 << 20;
const OVERHEAD: u64 = 4 << 20;

/// Why a plan cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The lock lacks a layer.
    #[error("the lock has no rows for layer `{0}`; run `gapimage lock`")]
    NotLocked(String),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Files beside the recipe cannot be taken.
    #[error("layer `{layer}`: {source}")]
    Files {
        /// The layer.
        layer: String,
        /// Why not.
        source: crate::source::files::FilesError,
    },
    /// A model cannot be taken.
    #[error("layer `{layer}`: {source}")]
    Model {
        /// The layer.
        layer: String,
        /// Why not.
        source: Box<ModelPlaceError>,
    },
    /// They cannot become a layer.
    #[error("layer `{layer}`: {source}")]
    Tar {
        /// The layer.
        layer: String,
        /// Why not.
        source: crate::layer::tar::PlanError,
    },
    /// Wheels cannot be laid out.
    #[error("layer `{layer}`: {source}")]
    Wheels {
        /// The layer.
        layer: String,
        /// Why not.
        source: crate::layer::wheels::InstallError,
    },
    /// A file system cannot be asked for its free space.
    #[error("cannot find out how much space is free: {0}")]
    Space(std::io::Error),
}

/// A plan for one recipe, its lock and a store.
#[derive(Debug)]
pub struct Plan<'r> {
    /// The recipe.
    pub recipe: &'r Recipe,
    /// Its lock.
    pub lock: &'r Lock,
    /// The parts of all layers, each after those that it needs, the parts of one layer bottom to top.
    pub layers: Vec<PlannedLayer<'r>>,
    /// Layers without rows in the lock, and those that are built on them; none in a plan that is to be built.
    pub unlocked: Vec<PlacedLayer<'r>>,
    /// Each image's parts by their number in `layers`, bottom to top, in the order of the recipe.
    pub images: Vec<Vec<usize>>,
}

/// One part of one layer in one place.
#[derive(Debug)]
pub struct PlannedLayer<'r> {
    /// The layer and what it stands on.
    pub place: PlacedLayer<'r>,
    /// Its rows of the lock.
    pub locked: &'r LockedLayer,
    /// Which part of the layer it is; absent where the layer is one part.
    pub part: Option<String>,
    /// The parts of the layers below that bear on it, by number, bottom to top.
    pub below: Vec<usize>,
    /// The parts of the layers that it is built on without holding them, by number, bottom to top.
    pub built_on: Vec<usize>,
    /// Tells the part in its place and recipe from others, for remembering what it was made of.
    pub identity: Digest,
    /// What it is made of.
    pub ingredients: Ingredients,
    /// Its key.
    pub key: LayerKey,
    /// What must be in the store before it can be built.
    pub sources: Vec<Wanted>,
    /// What it will hold, where that is known without building it.
    pub tree: Option<Tree>,
    /// Whether it is there.
    pub state: State,
    /// Sources that are still to be fetched.
    pub fetch: Vec<Wanted>,
    /// Its size in bytes: exact where it is known, else an estimate that is not too low.
    pub size: u64,
}

impl PlannedLayer<'_> {
    /// The name of the layer in the recipe, and of the part where there are several: `LAYER` or `LAYER/PART`.
    pub fn name(&self) -> String {
        let layer = &self.place.layer.name;
        self.part.as_ref().map_or_else(|| layer.clone(), |part| format!("{layer}/{part}"))
    }
}

impl<'r> Plan<'r> {
    /// Plans the build of `recipe` as locked, without looking at what is there already; `store` is where sources lie or
    /// will lie.
    ///
    /// # Errors
    /// [`PlanError`]; [`PlanError::NotLocked`] for the first layer that the lock lacks.
    pub fn new(recipe: &'r Recipe, lock: &'r Lock, store: &Store) -> Result<Self, PlanError> {
        let plan = Self::as_far_as_locked(recipe, lock, store)?;
        match plan.unlocked.first() {
            Some(place) => Err(PlanError::NotLocked(place.layer.name.clone())),
            None => Ok(plan),
        }
    }

    /// Plans what the lock has rows for, and names the rest in [`Plan::unlocked`].
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn as_far_as_locked(recipe: &'r Recipe, lock: &'r Lock, store: &Store) -> Result<Self, PlanError> {
        let mut plan = Self { recipe, lock, layers: Vec::new(), unlocked: Vec::new(), images: Vec::new() };
        for place in recipe.placed_layers() {
            match layers::plan(&plan, &place, store) {
                Ok(parts) => plan.layers.extend(parts),
                Err(PlanError::NotLocked(_)) => plan.unlocked.push(place),
                Err(error) => return Err(error),
            }
        }
        for image in &recipe.images {
            let numbers = plan.stack(&image.layers);
            plan.images.push(numbers);
        }
        Ok(plan)
    }

    /// Finds out which layers are there, and what it takes to make the others.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn look(&mut self, store: &Store) -> Result<(), PlanError> {
        let in_images = self.in_images();
        let mut numbered = self.layers.iter_mut().enumerate();
        numbered.try_for_each(|(number, layer)| layers::look(layer, in_images.binary_search(&number).is_ok(), store))
    }

    /// The numbers of the parts of the layer `name` that stands on `below`, bottom to top; none if there is no such layer.
    pub fn numbers_of(&self, name: &str, below: &[&str]) -> Vec<usize> {
        let numbered = self.layers.iter().enumerate();
        let of_layer = numbered.filter(|(_, part)| part.place.layer.name == name && part.place.below == below);
        of_layer.map(|(number, _)| number).collect()
    }

    /// The numbers of the parts of all layers of a stack, bottom to top.
    pub fn stack(&self, layers: &[String]) -> Vec<usize> {
        let places = self.recipe.places_in(layers);
        places.iter().flat_map(|place| self.numbers_of(&place.layer.name, &place.below)).collect()
    }

    /// The parts of these numbers.
    pub fn numbered(&self, numbers: &[usize]) -> impl Iterator<Item = &PlannedLayer<'r>> {
        numbers.iter().filter_map(|&number| self.layers.get(number))
    }

    /// The numbers of the parts that images are made of, rising; the others are tools.
    pub fn in_images(&self) -> Vec<usize> {
        let mut numbers: Vec<usize> = self.images.iter().flatten().copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// What of the store this build needs, whether it is there or not.
    pub fn roots(&self) -> Roots {
        Roots {
            digests: self.lock.sources(),
            layers: self.layers.iter().map(|layer| layer.key).collect(),
            caches: self.layers.iter().map(|layer| layer.identity).collect(),
        }
    }

    /// What is to be fetched, each once.
    pub fn fetch(&self) -> BTreeSet<Wanted> {
        self.layers.iter().flat_map(|layer| &layer.fetch).copied().collect()
    }

    /// Bytes to fetch.
    pub fn to_fetch(&self) -> u64 {
        self.fetch().iter().map(|wanted| wanted.size).sum()
    }

    /// Bytes that the artifact will have at most.
    pub fn artifact_size(&self) -> u64 {
        let in_images = self.in_images();
        let layers: u64 = in_images.iter().filter_map(|&number| self.layers.get(number)).map(|layer| layer.size).sum();
        let overhead = if self.recipe.boot.is_some() { BOOT_OVERHEAD } else { OVERHEAD };
        layers + layers / 100 + overhead
    }

    /// Bytes that will be written to the store at most: what is fetched, and layers that are built there.
    pub fn store_size(&self) -> u64 {
        let built = self.layers.iter().filter(|layer| matches!(layer.state, State::Missing { .. }));
        // A layer is unpacked, then written as a tar.
        self.to_fetch() + built.map(|layer| layer.size.saturating_mul(2)).sum::<u64>()
    }

    /// Needed and free space of the store's file system, for a build that makes no artifact.
    ///
    /// # Errors
    /// [`PlanError::Space`].
    pub fn store_space(&self, store: &Store) -> Result<Vec<space::Space>, PlanError> {
        space::measure(&[(store.dir(), self.store_size())]).map_err(PlanError::Space)
    }

    /// Needed and free space of the file systems that are written to.
    ///
    /// # Errors
    /// [`PlanError::Space`].
    pub fn space(&self, store: &Store, output: &Path) -> Result<Vec<space::Space>, PlanError> {
        space::measure(&[(store.dir(), self.store_size()), (output, self.artifact_size())]).map_err(PlanError::Space)
    }
}
