//! The store: a content-addressed directory of fetched sources and built blobs.
//!
//! ```text
//! sources/sha256/ab/abcd…   what was fetched, by its digest
//! blobs/sha256/ab/abcd…     what was built, by its digest
//! records/KEY.json          layer key → digest, size, verity root, and an artifact that holds it
//! caches/NAME/KEY/          work that only makes things faster, such as package indexes
//! roots/LOCK.json           what the last build of each lock is made of
//! locks/KEY                 held while the thing of this key is being built
//! tmp/session-…/            unfinished files of a running process
//! ```
//!
//! Content appears whole and durable or not at all. Any number of processes may use the store at once; collecting
//! garbage takes it for itself.

mod collect;
mod downloads;
mod error;
mod key;
mod notes;
mod record;
mod roots;
mod session;
mod survey;
mod temp;
#[cfg(test)]
mod tests;

pub use collect::{Collected, Policy, Removed, collect};
pub use downloads::Downloads;
pub use error::StoreError;
pub use key::{KeyBuilder, LayerKey};
pub use record::{FoundLayer, Identity, Location, Record};
pub use roots::{Registered, Roots, registered};
pub use session::Remains;
pub use survey::{Amount, Kind, usage};
pub use temp::{Stored, TempBlob};

use gap_format::Digest;
use rustix::fs::{FlockOperation, flock};
use session::{Session, lock_file};
use std::{
    env,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// Bytes copied at once.
const CHUNK: usize = 256 * 1024;

/// The two kinds of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    Sources,
    Blobs,
}

impl Area {
    const fn dir(self) -> &'static str {
        match self {
            Self::Sources => "sources",
            Self::Blobs => "blobs",
        }
    }
}

/// An open store. Several may be open at once, in one process or in many.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    session: Session,
    _in_use: File,
}

