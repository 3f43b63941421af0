//! Wheels built from source distributions: in the sandbox, with locked build requirements, twice, so that it is known that
//! they come out the same.

use super::{FILE_DATE, InstallError, Scheme, environment, install};
use crate::{
    layer::{
        sandbox::{Job, Sandbox, SandboxError, Scratch, Step, Writes},
        tree::{Content, Meta, Node, PathError, Tree, TreePath},
    },
    source::wheels::{
        LockedSdist, LockedWheel,
        archive::{Archive, ArchiveError},
        metadata::{MAX_LEN, Metadata, MetadataError},
        name::{NameError, WheelName},
        needed,
        target::Target,
    },
    store::{Store, StoreError},
};
use gap_format::Digest;
use pep508_rs::pep440_rs::Version;
use rawzip::{CompressionMethod, ZipArchiveWriter};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

/// Raised when a source distribution is built in another way.
pub const BUILT: u64 = 1;
/// What builds.
const DRIVER: &str = include_str!("build.py");
/// The directories of a build; the same for all, so that what names them comes out the same.
const HOME: &str = "build/home";
const ENVIRONMENT: &str = "build/environment";
const OUTPUT: &str = "build/output";
const WORK: &str = "build/work";
/// Where the driver and the archive lie.
const DRIVER_AT: &str = "build/build.py";
const ARCHIVE_AT: &str = "build/source.tar.gz";
/// Where programs are looked for behind those of the environment.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a build may take.
const TIME_LIMIT: Duration = Duration::from_secs(2 * 3600);
/// Bytes that a build may leave beside the tree that it runs in.
const WRITTEN: u64 = 4 << 30;
/// Longest wheel that is taken, in bytes.
const WHEEL_MAX: u64 = 4 << 30;

/// Where a source distribution is built.
pub struct Builder<'a> {
    /// The tree with the interpreter and whatever compilers are needed.
    pub root: &'a Tree,
    /// What it is, with the Python that the lock names.
    pub target: Target,
    /// Runs the build.
    pub sandbox: &'a Sandbox,
    /// Where its files are kept while it runs, for so many bytes.
    pub scratch: &'a dyn Fn(u64) -> Scratch,
    /// Has the source distribution and what it is built with, and takes the wheel.
    pub store: &'a Store,
}

