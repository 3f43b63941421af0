//! From requirements to locked wheels: uv chooses, the wheels' own metadata says licence and needs.

use super::{
    LockedWheel, LockedWheels,
    archive::Archive,
    error::{WheelsError, without_credentials},
    fetch::fetch_chosen,
    graph::{self, Requires},
    metadata::Metadata,
    name::ProjectName,
    provided::{self, Found},
    pylock::{Chosen, chosen},
    remote::{Remote, metadata_in},
    sources::Sources,
    target::Target,
    uv::Uv,
};
use crate::{
    parallel::try_map,
    recipe::{Arch, Provided as Wanted, WheelsLayer},
    source::{
        debian::{LockedPackage, fetch::fetch_packages},
        http::{Client, Progress},
    },
    store::Store,
};
use pep508_rs::{MarkerEnvironment, Requirement, VerbatimUrl, pep440_rs::Version};
use rawzip::{FileReader, ReaderAt};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    num::NonZeroUsize,
    path::Path,
    str::FromStr,
};

/// How many wheels are looked into at once.
const PARALLEL: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// What wheels are resolved for, and with what.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    /// What the recipe asks for.
    pub layer: &'a WheelsLayer,
    /// The Debian packages of the layers below.
    pub below: &'a [&'a LockedPackage],
    /// The wheels of the layers below.
    pub installed: &'a [&'a LockedWheels],
    /// Mirrors of the Debian packages, as the recipe names them.
    pub mirrors: &'a [String],
    /// For which processors.
    pub arch: Arch,
    /// Versions to prefer where they will do.
    pub previous: Option<&'a LockedWheels>,
    /// Does the downloads.
    pub client: &'a Client,
    /// Takes what is fetched.
    pub store: &'a Store,
    /// Told of bytes fetched.
    pub progress: Progress<'a>,
}

/// Resolves requirements for the Python of the image.
///
/// # Errors
/// [`WheelsError`], [`WheelsError::Unsolvable`] above all.
pub fn resolve(query: &Query<'_>) -> Result<LockedWheels, WheelsError> {
    let Query { layer, below, store, .. } = query;
    let target = Target::of_image(below, layer.python.as_deref(), query.arch)?;
    let environment = graph::environment(&target).ok_or_else(|| WheelsError::Answer(target.to_string()))?;
    let scratch = tempfile::tempdir_in(store.session_dir()).map_err(WheelsError::io("making", store.session_dir()))?;
    let found = find_provided(query)?;
    let uv = Uv::find(store, false)?;
    let sources = Sources::find(&uv, layer, scratch.path())?;
    let client = sources.client(query.client)?;
    let text = compile(query, &target, &environment, &found, &sources, scratch.path())?;
    let installed = || query.installed.iter().flat_map(|rows| &rows.wheels);
    let is_provided = |chosen: &Chosen| {
        found.iter().any(|found| found.row.name == chosen.project) || installed().any(|row| row.name == chosen.project)
    };
    let mut wheels = chosen(&text, scratch.path(), &target, &environment)?;
    wheels.retain(|wheel| !is_provided(wheel));
    let wheels: Vec<Chosen> =
        wheels.into_iter().map(|wheel| Chosen { url: sources.sign_in(wheel.url), ..wheel }).collect();
    let read = look_into_all(&wheels, &client, store, query.progress)?;
    Ok(LockedWheels {
        python: target.python,
        glibc: target.glibc,
        provided: found.into_iter().map(|found| found.row).collect(),
        wheels: rows(&wheels, read, &roots(layer)?, &environment),
    })
}

/// The recipe's requirements.
fn roots(layer: &WheelsLayer) -> Result<Vec<Requirement<VerbatimUrl>>, WheelsError> {
    let parse = |line: &String| {
        Requirement::from_str(line).map_err(|error| WheelsError::Requirement {
            line: without_credentials(line).escape_debug().to_string(),
            reason: error.message.to_string(),
        })
    };
    layer.requirements.iter().map(parse).collect()
}

fn find_provided(query: &Query<'_>) -> Result<Vec<Found>, WheelsError> {
    if matches!(&query.layer.provided, Wanted::Named(names) if names.is_empty()) {
        return Ok(Vec::new());
    }
    let candidates = provided::candidates(query.below);
    fetch_packages(candidates, query.mirrors, query.client, query.store, query.progress)?;
    provided::find(&query.layer.provided, query.below, query.store)
}

