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
    taken::{Taken, take},
    target::Target,
    uv::Uv,
};
use crate::{
    parallel::try_map,
    recipe::{Arch, Provided as Wanted, WheelsLayer, requirement::requirement},
    source::{
        debian::{LockedPackage, fetch::fetch_packages},
        http::{Client, Progress},
    },
    store::Store,
};
use pep508_rs::{MarkerEnvironment, Requirement, VerbatimUrl, pep440_rs::Version};
use rawzip::{FileReader, ReaderAt};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    num::NonZeroUsize,
    path::{Path, PathBuf},
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
    /// The Debian packages of the tree in which sources are built.
    pub builders: &'a [&'a LockedPackage],
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
    let environment = environment_of(&target)?;
    let scratch = tempfile::tempdir_in(store.session_dir()).map_err(WheelsError::io("making", store.session_dir()))?;
    let found = find_provided(query)?;
    let uv = Uv::find(store, false)?;
    let sources = Sources::find(&uv, layer, scratch.path())?;
    let client = sources.client(query.client)?;
    let taken = take(query, &target, &environment, &sources, &client)?;
    let text = question(query, &target, &environment, &found, &taken, scratch.path())?.put(&sources)?;
    let mut wheels = chosen(&text, scratch.path(), &target, &environment)?;
    if let Some(unneeded) = taken.iter().find(|taken| !wheels.iter().any(|wheel| wheel.project == *taken.project())) {
        return Err(WheelsError::UnneededSdist(unneeded.project().to_string()));
    }
    let installed = || query.installed.iter().flat_map(|rows| rows.projects());
    wheels.retain(|wheel| {
        let project = &wheel.project;
        !found.iter().any(|found| found.row.name == *project)
            && !taken.iter().any(|taken| taken.project() == project)
            && !installed().any(|installed| installed == project)
    });
    let roots = parsed_all(&layer.requirements)?;
    let looker = Looker { query, sources: &sources, client: &client };
    let read = looker.look_into(wheels)?;
    let mut requires: Requires = read.iter().map(|(_, read)| requires_of(&read.metadata)).collect();
    requires.extend(taken.iter().map(|taken| requires_of(taken.metadata())));
    let edges = graph::edges(&requires, &roots, &environment);
    let sdists = taken.into_iter().map(|taken| {
        let needs = edges.get(taken.project()).cloned().unwrap_or_default();
        let requested = roots.iter().any(|root| root.name.as_ref() == taken.project().as_str());
        let (builder, build) = looker.builder(&target, &taken, scratch.path())?;
        Ok(taken.row(requested, needs, &builder, build))
    });
    let mut sdists = sdists.collect::<Result<Vec<_>, WheelsError>>()?;
    sdists.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(LockedWheels {
        python: target.python,
        glibc: target.glibc,
        provided: found.into_iter().map(|found| found.row).collect(),
        wheels: rows(read, &roots, &edges),
        sdists,
    })
}

fn environment_of(target: &Target) -> Result<MarkerEnvironment, WheelsError> {
    graph::environment(target).ok_or_else(|| WheelsError::Answer(target.to_string()))
}

/// A requirement of the recipe.
pub(super) fn parsed(line: &str) -> Result<Requirement<VerbatimUrl>, WheelsError> {
    requirement(line).map_err(|source| WheelsError::Requirement {
        line: without_credentials(line).escape_debug().to_string(),
        source,
    })
}

fn parsed_all(lines: &[String]) -> Result<Vec<Requirement<VerbatimUrl>>, WheelsError> {
    lines.iter().map(|line| parsed(line)).collect()
}

fn find_provided(query: &Query<'_>) -> Result<Vec<Found>, WheelsError> {
    if matches!(&query.layer.provided, Wanted::Named(names) if names.is_empty()) {
        return Ok(Vec::new());
    }
    let candidates = provided::candidates(query.below);
    fetch_packages(candidates, query.mirrors, query.client, query.store, query.progress)?;
    provided::find(&query.layer.provided, query.below, query.store)
}

/// What uv is asked for a layer.
fn question<'q>(
    query: &Query<'q>,
    target: &'q Target,
    environment: &MarkerEnvironment,
    found: &[Found],
    taken: &[Taken],
    directory: &'q Path,
) -> Result<Question<'q>, WheelsError> {
    let mut constraints = query.layer.constraints.clone();
    constraints.extend(provided::constraints(found, environment));
    let installed = query.installed.iter().flat_map(|rows| &rows.wheels);
    constraints.extend(installed.map(|wheel| format!("{}=={}", wheel.name, wheel.version)));
    let built = query.installed.iter().flat_map(|rows| &rows.sdists);
    constraints.extend(built.clone().map(|sdist| format!("{}=={}", sdist.name, sdist.version)));
    constraints.extend(taken.iter().map(Taken::constraint));
    let stand_ins = directory.join("stand-ins");
    fs::create_dir(&stand_ins).map_err(WheelsError::io("making", &stand_ins))?;
    provided::write_stand_ins(found, &stand_ins)?;
    taken.iter().try_for_each(|taken| taken.write_stand_in(&stand_ins))?;
    for sdist in built {
        provided::write_stand_in(&stand_ins, &sdist.name, &sdist.version, &sdist.requires)?;
    }
    let preferred = query.previous.map(|rows| rows.wheels.as_slice()).unwrap_or_default();
    Ok(Question { directory, requirements: &query.layer.requirements, constraints, preferred, stand_ins, target })
}

/// What uv is asked.
struct Question<'q> {
    /// Where its files lie.
    directory: &'q Path,
    requirements: &'q [String],
    constraints: Vec<String>,
    /// Wheels whose versions are preferred where they will do.
    preferred: &'q [LockedWheel],
    /// Wheels that stand for what is not to be had from an index.
    stand_ins: PathBuf,
    target: &'q Target,
}

