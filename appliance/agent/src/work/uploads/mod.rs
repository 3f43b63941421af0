//! Uploads in parts: a large file arrives piece by piece, in any order and over any number of connections, and becomes a
//! file when the last piece is there. What a power cut or a broken line takes is one piece.

mod part;
mod upload;

pub use part::IncomingPart;
pub use upload::{Part, Upload, UploadError, UploadStatus};

use super::{
    files::{FileRow, Files, FilesError, MAX_FILE, Purpose, check_name},
    storage::{Storage, make, remove, sync_directory},
};
use crate::console;
use gap_jobs::{Database, DatabaseError, dispatcher::now, identifier};
use rusqlite::{OptionalExtension, Transaction, params};
use std::{
    collections::BTreeSet,
    fs::{self, File},
};

/// Prefix of the names of uploads.
pub const PREFIX: &str = "upload";
/// Prefix of the names of parts.
pub const PART_PREFIX: &str = "part";
/// Largest part, in bytes; OpenAI's.
pub const MAX_PART: u64 = 64 << 20;
/// How long an upload waits for its next part, in milliseconds.
const LIFETIME: i64 = 24 * 60 * 60 * 1000;
/// Most uploads that wait at once.
const MAX_PENDING: i64 = 100;
/// Most parts of one.
const MAX_PARTS: usize = 10_000;

