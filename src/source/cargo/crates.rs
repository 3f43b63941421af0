//! Crates from the registry: from `Cargo.lock` through Cargo's cache into the store, and out of it again.

use super::{
    LockedCargo, LockedCrate, cargo, checkout::Checkout, error::CargoError, stage::Staged, staging_dir,
    toolchain::failed,
};
use crate::{recipe::CargoLayer, source::entries::each_entry, store::Store};
use flate2::read::GzDecoder;
use gap_format::Digest;
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path, PathBuf},
};

/// Longest `.crate` file accepted, in bytes.
const MAX_CRATE: u64 = 512 * 1024 * 1024;
/// Most bytes that one crate may unpack to.
const MAX_UNPACKED: u64 = 2 * 1024 * 1024 * 1024;
/// Most files in one crate.
const MAX_FILES: usize = 100_000;

/// A crate as `Cargo.lock` pins it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pinned {
    pub name: String,
    pub version: String,
    pub checksum: Digest,
}

#[derive(Deserialize)]
struct CargoLock {
    #[serde(default)]
    package: Vec<CargoLockPackage>,
}

#[derive(Deserialize)]
struct CargoLockPackage {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

/// Whether a text is a name or version of a crate, and so a part of a file name.
pub(super) fn is_file_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+.".contains(&byte);
    !text.is_empty() && text.len() <= 128 && !text.starts_with(['.', '-']) && text.bytes().all(allowed)
}

/// The crates from a registry that a `Cargo.lock` pins.
pub(super) fn pinned(path: &Path) -> Result<BTreeSet<Pinned>, CargoError> {
    let text = fs::read(path).map_err(CargoError::io("reading", path))?;
    parse_pinned(&text, path)
}

fn parse_pinned(text: &[u8], path: &Path) -> Result<BTreeSet<Pinned>, CargoError> {
    let odd = |what: String| CargoError::Manifest { path: path.to_owned(), what };
    let lock: CargoLock = toml::from_slice(text).map_err(|error| odd(error.to_string()))?;
    let mut pinned = BTreeSet::new();
    for package in lock.package {
        let Some(source) = package.source else { continue };
        if !is_file_name(&package.name) || !is_file_name(&package.version) {
            return Err(odd(format!("no crate can be called `{}`", package.name.escape_debug())));
        }
        let checksum = package.checksum.as_deref().and_then(|hex| Digest::from_hex(hex).ok());
        match checksum {
            Some(checksum) if source.starts_with("registry+") || source.starts_with("sparse+") => {
                pinned.insert(Pinned { name: package.name, version: package.version, checksum });
            }
            _ => {
                let from = source.split(['?', '#']).next().unwrap_or_default().to_owned();
                return Err(CargoError::Unlockable { name: package.name, version: package.version, from });
            }
        }
    }
    Ok(pinned)
}

/// Checks that resolving added nothing to what the workspace's `Cargo.lock` pins.
pub(super) fn all_were_locked(pinned: &BTreeSet<Pinned>, staged: &Staged) -> Result<(), CargoError> {
    // Crates of other packages of the workspace may come from where they will.
    let lock: CargoLock = toml::from_slice(staged.cargo_lock())
        .map_err(|error| CargoError::Manifest { path: "Cargo.lock".into(), what: error.to_string() })?;
    let before: BTreeSet<(&str, &str, Option<&str>)> = lock
        .package
        .iter()
        .map(|package| (package.name.as_str(), package.version.as_str(), package.checksum.as_deref()))
        .collect();
    for krate in pinned {
        let hex = krate.checksum.to_hex();
        if !before.contains(&(krate.name.as_str(), krate.version.as_str(), Some(hex.as_str()))) {
            return Err(CargoError::NotPinned(format!("`{}` {}", krate.name, krate.version)));
        }
    }
    Ok(())
}

/// Checks that a `Cargo.lock` that Cargo reduced pins exactly the crates of the lock.
///
/// # Errors
/// [`CargoError::NotPinned`] naming the first crate that is in one and not in the other.
pub(crate) fn pins_exactly(cargo_lock: &[u8], locked: &LockedCargo) -> Result<(), CargoError> {
    let pinned = parse_pinned(cargo_lock, Path::new("Cargo.lock"))?;
    let rows: BTreeSet<Pinned> = locked
        .crates
        .iter()
        .map(|row| Pinned { name: row.name.clone(), version: row.version.clone(), checksum: row.sha256 })
        .collect();
    match pinned.symmetric_difference(&rows).next() {
        Some(krate) => Err(CargoError::NotPinned(format!("the locked crate `{}` {}", krate.name, krate.version))),
        None => Ok(()),
    }
}

/// Puts the files of these crates into the store, with Cargo's help; their lengths come back with them.
pub(super) fn take_in(
    pinned: &BTreeSet<Pinned>,
    workspace: &Checkout,
    staged: &Staged,
    store: &Store,
    offline: bool,
) -> Result<Vec<(Pinned, u64)>, CargoError> {
    let caches = registry_caches()?;
    let mut taken = Vec::new();
    let mut asked_cargo = offline;
    for krate in pinned {
        let mut size = take_in_one(krate, &caches, store)?;
        if size.is_none() && !asked_cargo {
            cargo_fetch(workspace, &staged.root().join("Cargo.toml"))?;
            asked_cargo = true;
            size = take_in_one(krate, &registry_caches()?, store)?;
        }
        let Some(size) = size else {
            let Pinned { name, version, checksum } = krate.clone();
            return Err(CargoError::NoCrateFile { name, version, sha256: checksum });
        };
        taken.push((krate.clone(), size));
    }
    Ok(taken)
}

