//! Making a lock: every name in a recipe becomes digests, through the sources.

use super::{
    Archive, Inputs, Lock, LockedDebian, LockedFiles, LockedLayer, LockedRun, Previous, Relock, assumed, request,
};
use crate::{
    layer::{files::files_tree, tar::TarPlan},
    recipe::{CargoLayer, DatasetLayer, DebianLayer, LayerKind, PlacedLayer, Recipe},
    source::{
        cargo::{self, CargoError},
        dataset::{self, DatasetError},
        debian::{
            LockedPackage,
            archive::{self, ArchiveError, Fetch, Offered},
            copyright,
            deb::{self, DebError, Limits},
            fetch::{FetchError, fetch_packages},
            index::{Index, IndexError},
            mirror::{self, MirrorError},
            openpgp::{Keyring, KeyringError},
            resolve::{Query, ResolveError, resolve},
            spool::Spool,
        },
        files::FilesError,
        http::{Client, Progress},
    },
    store::{Store, StoreError},
};
use gap_format::Digest;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use std::{
    io::{self, Write},
    num::NonZeroUsize,
    path::PathBuf,
    thread::available_parallelism,
};

/// Where the keys of Debian's archive lie on a Debian host.
const HOST_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What renewing a lock needs besides the recipe.
pub struct Renewal<'a> {
    /// The lock before, unless everything is to be updated.
    pub old: Option<&'a Lock>,
    /// Whether rows of files are kept as they are, because a build is about to find out what they make.
    pub keep_files: bool,
    /// Takes what is fetched.
    pub store: &'a Store,
    /// Does the downloads; absent when no connection may be opened.
    pub client: Option<&'a Client>,
    /// The time against which the validity of signatures is judged.
    pub now: Timestamp,
    /// Told of bytes fetched.
    pub progress: Progress<'a>,
    /// Told of each step.
    pub step: &'a dyn Fn(&str),
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
    Store(#[from] StoreError),
    #[error(
        "its packages are not locked, and --offline forbids resolving them; run `gapimage lock` on the connected side"
    )]
    Offline,
    #[error("a {0} cannot be resolved")]
    Unresolved(&'static str),
    #[error("reading its files: {0}")]
    Read(#[from] io::Error),
}

/// Which indexes a Debian layer is resolved from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    suite: String,
    components: Vec<String>,
    mirror: Option<String>,
    keyring: PathBuf,
}

impl Origin {
    fn of(layer: &DebianLayer) -> Self {
        Self {
            suite: layer.suite.clone(),
            components: layer.components.clone(),
            mirror: layer.mirror.clone(),
            keyring: layer.keyring.clone().unwrap_or_else(|| HOST_KEYRING.into()),
        }
    }

    /// Debian serves security updates from an archive of its own.
    fn archive(&self) -> &'static str {
        if self.suite.ends_with("-security") { "debian-security" } else { "debian" }
    }
}

