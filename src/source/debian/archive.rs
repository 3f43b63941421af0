//! Fetching what an archive offers: `InRelease`, then the `Packages` files that it vouches for.

use super::{
    compression::{Compression, decompress},
    index::IndexFile,
    openpgp::Keyring,
    packages::is_confined,
    release::{Expectation, RELEASE_MAX, Release, ReleaseError, ReleaseFile},
};
use crate::{
    parallel::try_map,
    source::http::{Client, Download, HttpError, Progress, join, shown},
};
use gap_format::Digest;
use jiff::Timestamp;
use std::{
    fs,
    io::{self, BufReader, Read, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Largest `Packages` file taken, unpacked. Debian's `main` has 54 MB.
const INDEX_MAX: u64 = 1 << 30;

/// How long an index is kept after its last use. It is superseded as soon as the archive changes, and large.
pub const INDEX_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// An archive and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Its name, such as `debian` or `debian-security`.
    pub name: String,
    /// Addresses that serve it, in order of preference.
    pub mirrors: Vec<String>,
    /// Suites or codenames, such as `trixie` and `trixie-updates`.
    pub suites: Vec<String>,
    /// Components, such as `main`.
    pub components: Vec<String>,
    /// Whether a release past its `Valid-Until` is taken, as snapshots of the past need.
    pub accept_expired: bool,
}

/// Why an archive's indexes cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A download failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The release is not acceptable.
    #[error("{url}: {source}")]
    Release {
        /// Where it came from.
        url: String,
        /// Why.
        source: ReleaseError,
    },
    /// The release has no such component or architecture.
    #[error("{suite} has no component `{component}` for {arch}{}", known_text(.known))]
    Component {
        /// The suite.
        suite: String,
        /// The component.
        component: String,
        /// The architecture.
        arch: String,
        /// Components that it has for that architecture.
        known: Vec<String>,
    },
    /// A suite or component is not a plain name.
    #[error("`{0}` is not the name of a suite, component or architecture")]
    Name(String),
    /// An index is larger than any real one.
    #[error("{path} is {size} bytes large, which no real index is")]
    TooLarge {
        /// The index.
        path: String,
        /// What the release says of it.
        size: u64,
    },
    /// An index does not unpack to what the release says.
    #[error("{path} does not unpack to what the release promises: {reason}")]
    Unpack {
        /// The index.
        path: String,
        /// Why.
        reason: String,
    },
    /// The cache cannot be used.
    #[error("{path}: {source}")]
    Cache {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

fn known_text(known: &[String]) -> String {
    match known.is_empty() {
        true => "; it has nothing for that architecture".to_owned(),
        false => format!("; it has {}", known.join(", ")),
    }
}

/// What fetching needs besides the archives.
#[derive(Clone, Copy)]
pub struct Fetch<'a> {
    /// Does the downloads.
    pub client: &'a Client,
    /// Debian's name of the architecture, such as `amd64`.
    pub arch: &'a str,
    /// Keys that may sign releases.
    pub keyring: &'a Keyring,
    /// The verifier's time.
    pub now: Timestamp,
    /// Directory in which verified indexes are kept under their digests; it must exist.
    pub cache: &'a Path,
    /// Told of bytes.
    pub progress: Progress<'a>,
}

/// A release whose signature was checked: its `InRelease` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRelease {
    /// The suite that was asked for.
    pub suite: String,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// What it says.
    pub release: Release,
}

/// What archives offer, and who vouches for it.
#[derive(Debug)]
pub struct Offered {
    /// The release of each suite.
    pub releases: Vec<SignedRelease>,
    /// Their indexes.
    pub indexes: Vec<IndexFile>,
}

/// Fetches and verifies the indexes of all suites and components, in their order.
///
/// # Errors
/// [`ArchiveError`].
pub fn fetch(archives: &[Archive], with: Fetch<'_>) -> Result<Offered, ArchiveError> {
    let (mut wanted, mut releases) = (Vec::new(), Vec::new());
    for archive in archives {
        for suite in &archive.suites {
            let signed = fetch_release(archive, suite, with)?;
            wanted.extend(plan_suite(archive, &signed, with)?);
            releases.push(signed);
        }
    }
    let indexes = load_all(&wanted, with)?;
    Ok(Offered { releases, indexes })
}