/// Why no wheel comes of a source distribution.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The build failed.
    #[error("building `{file}`: {source}")]
    Failed {
        /// The source distribution.
        file: String,
        /// How; what its backend said.
        source: SandboxError,
    },
    /// There is not one wheel.
    #[error("building `{file}` left {count} wheels; the backend should leave one in the directory that it is given")]
    Wheels {
        /// The source distribution.
        file: String,
        /// How many there are.
        count: usize,
    },
    /// It does not come out the same.
    #[error(
        "building `{file}` does not give the same bytes each time: `{path}` in its wheel differs between two builds; ask its \
         authors to leave out what depends on the time, on random numbers or on the order of files and threads"
    )]
    Differs {
        /// The source distribution.
        file: String,
        /// The first file that differs.
        path: String,
    },
    /// The wheel is no wheel.
    #[error("the wheel that was built of `{file}`: {source}")]
    Archive {
        /// The source distribution.
        file: String,
        /// What is wrong with it.
        source: ArchiveError,
    },
    /// Its metadata cannot be read.
    #[error("the wheel that was built of `{file}`: {source}")]
    Metadata {
        /// The source distribution.
        file: String,
        /// What is wrong with it.
        source: MetadataError,
    },
    /// Its name is none.
    #[error("the wheel that was built of `{file}`: {source}")]
    Name {
        /// The source distribution.
        file: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// The wheel is of something else.
    #[error("the wheel that was built of `{file}` is `{wheel}`, which is not for {target}")]
    Other {
        /// The source distribution.
        file: String,
        /// The wheel.
        wheel: String,
        /// What it should be for.
        target: Target,
    },
    /// The wheel needs more than its source said.
    #[error(
        "the wheel that was built of `{file}` needs {needs}, which its source did not say, so that the lock does not have \
         it; name it in `requirements`, and lock again"
    )]
    Needs {
        /// The source distribution.
        file: String,
        /// What it needs.
        needs: String,
    },
    /// Its build requirements cannot be installed.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// A name that cannot be a path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reading or writing failed.
    #[error("building `{file}`: {source}")]
    Io {
        /// The source distribution.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A wheel as a build left it.
struct Made {
    name: WheelName,
    bytes: Vec<u8>,
}

/// Builds the wheel of a source distribution, which must be in the store, for an image that is `target`. The wheel comes into
/// the store; its row is what a lock would say of it.
///
/// # Errors
/// [`BuildError`].
pub fn build(source: &LockedSdist, target: &Target, builder: &Builder<'_>) -> Result<LockedWheel, BuildError> {
    let root = root(source, builder)?;
    let made = run(source, &root, builder)?;
    let again = run(source, &root, builder)?;
    let failed = |error| BuildError::Archive { file: source.file.clone(), source: error };
    if let Some(path) = difference(&made, &again).map_err(failed)? {
        return Err(BuildError::Differs { file: source.file.clone(), path: path.escape_debug().to_string() });
    }
    let archive = Archive::open(made.bytes.as_slice(), made.bytes.len() as u64).map_err(failed)?;
    let row = row(source, target, &made, &archive)?;
    let bytes = repacked(&archive).map_err(|error| BuildError::Io { file: source.file.clone(), source: error })?;
    let stored = builder.store.insert_source(None, WHEEL_MAX, bytes.as_slice())?;
    Ok(LockedWheel { size: stored.size, sha256: stored.digest, ..row })
}

/// The tree in which the build runs: with an environment of what it is built with, and the source.
fn root(source: &LockedSdist, builder: &Builder<'_>) -> Result<Tree, BuildError> {
    let mut root = builder.root.clone();
    let scheme = Scheme::new(builder.target.python, Some(&TreePath::new(ENVIRONMENT)?))?;
    let wheels: Vec<&LockedWheel> = source.build.iter().collect();
    let parts =
        [environment(&builder.target, &scheme)?, install(&wheels, &builder.target, &scheme, builder.store, None)?];
    for directory in ["build", HOME, OUTPUT] {
        root.insert(
            TreePath::new(directory)?,
            Node::Directory { meta: Meta::root_owned(0o755, FILE_DATE), opaque: false },
        );
    }
    for (path, node) in parts.into_iter().flatten() {
        root.insert(path, node);
    }
    let archive = Content::Path { path: Arc::from(builder.store.source_path(&source.sha256)), len: source.size };
    for (path, content) in [(DRIVER_AT, Content::bytes(DRIVER.as_bytes())), (ARCHIVE_AT, archive)] {
        root.insert(TreePath::new(path)?, Node::File { meta: Meta::root_owned(0o644, FILE_DATE), content });
    }
    Ok(root)
}

fn run(source: &LockedSdist, root: &Tree, builder: &Builder<'_>) -> Result<Made, BuildError> {
    let file = || source.file.clone();
    let interpreter = format!("/{ENVIRONMENT}/bin/python{}", builder.target.python.series());
    let (driver, archive, work, output) =
        (format!("/{DRIVER_AT}"), format!("/{ARCHIVE_AT}"), format!("/{WORK}"), format!("/{OUTPUT}"));
    let step = |arguments: [&str; 5]| {
        Step::new(arguments)
            .with("HOME", &format!("/{HOME}"))
            .with("PATH", &format!("/{ENVIRONMENT}/bin:{SEARCH_PATH}"))
            .with("PYTHONDONTWRITEBYTECODE", "1")
            .with("PYTHONHASHSEED", "0")
            .with("PYTHONNOUSERSITE", "1")
            .with("PIP_NO_INDEX", "1")
    };
    let job = Job {
        root,
        scratch: (builder.scratch)(builder.root.file_bytes() + WRITTEN),
        binds: Vec::new(),
        steps: vec![
            step([&interpreter, &driver, "prepare", &archive, &work]),
            step([&interpreter, &driver, "wheel", &work, &output]),
        ],
        source_date: FILE_DATE,
        time_limit: TIME_LIMIT,
        writes: Writes::Into(TreePath::new(OUTPUT)?),
    };
    let outcome = builder.sandbox.run(&job).map_err(|source| BuildError::Failed { file: file(), source })?;
    let output = TreePath::new(OUTPUT)?;
    let wheels = outcome.changes.below(&output).filter_map(|(path, node)| match node {
        Node::File { content, .. } if path.as_bytes().ends_with(b".whl") => Some((path, content)),
        _ => None,
    });
    let wheels: Vec<(&TreePath, &Content)> = wheels.collect();
    let [(path, content)] = wheels.as_slice() else {
        return Err(BuildError::Wheels { file: file(), count: wheels.len() });
    };
    let failed = |source| BuildError::Io { file: file(), source };
    if content.len() > WHEEL_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    let name = String::from_utf8_lossy(path.name()).into_owned();
    let name = name.parse().map_err(|source| BuildError::Name { file: file(), source })?;
    Ok(Made { name, bytes: content.read().map_err(failed)? })
}

/// The first file that two wheels do not have alike. When their lists of files (`RECORD`) differ, something else does too.
fn difference(one: &Made, other: &Made) -> Result<Option<String>, ArchiveError> {
    if one.name != other.name {
        return Ok(Some(other.name.to_string()));
    }
    let (one, other) = (contents(&one.bytes)?, contents(&other.bytes)?);
    let paths: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let mut differing: Vec<&String> = paths.into_iter().filter(|path| one.get(*path) != other.get(*path)).collect();
    differing.sort_by_key(|path| path.ends_with(".dist-info/RECORD"));
    Ok(differing.first().map(|path| (*path).clone()))
}

/// Each file of a wheel: whether it may be executed, and its digest.
fn contents(wheel: &[u8]) -> Result<BTreeMap<String, (bool, Digest)>, ArchiveError> {
    let archive = Archive::open(wheel, wheel.len() as u64)?;
    let member = |member: &crate::source::wheels::archive::Member| {
        Ok((member.path.clone(), (member.executable, Digest::of(&archive.read(&member.path, WHEEL_MAX)?))))
    };
    archive.members().iter().map(member).collect()
}

/// What a lock would say of the wheel, as far as it is known before it is packed.
fn row(
    source: &LockedSdist,
    target: &Target,
    made: &Made,
    archive: &Archive<&[u8]>,
) -> Result<LockedWheel, BuildError> {
    let file = || source.file.clone();
    let failed = |source| BuildError::Archive { file: file(), source };
    let same_version = Version::from_str(&source.version).as_ref() == Ok(&made.name.version);
    if made.name.project != source.name || !same_version || !target.accepts(&made.name) {
        return Err(BuildError::Other { file: file(), wheel: made.name.to_string(), target: *target });
    }
    let path = format!("{}/METADATA", archive.dist_info().map_err(failed)?);
    let metadata = archive.read(&path, MAX_LEN).map_err(failed)?;
    let metadata = Metadata::parse(&metadata).map_err(|source| BuildError::Metadata { file: file(), source })?;
    let needs = needed(&metadata, target);
    let unknown: Vec<&str> = needs.iter().filter(|need| !source.requires.contains(need)).map(String::as_str).collect();
    if !unknown.is_empty() {
        return Err(BuildError::Needs { file: file(), needs: unknown.join(", ") });
    }
    Ok(LockedWheel {
        name: source.name.clone(),
        version: metadata.version,
        file: made.name.to_string(),
        size: 0,
        installed_size: archive.unpacked_size(),
        sha256: Digest::of(b""),
        requested: source.requested,
        licenses: metadata.licenses,
        requires: needs.into_iter().collect(),
    })
}

/// The same files as a wheel that says nothing of when and how it was packed.
fn repacked(archive: &Archive<&[u8]>) -> io::Result<Vec<u8>> {
    let mut paths: Vec<(&str, bool)> =
        archive.members().iter().map(|member| (member.path.as_str(), member.executable)).collect();
    paths.sort_unstable();
    let mut zip = ZipArchiveWriter::new(Vec::new());
    for (path, executable) in paths {
        let mode = if executable { 0o100_755 } else { 0o100_644 };
        let member = archive.member(path).ok_or(io::ErrorKind::NotFound)?;
        let file = zip.new_file(path).compression_method(CompressionMethod::STORE).unix_permissions(mode);
        let (mut entry, config) = file.start().map_err(io::Error::other)?;
        let mut writer = config.wrap(&mut entry);
        let mut reader = archive.reader(member).map_err(io::Error::other)?;
        let mut chunk = vec![0; 1 << 16];
        loop {
            let count = reader.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            writer.write_all(chunk.get(..count).unwrap_or_default())?;
        }
        let (_, descriptor) = writer.finish().map_err(io::Error::other)?;
        entry.finish(descriptor).map_err(io::Error::other)?;
    }
    zip.finish().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wheel with these files, whose names say nothing else than `made` does.
    fn made(files: &[(&str, &str)], method: CompressionMethod) -> Made {
        let mut zip = ZipArchiveWriter::new(Vec::new());
        for (path, text) in files {
            let file = zip.new_file(*path).compression_method(method).unix_permissions(0o100_644);
            let (mut entry, config) = file.start().unwrap();
            let mut writer = config.wrap(&mut entry);
            writer.write_all(text.as_bytes()).unwrap();
            let (_, descriptor) = writer.finish().unwrap();
            entry.finish(descriptor).unwrap();
        }
        Made { name: "a-1.0-py3-none-any.whl".parse().unwrap(), bytes: zip.finish().unwrap() }
    }

    #[test]
    fn the_file_that_differs_is_named_and_not_the_list_of_files() {
        let store = CompressionMethod::STORE;
        let one = made(&[("a-1.0.dist-info/RECORD", "1"), ("a/b.py", "1"), ("a/c.py", "1")], store);
        let other = made(&[("a-1.0.dist-info/RECORD", "2"), ("a/b.py", "1"), ("a/c.py", "2")], store);
        assert_eq!(difference(&one, &other).unwrap().as_deref(), Some("a/c.py"));
        assert_eq!(difference(&one, &one).unwrap(), None);
        let more = made(&[("a-1.0.dist-info/RECORD", "1"), ("a/b.py", "1")], store);
        assert_eq!(difference(&one, &more).unwrap().as_deref(), Some("a/c.py"));
    }

    #[test]
    fn the_order_of_files_is_no_difference_and_is_gone_when_it_is_packed_again() {
        let store = CompressionMethod::STORE;
        let one = made(&[("a/b.py", "1"), ("a/c.py", "2")], store);
        let other = made(&[("a/c.py", "2"), ("a/b.py", "1")], store);
        assert_eq!(difference(&one, &other).unwrap(), None);
        let packed =
            |made: &Made| repacked(&Archive::open(made.bytes.as_slice(), made.bytes.len() as u64).unwrap()).unwrap();
        assert_ne!(one.bytes, other.bytes);
        assert_eq!(packed(&one), packed(&other));
        let again = packed(&one);
        assert_eq!(contents(&again).unwrap(), contents(&one.bytes).unwrap());
        Archive::open(again.as_slice(), again.len() as u64).unwrap().check_layout().unwrap();
    }
}
