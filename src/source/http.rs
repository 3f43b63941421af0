//! Downloads: bounded, resumed, checked before they get their name.

mod access;
mod address;
mod forward;
mod part;
mod piece;
mod proxy;
mod request;
mod trusted;

pub use access::Access;
pub use piece::{Piece, Span};
pub use proxy::Proxies;

use crate::parallel::try_map;
use gap_format::Digest;
use part::Part;
use request::{Connections, Terms, Ways};
use std::{
    io::{self, Read},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use trusted::roots;

/// Bytes moved at a time.
const CHUNK: usize = 128 << 10;
/// Slowest pace accepted, in bytes a second over one stall period.
const PACE_MIN: u64 = 1 << 10;

/// Time limits and persistence.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a connection may take to stand.
    pub connect: Duration,
    /// How long a mirror may send (next to) nothing.
    pub stall: Duration,
    /// How often an attempt may fail in a row without a byte gained.
    pub attempts: u32,
    /// Pause after the first failure; doubled after each further one.
    pub pause: Duration,
    /// How many downloads run at once.
    pub parallel: NonZeroUsize,
}

impl Default for Settings {
    /// 20 s to connect, 30 s of silence, 4 attempts with pauses from 0.5 s, 8 downloads at once.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            stall: Duration::from_secs(30),
            attempts: 4,
            pause: Duration::from_millis(500),
            parallel: NonZeroUsize::new(8).unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// Why a download failed. URLs are shown without credentials and queries.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be used.
    #[error("cannot download from `{url}`: only http://, https:// and file:// addresses are known")]
    Address {
        /// The address.
        url: String,
    },
    /// No connection came about.
    #[error("cannot reach {url}: {reason}; check the network and the proxy settings, or choose another mirror")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The server is not the one that was asked for, or its certificate is of nobody that this system trusts.
    #[error(
        "{url}: {reason}; if the server is right, add its authority to those that this system trusts, or name a file with \
         it in SSL_CERT_FILE"
    )]
    Certificate {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server sent the client somewhere it does not go.
    #[error("{url}: the server redirects {reason}; choose another mirror")]
    Redirection {
        /// What was asked for.
        url: String,
        /// Where to.
        reason: &'static str,
    },
    /// The proxy cannot be used.
    #[error("`{proxy}` is no proxy that can be used: only http:// and https:// proxies are known")]
    Proxy {
        /// Its address.
        proxy: String,
    },
    /// The server answered with an error.
    #[error("{url}: the server answers {status}{}{}", quoted(message), status_advice(*status))]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status code.
        status: u16,
        /// The server's own name of the mistake (`X-Error-Code`), or nothing.
        code: String,
        /// What the server said about it (`X-Error-Message`), or nothing.
        message: String,
    },
    /// A page for people came instead of a file.
    #[error(
        "{url}: a web page came instead of the file; a proxy or a login page may stand between: check the address and \
         the network"
    )]
    WebPage {
        /// What was asked for.
        url: String,
    },
    /// The server went silent.
    #[error("{url}: the server sent (next to) nothing for {limit:?}; try again, or choose another mirror")]
    Stalled {
        /// What was asked for.
        url: String,
        /// The time limit.
        limit: Duration,
    },
    /// The connection ended before the file did.
    #[error("{url}: the connection ended after {got} of {expected} bytes; try again, or choose another mirror")]
    Truncated {
        /// What was asked for.
        url: String,
        /// Bytes received.
        got: u64,
        /// Bytes expected.
        expected: u64,
    },
    /// More came than should.
    #[error(
        "{url}: it is larger than the {limit} bytes that it should have; the mirror is out of step or lies, choose another one"
    )]
    TooLarge {
        /// What was asked for.
        url: String,
        /// Bytes expected at most.
        limit: u64,
    },
    /// The bytes are not those that were promised.
    #[error(
        "{url}: it has digest {found}, but {expected} was promised; the mirror is out of step or lies, choose another one"
    )]
    Digest {
        /// What was asked for.
        url: String,
        /// What was promised.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A local file could not be read or written.
    #[error("{path}: {source}{}", space_advice(source))]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The user's certificates or proxy cannot be used.
    #[error("{what} cannot be used: {reason}")]
    Route {
        /// Which.
        what: String,
        /// Why not.
        reason: String,
    },
    /// There is no mirror to ask.
    #[error("no mirror is known for `{0}`")]
    NoMirror(String),
}

