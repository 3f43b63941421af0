//! Making a lock: every name in a recipe becomes digests, through the sources.

use super::{
    Archive, Inputs, Lock, LockedDebian, LockedFiles, LockedLayer, LockedRun, Previous, Relock, assumed, request,
};
use crate::{
    layer::{files::files_tree, tar::TarPlan},
    plan::ModelPlanError,
    progress::{Begin, Stage, Work},
    recipe::{CargoLayer, DatasetLayer, DebianLayer, LayerKind, PlacedLayer, Recipe, WheelsLayer},
    source::{
        cargo::{self, CargoError},
        dataset::{self, DatasetError},
        debian::{
            LockedPackage,
            archive::{self, ArchiveError, Fetch, Offered},
            copyright,
            deb::{self, DebError, Limits},
            fetch::{FetchError, discard_damaged, fetch_packages},
            index::{Index, IndexError},
            mirror::{self, MirrorError},
            openpgp::{Keyring, KeyringError},
            resolve::{Query, ResolveError, resolve},
            spool::Spool,
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
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
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
    ModelPlan(#[from] ModelPlanError),
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
        let mut renewed = Renewed {
            lock: Lock::default(),
            resolved: Vec::new(),
            kept: Vec::new(),
            unlocked: Vec::new(),
            unresolved: Vec::new(),
        };
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
                        match self.offered(recipe, &origin) {
                            Ok(offered) => origins.push((origin.clone(), offered)),
                            Err(LayerError::Offline) if self.purpose == Purpose::Plan => {
                                renewed.unlocked.push(name);
                                continue;
                            }
                            Err(error) => return Err(failed(error)),
                        }
                    }
                    let Some((_, offered)) = origins.iter().find(|(known, _)| *known == origin) else { continue };
                    let (rows, archives) = self.debian(recipe, place, layer, offered, &relock).map_err(failed)?;
                    relock.add(row(recipe, place, Inputs::Debian(rows)), archives);
                }
                (Previous::Same(locked), LayerKind::Cargo(layer)) if self.is_current(locked, layer) => {
                    relock.keep(locked);
                    renewed.kept.push(name);
                    continue;
                }
                (_, LayerKind::Cargo(layer)) => {
                    (self.begin)(&Work::on(Stage::Resolve, &name, "resolving crates"));
                    let target = recipe.appliance.arch.rust_target();
                    let rows = match cargo::resolve(layer, target, self.store, self.client.is_none()) {
                        Ok(rows) => rows,
                        Err(_) if self.purpose == Purpose::Plan && self.client.is_none() => {
                            renewed.unlocked.push(name);
                            continue;
                        }
                        Err(error) => return Err(failed(error.into())),
                    };
                    relock.add(row(recipe, place, Inputs::Cargo(rows)), []);
                }
                // What the files make is found out while they are laid down.
                (Previous::Same(locked), LayerKind::Files(_)) if self.purpose != Purpose::Lock => {
                    relock.keep(locked);
                    renewed.kept.push(name);
                    continue;
                }
                (Previous::Same(locked), LayerKind::Model(layer)) if self.keeps(layer) => {
                    relock.keep(locked);
                    renewed.kept.push(name);
                    continue;
                }
                (Previous::Same(locked), LayerKind::Wheels(_) | LayerKind::Run(_)) => {
                    relock.keep(locked);
                    renewed.kept.push(name);
                    continue;
                }
                (previous, LayerKind::Wheels(layer)) => {
                    let rows = self.wheels(recipe, place, layer, previous, &relock).map_err(failed)?;
                    relock.add(row(recipe, place, Inputs::Wheels(rows)), []);
                }
                (_, LayerKind::Model(layer)) => match self.model(place, layer) {
                    Ok(rows) => relock.add(row(recipe, place, Inputs::Model(rows)), []),
                    Err(LayerError::Offline) if self.purpose == Purpose::Plan => {
                        renewed.unlocked.push(name);
                        continue;
                    }
                    Err(error) => {
                        renewed.unresolved.push((name, error));
                        continue;
                    }
                },
                (_, LayerKind::Run(_)) => relock.add(row(recipe, place, Inputs::Run(LockedRun {})), []),
                (Previous::Same(locked), LayerKind::Dataset(layer)) if is_current_data(locked, layer, self.store) => {
                    relock.keep(locked);
                    renewed.kept.push(name);
                    continue;
                }
                (_, LayerKind::Dataset(layer)) => {
                    (self.begin)(&Work::on(Stage::Resolve, &name, "pinning the files of the data set"));
                    let fetching = dataset::Fetching {
                        client: self.client,
                        contents: self.purpose != Purpose::Plan,
                        progress: self.progress,
                    };
                    let rows = match dataset::resolve(layer, &fetching, self.store) {
                        Ok(rows) => rows,
                        Err(DatasetError::Offline) if self.purpose == Purpose::Plan => {
                            renewed.unlocked.push(name);
                            continue;
                        }
                        Err(error) if error.is_elsewhere() => {
                            renewed.unresolved.push((name, error.into()));
                            continue;
                        }
                        Err(error) => return Err(failed(error.into())),
                    };
                    relock.add(row(recipe, place, Inputs::Dataset(rows)), []);
                }
                (_, LayerKind::Files(layer)) => {
                    let rows = match self.purpose {
                        Purpose::Plan => LockedFiles { layer: Digest::of(b""), size: 0 },
                        Purpose::Lock | Purpose::Build => files(layer).map_err(failed)?,
                    };
                    relock.add(row(recipe, place, Inputs::Files(rows)), []);
                }
            }
            renewed.resolved.push(name);
        }
        renewed.lock = relock.finish();
        Ok(renewed)
    }

    /// Whether sources and toolchain are still those that were locked.
    fn is_current(&self, locked: &LockedLayer, layer: &CargoLayer) -> bool {
        let Inputs::Cargo(rows) = &locked.inputs else { return false };
        rows.is_current(layer, self.store).unwrap_or(false)
    }

    fn offered(&self, recipe: &Recipe, origin: &Origin) -> Result<Offered, LayerError> {
        let client = self.client.ok_or(LayerError::Offline)?;
        let text = format!("fetching the index of {} ({})", origin.suite, origin.components.join(" "));
        (self.begin)(&Work::whole(Stage::Index, &text));
        let mirrors: Vec<String> = origin.mirror.iter().cloned().collect();
        let wanted = archive::Archive {
            name: origin.archive().to_owned(),
            mirrors: mirror::find(&mirrors, origin.archive())?,
            suites: vec![origin.suite.clone()],
            components: origin.components.clone(),
            accept_expired: false,
        };
        let fetch = Fetch {
            client,
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
        let name = &place.layer.name;
        (self.begin)(&Work::on(Stage::Resolve, name, "resolving packages"));
        let index = Index::parse(&offered.indexes, recipe.appliance.arch.debian())?;
        let mut installed: Vec<LockedPackage> = relock.below(place).into_iter().flat_map(packages).cloned().collect();
        installed.extend(layer.assume.iter().map(|name| assumed(name, recipe.appliance.arch)));
        let requests: Vec<String> = layer.packages.iter().map(ToString::to_string).collect();
        let preferred = relock.preferred(place);
        let query = Query {
            packages: &requests,
            installed: &installed,
            preferred: &preferred,
            dependencies: layer.dependencies,
            recommends: layer.recommends,
            essential: layer.essential,
        };
        let mut packages = resolve(&index, &query)?;
        if self.purpose != Purpose::Plan {
            take_known_licences(&mut packages, &preferred);
            self.fetch(name, layer, &packages)?;
            self.read_licences(&mut packages, &installed)?;
        }
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

    fn fetch(&self, name: &str, layer: &DebianLayer, packages: &[LockedPackage]) -> Result<(), LayerError> {
        let client = self.client.ok_or(LayerError::Offline)?;
        let missing = packages.iter().filter(|package| !self.store.has_source(&package.sha256, Some(package.size)));
        let (count, bytes) = missing.fold((0, 0), |(count, bytes), package| (count + 1, bytes + package.size));
        if count > 0 {
            let text = format!("fetching {count} of {} packages", packages.len());
            (self.begin)(&Work::on(Stage::Fetch, name, &text).about(bytes));
        }
        let mirrors: Vec<String> = layer.mirror.iter().cloned().collect();
        Ok(fetch_packages(packages, &mirrors, client, self.store, self.progress)?)
    }

    fn wheels(
        &self,
        recipe: &Recipe,
        place: &PlacedLayer<'_>,
        layer: &WheelsLayer,
        previous: Previous<'_>,
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
            previous: if let Previous::Changed(locked) = previous { wheels_of(locked) } else { None },
            client: self.client.ok_or(LayerError::Offline)?,
            store: self.store,
            progress: self.progress,
        };
        Ok(wheels::resolve(&query)?)
    }

    /// The licences are in the packages only, so those are looked into once, when they are locked. A package whose
    /// documentation is another's has the licences of that one, which may be among those `installed` below.
    fn read_licences(&self, packages: &mut [LockedPackage], installed: &[LockedPackage]) -> Result<(), LayerError> {
        let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (known, unread): (Vec<&LockedPackage>, Vec<&LockedPackage>) =
            packages.iter().partition(|package| !package.licenses.is_empty());
        let mut said = BTreeMap::new();
        // A spool for a few packages at a time keeps the space that is needed small.
        for some in unread.chunks(4 * threads.get()) {
            let spool = Spool::new_in(self.store.session_dir())?;
            let paths: Vec<PathBuf> = some.iter().map(|package| self.store.source_path(&package.sha256)).collect();
            let sources: Vec<deb::Source<'_>> =
                some.iter().zip(&paths).map(|(package, path)| deb::Source { package, path }).collect();
            let unpacked = deb::unpack_all(&sources, &spool, &Limits::default(), threads);
            if let Err(error) = &unpacked {
                discard_damaged(self.store, error)?;
            }
            said.extend(some.iter().zip(unpacked?).map(|(package, deb)| {
                let copyright = copyright::of_package(&deb.tree, &package.name);
                (package.name.clone(), copyright)
            }));
        }
        let elsewhere = |name: &str| known.iter().copied().chain(installed).find(|package| package.name == name);
        let settled = copyright::settle(&said, |name| elsewhere(name).map(|package| package.licenses.clone()));
        for package in packages.iter_mut().filter(|package| package.licenses.is_empty()) {
            package.licenses = settled.get(&package.name).cloned().unwrap_or_default();
        }
        Ok(())
    }
}