fn load_all(wanted: &[Wanted], with: Fetch<'_>) -> Result<Vec<IndexFile>, ArchiveError> {
    // A release has a handful of indexes, of which one is large: a thread each.
    let threads = NonZeroUsize::new(wanted.len()).unwrap_or(NonZeroUsize::MIN);
    try_map(wanted, threads, |index| index.packed.size, |index| index.load(with))
}

/// An index that a verified release vouches for.
struct Wanted {
    index: IndexFile,
    /// The file as it is fetched.
    packed: Download,
    compression: Compression,
    /// What it must unpack to, if the release says.
    plain: Option<ReleaseFile>,
}

fn plan_suite(archive: &Archive, signed: &SignedRelease, with: Fetch<'_>) -> Result<Vec<Wanted>, ArchiveError> {
    let SignedRelease { suite, release, .. } = signed;
    let architectures = match release.separate_all {
        true => vec![with.arch, "all"],
        false => vec![with.arch],
    };
    let mut wanted = Vec::new();
    for component in &archive.components {
        for arch in &architectures {
            let place = Place { archive, suite, component, arch };
            match place.choose(release)? {
                Some(index) => wanted.push(index),
                None if *arch == "all" => {}
                None => {
                    return Err(ArchiveError::Component {
                        suite: suite.clone(),
                        component: component.clone(),
                        arch: with.arch.to_owned(),
                        known: components_of(release, with.arch),
                    });
                }
            }
        }
    }
    Ok(wanted)
}

/// From the first mirror that answers; a release that is not trusted is an error, not a reason to
/// ask another mirror, lest trouble go unseen.
fn fetch_release(archive: &Archive, suite: &str, with: Fetch<'_>) -> Result<SignedRelease, ArchiveError> {
    for name in archive.components.iter().map(String::as_str).chain([suite, with.arch]) {
        if !is_confined(name) {
            return Err(ArchiveError::Name(name.to_owned()));
        }
    }
    let mut last = HttpError::NoMirror(archive.name.clone());
    for mirror in &archive.mirrors {
        let url = join(mirror, &format!("dists/{suite}/InRelease"));
        let data = match with.client.get(&url, RELEASE_MAX) {
            Ok(data) => data,
            Err(error) => {
                last = error;
                continue;
            }
        };
        let expectation = Expectation { suite, now: with.now, accept_expired: archive.accept_expired };
        return Release::verify(&data, with.keyring, &expectation)
            .map(|release| SignedRelease { suite: suite.to_owned(), sha256: Digest::of(&data), release })
            .map_err(|source| ArchiveError::Release { url: shown(&url), source });
    }
    Err(last.into())
}

fn components_of(release: &Release, arch: &str) -> Vec<String> {
    let suffix = format!("/binary-{arch}/Packages.xz");
    release.files.keys().filter_map(|path| path.strip_suffix(&suffix)).map(str::to_owned).collect()
}

struct Place<'a> {
    archive: &'a Archive,
    suite: &'a str,
    component: &'a str,
    arch: &'a str,
}

impl Place<'_> {
    /// The best packed form of the index that the release lists.
    fn choose(&self, release: &Release) -> Result<Option<Wanted>, ArchiveError> {
        let plain_path = format!("{}/binary-{}/Packages", self.component, self.arch);
        let plain = release.files.get(&plain_path).copied();
        let forms = [(".xz", Compression::Xz), (".gz", Compression::Gzip), ("", Compression::None)];
        for (extension, compression) in forms {
            let path = format!("{plain_path}{extension}");
            let Some(file) = release.files.get(&path) else { continue };
            for size in [Some(file.size), plain.map(|plain| plain.size)].into_iter().flatten() {
                if size > INDEX_MAX {
                    return Err(ArchiveError::TooLarge { path, size });
                }
            }
            return Ok(Some(self.wanted(release, &path, *file, compression, plain)));
        }
        Ok(None)
    }

    fn wanted(
        &self,
        release: &Release,
        path: &str,
        file: ReleaseFile,
        compression: Compression,
        plain: Option<ReleaseFile>,
    ) -> Wanted {
        let path = match (release.by_hash, path.rsplit_once('/')) {
            (true, Some((directory, _))) => format!("{directory}/by-hash/SHA256/{}", file.sha256.to_hex()),
            _ => path.to_owned(),
        };
        Wanted {
            index: IndexFile {
                archive: self.archive.name.clone(),
                suite: self.suite.to_owned(),
                component: self.component.to_owned(),
                not_automatic: release.not_automatic,
                text: String::new(),
            },
            packed: Download {
                mirrors: self.archive.mirrors.clone(),
                path: format!("dists/{}/{path}", self.suite),
                size: file.size,
                sha256: file.sha256,
            },
            compression,
            plain,
        }
    }
}

