//! Making a lock: every name in a recipe becomes digests, through the sources.

use super::{Archive, Inputs, Lock, LockedFiles, LockedLayer, LockedRun, Previous, Relock, debian::Archives, request};
use crate::{
    hashing::Hashing,
    layer::{files::files_tree, model::ModelPlaceError, tar::TarPlan},
    progress::{Begin, Stage, Work},
    recipe::{CargoLayer, DatasetLayer, FilesLayer, LayerKind, PlacedLayer, Recipe, WheelsLayer},
    source::{
        cargo::{self, CargoError},
        dataset::{self, DatasetError},
        debian::{
            LockedPackage, archive::ArchiveError, deb::DebError, fetch::FetchError, index::IndexError,
            mirror::MirrorError, openpgp::KeyringError, resolve::ResolveError,
        },
        files::FilesError,
        http::{Client, Progress},
        model::ModelError,
        wheels::{self, LockedWheels, WheelsError},
    },
    store::{Store, StoreError},
};
use gap_format::Digest;
use jiff::Timestamp;
use std::io;

/// What renewing a lock needs besides the recipe.
pub struct Renewal<'a> {
    /// The lock before, unless everything is to be updated.
    pub old: Option<&'a Lock>,
    /// What the lock is made for.
    pub purpose: Purpose,
    /// Takes what is fetched.
    pub store: &'a Store,
    /// Does the downloads; absent when no connection may be opened.
    pub client: Option<&'a Client>,
    /// The time against which the validity of signatures is judged.
    pub now: Timestamp,
    /// Told of bytes fetched.
    pub progress: Progress<'a>,
    /// Told of each piece of work.
    pub begin: Begin<'a>,
}

/// What a lock is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be written.
    Lock,
    /// To be built from and written: rows of files stay as they are, because the build is about to find out what the files
    /// make.
    Build,
    /// To be planned with and forgotten: nothing large is fetched or read, so rows lack licences and what new files make.
    /// Layers that cannot be resolved for want of a connection have no rows.
    Plan,
}

/// A lock and what became of each layer.
#[derive(Debug)]
pub struct Renewed {
    /// The lock.
    pub lock: Lock,
    /// Layers that were resolved anew.
    pub resolved: Vec<String>,
    /// Layers whose rows were kept.
    pub kept: Vec<String>,
    /// Layers that have no rows, as only a plan may lack some.
    pub unlocked: Vec<String>,
    /// Layers that could not be resolved, and why; the lock has no rows for them.
    pub unresolved: Vec<(String, LayerError)>,
}

/// Why a recipe cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// A layer cannot be resolved.
    #[error("layer `{layer}`: {source}")]
    Layer {
        /// The layer.
        layer: String,
        /// Why not.
        source: Box<LayerError>,
    },
}