impl Renewal<'_> {
    /// Makes the lock of `recipe`: rows that still answer what is asked are kept.
    ///
    /// # Errors
    /// [`RenewError`] naming the layer.
    pub fn run(&self, recipe: &Recipe) -> Result<Renewed, RenewError> {
        let places = recipe.placed_layers();
        let mut relock = Relock::new(self.old, recipe.appliance.arch);
        let mut renewed = Renewed { lock: Lock::default(), resolved: Vec::new(), kept: Vec::new() };
        let mut origins: Vec<(Origin, Offered)> = Vec::new();
        for place in &places {
            let name = place.layer.name.clone();
            let failed = |source: LayerError| RenewError::Layer { layer: name.clone(), source: Box::new(source) };
            match (relock.previous(place), &place.layer.kind) {
                (Previous::Same(locked), LayerKind::Debian(_)) => {
                    relock.keep(locked);
                    renewed.kept.push(name);
                    continue;
                }
                (_, LayerKind::Debian(layer)) => {
                    let origin = Origin::of(layer);
                    if !origins.iter().any(|(known, _)| *known == origin) {
                        let offered = self.offered(recipe, &origin).map_err(failed)?;
                        origins.push((origin.clone(), offered));
                    }
                    let Some((_, offered)) = origins.iter().find(|(known, _)| *known == origin) else { continue };
                    let (rows, archives) = self.debian(recipe, place, layer, offered, &relock).map_err(failed)?;
                    relock.add(row(recipe, place, Inputs::Debian(rows)), archives);
                }
                (Previous::Same(locked), LayerKind::Cargo(layer)) if is_current(locked, layer) => {
                    relock.keep(locked);
                    renewed.kept.push(name);
                    continue;
                }
                (_, LayerKind::Cargo(layer)) => {
                    (self.step)(&format!("layer `{name}`: resolving crates"));
                    let target = recipe.appliance.arch.rust_target();
                    let rows = cargo::resolve(layer, target, self.store, self.client.is_none())
                        .map_err(|e| failed(e.into()))?;
                    relock.add(row(recipe, place, Inputs::Cargo(rows)), []);
                }
                // What the files make is found out while they are laid down.
                (Previous::Same(locked), LayerKind::Files(_)) if self.keep_files => {
                    relock.keep(locked);
                    renewed.kept.push(name);
                    continue;
                }
                (Previous::Same(locked), LayerKind::Run(_)) => {
                    relock.keep(locked);
                    renewed.kept.push(name);
                    continue;
                }
                (_, LayerKind::Run(_)) => relock.add(row(recipe, place, Inputs::Run(LockedRun {})), []),
                (Previous::Same(locked), LayerKind::Dataset(layer)) if is_current_data(locked, layer) => {
                    relock.keep(locked);
                    renewed.kept.push(name);
                    continue;
                }
                (_, LayerKind::Dataset(layer)) => {
                    (self.step)(&format!("layer `{name}`: pinning the files of the data set"));
                    let rows = dataset::resolve(layer, self.client, self.store, self.progress);
                    relock.add(row(recipe, place, Inputs::Dataset(rows.map_err(|e| failed(e.into()))?)), []);
                }
                (_, LayerKind::Wheels(_) | LayerKind::Model(_)) => {
                    return Err(failed(LayerError::Unresolved(place.layer.kind.name())));
                }
                (_, LayerKind::Files(layer)) => {
                    let rows = files(layer).map_err(failed)?;
                    relock.add(row(recipe, place, Inputs::Files(rows)), []);
                }
            }
            renewed.resolved.push(name);
        }
        renewed.lock = relock.finish();
        Ok(renewed)
    }

    fn offered(&self, recipe: &Recipe, origin: &Origin) -> Result<Offered, LayerError> {
        (self.step)(&format!("fetching the index of {} ({})", origin.suite, origin.components.join(" ")));
        let mirrors: Vec<String> = origin.mirror.iter().cloned().collect();
        let wanted = archive::Archive {
            name: origin.archive().to_owned(),
            mirrors: mirror::find(&mirrors, origin.archive())?,
            suites: vec![origin.suite.clone()],
            components: origin.components.clone(),
            accept_expired: false,
        };
        let fetch = Fetch {
            client: self.client.ok_or(LayerError::Offline)?,
            arch: recipe.appliance.arch.debian(),
            keyring: &Keyring::open(&origin.keyring)?,
            now: self.now,
            cache: &self.store.cache_dir("indexes", &Digest::of(b"debian"))?,
            progress: self.progress,
        };
        Ok(archive::fetch(&[wanted], fetch)?)
    }

    fn debian(
        &self,
        recipe: &Recipe,
        place: &PlacedLayer<'_>,
        layer: &DebianLayer,
        offered: &Offered,
        relock: &Relock<'_>,
    ) -> Result<(LockedDebian, Vec<Archive>), LayerError> {
        (self.step)(&format!("layer `{}`: resolving packages", place.layer.name));
        let index = Index::parse(&offered.indexes, recipe.appliance.arch.debian())?;
        let mut installed: Vec<LockedPackage> = relock.below(place).into_iter().flat_map(packages).cloned().collect();
        installed.extend(layer.assume.iter().map(|name| assumed(name, recipe.appliance.arch)));
        let requests: Vec<String> = layer.packages.iter().map(ToString::to_string).collect();
        let query = Query {
            packages: &requests,
            installed: &installed,
            dependencies: layer.dependencies,
            recommends: layer.recommends,
            essential: layer.essential,
        };
        let mut packages = resolve(&index, &query)?;
        let bytes: u64 = packages.iter().map(|package| package.size).sum();
        (self.step)(&format!("layer `{}`: {} packages, {bytes} bytes", place.layer.name, packages.len()));
        let mirrors: Vec<String> = layer.mirror.iter().cloned().collect();
        let client = self.client.ok_or(LayerError::Offline)?;
        fetch_packages(&packages, &mirrors, client, self.store, self.progress)?;
        self.read_licences(&mut packages)?;
        let archives: Vec<Archive> = offered
            .releases
            .iter()
            .map(|signed| Archive {
                suite: signed.suite.clone(),
                codename: signed.release.codename.clone(),
                date: signed.release.date.as_second(),
                sha256: signed.sha256,
            })
            .collect();
        let releases = archives.iter().map(|archive| archive.sha256).collect();
        Ok((LockedDebian { releases, packages }, archives))
    }

    /// The licences are in the packages only, so those are looked into once, when they are locked.
    fn read_licences(&self, packages: &mut [LockedPackage]) -> Result<(), LayerError> {
        let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
        // A spool for a few packages at a time keeps the space that is needed small.
        for some in packages.chunks_mut(4 * threads.get()) {
            let spool = Spool::new_in(self.store.session_dir())?;
            let paths: Vec<PathBuf> = some.iter().map(|package| self.store.source_path(&package.sha256)).collect();
            let sources: Vec<deb::Source<'_>> =
                some.iter().zip(&paths).map(|(package, path)| deb::Source { package, path }).collect();
            let unpacked = deb::unpack_all(&sources, &spool, &Limits::default(), threads)?;
            for (package, deb) in some.iter_mut().zip(unpacked) {
                package.licenses = copyright::of_package(&deb.tree, &package.name).unwrap_or_default();
            }
        }
        Ok(())
    }
}

fn packages(locked: &LockedLayer) -> &[LockedPackage] {
    match &locked.inputs {
        Inputs::Debian(rows) => &rows.packages,
        _ => &[],
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

/// Whether sources and toolchain are still those that were locked.
fn is_current(locked: &LockedLayer, layer: &CargoLayer) -> bool {
    let Inputs::Cargo(rows) = &locked.inputs else { return false };
    rows.is_current(layer).unwrap_or(false)
}

/// Whether the files of a data set are still those that were locked.
fn is_current_data(locked: &LockedLayer, layer: &DatasetLayer) -> bool {
    let Inputs::Dataset(rows) = &locked.inputs else { return false };
    rows.is_current(layer).unwrap_or(false)
}

/// The digest of the layer that the files make now.
fn files(layer: &crate::recipe::FilesLayer) -> Result<LockedFiles, LayerError> {
    let tar = TarPlan::new(&files_tree(layer)?)?;
    let mut hashing = Hashing(Sha256::new());
    tar.write(&mut hashing)?;
    Ok(LockedFiles { layer: hashing.0.into(), size: tar.size() })
}

struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.update(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
