//! Python projects that the image has already, from Debian packages.
//!
//! The metadata in the packages themselves says which: a Debian name tells nothing (`python3-yaml` is `PyYAML`). For
//! the resolver they become wheels of exactly that version that need nothing; what they do need is not installed for
//! them, but nothing else is chosen that contradicts it.

use super::{
    error::WheelsError,
    metadata::{Metadata, plain},
    name::ProjectName,
};
use crate::{
    layer::tree::{Content, Node, Tree},
    recipe::Provided as Wanted,
    source::debian::{
        LockedPackage,
        deb::{self, Limits},
        spool::Spool,
    },
    store::Store,
};
use flate2::{Compression, write::DeflateEncoder};
use pep508_rs::MarkerEnvironment;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    thread::available_parallelism,
};

/// Where Debian's Python finds projects.
const DIRECTORY: &str = "usr/lib/python3/dist-packages/";
/// Longest metadata read, in bytes.
const MAX_LEN: u64 = super::metadata::MAX_LEN;

/// A project that the image has from a Debian package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Provided {
    /// The project.
    pub name: ProjectName,
    /// Its version, as its own metadata says.
    pub version: String,
    /// The Debian package that brings it.
    pub package: String,
}

/// A project found in a package, with what it needs.
pub(super) struct Found {
    pub row: Provided,
    metadata: Metadata,
}

impl Found {
    /// The version for the resolver: one that no index has, so that nothing from there is taken for it.
    fn pinned_version(&self) -> String {
        let version = &self.row.version;
        if version.contains('+') { version.clone() } else { format!("{version}+debian") }
    }
}

/// The wanted projects that the packages bring, which must be in the store.
pub(super) fn find(wanted: &Wanted, packages: &[&LockedPackage], store: &Store) -> Result<Vec<Found>, WheelsError> {
    let names = match wanted {
        Wanted::Named(names) if names.is_empty() => return Ok(Vec::new()),
        Wanted::Named(names) => Some(names.iter().map(|name| ProjectName::new(name)).collect::<Result<Vec<_>, _>>()?),
        Wanted::All => None,
    };
    let mut found = BTreeMap::new();
    for project in all(packages, store)? {
        found.insert(project.row.name.clone(), project);
    }
    let Some(names) = names else { return Ok(found.into_values().collect()) };
    let known = || found.keys().map(ProjectName::as_str).collect::<Vec<_>>().join(", ");
    if let Some(missing) = names.iter().find(|name| !found.contains_key(name)) {
        return Err(WheelsError::NotProvided { name: missing.to_string(), known: known() });
    }
    found.retain(|name, _| names.contains(name));
    Ok(found.into_values().collect())
}

/// The packages that may hold Python projects.
pub(super) fn candidates<'p>(packages: &[&'p LockedPackage]) -> Vec<&'p LockedPackage> {
    packages.iter().copied().filter(|package| package.name.starts_with("python3-")).collect()
}

fn all(packages: &[&LockedPackage], store: &Store) -> Result<Vec<Found>, WheelsError> {
    let candidates = candidates(packages);
    let failed = |source: io::Error| WheelsError::io("reading", store.session_dir())(source);
    let threads = available_parallelism().map_err(failed)?;
    let mut found = Vec::new();
    // A spool for a few packages at a time keeps the space that is needed small.
    for some in candidates.chunks(4 * threads.get()) {
        let spool = Spool::new_in(store.session_dir()).map_err(failed)?;
        let paths: Vec<PathBuf> = some.iter().map(|package| store.source_path(&package.sha256)).collect();
        let sources: Vec<deb::Source<'_>> =
            some.iter().zip(&paths).map(|(package, path)| deb::Source { package, path }).collect();
        for (package, deb) in some.iter().zip(deb::unpack_all(&sources, &spool, &Limits::default(), threads)?) {
            for metadata in in_tree(&deb.tree) {
                let row = Provided {
                    name: metadata.name.clone(),
                    version: metadata.version.clone(),
                    package: package.name.clone(),
                };
                found.push(Found { row, metadata });
            }
        }
    }
    Ok(found)
}

/// The metadata of the projects in a package's tree; what is not understood brings none.
fn in_tree(tree: &Tree) -> Vec<Metadata> {
    let metadata = |(path, node): (&crate::layer::tree::TreePath, &Node)| {
        let path = std::str::from_utf8(path.as_bytes()).ok()?;
        let below = path.strip_prefix(DIRECTORY)?;
        let (top, rest) = below.split_once('/').unwrap_or((below, ""));
        let is_metadata = match rest {
            "METADATA" => top.ends_with(".dist-info"),
            "PKG-INFO" | "" => top.ends_with(".egg-info"),
            _ => false,
        };
        match node {
            Node::File { content, .. } if is_metadata && content.len() <= MAX_LEN => {
                Metadata::parse(&Content::read(content).ok()?).ok()
            }
            _ => None,
        }
    };
    tree.iter().filter_map(metadata).collect()
}

/// Writes wheels that stand for the projects into `directory`.
pub(super) fn write_stand_ins(found: &[Found], directory: &Path) -> Result<(), WheelsError> {
    for project in found {
        write_stand_in(directory, &project.row.name, &project.pinned_version(), &[])?;
    }
    Ok(())
}

/// Writes a wheel that stands for a version of a project into `directory`; it needs what the project does.
pub(super) fn write_stand_in(
    directory: &Path,
    project: &ProjectName,
    version: &str,
    requires: &[String],
) -> Result<(), WheelsError> {
    let name = project.as_str().replace('-', "_");
    let file = directory.join(format!("{name}-{version}-py3-none-any.whl"));
    stand_in(&file, &name, version, requires).map_err(WheelsError::io("writing", &file))
}

fn stand_in(file: &Path, name: &str, version: &str, requires: &[String]) -> io::Result<()> {
    let requires: String = requires.iter().map(|needed| format!("Requires-Dist: {needed}\n")).collect();
    let info = format!("{name}-{version}.dist-info");
    let members = [
        (format!("{info}/METADATA"), format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")),
        (format!("{info}/WHEEL"), "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_owned()),
        (format!("{info}/RECORD"), format!("{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")),
    ];
    let mut zip = rawzip::ZipArchiveWriter::new(File::create(file)?);
    for (path, text) in members {
        // uv reads zip files as a stream, where only deflated members show their end.
        let start = zip.new_file(&path).compression_method(rawzip::CompressionMethod::DEFLATE).start();
        let (mut entry, config) = start.map_err(io::Error::other)?;
        let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::fast()));
        writer.write_all(text.as_bytes())?;
        let (encoder, descriptor) = writer.finish().map_err(io::Error::other)?;
        encoder.finish()?;
        entry.finish(descriptor).map_err(io::Error::other)?;
    }
    zip.finish().map_err(io::Error::other)?.sync_all()
}

/// Constraints under which the resolver takes the stand-ins and nothing that contradicts what they need.
pub(super) fn constraints(found: &[Found], environment: &MarkerEnvironment) -> Vec<String> {
    let pins = found.iter().map(|project| format!("{}=={}", project.row.name, project.pinned_version()));
    let needs = found.iter().flat_map(|project| &project.metadata.requires);
    let needs = needs.filter(|needed| needed.extras.is_empty() && needed.evaluate_markers(environment, &[]));
    // One provided project may need another in a version that Debian knows better about.
    let needs = needs.filter(|needed| !found.iter().any(|project| project.row.name.as_str() == needed.name.as_ref()));
    let mut lines: Vec<String> = pins.chain(needs.map(plain)).collect();
    lines.sort();
    lines.dedup();
    lines
}
