//! Uploads in parts: a large file arrives piece by piece, in any order and over any number of connections, and becomes a
//! file when the last piece is there. What a power cut or a broken line takes is one piece.

use super::{
    files::{FileRow, Files, FilesError, MAX_FILE, Purpose, Room, check_name},
    storage::{Storage, make, remove, sync_directory},
};
use gap_jobs::{Database, DatabaseError, dispatcher::now, identifier};
use rusqlite::{OptionalExtension, Transaction, params};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
};

/// Prefix of the names of uploads.
pub const PREFIX: &str = "upload";
/// Prefix of the names of parts.
pub const PART_PREFIX: &str = "part";
/// Largest part, in bytes; OpenAI's.
pub const MAX_PART: u64 = 64 << 20;
/// How long an upload waits for its parts, in milliseconds.
const LIFETIME: i64 = 24 * 60 * 60 * 1000;
/// Most uploads that wait at once.
const MAX_PENDING: i64 = 100;
/// Most parts of one.
const MAX_PARTS: usize = 10_000;

/// How far an upload is, in OpenAI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadStatus {
    /// Parts may come.
    Pending,
    /// It became a file.
    Completed,
    /// It is not wanted any more.
    Cancelled,
    /// It waited too long.
    Expired,
}

impl UploadStatus {
    const ALL: [Self; 4] = [Self::Pending, Self::Completed, Self::Cancelled, Self::Expired];

    /// OpenAI's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// An upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    sequence: i64,
    /// Its name for machines.
    pub id: String,
    /// Name of the file for people.
    pub filename: String,
    /// What the file is for.
    pub purpose: Purpose,
    /// Length of the whole file, as announced.
    pub bytes: u64,
    /// How far it is.
    pub status: UploadStatus,
    /// The file that it became.
    pub file: Option<String>,
    /// When it began, in milliseconds since 1970.
    pub created_at: i64,
    /// When it ends, in milliseconds since 1970.
    pub expires_at: i64,
}

/// A part that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name for machines.
    pub id: String,
    /// The upload that it belongs to.
    pub upload: String,
    /// When it came, in milliseconds since 1970.
    pub created_at: i64,
}

/// Why an upload does not go on.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The file that it is to become.
    #[error(transparent)]
    File(#[from] FilesError),
    /// There is none of this name.
    #[error("there is no upload `{0}`")]
    None(String),
    /// It is over.
    #[error("the upload is {}, so nothing can be done to it", .0.name())]
    Over(UploadStatus),
    /// There are too many.
    #[error("{MAX_PENDING} uploads wait for their parts already: complete or cancel some")]
    TooMany,
    /// A part is too long, or there are too many.
    #[error("a part has at most {MAX_PART} bytes, and an upload at most {MAX_PARTS} parts")]
    Part,
    /// A part is not this upload's.
    #[error("the upload has no part `{0}`")]
    NoPart(String),
    /// The parts are not what was announced.
    #[error("the parts have {found} bytes together, and {announced} were announced")]
    Length {
        /// Bytes of the parts.
        found: u64,
        /// Bytes that were announced.
        announced: u64,
    },
}

impl From<DatabaseError> for UploadError {
    fn from(error: DatabaseError) -> Self {
        Self::File(error.into())
    }
}

impl From<rusqlite::Error> for UploadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::File(error.into())
    }
}

impl From<io::Error> for UploadError {
    fn from(error: io::Error) -> Self {
        Self::File(error.into())
    }
}

/// All uploads.
#[derive(Debug)]
pub struct Uploads {
    database: Database,
    storage: Storage,
}

/// A part that is being received.
pub struct IncomingPart {
    id: String,
    upload: Upload,
    path: PathBuf,
    file: File,
    bytes: u64,
    room: Room,
    is_kept: bool,
}