/// Keeps others from building the same thing at the same time; ends when dropped.
#[derive(Debug)]
pub struct BuildLock(#[expect(dead_code, reason = "held for its lock")] File);

impl Store {
    /// `$XDG_CACHE_HOME/gapimage`, or `~/.cache/gapimage`.
    ///
    /// # Errors
    /// [`StoreError::NoHome`] when the environment names neither.
    pub fn default_dir() -> Result<PathBuf, StoreError> {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .map(|cache| cache.join("gapimage"))
            .ok_or(StoreError::NoHome)
    }

    /// Opens the store in `dir`, making it if need be, and clears away what killed builds left unfinished. Waits while
    /// garbage is being collected.
    ///
    /// # Errors
    /// [`StoreError`] if the directory cannot be made, locked or written.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        for part in ["sources", "blobs", "records", "caches", "roots", "locks", "tmp"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).map_err(StoreError::io("making the store's directory", &path))?;
        }
        let dir = dir.canonicalize().map_err(StoreError::io("opening the store", dir))?;
        let in_use = lock_file(&dir.join("lock"), FlockOperation::LockShared)?;
        let session = Session::start(&dir.join("tmp"))?;
        Ok(Self { dir, session, _in_use: in_use })
    }

    /// The directory of the store, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A directory for unfinished files of this process, on the file system of the store; it vanishes with the store.
    pub fn session_dir(&self) -> &Path {
        self.session.path()
    }

    /// What killed builds left that opening the store could not clear away.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the store's directory cannot be read or locked.
    pub fn remains(&self) -> Result<Vec<Remains>, StoreError> {
        Remains::all_in(&self.dir.join("tmp"))
    }

    /// Opens a fetched source. One of another length than `size` is damaged and counts as absent.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it is there and cannot be opened.
    pub fn open_source(&self, digest: &Digest, size: Option<u64>) -> Result<Option<File>, StoreError> {
        self.open_content(Area::Sources, digest, size)
    }

    /// Opens a built blob. One of another length than `size` is damaged and counts as absent.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it is there and cannot be opened.
    pub fn open_blob(&self, digest: &Digest, size: Option<u64>) -> Result<Option<File>, StoreError> {
        self.open_content(Area::Blobs, digest, size)
    }

    /// Whether a source is there, with this length if one is given.
    pub fn has_source(&self, digest: &Digest, size: Option<u64>) -> bool {
        self.has(Area::Sources, digest, size)
    }

    /// Where the source of this digest lies, or would lie.
    pub fn source_path(&self, digest: &Digest) -> PathBuf {
        self.content_path(Area::Sources, digest)
    }

    /// Where the blob of this digest lies, or would lie.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.content_path(Area::Blobs, digest)
    }

    /// Takes in a source of at most `limit` bytes; with `expected`, only if that is its digest.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is left behind then.
    pub fn insert_source(
        &self,
        expected: Option<&Digest>,
        limit: u64,
        mut reader: impl Read,
    ) -> Result<Stored, StoreError> {
        let mut temp = TempBlob::new(self, Area::Sources)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(StoreError::Input(error)),
            };
            if temp.size().saturating_add(read as u64) > limit {
                return Err(StoreError::TooLong { limit });
            }
            let part = chunk.get(..read).unwrap_or_default();
            temp.write_all(part).map_err(StoreError::io("writing to the store", &self.dir))?;
        }
        match expected {
            Some(expected) => temp.commit_as(expected),
            None => temp.commit(),
        }
    }

    /// Takes over a fetched file, which must lie on the store's file system and was checked against `digest`.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`].
    pub fn adopt_source(&self, path: &Path, digest: &Digest) -> Result<(), StoreError> {
        let target = self.source_path(digest);
        let failed = || StoreError::io("moving into the store", &target);
        let parent = target.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(failed())?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).map_err(failed())?;
        File::open(path).and_then(|file| file.sync_all()).map_err(failed())?;
        fs::rename(path, &target).map_err(failed())
    }

    /// Removes a source that turned out to be damaged, so that it is fetched again. Who has it open keeps it.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it is there and cannot be removed.
    pub fn discard_source(&self, digest: &Digest) -> Result<(), StoreError> {
        discard(&self.source_path(digest))
    }

    /// Removes a layer that turned out to be damaged, so that it is built again. Who has it open keeps it.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it is there and cannot be removed.
    pub fn discard_layer(&self, key: &LayerKey) -> Result<(), StoreError> {
        if let Some(record) = self.record(key)? {
            discard(&self.blob_path(&record.digest))?;
        }
        discard(&self.record_path(key))
    }

    /// A blob to write; it vanishes unless it is committed.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`] if no file can be made.
    pub fn temp_blob(&self) -> Result<TempBlob<'_>, StoreError> {
        TempBlob::new(self, Area::Blobs)
    }

    /// Waits until nobody else builds the thing of this key, and keeps others from it. `waiting` is called once if
    /// somebody does.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the lock file cannot be made or locked.
    pub fn build_lock(&self, key: &Digest, waiting: impl FnOnce()) -> Result<BuildLock, StoreError> {
        let path = self.dir.join("locks").join(key.to_hex());
        let file = lock_file_or_wait(&path, waiting)?;
        Ok(BuildLock(file))
    }

    /// A directory that only makes things faster, such as compiled dependencies. Hold the [`Store::build_lock`] of the
    /// same key while using it.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`] if it cannot be made.
    pub fn cache_dir(&self, name: &'static str, key: &Digest) -> Result<PathBuf, StoreError> {
        let path = self.cache_path(name, key);
        fs::create_dir_all(&path).map_err(StoreError::io("making", &path))?;
        if let Ok(dir) = File::open(&path) {
            temp::touch(&dir);
        }
        Ok(path)
    }

    fn cache_path(&self, name: &'static str, key: &Digest) -> PathBuf {
        self.dir.join("caches").join(name).join(key.to_hex())
    }

    pub(crate) fn content_path(&self, area: Area, digest: &Digest) -> PathBuf {
        temp::sharded(&self.dir.join(area.dir()), digest)
    }

    pub(crate) fn has(&self, area: Area, digest: &Digest, size: Option<u64>) -> bool {
        fs::symlink_metadata(self.content_path(area, digest))
            .is_ok_and(|meta| meta.is_file() && size.is_none_or(|size| size == meta.len()))
    }

    fn open_content(&self, area: Area, digest: &Digest, size: Option<u64>) -> Result<Option<File>, StoreError> {
        if !self.has(area, digest, size) {
            return Ok(None);
        }
        let path = self.content_path(area, digest);
        let file = File::open(&path).map_err(StoreError::io("opening", &path))?;
        temp::touch(&file);
        Ok(Some(file))
    }

    fn record_path(&self, key: &LayerKey) -> PathBuf {
        self.dir.join("records").join(format!("{}.json", key.to_hex()))
    }
}

fn discard(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("removing", path)(error)),
        _ => Ok(()),
    }
}

fn lock_file_or_wait(path: &Path, waiting: impl FnOnce()) -> Result<File, StoreError> {
    let open = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = open.map_err(StoreError::io("opening the lock file", path))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(file);
    }
    waiting();
    drop(file);
    lock_file(path, FlockOperation::LockExclusive)
}