impl Wanted {
    /// The index from the cache, else from a mirror.
    fn load(&self, with: Fetch<'_>) -> Result<IndexFile, ArchiveError> {
        let cached = || self.plain.and_then(|plain| cached(with.cache, plain));
        let data = match cached() {
            Some(data) => data,
            None => match self.download(with) {
                // Another process has unpacked and removed it meanwhile.
                Err(ArchiveError::Cache { path, source }) if source.kind() == io::ErrorKind::NotFound => {
                    cached().ok_or(ArchiveError::Cache { path, source })?
                }
                downloaded => downloaded?,
            },
        };
        let text = String::from_utf8(data).map_err(|error| self.unpack_error(&error))?;
        Ok(IndexFile { text, ..self.index.clone() })
    }

    fn download(&self, with: Fetch<'_>) -> Result<Vec<u8>, ArchiveError> {
        let path = with.client.download(&self.packed, with.cache, with.progress)?;
        let file = fs::File::open(&path).map_err(|source| cache_error(&path, source))?;
        let limit = self.plain.map_or(INDEX_MAX, |plain| plain.size);
        let data = decompress(self.compression, BufReader::with_capacity(1 << 20, file), limit)
            .map_err(|error| self.unpack_error(&error))?;
        if let Some(plain) = self.plain {
            if Digest::of(&data) != plain.sha256 {
                return Err(self.unpack_error(&"its digest is another one"));
            }
            keep(with.cache, plain.sha256, &data)?;
            if self.compression != Compression::None {
                // The unpacked form is the one that is used from now on.
                fs::remove_file(&path).map_err(|source| cache_error(&path, source))?;
            }
        }
        Ok(data)
    }

    fn unpack_error(&self, reason: &dyn std::fmt::Display) -> ArchiveError {
        ArchiveError::Unpack { path: self.packed.path.clone(), reason: reason.to_string() }
    }
}

fn cache_error(path: &Path, source: io::Error) -> ArchiveError {
    ArchiveError::Cache { path: path.display().to_string(), source }
}

fn cache_path(cache: &Path, digest: Digest) -> PathBuf {
    cache.join(digest.to_hex())
}

/// The cached file, if it is there and still what it should be.
fn cached(cache: &Path, wanted: ReleaseFile) -> Option<Vec<u8>> {
    let mut file = fs::File::open(cache_path(cache, wanted.sha256)).ok()?;
    if file.metadata().ok()?.len() != wanted.size {
        return None;
    }
    let mut data = Vec::new();
    file.read_to_end(&mut data).ok()?;
    // That it was used counts for how long it stays; not being able to note that is no error.
    let _ = file.set_modified(SystemTime::now());
    (Digest::of(&data) == wanted.sha256).then_some(data)
}

/// Keeps an index, and drops those that were not used for long.
fn keep(cache: &Path, digest: Digest, data: &[u8]) -> Result<(), ArchiveError> {
    let failed = |source| cache_error(cache, source);
    let mut file = tempfile::NamedTempFile::new_in(cache).map_err(failed)?;
    file.write_all(data).map_err(failed)?;
    file.persist(cache_path(cache, digest)).map_err(|error| failed(error.error))?;
    expire(cache).map_err(failed)
}

fn expire(cache: &Path) -> io::Result<()> {
    let Some(since) = SystemTime::now().checked_sub(INDEX_LIFE) else { return Ok(()) };
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        // Another process may have dropped it meanwhile.
        if entry.metadata().and_then(|metadata| metadata.modified()).is_ok_and(|used| used < since) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}