impl IncomingPart {
    /// Adds bytes.
    ///
    /// # Errors
    /// [`UploadError::Part`], [`FilesError::NoSpace`], or what the disk said.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(len);
        if self.bytes > MAX_PART {
            return Err(UploadError::Part);
        }
        self.room.take(len)?;
        Ok(self.file.write_all(bytes)?)
    }
}

impl Drop for IncomingPart {
    fn drop(&mut self) {
        if !self.is_kept {
            drop(fs::remove_file(&self.path));
        }
    }
}

impl Uploads {
    /// The uploads of this database and volume. What a power cut left of parts that were not kept, and of uploads that
    /// are over, is removed.
    ///
    /// # Errors
    /// [`UploadError`].
    pub fn open(database: Database, storage: Storage) -> Result<Self, UploadError> {
        let uploads = Self { database, storage };
        for entry in fs::read_dir(uploads.storage.root().join("uploads"))? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            match uploads.get(&name) {
                Ok(upload) if upload.status == UploadStatus::Pending => uploads.sweep(&upload)?,
                Ok(_) | Err(UploadError::None(_)) => fs::remove_dir_all(entry.path())?,
                Err(error) => return Err(error),
            }
        }
        Ok(uploads)
    }

    /// Removes parts that were not kept.
    fn sweep(&self, upload: &Upload) -> Result<(), UploadError> {
        let kept: BTreeSet<String> = self.parts(upload)?.into_iter().map(|(id, _)| id).collect();
        for entry in fs::read_dir(self.storage.upload(&upload.id))? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|name| kept.contains(name)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Begins an upload of `bytes` bytes.
    ///
    /// # Errors
    /// [`UploadError`].
    pub fn begin(&self, filename: &str, purpose: Purpose, mime: &str, bytes: u64) -> Result<Upload, UploadError> {
        check_name(filename)?;
        self.expire()?;
        let announced = i64::try_from(bytes).ok().filter(|_| bytes <= MAX_FILE).ok_or(FilesError::TooLong)?;
        let id = identifier::random(PREFIX);
        let now = now();
        self.database.write(|transaction| -> Result<(), UploadError> {
            let text = "SELECT count(*) FROM upload WHERE status = 'pending'";
            let pending: i64 = transaction.query_row(text, [], |row| row.get(0))?;
            if pending >= MAX_PENDING {
                return Err(UploadError::TooMany);
            }
            let text = "INSERT INTO upload (id, filename, purpose, mime_type, bytes, status, created_at, expires_at) \
                        VALUES (?1, ?2, ?3, ?4, ?5, 'pending', ?6, ?7)";
            let values = params![id, filename, purpose.name(), mime, announced, now, now.saturating_add(LIFETIME)];
            transaction.execute(text, values)?;
            Ok(())
        })?;
        make(&self.storage.upload(&id), 0o755)?;
        self.get(&id)
    }

    /// The upload of this name.
    ///
    /// # Errors
    /// [`UploadError`].
    pub fn get(&self, id: &str) -> Result<Upload, UploadError> {
        let none = || UploadError::None(id.to_owned());
        if !identifier::is_well_formed(PREFIX, id) {
            return Err(none());
        }
        self.database.read(|transaction| {
            let text = "SELECT sequence, filename, purpose, bytes, status, file, created_at, expires_at FROM upload \
                        WHERE id = ?1";
            let raw = transaction
                .query_row(text, [id], |row| {
                    let (purpose, status): (String, String) = (row.get(2)?, row.get(4)?);
                    let upload = Upload {
                        sequence: row.get(0)?,
                        id: id.to_owned(),
                        filename: row.get(1)?,
                        purpose: Purpose::UserData,
                        bytes: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
                        status: UploadStatus::Pending,
                        file: row.get(5)?,
                        created_at: row.get(6)?,
                        expires_at: row.get(7)?,
                    };
                    Ok((upload, purpose, status))
                })
                .optional()?;
            let (upload, purpose, status) = raw.ok_or_else(none)?;
            let damaged = || DatabaseError::Damaged(format!("the upload {id} has an unknown purpose or status"));
            let purpose = Purpose::named(&purpose).ok_or_else(damaged)?;
            let status = UploadStatus::ALL.into_iter().find(|it| it.name() == status).ok_or_else(damaged)?;
            Ok(Upload { purpose, status, ..upload })
        })
    }

    /// Names and lengths of the parts that were kept, in the order in which they came.
    ///
    /// # Errors
    /// [`UploadError`].
    pub fn parts(&self, upload: &Upload) -> Result<Vec<(String, u64)>, UploadError> {
        self.database.read(|transaction| -> Result<_, UploadError> {
            let text = "SELECT id, bytes FROM upload_part WHERE upload = ?1 ORDER BY sequence";
            let mut statement = transaction.prepare(text)?;
            let rows = statement.query_map([upload.sequence], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
            let part = |(id, bytes)| (id, u64::try_from(bytes).unwrap_or(0));
            rows.map(|row| Ok(row.map(part)?)).collect()
        })
    }

    /// Begins to receive a part.
    ///
    /// # Errors
    /// [`UploadError`].
    pub fn receive(&self, upload: &str, files: &Files) -> Result<IncomingPart, UploadError> {
        let upload = self.pending(upload)?;
        let room = files.room_for(MAX_PART)?;
        let count: i64 = self.database.read(|transaction| -> Result<i64, UploadError> {
            let text = "SELECT count(*) FROM upload_part WHERE upload = ?1";
            Ok(transaction.query_row(text, [upload.sequence], |row| row.get(0))?)
        })?;
        if usize::try_from(count).unwrap_or(usize::MAX) >= MAX_PARTS {
            return Err(UploadError::Part);
        }
        let id = identifier::random(PART_PREFIX);
        // It may be missing: a power cut after the upload was noted.
        make(&self.storage.upload(&upload.id), 0o755)?;
        let path = self.storage.upload(&upload.id).join(&id);
        let file = File::create_new(&path)?;
        Ok(IncomingPart { id, upload, path, file, bytes: 0, room, is_kept: false })
    }

    /// Keeps a part that was received.
    ///
    /// # Errors
    /// [`UploadError`]; nothing is kept then.
    pub fn keep(&self, mut incoming: IncomingPart) -> Result<Part, UploadError> {
        incoming.file.sync_all()?;
        let directory = self.storage.upload(&incoming.upload.id);
        sync_directory(&directory)?;
        sync_directory(&self.storage.root().join("uploads"))?;
        let created_at = now();
        self.database.write(|transaction| -> Result<(), UploadError> {
            let text = "INSERT INTO upload_part (id, upload, bytes, created_at) VALUES (?1, ?2, ?3, ?4)";
            let bytes = i64::try_from(incoming.bytes).unwrap_or(i64::MAX);
            transaction.execute(text, params![incoming.id, incoming.upload.sequence, bytes, created_at])?;
            Ok(())
        })?;
        incoming.is_kept = true;
        Ok(Part { id: incoming.id.clone(), upload: incoming.upload.id.clone(), created_at })
    }

    /// Makes a file of these parts, in this order.
    ///
    /// # Errors
    /// [`UploadError`]; the upload is as it was then.
    pub fn complete(&self, id: &str, parts: &[String], files: &Files) -> Result<(Upload, FileRow), UploadError> {
        let upload = self.pending(id)?;
        let mut incoming = files.receive(upload.bytes)?;
        let mut found = 0_u64;
        for part in parts {
            let missing = || UploadError::NoPart(part.clone());
            let text = "SELECT bytes FROM upload_part WHERE upload = ?1 AND id = ?2";
            let bytes: Option<i64> = self.database.read(|transaction| -> Result<_, UploadError> {
                Ok(transaction.query_row(text, params![upload.sequence, part], |row| row.get(0)).optional()?)
            })?;
            found = found.saturating_add(u64::try_from(bytes.ok_or_else(missing)?).unwrap_or(0));
            if found > upload.bytes {
                break;
            }
            incoming.append(File::open(self.storage.upload(id).join(part))?)?;
        }
        if found != upload.bytes {
            return Err(UploadError::Length { found, announced: upload.bytes });
        }
        let row = files.keep_with(incoming, &upload.filename, upload.purpose, |transaction, file| {
            end(transaction, &upload, UploadStatus::Completed, Some(file))
        })?;
        remove(&self.storage.upload(id))?;
        Ok((self.get(id)?, row))
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// [`UploadError`].
    pub fn cancel(&self, id: &str) -> Result<Upload, UploadError> {
        let upload = self.pending(id)?;
        self.give_up(&upload, UploadStatus::Cancelled)?;
        self.get(id)
    }

    fn pending(&self, id: &str) -> Result<Upload, UploadError> {
        self.expire()?;
        let upload = self.get(id)?;
        if upload.status == UploadStatus::Pending { Ok(upload) } else { Err(UploadError::Over(upload.status)) }
    }

    fn give_up(&self, upload: &Upload, status: UploadStatus) -> Result<(), UploadError> {
        self.database.write(|transaction| end(transaction, upload, status, None))?;
        Ok(remove(&self.storage.upload(&upload.id))?)
    }

    /// Gives up what waited too long.
    fn expire(&self) -> Result<(), UploadError> {
        let ids: Vec<String> = self.database.read(|transaction| -> Result<_, UploadError> {
            let text = "SELECT id FROM upload WHERE status = 'pending' AND expires_at <= ?1";
            let mut statement = transaction.prepare_cached(text)?;
            Ok(statement.query_map([now()], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })?;
        ids.iter().try_for_each(|id| self.give_up(&self.get(id)?, UploadStatus::Expired))
    }
}

/// Notes that an upload is over. Two that end it at once cannot both: one file comes of it.
fn end(
    transaction: &Transaction<'_>,
    upload: &Upload,
    status: UploadStatus,
    file: Option<&str>,
) -> Result<(), UploadError> {
    let text = "UPDATE upload SET status = ?2, file = ?3 WHERE sequence = ?1 AND status = 'pending'";
    if transaction.execute(text, params![upload.sequence, status.name(), file])? == 0 {
        return Err(UploadError::Over(UploadStatus::Completed));
    }
    transaction.execute("DELETE FROM upload_part WHERE upload = ?1", [upload.sequence])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::storage::Volume;

    fn all() -> (tempfile::TempDir, Files, Uploads) {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path(), Volume::Memory { reason: "test".into() }).unwrap();
        let database = Database::in_memory().unwrap();
        let files = Files::open(database.clone(), storage.clone()).unwrap();
        (directory, files, Uploads::open(database, storage).unwrap())
    }

    fn part(uploads: &Uploads, files: &Files, upload: &Upload, bytes: &[u8]) -> String {
        let mut incoming = uploads.receive(&upload.id, files).unwrap();
        incoming.write(bytes).unwrap();
        uploads.keep(incoming).unwrap().id
    }

    #[test]
    fn parts_become_a_file_in_the_order_of_completion() {
        let (_directory, files, uploads) = all();
        let upload = uploads.begin("x.jsonl", Purpose::FineTune, "text/jsonl", 6).unwrap();
        let second = part(&uploads, &files, &upload, b"def");
        let first = part(&uploads, &files, &upload, b"abc");
        let (done, row) = uploads.complete(&upload.id, &[first, second], &files).unwrap();
        assert_eq!((done.status, done.file.as_deref()), (UploadStatus::Completed, Some(row.id.as_str())));
        assert_eq!(fs::read(files.content(&row.id)).unwrap(), b"abcdef");
        assert!(matches!(uploads.cancel(&upload.id), Err(UploadError::Over(UploadStatus::Completed))));
    }

    #[test]
    fn what_is_not_as_announced_becomes_no_file_and_can_be_mended() {
        let (_directory, files, uploads) = all();
        let upload = uploads.begin("x.jsonl", Purpose::FineTune, "text/jsonl", 6).unwrap();
        let first = part(&uploads, &files, &upload, b"abc");
        let complete = |parts: &[String]| uploads.complete(&upload.id, parts, &files);
        assert!(matches!(complete(std::slice::from_ref(&first)), Err(UploadError::Length { found: 3, announced: 6 })));
        assert!(matches!(complete(&["part-x".into()]), Err(UploadError::NoPart(_))));
        assert!(complete(&[first.clone(), first.clone(), first.clone()]).is_err());
        assert!(files.list(None, None, 9).unwrap().is_empty());
        let second = part(&uploads, &files, &upload, b"def");
        assert!(complete(&[first, second]).is_ok());
    }

    #[test]
    fn what_a_power_cut_left_of_uploads_is_removed_and_what_was_kept_stays() {
        let (directory, files, uploads) = all();
        let begin = |()| uploads.begin("x.jsonl", Purpose::FineTune, "text/jsonl", 3).unwrap();
        let [over, going, bare] = [(); 3].map(begin);
        let kept = part(&uploads, &files, &going, b"abc");
        uploads.cancel(&over.id).unwrap();
        let place = directory.path().join("uploads");
        fs::create_dir(place.join(&over.id)).unwrap();
        fs::write(place.join(&over.id).join("part-left"), "abc").unwrap();
        fs::write(place.join(&going.id).join("part-left"), "ab").unwrap();
        fs::create_dir(place.join("something")).unwrap();
        fs::remove_dir(place.join(&bare.id)).unwrap();

        let again = Uploads::open(uploads.database.clone(), uploads.storage.clone()).unwrap();
        assert!(!place.join(&over.id).exists() && !place.join("something").exists());
        let left: Vec<_> = fs::read_dir(place.join(&going.id)).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [kept.as_str()]);
        assert!(again.complete(&going.id, &[kept], &files).is_ok());
        let part = part(&again, &files, &bare, b"abc");
        assert!(again.complete(&bare.id, &[part], &files).is_ok(), "its directory was never on the disk");
    }

    #[test]
    fn an_upload_becomes_one_file_however_often_it_is_completed() {
        let (_directory, files, uploads) = all();
        let upload = uploads.begin("x.jsonl", Purpose::FineTune, "text/jsonl", 3).unwrap();
        let part = part(&uploads, &files, &upload, b"abc");
        let mut incoming = files.receive(3).unwrap();
        incoming.append(&b"abc"[..]).unwrap();
        uploads.complete(&upload.id, &[part], &files).unwrap();
        // One that began before, and is as far only now.
        let late = files.keep_with(incoming, "x.jsonl", Purpose::FineTune, |transaction, file| {
            end(transaction, &upload, UploadStatus::Completed, Some(file))
        });
        assert!(matches!(late, Err(UploadError::Over(UploadStatus::Completed))));
        assert_eq!(files.list(None, None, 9).unwrap().len(), 1);
    }

    #[test]
    fn a_cancelled_upload_takes_nothing_any_more() {
        let (_directory, files, uploads) = all();
        let upload = uploads.begin("x.jsonl", Purpose::FineTune, "text/jsonl", 3).unwrap();
        part(&uploads, &files, &upload, b"abc");
        assert_eq!(uploads.cancel(&upload.id).unwrap().status, UploadStatus::Cancelled);
        assert!(uploads.receive(&upload.id, &files).is_err());
        assert!(uploads.begin("x", Purpose::FineTune, "x", MAX_FILE + 1).is_err());
        assert!(uploads.begin("a\nb", Purpose::FineTune, "x", 1).is_err());
        assert!(matches!(uploads.get("upload-../x"), Err(UploadError::None(_))));
    }
}