fn quoted(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

fn status_advice(status: u16) -> &'static str {
    match status {
        401 | 403 | 407 => " (not allowed); check credentials and proxy settings",
        404 | 410 => " (it is not there); the lock may be older than the mirror, lock again or choose another mirror",
        429 => " (too many requests); try again later",
        500.. => " (its own fault); try again later, or choose another mirror",
        _ => "",
    }
}

fn space_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some, run `gapimage store gc`, or name another directory with --store"
        }
        _ => "",
    }
}

impl HttpError {
    /// Whether the same request may succeed a little later.
    const fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Stalled { .. } | Self::Truncated { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            _ => false,
        }
    }
}

/// A file to be fetched, known by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Addresses below which `path` is found, in order of preference.
    pub mirrors: Vec<String>,
    /// Path below the mirror.
    pub path: String,
    /// Exact size in bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Digest,
}

/// Told how many more bytes are there, be they new or left by an earlier attempt; called from several
/// threads.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// Downloads over HTTP and from `file://`.
#[derive(Debug, Clone)]
pub struct Client {
    connections: Arc<Connections>,
    settings: Settings,
    access: Option<Arc<Access>>,
}

impl Client {
    /// A client with connections of its own, trusting the certificates that the system trusts, through the proxies that
    /// the environment or this host's apt names.
    pub fn new(settings: Settings) -> Self {
        Self { connections: Arc::new(Connections::new(settings.clone(), Ways::default())), settings, access: None }
    }

    /// The same, through these proxies.
    pub fn through(settings: Settings, proxies: Proxies) -> Self {
        let ways = Ways { proxies: Some(proxies), ..Ways::default() };
        Self { connections: Arc::new(Connections::new(settings.clone(), ways)), settings, access: None }
    }

    /// A client like this one that trusts only the certificates in the file `cert` (PEM), and goes through `proxy`.
    ///
    /// # Errors
    /// [`HttpError::Route`] if the certificates cannot be used.
    pub fn with_route(&self, cert: Option<&Path>, proxy: Option<&str>) -> Result<Self, HttpError> {
        let ways = Ways { roots: cert.map(roots).transpose()?, proxies: proxy.map(Proxies::only) };
        Ok(Self {
            connections: Arc::new(Connections::new(self.settings.clone(), ways)),
            settings: self.settings.clone(),
            access: self.access.clone(),
        })
    }

    /// The same client with credentials, which go to the one server that they are for.
    pub fn with_access(&self, access: Access) -> Self {
        Self { access: Some(Arc::new(access)), ..self.clone() }
    }

    /// Fetches a small file into memory.
    ///
    /// # Errors
    /// [`HttpError`]; [`HttpError::TooLarge`] past `max` bytes.
    pub fn get(&self, url: &str, max: u64) -> Result<Vec<u8>, HttpError> {
        self.get_accepting(url, None, max)
    }

    /// Fetches a small file into memory, in one of the forms that `accept` names (RFC 9110).
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub fn get_accepting(&self, url: &str, accept: Option<&str>, max: u64) -> Result<Vec<u8>, HttpError> {
        self.persist(|| {
            let mut body = self.connections.open(url, 0, self.terms(accept))?;
            let data = self.read_whole(url, &mut body, max)?;
            match body.length {
                Some(expected) if expected != data.len() as u64 => {
                    Err(HttpError::Truncated { url: shown(url), got: data.len() as u64, expected })
                }
                _ => Ok(data),
            }
        })
    }

