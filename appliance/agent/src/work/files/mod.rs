//! Uploaded files: kept, checked by `gap-data`, and only then good for training.
//!
//! A file's directory holds `content` (the bytes as they came), and once it was found good `train.jsonl` (the examples
//! as trainers read them) and `card.json` (what was found: format, duplicates, personal data, lengths).

pub mod damage;
mod incoming;
mod room;
mod row;
mod validation;

pub use incoming::Incoming;
pub use room::Room;
pub use row::{FileRow, Purpose, Status};

use super::storage::{Storage, make};
use gap_jobs::{Database, DatabaseError, database::salvage, dispatcher::now, identifier};
use room::SPARE;
use row::{COLUMNS, read, understood};
use rusqlite::{OptionalExtension, Transaction, params};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use validation::{bounded, is_of_the_system, validate};

/// Prefix of the names of files.
pub const PREFIX: &str = "file";
/// Largest file, in bytes.
pub const MAX_FILE: u64 = 8 << 30;
/// Most files that are kept at once.
const MAX_FILES: i64 = 10_000;
/// Longest name of a file, in characters.
const MAX_NAME: usize = 255;

/// Why a file is not taken or not there.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The data volume.
    #[error("the data volume: {0}")]
    Io(#[from] io::Error),
    /// There is none of this name.
    #[error("there is no file `{0}`")]
    None(String),
    /// A name that cannot be one.
    #[error("a file's name is 1 to {MAX_NAME} characters without control characters")]
    Name,
    /// It is too long.
    #[error("the file is longer than {MAX_FILE} bytes")]
    TooLong,
    /// There are too many.
    #[error("there are {MAX_FILES} files already: delete some")]
    TooMany,
    /// The data volume is full.
    #[error(
        "the data volume has too little room: {free} bytes are free, and {SPARE} stay so; delete files or old jobs"
    )]
    NoSpace {
        /// Bytes that are free.
        free: u64,
    },
}

impl From<rusqlite::Error> for FilesError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

/// All files.
#[derive(Debug)]
pub struct Files {
    database: Database,
    storage: Storage,
    room: Room,
}

