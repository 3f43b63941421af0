//! Files after the database was damaged: their bytes decide, not what a bad block left of their rows.

use super::{Files, FilesError, PREFIX, Purpose, Status, content};
use crate::work::storage::Storage;
use gap_jobs::{Database, dispatcher::now, identifier};
use rusqlite::params;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io,
    path::Path,
};

/// Compares every file with its row in a database that was made of a damaged one, before [`Files::open`]; again from the
/// beginning, where that was broken off. One whose bytes
/// are those that came is checked again before it is trained on; one whose bytes are others is no good; one whose row is
/// lost is kept as a file for nothing in particular.
///
/// # Errors
/// [`FilesError`].
pub fn settle(database: Database, storage: Storage) -> Result<(), FilesError> {
    Files::of(database, storage).compare()
}

impl Files {
    fn compare(&self) -> Result<(), FilesError> {
        for row in self.list(None, None, usize::MAX)? {
            let (status, details) = match sum(&self.content(&row.id)) {
                Ok((bytes, sha256)) if bytes == row.bytes && sha256 == row.sha256 => match row.purpose {
                    Purpose::UserData => (Status::Processed, row.details.filter(|_| row.status == Status::Processed)),
                    _ => (Status::Uploaded, None),
                },
                Ok(_) => {
                    (Status::Error, Some("the database was damaged, and its bytes are not those that came".to_owned()))
                }
                Err(error) => (Status::Error, Some(format!("its bytes cannot be read: {error}"))),
            };
            self.database.write(|transaction| -> Result<(), FilesError> {
                let values = params![row.id, status.name(), details];
                transaction.execute("UPDATE file SET status = ?2, details = ?3 WHERE id = ?1", values)?;
                Ok(())
            })?;
        }
        for entry in fs::read_dir(self.storage.root().join("files"))? {
            let name = entry?.file_name().into_string().unwrap_or_default();
            if identifier::is_well_formed(PREFIX, &name) && self.find(&name)?.is_none() {
                self.adopt(&name)?;
            }
        }
        Ok(())
    }

    /// Gives a row to a file that lost its own. What it was called and was for is not known any more.
    fn adopt(&self, id: &str) -> Result<(), FilesError> {
        // What cannot be read is no file.
        let Ok((bytes, sha256)) = sum(&content(&self.storage.file(id))) else { return Ok(()) };
        let bytes = i64::try_from(bytes).map_err(|_| FilesError::TooLong)?;
        self.database.write(|transaction| -> Result<(), FilesError> {
            let text = "INSERT INTO file (id, filename, purpose, bytes, sha256, status, details, created_at) \
                        VALUES (?1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let details = "the database was damaged: what this file was called and was for is lost";
            let (purpose, status) = (Purpose::UserData.name(), Status::Processed.name());
            transaction.execute(text, params![id, purpose, bytes, sha256, status, details, now()])?;
            Ok(())
        })
    }
}

/// Length and SHA-256 of a file.
fn sum(path: &Path) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let bytes = io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok((bytes, hex::encode(hasher.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::storage::Volume;
    use gap_jobs::database::salvage;

    #[test]
    fn after_damage_the_bytes_decide() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path(), Volume::Memory { reason: "test".into() }).unwrap();
        let files = Files::open(Database::in_memory().unwrap(), storage.clone()).unwrap();
        let bring = |purpose| {
            let mut incoming = files.receive(0).unwrap();
            incoming.append(&b"{\"prompt\":\"2+2?\",\"completion\":\"4\"}\n"[..]).unwrap();
            let row = files.keep(incoming, "x.jsonl", purpose).unwrap();
            files.check(&row.id).unwrap()
        };
        let [good, changed, gone, lost] = [(); 4].map(|()| bring(Purpose::FineTune));
        let plain = bring(Purpose::UserData);
        fs::write(files.content(&changed.id), "{}").unwrap();
        fs::remove_file(files.content(&gone.id)).unwrap();
        let text = "DELETE FROM file WHERE id = ?1";
        files.database.write(|transaction| transaction.execute(text, [&lost.id])).unwrap();

        settle(files.database.clone(), storage.clone()).unwrap();
        let again = Files::open(files.database.clone(), storage).unwrap();
        let state = |id: &str| again.get(id).unwrap();
        assert_eq!(state(&good.id).status, Status::Uploaded, "it is checked again");
        assert_eq!(again.check(&good.id).unwrap().status, Status::Processed);
        assert_eq!((state(&changed.id).status, state(&gone.id).status), (Status::Error, Status::Error));
        assert_eq!(state(&plain.id), plain);
        let found = state(&lost.id);
        assert_eq!((found.purpose, found.sha256, found.bytes), (Purpose::UserData, lost.sha256, lost.bytes));
        assert!(found.details.unwrap().contains("lost"));
    }

    #[test]
    fn no_file_is_removed_before_a_database_that_was_damaged_is_compared_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path(), Volume::Memory { reason: "test".into() }).unwrap();
        let files = Files::open(Database::in_memory().unwrap(), storage.clone()).unwrap();
        let mut incoming = files.receive(0).unwrap();
        incoming.append(&b"what somebody brought"[..]).unwrap();
        let row = files.keep(incoming, "x", Purpose::UserData).unwrap();
        fs::write(storage.database(), vec![7; 100_000]).unwrap();

        // The machine goes off before anything is compared, however often.
        for _ in 0..2 {
            let (database, salvaged) = salvage::open(&storage.database(), now()).unwrap();
            assert!(salvaged.is_some(), "it is told again");
            let files = Files::open(database, storage.clone()).unwrap();
            assert!(files.content(&row.id).exists() && files.get(&row.id).is_err());
        }
        let (database, _) = salvage::open(&storage.database(), now()).unwrap();
        settle(database.clone(), storage.clone()).unwrap();
        salvage::settled(&database).unwrap();
        let files = Files::open(database, storage).unwrap();
        assert_eq!(files.get(&row.id).unwrap().sha256, row.sha256);
        assert!(files.content(&row.id).exists());
    }
}