impl Question<'_> {
    /// Runs uv and gives the text of its `pylock.toml`.
    fn put(&self, sources: &Sources) -> Result<String, WheelsError> {
        self.write("requirements.in", self.requirements)?;
        self.write("constraints.in", &self.constraints)?;
        if !self.preferred.is_empty() {
            let pin = |wheel: &LockedWheel| {
                format!("[[packages]]\nname = \"{}\"\nversion = \"{}\"", wheel.name, wheel.version)
            };
            let head = "lock-version = \"1.0\"\ncreated-by = \"gapimage\"".to_owned();
            let lines: Vec<String> = std::iter::once(head).chain(self.preferred.iter().map(pin)).collect();
            self.write("pylock.toml", &lines)?;
        }
        let platform = self.target.uv_platform()?;
        let python = self.target.python.to_string();
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
        let mut command = sources.uv.command(self.directory, &arguments);
        let has_stand_ins = self.stand_ins.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        let links = sources.find_links.iter().cloned();
        let links: Vec<String> = links.chain(has_stand_ins.then(|| self.stand_ins.display().to_string())).collect();
        if !links.is_empty() {
            command.env("UV_FIND_LINKS", links.join(","));
        }
        let output = sources.uv.output(&mut command)?;
        if !output.status.success() {
            let said = without_credentials(String::from_utf8_lossy(&output.stderr).trim());
            return Err(WheelsError::Unsolvable { target: *self.target, said });
        }
        let path = self.directory.join("pylock.toml");
        fs::read_to_string(&path).map_err(WheelsError::io("reading", &path))
    }

    fn write(&self, name: &str, lines: &[String]) -> Result<(), WheelsError> {
        let path = self.directory.join(name);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&path, text).map_err(WheelsError::io("writing", &path))
    }
}

/// Looks into wheels where they lie.
struct Looker<'a> {
    query: &'a Query<'a>,
    sources: &'a Sources,
    client: &'a Client,
}

impl Looker<'_> {
    /// What the archives of chosen wheels say, several at once; results in their order.
    fn look_into(&self, wheels: Vec<Chosen>) -> Result<Vec<(Chosen, Read)>, WheelsError> {
        let sign_in = |wheel: Chosen| Chosen { url: self.sources.sign_in(wheel.url), ..wheel };
        let wheels: Vec<Chosen> = wheels.into_iter().map(sign_in).collect();
        let Query { store, progress, .. } = self.query;
        let read = try_map(&wheels, PARALLEL, |_| 0, |wheel| look_into(wheel, self.client, store, progress))?;
        Ok(wheels.into_iter().zip(read).collect())
    }

    /// What builds a source distribution, and the wheels that it is built with.
    fn builder(
        &self,
        target: &Target,
        taken: &Taken,
        scratch: &Path,
    ) -> Result<(Target, Vec<LockedWheel>), WheelsError> {
        let query = self.query;
        let built = Target::of_image(query.builders, query.layer.python.as_deref(), query.arch)?;
        if built.python.minor != target.python.minor || built.glibc > target.glibc {
            return Err(WheelsError::OtherBuilder { built, target: *target });
        }
        let environment = environment_of(&built)?;
        let requirements: Vec<String> = taken.build().iter().chain(&query.layer.sdists.requires).cloned().collect();
        let roots = parsed_all(&requirements)?;
        if !roots.iter().any(|root| root.evaluate_markers(&environment, &[])) {
            return Ok((built, Vec::new()));
        }
        let directory = scratch.join(format!("build-{}", taken.project()));
        fs::create_dir(&directory).map_err(WheelsError::io("making", &directory))?;
        let before = query.previous.and_then(|rows| rows.sdists.iter().find(|row| row.name == *taken.project()));
        let question = Question {
            directory: &directory,
            requirements: &requirements,
            constraints: Vec::new(),
            preferred: before.map(|row| row.build.as_slice()).unwrap_or_default(),
            stand_ins: directory.join("stand-ins"),
            target: &built,
        };
        let text = question.put(self.sources)?;
        let read = self.look_into(chosen(&text, &directory, &built, &environment)?)?;
        let requires: Requires = read.iter().map(|(_, read)| requires_of(&read.metadata)).collect();
        let edges = graph::edges(&requires, &roots, &environment);
        Ok((built, rows(read, &roots, &edges)))
    }
}

fn requires_of(metadata: &Metadata) -> (ProjectName, Vec<Requirement<VerbatimUrl>>) {
    (metadata.name.clone(), metadata.requires.clone())
}

/// What a wheel's archive says.
struct Read {
    metadata: Metadata,
    size: u64,
    unpacked: u64,
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
    read: Vec<(Chosen, Read)>,
    roots: &[Requirement<VerbatimUrl>],
    edges: &BTreeMap<ProjectName, Vec<String>>,
) -> Vec<LockedWheel> {
    let requested: BTreeSet<ProjectName> =
        roots.iter().filter_map(|root| ProjectName::new(root.name.as_ref()).ok()).collect();
    let rows = read.into_iter().map(|(wheel, Read { metadata, size, unpacked })| LockedWheel {
        version: wheel.version,
        file: wheel.file.to_string(),
        size,
        installed_size: unpacked,
        sha256: wheel.sha256,
        requested: requested.contains(&wheel.project),
        licenses: metadata.licenses,
        requires: edges.get(&wheel.project).cloned().unwrap_or_default(),
        name: wheel.project,
    });
    let mut rows: Vec<LockedWheel> = rows.collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}