impl Files {
    /// The files of this database and volume. What an earlier agent left half received is removed, unless the database was made of
    /// a damaged one and not compared with the files yet: a file may have lost its row.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn open(database: Database, storage: Storage) -> Result<Self, FilesError> {
        let files = Self::of(database, storage);
        if salvage::is_unsettled(&files.database)? {
            return Ok(files);
        }
        for entry in fs::read_dir(files.storage.root().join("files"))? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if files.find(&name)?.is_none() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(files)
    }

    fn of(database: Database, storage: Storage) -> Self {
        let room = Room::on(storage.clone());
        Self { database, storage, room }
    }

    /// The room for `expected` bytes more, and for one file more.
    ///
    /// # Errors
    /// [`FilesError`] when there is none.
    pub fn room_for(&self, expected: u64) -> Result<Room, FilesError> {
        if expected > MAX_FILE {
            return Err(FilesError::TooLong);
        }
        self.room.look(expected)?;
        let count: i64 = self.database.read(|transaction| -> Result<i64, FilesError> {
            Ok(transaction.query_row("SELECT count(*) FROM file", [], |row| row.get(0))?)
        })?;
        if count >= MAX_FILES {
            return Err(FilesError::TooMany);
        }
        Ok(self.room.clone())
    }

    /// Begins to receive a file of which `expected` bytes are announced, where that is known.
    ///
    /// # Errors
    /// [`FilesError`] when there is no room.
    pub fn receive(&self, expected: u64) -> Result<Incoming, FilesError> {
        let room = self.room_for(expected)?;
        let id = identifier::random(PREFIX);
        let directory = self.storage.file(&id);
        make(&directory, 0o755)?;
        Ok(Incoming::create(id, directory, room)?)
    }

    /// Keeps what was received. It still has to be checked, by [`Files::check`].
    ///
    /// # Errors
    /// [`FilesError`]; nothing is kept then.
    pub fn keep(&self, incoming: Incoming, filename: &str, purpose: Purpose) -> Result<FileRow, FilesError> {
        self.keep_with(incoming, filename, purpose, |_, _| Ok(()))
    }

    /// Keeps what was received, and does `also` in the same transaction, which is told the name of the file.
    ///
    /// # Errors
    /// [`FilesError`], or what `also` said; nothing is kept then.
    pub fn keep_with<E: From<FilesError> + From<rusqlite::Error>>(
        &self,
        incoming: Incoming,
        filename: &str,
        purpose: Purpose,
        also: impl FnOnce(&Transaction<'_>, &str) -> Result<(), E>,
    ) -> Result<FileRow, E> {
        check_name(filename)?;
        incoming.sync().map_err(FilesError::from)?;
        let status = if purpose == Purpose::UserData { Status::Processed } else { Status::Uploaded };
        let bytes = i64::try_from(incoming.bytes()).map_err(|_| FilesError::TooLong)?;
        self.database.write(|transaction| -> Result<(), E> {
            let text = "INSERT INTO file (id, filename, purpose, bytes, sha256, status, created_at) \
                        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let sha256 = incoming.sha256();
            let values = params![incoming.id(), filename, purpose.name(), bytes, sha256, status.name(), now()];
            transaction.execute(text, values)?;
            also(transaction, incoming.id())
        })?;
        let id = incoming.id().to_owned();
        incoming.keep();
        Ok(self.get(&id)?)
    }

    /// Checks a file that was kept: format, every row, duplicates, personal data. Takes its time, and memory: one at a
    /// time is enough.
    ///
    /// # Errors
    /// [`FilesError`] when the result cannot be kept; what is wrong with the file is the result. Where the disk or the system
    /// does not let it be checked, it is still `uploaded`, and its details say why.
    pub fn check(&self, id: &str) -> Result<FileRow, FilesError> {
        let row = self.get(id)?;
        if row.status != Status::Uploaded {
            return Ok(row);
        }
        // The examples are about as long as the file.
        let (status, details) = match self.room.look(row.bytes) {
            Err(error) => (Status::Uploaded, format!("not checked yet: {error}")),
            Ok(()) => match validate(&self.storage.file(id), &row.filename) {
                Ok(summary) => (Status::Processed, summary),
                Err(error) if is_of_the_system(&error) => {
                    (Status::Uploaded, bounded(format!("not checked yet: {error}")))
                }
                Err(error) => (Status::Error, bounded(error.to_string())),
            },
        };
        self.database.write(|transaction| -> Result<(), FilesError> {
            let values = params![id, status.name(), details];
            transaction.execute("UPDATE file SET status = ?2, details = ?3 WHERE id = ?1", values)?;
            Ok(())
        })?;
        self.get(id)
    }

    /// Files that are not checked yet, for instance because the machine was switched off meanwhile.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn unchecked(&self) -> Result<Vec<String>, FilesError> {
        let all = self.list(None, None, usize::MAX)?;
        Ok(all.into_iter().filter(|row| row.status == Status::Uploaded).map(|row| row.id).collect())
    }

    /// The file of this name.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn get(&self, id: &str) -> Result<FileRow, FilesError> {
        self.find(id)?.ok_or_else(|| FilesError::None(id.to_owned()))
    }

    /// Files, the last that came first, which came before `after`.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn list(
        &self,
        purpose: Option<Purpose>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<FileRow>, FilesError> {
        let before = after.map(|id| self.get(id)).transpose()?.map_or(i64::MAX, |row| row.sequence);
        self.database.read(|transaction| {
            let text = format!(
                "SELECT {COLUMNS} FROM file WHERE sequence < ?1 AND (?2 IS NULL OR purpose = ?2) \
                 ORDER BY sequence DESC LIMIT ?3"
            );
            let values = params![before, purpose.map(Purpose::name), i64::try_from(limit).unwrap_or(i64::MAX)];
            let mut statement = transaction.prepare_cached(&text)?;
            let rows = statement.query_map(values, read)?.collect::<Result<Vec<_>, _>>()?;
            rows.into_iter().map(understood).collect()
        })
    }

    /// Forgets a file. Returns the directory of its bytes, which are to be deleted; where they are not, the next start does it.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn forget(&self, id: &str) -> Result<PathBuf, FilesError> {
        self.get(id)?;
        self.database.write(|transaction| -> Result<(), FilesError> {
            transaction.execute("DELETE FROM file WHERE id = ?1", [id])?;
            Ok(())
        })?;
        Ok(self.storage.file(id))
    }

    /// The bytes of a file as they came.
    pub fn content(&self, id: &str) -> PathBuf {
        content(&self.storage.file(id))
    }

    /// What was found in a file.
    pub fn card(&self, id: &str) -> PathBuf {
        self.storage.file(id).join("card.json")
    }

    fn find(&self, id: &str) -> Result<Option<FileRow>, FilesError> {
        if !identifier::is_well_formed(PREFIX, id) {
            return Ok(None);
        }
        self.database.read(|transaction: &Transaction<'_>| {
            let text = format!("SELECT {COLUMNS} FROM file WHERE id = ?1");
            let row = transaction.prepare_cached(&text)?.query_row([id], read).optional()?;
            row.map(understood).transpose()
        })
    }
}