/// Puts what is missing of the locked crates into the store.
///
/// # Errors
/// [`CargoError`], [`CargoError::NoCrateFile`] above all.
pub fn fetch(layer: &CargoLayer, locked: &LockedCargo, store: &Store, offline: bool) -> Result<(), CargoError> {
    let missing: BTreeSet<Pinned> = locked
        .crates
        .iter()
        .filter(|row| !store.has_source(&row.sha256, Some(row.size)))
        .map(|row| Pinned { name: row.name.clone(), version: row.version.clone(), checksum: row.sha256 })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let dir = staging_dir(store)?;
    let workspace = Checkout::of(&layer.workspace, store.session_dir())?;
    let staged = Staged::stage(layer, &workspace, dir.path())?;
    take_in(&missing, &workspace, &staged, store, offline).map(drop)
}

fn take_in_one(krate: &Pinned, caches: &[PathBuf], store: &Store) -> Result<Option<u64>, CargoError> {
    if let Some(file) = store.open_source(&krate.checksum, None)? {
        let path = store.source_path(&krate.checksum);
        return Ok(Some(file.metadata().map_err(CargoError::io("looking at", &path))?.len()));
    }
    for cache in caches {
        let path = cache.join(format!("{}-{}.crate", krate.name, krate.version));
        let Ok(file) = File::open(&path) else { continue };
        match store.insert_source(Some(&krate.checksum), MAX_CRATE, file) {
            Ok(stored) => return Ok(Some(stored.size)),
            // Another registry's crate of the same name, or a damaged file.
            Err(crate::store::StoreError::WrongDigest { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// The directories in which Cargo keeps the files it fetched, one for each registry.
fn registry_caches() -> Result<Vec<PathBuf>, CargoError> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let home = home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let Some(cache) = home.map(|home| home.join("registry/cache")) else { return Ok(Vec::new()) };
    let entries = match fs::read_dir(&cache) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CargoError::io("listing", &cache)(error)),
    };
    let mut dirs: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    dirs.sort();
    Ok(dirs)
}

fn cargo_fetch(workspace: &Checkout, manifest: &Path) -> Result<(), CargoError> {
    let output = cargo(workspace)?
        .args(["fetch", "--manifest-path"])
        .arg(manifest)
        .output()
        .map_err(|source| CargoError::NotInstalled { program: "cargo", source })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed("cargo fetch".to_owned(), workspace, &output.stderr)),
    }
}

/// Unpacks the locked crates from the store into `dest` as a Cargo directory source.
///
/// # Errors
/// [`CargoError`]: a crate is not in the store, or holds something else than plain files below its own directory.
pub fn unpack_crates(locked: &LockedCargo, store: &Store, dest: &Path) -> Result<(), CargoError> {
    for row in &locked.crates {
        let Some(file) = store.open_source(&row.sha256, Some(row.size))? else {
            return Err(CargoError::NoCrateFile {
                name: row.name.clone(),
                version: row.version.clone(),
                sha256: row.sha256,
            });
        };
        unpack(row, file, dest, MAX_UNPACKED)?;
    }
    Ok(())
}

pub(super) fn unpack(row: &LockedCrate, file: impl Read, dest: &Path, limit: u64) -> Result<(), CargoError> {
    let bad = |what: String| CargoError::BadCrate { name: row.name.clone(), version: row.version.clone(), what };
    let io = |error: io::Error| bad(error.to_string());
    let own = format!("{}-{}", row.name, row.version);
    // One byte more than allowed tells a crate that is too large from one that just fits.
    each_entry(GzDecoder::new(file).take(limit + 1), io, |count, entry| {
        let path = entry.path().map_err(io)?.into_owned();
        let shown = path.display().to_string().escape_debug().to_string();
        if entry.raw_file_position().saturating_add(entry.size()) > limit {
            return Err(bad(format!("`{shown}` makes it unpack to more than {limit} bytes")));
        }
        let mut parts = path.components();
        let inside = parts.next() == Some(Component::Normal(own.as_ref()))
            && parts.all(|part| matches!(part, Component::Normal(_)));
        if !inside || count >= MAX_FILES {
            return Err(bad(format!("`{shown}` does not belong in it")));
        }
        let target = dest.join(&path);
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            fs::create_dir_all(&target).map_err(CargoError::io("making", &target))?;
        } else if kind.is_file() {
            let executable = entry.header().mode().map_err(io)? & 0o111 != 0;
            if let Some(dir) = target.parent() {
                fs::create_dir_all(dir).map_err(CargoError::io("making", dir))?;
            }
            let mode = if executable { 0o755 } else { 0o644 };
            let mut options = fs::OpenOptions::new();
            let open = options.write(true).create_new(true).mode(mode).open(&target);
            let mut file = open.map_err(CargoError::io("making", &target))?;
            io::copy(entry, &mut file).map_err(io)?;
        } else {
            return Err(bad(format!("`{shown}` is neither a file nor a directory")));
        }
        Ok(())
    })?;
    let checksum = dest.join(own).join(".cargo-checksum.json");
    let content = format!("{{\"files\":{{}},\"package\":\"{}\"}}", row.sha256.to_hex());
    File::create(&checksum)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .map_err(CargoError::io("writing", &checksum))
}