/// Why a layer cannot be resolved.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "most variants pass on the error of one room")]
pub enum LayerError {
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Deb(#[from] DebError),
    #[error(transparent)]
    Cargo(#[from] CargoError),
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Tar(#[from] crate::layer::tar::PlanError),
    #[error(transparent)]
    Wheels(#[from] WheelsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it is not locked, and --offline forbids resolving it; run `gapimage lock` on the connected side")]
    Offline,
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    ModelPlace(#[from] ModelPlaceError),
    #[error("reading its files: {0}")]
    Read(#[from] io::Error),
}

impl Renewal<'_> {
    /// Makes the lock of `recipe`: rows that still answer what is asked are kept.
    ///
    /// # Errors
    /// [`RenewError`] naming the layer.
    pub fn run(&self, recipe: &Recipe) -> Result<Renewed, RenewError> {
        let places = recipe.placed_layers();
        let mut relock = Relock::new(self.old, recipe.appliance.arch);
        let mut renewed = Renewed {
            lock: Lock::default(),
            resolved: Vec::new(),
            kept: Vec::new(),
            unlocked: Vec::new(),
            unresolved: Vec::new(),
        };
        let mut archives = Archives::new();
        for place in &places {
            let name = place.layer.name.clone();
            if let Previous::Same(locked) = relock.previous(place)
                && self.holds(locked, &place.layer.kind)
            {
                relock.keep(locked);
                renewed.kept.push(name);
                continue;
            }
            match self.resolve(recipe, place, &relock, &mut archives) {
                Ok((inputs, archives)) => {
                    relock.add(row(recipe, place, inputs), archives);
                    renewed.resolved.push(name);
                }
                Err(error) if self.purpose == Purpose::Plan && self.lacks_connection(&error) => {
                    renewed.unlocked.push(name);
                }
                Err(error) if is_elsewhere(&place.layer.kind, &error) => {
                    renewed.unresolved.push((name, error));
                }
                Err(error) => return Err(RenewError::Layer { layer: name, source: Box::new(error) }),
            }
        }
        renewed.lock = relock.finish();
        Ok(renewed)
    }

    /// Whether rows that answer what is asked still do so for what lies on this machine.
    fn holds(&self, locked: &LockedLayer, kind: &LayerKind) -> bool {
        match kind {
            LayerKind::Debian(_) | LayerKind::Wheels(_) | LayerKind::Run(_) => true,
            LayerKind::Cargo(layer) => self.is_current(locked, layer),
            // What the files make is found out while they are laid down.
            LayerKind::Files(_) => self.purpose != Purpose::Lock,
            LayerKind::Model(layer) => self.keeps(layer),
            LayerKind::Dataset(layer) => is_current_data(locked, layer, self.store),
        }
    }

    /// Whether it is only for want of a connection that a layer could not be resolved.
    fn lacks_connection(&self, error: &LayerError) -> bool {
        match error {
            LayerError::Offline | LayerError::Dataset(DatasetError::Offline) => true,
            LayerError::Cargo(_) => self.client.is_none(),
            _ => false,
        }
    }

    /// What a layer is resolved to, and the archives that it was resolved from.
    fn resolve(
        &self,
        recipe: &Recipe,
        place: &PlacedLayer<'_>,
        relock: &Relock<'_>,
        archives: &mut Archives,
    ) -> Result<(Inputs, Vec<Archive>), LayerError> {
        let inputs = match &place.layer.kind {
            LayerKind::Debian(layer) => {
                let offered = self.offered(recipe, layer, archives)?;
                let (rows, archives) = self.debian(recipe, place, layer, offered, relock)?;
                return Ok((Inputs::Debian(rows), archives));
            }
            LayerKind::Cargo(layer) => {
                (self.begin)(&Work::on(Stage::Resolve, &place.layer.name, "resolving crates"));
                let target = recipe.appliance.arch.rust_target();
                Inputs::Cargo(cargo::resolve(layer, target, self.store, self.client.is_none())?)
            }
            LayerKind::Wheels(layer) => Inputs::Wheels(self.wheels(recipe, place, layer, relock)?),
            LayerKind::Model(layer) => Inputs::Model(self.model(place, layer)?),
            LayerKind::Dataset(layer) => {
                (self.begin)(&Work::on(Stage::Resolve, &place.layer.name, "pinning the files of the data set"));
                let fetching = dataset::Fetching {
                    client: self.client,
                    contents: self.purpose != Purpose::Plan,
                    progress: self.progress,
                };
                Inputs::Dataset(dataset::resolve(layer, &fetching, self.store)?)
            }
            LayerKind::Files(layer) => Inputs::Files(match self.purpose {
                Purpose::Plan => LockedFiles { layer: Digest::of(b""), size: 0 },
                Purpose::Lock | Purpose::Build => files(layer)?,
            }),
            LayerKind::Run(_) => Inputs::Run(LockedRun {}),
        };
        Ok((inputs, Vec::new()))
    }

    /// Whether sources and toolchain are still those that were locked.
    fn is_current(&self, locked: &LockedLayer, layer: &CargoLayer) -> bool {
        let Inputs::Cargo(rows) = &locked.inputs else { return false };
        rows.is_current(layer, self.store).unwrap_or(false)
    }

    fn wheels(
        &self,
        recipe: &Recipe,
        place: &PlacedLayer<'_>,
        layer: &WheelsLayer,
        relock: &Relock<'_>,
    ) -> Result<LockedWheels, LayerError> {
        (self.begin)(&Work::on(Stage::Resolve, &place.layer.name, "resolving Python packages"));
        let below = relock.below(place);
        let packages: Vec<&LockedPackage> = below.iter().flat_map(|locked| packages(locked)).collect();
        let installed: Vec<&LockedWheels> = below.iter().filter_map(|locked| wheels_of(locked)).collect();
        let mirrors = place.below.iter().filter_map(|name| match &recipe.layers.get(*name)?.kind {
            LayerKind::Debian(layer) => layer.mirror.clone(),
            _ => None,
        });
        let builders: Vec<&LockedPackage> = match layer.sdists.on.as_slice() {
            [] => packages.clone(),
            on => relock.in_stack(&recipe.places_in(on)).into_iter().flat_map(self::packages).collect(),
        };
        let query = wheels::Query {
            layer,
            builders: &builders,
            below: &packages,
            installed: &installed,
            mirrors: &mirrors.collect::<Vec<_>>(),
            arch: recipe.appliance.arch,
            previous: if let Previous::Changed(locked) = relock.previous(place) { wheels_of(locked) } else { None },
            client: self.client.ok_or(LayerError::Offline)?,
            store: self.store,
            progress: self.progress,
        };
        Ok(wheels::resolve(&query)?)
    }
}

/// The Debian packages that a row locks.
pub(super) fn packages(locked: &LockedLayer) -> &[LockedPackage] {
    match &locked.inputs {
        Inputs::Debian(rows) => &rows.packages,
        _ => &[],
    }
}

fn wheels_of(locked: &LockedLayer) -> Option<&LockedWheels> {
    match &locked.inputs {
        Inputs::Wheels(rows) => Some(rows),
        _ => None,
    }
}

fn row(recipe: &Recipe, place: &PlacedLayer<'_>, inputs: Inputs) -> LockedLayer {
    LockedLayer {
        name: place.layer.name.clone(),
        below: place.below.iter().map(|&name| name.to_owned()).collect(),
        request: request(place, recipe.appliance.arch),
        inputs,
    }
}

/// Whether a layer cannot be resolved because of what somebody else serves: others may be resolved all the same.
const fn is_elsewhere(kind: &LayerKind, error: &LayerError) -> bool {
    match (kind, error) {
        (LayerKind::Model(_), _) => true,
        (LayerKind::Dataset(_), LayerError::Dataset(error)) => error.is_elsewhere(),
        _ => false,
    }
}

/// Whether the files of a data set are still those that were locked.
fn is_current_data(locked: &LockedLayer, layer: &DatasetLayer, store: &Store) -> bool {
    let Inputs::Dataset(rows) = &locked.inputs else { return false };
    rows.is_current(layer, store).unwrap_or(false)
}

/// The digest of the layer that the files make now.
fn files(layer: &FilesLayer) -> Result<LockedFiles, LayerError> {
    let tar = TarPlan::new(&files_tree(layer)?)?;
    Ok(LockedFiles { layer: hashed(&tar)?, size: tar.size() })
}

/// The digest of a layer.
pub(super) fn hashed(tar: &TarPlan) -> io::Result<Digest> {
    let mut hashing = Hashing::new(io::sink());
    tar.write(&mut hashing)?;
    Ok(hashing.digest())
}
