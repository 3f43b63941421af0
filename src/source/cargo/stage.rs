//! Staging: the packages that a binary needs, copied out of their workspace.

use super::{
    checkout::Checkout,
    error::CargoError,
    manifest,
    metadata::{Metadata, Package, Target, members},
};
use crate::{recipe::CargoLayer, store::KeyBuilder};
use gap_format::Digest;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Raised when staging the same workspace gives other files.
const FORMAT: u64 = 1;
/// What of a package's directory no release build uses.
const NOT_STAGED: [&str; 5] = ["target", "tests", "benches", "examples", "Cargo.lock"];
/// Most files of all packages.
const MAX_FILES: usize = 50_000;
/// Most bytes in all of them.
const MAX_BYTES: u64 = 512 * 1024 * 1024;

/// Staged packages: `Cargo.toml`, `Cargo.lock` and the packages in their directories.
#[derive(Debug)]
pub struct Staged {
    root: PathBuf,
    manifest: PathBuf,
    files: Vec<String>,
    digest: Digest,
    cargo_lock: Vec<u8>,
}

impl Staged {
    /// Copies what the binary of `layer` is compiled from out of `workspace` into the empty directory `dest`: each package that it needs
    /// from the workspace without hidden files, tests, benchmarks, examples and packages within; and the root manifest.
    /// Of a package in the workspace's own directory, which may hold anything, only manifest, directories with sources,
    /// `.rs` files, readme and licence. `Cargo.lock` is copied too, but is not part of the digest: only some of it
    /// matters.
    ///
    /// # Errors
    /// [`CargoError`].
    pub fn stage(layer: &CargoLayer, workspace: &Checkout, dest: &Path) -> Result<Self, CargoError> {
        let dest = &dest.canonicalize().map_err(CargoError::io("opening", dest))?;
        let metadata = members(workspace)?;
        let needed = needed(layer, &metadata)?;
        let files = files(&metadata, &needed)?;
        let mut key = KeyBuilder::new("cargo-sources", FORMAT);
        for (path, content) in &files {
            write(&dest.join(path), content)?;
            key.text("path", path).digest("content", &Digest::of(content));
        }
        let lock_path = metadata.workspace_root.join("Cargo.lock");
        let cargo_lock = fs::read(&lock_path).map_err(CargoError::io("reading", &lock_path))?;
        write(&dest.join("Cargo.lock"), &cargo_lock)?;
        let package = needed.get(layer.package.as_str());
        let manifest = package.map(|package| relative(&package.manifest_path, &metadata.workspace_root)).transpose()?;
        Ok(Self {
            root: dest.clone(),
            manifest: dest.join(manifest.unwrap_or_default()),
            files: files.into_keys().chain(["Cargo.lock".to_owned()]).collect(),
            digest: key.finish(),
            cargo_lock,
        })
    }

    /// The directory of the staged workspace, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The staged manifest of the package that holds the binary, absolute.
    pub fn manifest(&self) -> &Path {
        &self.manifest
    }

    /// All staged files, by path below [`Staged::root`].
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// Digest over names and contents of everything staged but `Cargo.lock`.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The workspace's whole `Cargo.lock`, as it was when it was copied.
    pub(super) fn cargo_lock(&self) -> &[u8] {
        &self.cargo_lock
    }
}

/// The packages of the workspace that the binary is compiled from, by name.
fn needed<'m>(layer: &CargoLayer, metadata: &'m Metadata) -> Result<BTreeMap<&'m str, &'m Package>, CargoError> {
    let Some(root) = metadata.packages.iter().find(|package| package.name == layer.package) else {
        return Err(CargoError::NoPackage {
            workspace: layer.workspace.clone(),
            package: layer.package.clone(),
            known: metadata.packages.iter().map(|package| package.name.as_str()).collect::<Vec<_>>().join(", "),
        });
    };
    let is_bin = |target: &&Target| target.kind.iter().any(|kind| kind == "bin");
    let bins: Vec<&str> = root.targets.iter().filter(is_bin).map(|target| target.name.as_str()).collect();
    if !bins.contains(&layer.bin.as_str()) {
        let known = if bins.is_empty() { "none".to_owned() } else { bins.join(", ") };
        return Err(CargoError::NoBinary { package: layer.package.clone(), bin: layer.bin.clone(), known });
    }
    let by_dir: BTreeMap<&Path, &Package> =
        metadata.packages.iter().filter_map(|package| Some((package.manifest_path.parent()?, package))).collect();
    let mut needed = BTreeMap::from([(root.name.as_str(), root)]);
    let mut open = vec![root];
    while let Some(package) = open.pop() {
        let built = package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev"));
        for path in built.filter_map(|dependency| dependency.path.as_ref()) {
            let Some(dependency) = by_dir.get(path.as_path()) else {
                return Err(CargoError::Outside { package: package.name.clone(), path: path.clone() });
            };
            if needed.insert(&dependency.name, dependency).is_none() {
                open.push(dependency);
            }
        }
    }
    Ok(needed)
}