/// Packages that were locked before need not be looked into again.
fn take_known_licences(packages: &mut [LockedPackage], before: &[&LockedPackage]) {
    let known: BTreeMap<Digest, &LockedPackage> = before.iter().map(|package| (package.sha256, *package)).collect();
    for package in packages {
        if let Some(known) = known.get(&package.sha256) {
            package.licenses.clone_from(&known.licenses);
        }
    }
}

fn packages(locked: &LockedLayer) -> &[LockedPackage] {
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

/// Whether the files of a data set are still those that were locked.
fn is_current_data(locked: &LockedLayer, layer: &DatasetLayer, store: &Store) -> bool {
    let Inputs::Dataset(rows) = &locked.inputs else { return false };
    rows.is_current(layer, store).unwrap_or(false)
}

/// The digest of the layer that the files make now.
fn files(layer: &crate::recipe::FilesLayer) -> Result<LockedFiles, LayerError> {
    let tar = TarPlan::new(&files_tree(layer)?)?;
    Ok(LockedFiles { layer: hashed(&tar)?, size: tar.size() })
}

/// The digest of a layer.
pub(super) fn hashed(tar: &TarPlan) -> io::Result<Digest> {
    let mut hashing = Hashing(Sha256::new());
    tar.write(&mut hashing)?;
    Ok(hashing.0.into())
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