    /// Fetches a file into `directory`, under the hexadecimal digits of its digest. What is there
    /// already is not fetched again; what an earlier attempt left in `DIGEST.part` is continued.
    ///
    /// # Errors
    /// [`HttpError`] of the last mirror.
    pub fn download(&self, item: &Download, directory: &Path, progress: Progress<'_>) -> Result<PathBuf, HttpError> {
        let target = directory.join(item.sha256.to_hex());
        let mut part = match Part::open(item, &target)? {
            Some(part) => part,
            None => {
                progress(item.size);
                return Ok(target);
            }
        };
        progress(part.len);
        let mut last = HttpError::NoMirror(item.path.clone());
        for mirror in &item.mirrors {
            let url = join(mirror, &item.path);
            match self.fill(&mut part, &url, item, progress) {
                Ok(()) => return part.finish(target),
                Err(error @ HttpError::File { .. }) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Fetches many files, several at once, large ones first; paths in the order of `items`.
    ///
    /// # Errors
    /// [`HttpError`] of the first item, in their order, that failed; the others are stopped.
    pub fn download_all(
        &self,
        items: &[Download],
        directory: &Path,
        progress: Progress<'_>,
    ) -> Result<Vec<PathBuf>, HttpError> {
        self.in_parallel(items, |item| item.size, |item| self.download(item, directory, progress))
    }

    /// Does something with every item, several at once, those of the greatest `weight` first; results in the order of
    /// `items`.
    ///
    /// # Errors
    /// That of the first item, in their order, that failed; the others are stopped.
    pub fn in_parallel<I: Sync, T: Send, E: Send>(
        &self,
        items: &[I],
        weight: impl Fn(&I) -> u64,
        each: impl Fn(&I) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        try_map(items, self.settings.parallel, weight, each)
    }

    /// Brings the part to its full size from one mirror and compares the digest.
    fn fill(&self, part: &mut Part, url: &str, item: &Download, progress: Progress<'_>) -> Result<(), HttpError> {
        let mut resumed = part.len > 0;
        loop {
            self.persist_while(|| {
                let before = part.len;
                let result = self.continue_part(part, url, item, progress);
                // A hundredth of the file, so that a mirror cannot keep this going forever.
                (part.len >= before + (item.size / 100).max(1), result)
            })?;
            let found = part.digest();
            if found == item.sha256 {
                return Ok(());
            }
            part.restart()?;
            // Bytes of an earlier attempt may be to blame, so one more try from the start is due.
            if !std::mem::take(&mut resumed) {
                return Err(HttpError::Digest { url: shown(url), expected: item.sha256, found });
            }
        }
    }

    fn continue_part(
        &self,
        part: &mut Part,
        url: &str,
        item: &Download,
        progress: Progress<'_>,
    ) -> Result<(), HttpError> {
        if part.len == item.size {
            return Ok(());
        }
        let mut body = self.connections.open(url, part.len, self.terms(None))?;
        if body.start != part.len {
            part.restart()?;
        }
        self.pump(url, &mut body.reader, |chunk| {
            if part.len + chunk.len() as u64 > item.size {
                part.restart()?;
                return Err(HttpError::TooLarge { url: shown(url), limit: item.size });
            }
            part.append(chunk)?;
            progress(chunk.len() as u64);
            Ok(())
        })?;
        match part.len == item.size {
            true => Ok(()),
            false => Err(HttpError::Truncated { url: shown(url), got: part.len, expected: item.size }),
        }
    }

    fn terms<'a>(&'a self, accept: Option<&'a str>) -> Terms<'a> {
        Terms { accept, access: self.access.as_deref() }
    }

    fn persist<T>(&self, mut attempt: impl FnMut() -> Result<T, HttpError>) -> Result<T, HttpError> {
        self.persist_while(|| (false, attempt()))
    }

    /// Repeats what fails for passing reasons. An attempt tells whether it gained anything: only
    /// failures in a row without gain count.
    fn persist_while<T>(&self, mut attempt: impl FnMut() -> (bool, Result<T, HttpError>)) -> Result<T, HttpError> {
        let mut failures = 0;
        loop {
            let (gained, result) = attempt();
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            failures = if gained { 1 } else { failures + 1 };
            if !error.is_passing() || failures >= self.settings.attempts {
                return Err(error);
            }
            std::thread::sleep(self.settings.pause.saturating_mul(1 << (failures - 1).min(6)));
        }
    }

    /// Reads to the end, refusing a pace so slow that it would never get there.
    fn pump(
        &self,
        url: &str,
        reader: &mut dyn Read,
        mut take: impl FnMut(&[u8]) -> Result<(), HttpError>,
    ) -> Result<(), HttpError> {
        let stall = self.settings.stall;
        let (mut since, mut received) = (Instant::now(), 0_u64);
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The caller compares lengths and tells how much came.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) if url.starts_with("file:") => {
                    return Err(HttpError::File { path: shown(url), source: error });
                }
                Err(error) => return Err(self.connections.broken(url, error)),
            };
            take(buffer.get(..read).unwrap_or_default())?;
            received += read as u64;
            if since.elapsed() >= stall {
                if u128::from(received) * 1000 < u128::from(PACE_MIN) * stall.as_millis() {
                    return Err(HttpError::Stalled { url: shown(url), limit: stall });
                }
                (since, received) = (Instant::now(), 0);
            }
        }
    }
}

/// `mirror/path` with exactly one slash between them.
pub fn join(mirror: &str, path: &str) -> String {
    format!("{}/{path}", mirror.trim_end_matches('/'))
}

/// An address without credentials and query.
pub fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) =
                rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
            let host = authority.rsplit('@').next().unwrap_or_default();
            path.map_or_else(|| format!("{scheme}://{host}"), |path| format!("{scheme}://{host}/{path}"))
        }
        None => url.to_owned(),
    }
}