/// Everything that is staged, by path below the workspace's root.
fn files(metadata: &Metadata, needed: &BTreeMap<&str, &Package>) -> Result<BTreeMap<String, Vec<u8>>, CargoError> {
    let root = &metadata.workspace_root;
    let mut collector = Collector { root, files: BTreeMap::new(), bytes: 0 };
    let mut members = BTreeSet::new();
    for package in needed.values() {
        let dir = package.manifest_path.parent().unwrap_or(root);
        if dir != root {
            members.insert(relative(dir, root)?);
            collector.package(dir)?;
            let text = collector.text(&package.manifest_path)?;
            let reduced = manifest::reduce_member(&text, &package.manifest_path)?;
            collector.add(&package.manifest_path, reduced.into_bytes())?;
            continue;
        }
        for target in package.targets.iter().filter(|target| target.is_built()) {
            collector.sources(&target.src_path, dir)?;
        }
        for document in [&package.readme, &package.license_file].into_iter().flatten() {
            let path = dir.join(document);
            if path.is_file() {
                collector.file(&path)?;
            }
        }
    }
    let path = root.join("Cargo.toml");
    let text = collector.text(&path)?;
    let with_package = needed.values().any(|package| package.manifest_path == path);
    let members: Vec<String> = members.into_iter().collect();
    let reduced = manifest::reduce_root(&text, &path, &members, with_package)?;
    collector.add(&path, reduced.into_bytes())?;
    Ok(collector.files)
}

struct Collector<'r> {
    root: &'r Path,
    files: BTreeMap<String, Vec<u8>>,
    bytes: u64,
}

impl Collector<'_> {
    /// Takes a package's directory, without what a build does not use.
    fn package(&mut self, dir: &Path) -> Result<(), CargoError> {
        for path in list(dir)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with('.') || NOT_STAGED.contains(&name) || path.join("Cargo.toml").exists() {
                continue;
            }
            self.entry(&path)?;
        }
        Ok(())
    }

    /// Takes the directory of a target's main file whole; of the package's own directory only its `.rs` files.
    fn sources(&mut self, main: &Path, package: &Path) -> Result<(), CargoError> {
        let dir = main.parent().unwrap_or(package);
        if dir != package {
            return self.directory(dir);
        }
        for path in list(dir)? {
            if path.extension().is_some_and(|extension| extension == "rs") {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    fn directory(&mut self, dir: &Path) -> Result<(), CargoError> {
        list(dir)?.iter().try_for_each(|path| self.entry(path))
    }

    fn entry(&mut self, path: &Path) -> Result<(), CargoError> {
        let meta = fs::symlink_metadata(path).map_err(CargoError::io("looking at", path))?;
        match meta.is_dir() {
            true => self.directory(path),
            false => self.file(path),
        }
    }

    fn file(&mut self, path: &Path) -> Result<(), CargoError> {
        let real = path.canonicalize().map_err(CargoError::io("opening", path))?;
        let root = self.root.canonicalize().map_err(CargoError::io("opening", self.root))?;
        if !real.starts_with(&root) {
            return Err(CargoError::Source {
                path: path.to_owned(),
                what: "is a link that leads out of the workspace",
            });
        }
        let meta = fs::metadata(&real).map_err(CargoError::io("looking at", path))?;
        if !meta.is_file() {
            return Err(CargoError::Source { path: path.to_owned(), what: "is neither a file nor a directory" });
        }
        if self.bytes.saturating_add(meta.len()) > MAX_BYTES || self.files.len() >= MAX_FILES {
            return Err(CargoError::Source { path: path.to_owned(), what: "makes the sources too large" });
        }
        let content = fs::read(&real).map_err(CargoError::io("reading", path))?;
        self.add(path, content)
    }

    fn text(&self, path: &Path) -> Result<String, CargoError> {
        fs::read_to_string(path).map_err(CargoError::io("reading", path))
    }

    fn add(&mut self, path: &Path, content: Vec<u8>) -> Result<(), CargoError> {
        self.bytes += content.len() as u64;
        self.files.insert(relative(path, self.root)?, content);
        Ok(())
    }
}

/// `path` below `root`, as text.
fn relative(path: &Path, root: &Path) -> Result<String, CargoError> {
    let below = path.strip_prefix(root).ok().and_then(Path::to_str).map(str::to_owned);
    below.ok_or_else(|| CargoError::Source {
        path: path.to_owned(),
        what: "lies outside of the workspace, or has a name that is not UTF-8",
    })
}

/// What a directory holds, sorted.
fn list(dir: &Path) -> Result<Vec<PathBuf>, CargoError> {
    let failed = || CargoError::io("listing", dir);
    let entries = fs::read_dir(dir).map_err(failed())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().map_err(failed())?;
    paths.sort();
    Ok(paths)
}

fn write(path: &Path, content: &[u8]) -> Result<(), CargoError> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(CargoError::io("making", dir))?;
    }
    fs::write(path, content).map_err(CargoError::io("writing", path))
}
