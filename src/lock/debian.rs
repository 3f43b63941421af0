//! Locking packages of a Debian archive.

use super::{
    Archive, LockedDebian, Relock, assumed,
    renew::{LayerError, Purpose, Renewal, packages},
};
use crate::{
    progress::{Stage, Work},
    recipe::{DebianLayer, PlacedLayer, Recipe},
    source::debian::{
        LockedPackage,
        archive::{self, Fetch, Offered},
        copyright::{self, Copyright},
        deb::{self, Limits},
        fetch::{discard_damaged, fetch_packages},
        index::Index,
        mirror,
        openpgp::Keyring,
        resolve::{Query, resolve},
        spool::Spool,
    },
    store::{Downloads, KeyBuilder},
};
use gap_format::Digest;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    num::NonZeroUsize,
    path::PathBuf,
    thread::available_parallelism,
};

/// Where the keys of Debian's archive lie on a Debian host.
const HOST_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Under what the licences of packages are remembered.
const LICENCES: &str = "licences";
/// Largest note of them that is read back, in bytes.
const LICENCES_MAX: u64 = 1 << 20;

/// Which indexes a Debian layer is resolved from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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

/// The indexes that were fetched already: layers of one origin are resolved from the same.
pub(super) struct Archives(BTreeMap<Origin, Offered>);

impl Archives {
    /// None yet.
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }
}

impl Renewal<'_> {
    /// What the archive of a layer offers.
    pub(super) fn offered<'a>(
        &self,
        recipe: &Recipe,
        layer: &DebianLayer,
        archives: &'a mut Archives,
    ) -> Result<&'a Offered, LayerError> {
        match archives.0.entry(Origin::of(layer)) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let offered = self.fetch_index(recipe, place.key())?;
                Ok(place.insert(offered))
            }
        }
    }

    fn fetch_index(&self, recipe: &Recipe, origin: &Origin) -> Result<Offered, LayerError> {
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

    pub(super) fn debian(
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
            self.fetch_missing(name, layer, &packages)?;
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

    fn fetch_missing(&self, name: &str, layer: &DebianLayer, packages: &[LockedPackage]) -> Result<(), LayerError> {
        let client = self.client.ok_or(LayerError::Offline)?;
        let missing = packages.iter().filter(|package| !self.store.has_source(&package.sha256, Some(package.size)));
        let (count, bytes) = missing.fold((0, 0), |(count, bytes), package| (count + 1, bytes + package.size));
        if count > 0 {
            let waiting = || (self.begin)(&Work::on(Stage::Wait, name, "another build is fetching packages; waiting"));
            self.store.wait_for_downloads(Downloads::Packages, waiting)?;
            let text = format!("fetching {count} of {} packages", packages.len());
            (self.begin)(&Work::on(Stage::Fetch, name, &text).about(bytes));
        }
        let mirrors: Vec<String> = layer.mirror.iter().cloned().collect();
        Ok(fetch_packages(packages, &mirrors, client, self.store, self.progress)?)
    }

    /// The licences are in the packages only, so those are looked into once, when they are first locked; what they say is
    /// remembered. A package whose documentation is another's has the licences of that one, which may be among those
    /// `installed` below.
    fn read_licences(&self, packages: &mut [LockedPackage], installed: &[LockedPackage]) -> Result<(), LayerError> {
        let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (known, mut unread): (Vec<&LockedPackage>, Vec<&LockedPackage>) =
            packages.iter().partition(|package| !package.licenses.is_empty());
        let mut said = BTreeMap::new();
        unread.retain(|package| {
            let remembered = self.recall(package);
            let is_unread = remembered.is_none();
            said.extend(remembered.map(|copyright| (package.name.clone(), copyright)));
            is_unread
        });
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
            for (package, deb) in some.iter().zip(unpacked?) {
                let copyright = copyright::of_package(&deb.tree, &package.name);
                self.remember(package, &copyright)?;
                said.insert(package.name.clone(), copyright);
            }
        }
        let elsewhere = |name: &str| known.iter().copied().chain(installed).find(|package| package.name == name);
        let settled = copyright::settle(&said, |name| elsewhere(name).map(|package| package.licenses.clone()));
        for package in packages.iter_mut().filter(|package| package.licenses.is_empty()) {
            package.licenses = settled.get(&package.name).cloned().unwrap_or_default();
        }
        Ok(())
    }

    /// What was found in this package before. A note that a crash damaged counts as none.
    fn recall(&self, package: &LockedPackage) -> Option<Option<Copyright>> {
        let note = self.store.recall(LICENCES, &licences_key(package), LICENCES_MAX)?;
        serde_json::from_slice(&note).ok()
    }

    fn remember(&self, package: &LockedPackage, copyright: &Option<Copyright>) -> Result<(), LayerError> {
        let note = serde_json::to_vec(copyright).map_err(io::Error::from)?;
        Ok(self.store.remember(LICENCES, &licences_key(package), &note)?)
    }
}

/// The note of what a package says of its licences.
fn licences_key(package: &LockedPackage) -> Digest {
    let mut key = KeyBuilder::new(LICENCES, copyright::FORMAT);
    key.digest("package", &package.sha256).text("name", &package.name).finish()
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