/// All uploads.
#[derive(Debug)]
pub struct Uploads {
    database: Database,
    storage: Storage,
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
            let purpose = Purpose::named(&purpose).ok_or_else(|| unknown(id))?;
            let status = UploadStatus::ALL.into_iter().find(|it| it.name() == status).ok_or_else(|| unknown(id))?;
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
        if let Err(error) = sync_directory(&directory) {
            // An upload that is over has none.
            self.pending(&incoming.upload.id)?;
            return Err(error.into());
        }
        sync_directory(&self.storage.root().join("uploads"))?;
        let created_at = now();
        self.database.write(|transaction| -> Result<(), UploadError> {
            goes_on(transaction, &incoming.upload)?;
            // However slow the line is, it waits for as long as parts come.
            let text = "UPDATE upload SET expires_at = max(expires_at, ?2) WHERE sequence = ?1";
            transaction.execute(text, params![incoming.upload.sequence, created_at.saturating_add(LIFETIME)])?;
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
        self.clear(id);
        Ok((self.get(id)?, row))
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// [`UploadError`].
    pub fn cancel(&self, id: &str) -> Result<Upload, UploadError> {
        let upload = self.pending(id)?;
        self.database.write(|transaction| end(transaction, &upload, UploadStatus::Cancelled, None))?;
        self.clear(id);
        self.get(id)
    }

    /// Removes the parts of an upload that is over. What stays goes at the next start; it is over all the same.
    fn clear(&self, id: &str) {
        if let Err(error) = remove(&self.storage.upload(id)) {
            console::say(format_args!("the parts of {id}, which is over, are still there: {error}"));
        }
    }

    fn pending(&self, id: &str) -> Result<Upload, UploadError> {
        self.expire()?;
        let upload = self.get(id)?;
        if upload.status == UploadStatus::Pending { Ok(upload) } else { Err(UploadError::Over(upload.status)) }
    }

    /// Gives up what waited too long.
    fn expire(&self) -> Result<(), UploadError> {
        let ids: Vec<String> = self.database.write(|transaction| -> Result<_, UploadError> {
            let text = "SELECT id, sequence FROM upload WHERE status = 'pending' AND expires_at <= ?1";
            let mut statement = transaction.prepare_cached(text)?;
            let rows = statement.query_map([now()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let over: Vec<(String, i64)> = rows.collect::<Result<_, _>>()?;
            for (_, sequence) in &over {
                note_end(transaction, *sequence, UploadStatus::Expired, None)?;
            }
            Ok(over.into_iter().map(|(id, _)| id).collect())
        })?;
        ids.iter().for_each(|id| self.clear(id));
        Ok(())
    }
}

/// Notes that an upload is over. Two that end it at once cannot both: one file comes of it.
fn end(
    transaction: &Transaction<'_>,
    upload: &Upload,
    status: UploadStatus,
    file: Option<&str>,
) -> Result<(), UploadError> {
    goes_on(transaction, upload)?;
    note_end(transaction, upload.sequence, status, file)
}

/// Whether an upload that was looked at before still waits for parts.
fn goes_on(transaction: &Transaction<'_>, upload: &Upload) -> Result<(), UploadError> {
    let text = "SELECT status FROM upload WHERE sequence = ?1";
    let name: String = transaction.query_row(text, [upload.sequence], |row| row.get(0))?;
    match UploadStatus::ALL.into_iter().find(|status| status.name() == name) {
        Some(UploadStatus::Pending) => Ok(()),
        Some(status) => Err(UploadError::Over(status)),
        None => Err(unknown(&upload.id).into()),
    }
}

fn note_end(
    transaction: &Transaction<'_>,
    sequence: i64,
    status: UploadStatus,
    file: Option<&str>,
) -> Result<(), UploadError> {
    let text = "UPDATE upload SET status = ?2, file = ?3 WHERE sequence = ?1";
    transaction.execute(text, params![sequence, status.name(), file])?;
    transaction.execute("DELETE FROM upload_part WHERE upload = ?1", [sequence])?;
    Ok(())
}

fn unknown(id: &str) -> DatabaseError {
    DatabaseError::Damaged(format!("the upload {id} has an unknown purpose or status"))
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

    #[test]
    fn a_part_of_an_upload_that_was_given_up_meanwhile_is_not_kept() {
        let (directory, files, uploads) = all();
        let upload = uploads.begin("x.jsonl", Purpose::FineTune, "text/jsonl", 3).unwrap();
        let receive = || {
            let mut incoming = uploads.receive(&upload.id, &files).unwrap();
            incoming.write(b"abc").unwrap();
            incoming
        };
        let [gone, other] = [receive(), receive()];
        uploads.cancel(&upload.id).unwrap();
        let is_cancelled = |kept| matches!(kept, Err(UploadError::Over(UploadStatus::Cancelled)));
        assert!(is_cancelled(uploads.keep(gone)), "its directory is gone");
        fs::create_dir(directory.path().join("uploads").join(&upload.id)).unwrap();
        assert!(is_cancelled(uploads.keep(other)), "its directory is still there");
        let count = |t: &Transaction<'_>| t.query_row("SELECT count(*) FROM upload_part", [], |row| row.get(0));
        assert_eq!(uploads.database.read::<i64, rusqlite::Error>(count).unwrap(), 0);
    }

    #[test]
    fn an_upload_waits_for_as_long_as_parts_come_and_no_longer() {
        let (directory, files, uploads) = all();
        let [slow, silent] = [(); 2].map(|()| uploads.begin("x.jsonl", Purpose::FineTune, "text/jsonl", 6).unwrap());
        let expires = |id: &str, at: i64| {
            let text = "UPDATE upload SET expires_at = ?2 WHERE id = ?1";
            uploads.database.write(|transaction| transaction.execute(text, params![id, at])).unwrap();
        };
        // Both began a day ago, but for a minute.
        expires(&slow.id, now() + 60_000);
        part(&uploads, &files, &slow, b"abc");
        assert!(uploads.get(&slow.id).unwrap().expires_at > now() + LIFETIME / 2);
        expires(&silent.id, now() - 1);
        // What hinders the removal of one that is over hinders no other.
        let place = directory.path().join("uploads").join(&silent.id);
        fs::remove_dir(&place).unwrap();
        fs::write(&place, "no directory").unwrap();
        let rest = part(&uploads, &files, &slow, b"def");
        assert!(uploads.parts(&slow).unwrap().iter().any(|(id, _)| *id == rest));
        assert_eq!(uploads.get(&silent.id).unwrap().status, UploadStatus::Expired);
    }
}