/// Whether this can be a file's name: it is shown, and is no part of a path.
///
/// # Errors
/// [`FilesError::Name`].
pub fn check_name(filename: &str) -> Result<(), FilesError> {
    let is_long = filename.chars().count() > MAX_NAME;
    if filename.is_empty() || is_long || filename.chars().any(char::is_control) {
        Err(FilesError::Name)
    } else {
        Ok(())
    }
}

/// The examples of a file that was found good.
pub fn examples(storage: &Storage, id: &str) -> PathBuf {
    storage.file(id).join("train.jsonl")
}

fn content(directory: &Path) -> PathBuf {
    directory.join("content")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::storage::Volume;
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    const GOOD: &[u8] = b"{\"prompt\":\"2+2?\",\"completion\":\"4\"}\n{\"prompt\":\"3+3?\",\"completion\":\"6\"}\n";

    fn files() -> (tempfile::TempDir, Files) {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path(), Volume::Memory { reason: "test".into() }).unwrap();
        (directory, Files::open(Database::in_memory().unwrap(), storage).unwrap())
    }

    fn upload(files: &Files, bytes: &[u8]) -> FileRow {
        let mut incoming = files.receive(0).unwrap();
        incoming.append(bytes).unwrap();
        files.keep(incoming, "x.jsonl", Purpose::FineTune).unwrap()
    }

    #[test]
    fn a_good_file_becomes_examples_and_a_card() {
        let (_directory, files) = files();
        let row = upload(&files, GOOD);
        assert_eq!((row.status, row.bytes), (Status::Uploaded, GOOD.len() as u64));
        assert_eq!(row.sha256, gap_format::Digest::of(GOOD).to_hex());
        let row = files.check(&row.id).unwrap();
        assert_eq!(row.status, Status::Processed, "{:?}", row.details);
        assert_eq!(fs::read_to_string(examples(&files.storage, &row.id)).unwrap().lines().count(), 2);
        assert!(files.card(&row.id).exists());
        assert_eq!(files.list(Some(Purpose::FineTune), None, 9).unwrap(), std::slice::from_ref(&row));
        assert_eq!(files.list(None, Some(&row.id), 9).unwrap(), []);
        let bytes = files.forget(&row.id).unwrap();
        assert!(matches!(files.get(&row.id), Err(FilesError::None(_))));
        assert!(bytes.join("content").exists());
        Files::open(files.database.clone(), files.storage.clone()).unwrap();
        assert!(!bytes.exists(), "the next start deletes what is forgotten");
    }

    #[test]
    fn a_bad_file_is_kept_with_what_is_wrong_and_is_never_good() {
        let (_directory, files) = files();
        for bad in [&b"no json"[..], b"", b"{\"prompt\":\"x\"}\n{\"prompt\":\"y\"}\n", b"\xff\xfe\x00"] {
            let row = files.check(&upload(&files, bad).id).unwrap();
            assert_eq!(row.status, Status::Error, "{bad:?}");
            assert!(!row.details.unwrap().is_empty() && !examples(&files.storage, &row.id).exists());
        }
        assert!(files.unchecked().unwrap().is_empty());
    }

    #[test]
    fn what_was_not_kept_leaves_nothing_behind() {
        let (directory, files) = files();
        let mut incoming = files.receive(0).unwrap();
        incoming.write(GOOD).unwrap();
        drop(incoming);
        let incoming = files.receive(0).unwrap();
        assert!(matches!(files.keep(incoming, "a\nb", Purpose::FineTune), Err(FilesError::Name)));
        assert_eq!(fs::read_dir(directory.path().join("files")).unwrap().count(), 0);
        assert!(files.receive(MAX_FILE + 1).is_err());
        assert!(matches!(files.get("../../etc/passwd"), Err(FilesError::None(_))));
    }

    #[test]
    fn a_file_that_the_disk_does_not_let_be_checked_is_checked_later() {
        let (_directory, files) = files();
        let row = upload(&files, GOOD);
        let obstacle = examples(&files.storage, &row.id);
        fs::create_dir_all(obstacle.join("x")).unwrap();
        let checked = files.check(&row.id).unwrap();
        assert_eq!(checked.status, Status::Uploaded, "{:?}", checked.details);
        assert!(checked.details.unwrap().starts_with("not checked yet: "));
        fs::remove_dir_all(obstacle).unwrap();
        assert_eq!(files.check(&row.id).unwrap().status, Status::Processed);
    }

    #[test]
    fn no_file_takes_the_last_bytes_of_the_volume() {
        let (_directory, mut files) = files();
        let row = upload(&files, GOOD);
        let free = Arc::new(AtomicU64::new(SPARE));
        let measured = Arc::clone(&free);
        files.room = Room::measured(move || Ok(measured.load(Ordering::Relaxed)));
        let piece = vec![0; 1 << 20];
        let (mut one, mut other) = (files.receive(0).unwrap(), files.receive(0).unwrap());
        (0..20).for_each(|_| one.write(&piece).unwrap());
        free.store(SPARE - 1, Ordering::Relaxed);
        let full = |written: Result<(), FilesError>| matches!(written, Err(FilesError::NoSpace { .. }));
        let written = (0..20).position(|_| full(one.write(&piece)));
        assert!(written.is_some_and(|written| written < 16), "{written:?}");
        assert!(full(other.write(&piece)), "as long as it is full everybody is stopped at once");
        assert!(matches!(files.receive(0), Err(FilesError::NoSpace { .. })));
        assert_eq!(files.check(&row.id).unwrap().status, Status::Uploaded, "its examples have no room");
        free.store(u64::MAX, Ordering::Relaxed);
        other.write(&piece).unwrap();
        assert_eq!(files.check(&row.id).unwrap().status, Status::Processed);
    }

    #[test]
    fn what_a_power_cut_left_half_received_is_removed() {
        let (directory, files) = files();
        let row = upload(&files, GOOD);
        let left = directory.path().join("files").join(identifier::random(PREFIX));
        fs::create_dir(&left).unwrap();
        let again = Files::open(files.database.clone(), files.storage.clone()).unwrap();
        assert!(!left.exists() && again.content(&row.id).exists());
        assert_eq!(again.unchecked().unwrap(), [row.id]);
    }
}