/// Runs uv and gives the text of its `pylock.toml`.
fn compile(
    query: &Query<'_>,
    target: &Target,
    environment: &MarkerEnvironment,
    found: &[Found],
    sources: &Sources,
    scratch: &Path,
) -> Result<String, WheelsError> {
    let write = |name: &str, lines: &[String]| {
        let path = scratch.join(name);
        fs::write(&path, lines.concat()).map_err(WheelsError::io("writing", &path))
    };
    let with_ends = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<Vec<_>>();
    write("requirements.in", &with_ends(&query.layer.requirements))?;
    let mut constraints = query.layer.constraints.clone();
    constraints.extend(provided::constraints(found, environment));
    let installed = query.installed.iter().flat_map(|rows| &rows.wheels);
    constraints.extend(installed.map(|wheel| format!("{}=={}", wheel.name, wheel.version)));
    write("constraints.in", &with_ends(&constraints))?;
    if let Some(previous) = query.previous {
        let pins = previous.wheels.iter();
        let pins =
            pins.map(|wheel| format!("[[packages]]\nname = \"{}\"\nversion = \"{}\"\n", wheel.name, wheel.version));
        let head = "lock-version = \"1.0\"\ncreated-by = \"gapimage\"\n".to_owned();
        write("pylock.toml", &std::iter::once(head).chain(pins).collect::<Vec<_>>())?;
    }
    let stand_ins = scratch.join("provided");
    fs::create_dir(&stand_ins).map_err(WheelsError::io("making", &stand_ins))?;
    provided::write_stand_ins(found, &stand_ins)?;
    let platform = target.uv_platform()?;
    let python = target.python.to_string();
    let arguments = [
        "pip",
        "compile",
        "requirements.in",
        "--constraints",
        "constraints.in",
        "--output-file",
        "pylock.toml",
        "--format",
        "pylock.toml",
        "--python-platform",
        &platform,
        "--python-version",
        &python,
        "--only-binary",
        ":all:",
        "--no-header",
        "--quiet",
    ];
    let mut command = sources.uv.command(scratch, &arguments);
    let links = sources.find_links.iter().cloned().chain((!found.is_empty()).then(|| stand_ins.display().to_string()));
    let links = links.collect::<Vec<_>>().join(",");
    if !links.is_empty() {
        command.env("UV_FIND_LINKS", links);
    }
    let output = sources.uv.output(&mut command)?;
    if !output.status.success() {
        let said = without_credentials(String::from_utf8_lossy(&output.stderr).trim());
        return Err(WheelsError::Unsolvable { target: *target, said });
    }
    let path = scratch.join("pylock.toml");
    fs::read_to_string(&path).map_err(WheelsError::io("reading", &path))
}

/// What a wheel's archive says.
struct Read {
    metadata: Metadata,
    size: u64,
    unpacked: u64,
}

/// Looks into all wheels, several at once; results in their order.
fn look_into_all(
    wheels: &[Chosen],
    client: &Client,
    store: &Store,
    progress: Progress<'_>,
) -> Result<Vec<Read>, WheelsError> {
    try_map(wheels, PARALLEL, |_| 0, |wheel| look_into(wheel, client, store, progress))
}

/// Reads a wheel's metadata where it lies, or fetches it whole if that is the only way.
fn look_into(wheel: &Chosen, client: &Client, store: &Store, progress: Progress<'_>) -> Result<Read, WheelsError> {
    let read = match store.open_source(&wheel.sha256, None)? {
        Some(local) => read_local(local, wheel)?,
        None => match Remote::open(client, wheel.url.as_str())? {
            Some(remote) => {
                let size = remote.total();
                read_archive(remote, size, wheel)?
            }
            None => read_local(fetch_chosen(wheel, client, store, progress)?, wheel)?,
        },
    };
    check_identity(wheel, &read.metadata)?;
    Ok(read)
}

fn read_local(file: File, wheel: &Chosen) -> Result<Read, WheelsError> {
    let size = file.metadata().map_err(WheelsError::io("looking at", Path::new(wheel.file.as_str())))?.len();
    read_archive(FileReader::from(file), size, wheel)
}

fn read_archive(reader: impl ReaderAt, size: u64, wheel: &Chosen) -> Result<Read, WheelsError> {
    let file = wheel.file.as_str();
    let archive =
        Archive::open(reader, size).map_err(|source| WheelsError::Archive { file: file.to_owned(), source })?;
    Ok(Read { metadata: metadata_in(&archive, file)?, size, unpacked: archive.unpacked_size() })
}

fn check_identity(wheel: &Chosen, metadata: &Metadata) -> Result<(), WheelsError> {
    let version = Version::from_str(&metadata.version);
    if metadata.name == wheel.project && version.as_ref() == Ok(&wheel.file.version) {
        return Ok(());
    }
    Err(WheelsError::Identity {
        file: wheel.file.to_string(),
        found: format!("{} {}", metadata.name, metadata.version.escape_debug()),
        expected: format!("{} {}", wheel.project, wheel.version),
    })
}

fn rows(
    wheels: &[Chosen],
    read: Vec<Read>,
    roots: &[Requirement<VerbatimUrl>],
    environment: &MarkerEnvironment,
) -> Vec<LockedWheel> {
    let requires: Requires =
        read.iter().map(|read| (read.metadata.name.clone(), read.metadata.requires.clone())).collect();
    let edges = graph::edges(&requires, roots, environment);
    let requested: BTreeSet<ProjectName> =
        roots.iter().filter_map(|root| ProjectName::new(root.name.as_ref()).ok()).collect();
    let rows = wheels.iter().zip(read).map(|(wheel, Read { metadata, size, unpacked })| LockedWheel {
        name: wheel.project.clone(),
        version: wheel.version.clone(),
        file: wheel.file.to_string(),
        size,
        installed_size: unpacked,
        sha256: wheel.sha256,
        requested: requested.contains(&wheel.project),
        licenses: metadata.licenses,
        requires: edges.get(&wheel.project).cloned().unwrap_or_default(),
    });
    let mut rows: Vec<LockedWheel> = rows.collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}
