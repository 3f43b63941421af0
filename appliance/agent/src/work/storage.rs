//! Where everything that outlives a job lies on the data volume.

use gap_jobs::identifier;
use rustix::fs::{CWD, Gid, Uid};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Most files and directories of a model that are looked at.
const MAX_RESULT: usize = 100_000;
/// The directory of what is to be deleted.
const TRASH: &str = "trash";
/// The user who may do everything: the agent.
const ROOT: u32 = 0;

/// What the data volume is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Volume {
    /// A disk, which keeps everything.
    Disk {
        /// Its name in the kernel.
        device: String,
    },
    /// Memory, which forgets everything at power-off.
    Memory {
        /// Why no disk is used.
        reason: String,
    },
}

/// The directories of the data volume. Only root gets into the uppermost one; a job sees what is bound into it.
#[derive(Debug, Clone)]
pub struct Storage {
    root: PathBuf,
    volume: Volume,
}

impl Storage {
    /// Makes the directories in `root` where they are missing.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(root: &Path, volume: Volume) -> io::Result<Self> {
        make(root, 0o700)?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))?;
        for name in ["files", "jobs", "uploads", TRASH] {
            make(&root.join(name), 0o755)?;
        }
        sync_directory(root)?;
        Ok(Self { root: root.to_owned(), volume })
    }

    /// What it is made of.
    pub const fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The uppermost directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.root.join("jobs.db")
    }

    /// The audit log.
    pub fn audit(&self) -> PathBuf {
        self.root.join("audit.log")
    }

    /// The directory of an uploaded file.
    pub fn file(&self, id: &str) -> PathBuf {
        self.root.join("files").join(id)
    }

    /// The directory of an upload's parts.
    pub fn upload(&self, id: &str) -> PathBuf {
        self.root.join("uploads").join(id)
    }

    /// What a job leaves behind.
    pub fn output(&self, job: &str) -> PathBuf {
        self.root.join("jobs").join(job).join("output")
    }

    /// What a job may keep between its runs.
    pub fn cache(&self, job: &str) -> PathBuf {
        self.root.join("jobs").join(job).join("cache")
    }

    /// What a job prints.
    pub fn log(&self, job: &str) -> PathBuf {
        self.root.join("jobs").join(job).join("log")
    }

    /// How far the events that a job wrote were taken over.
    pub fn told(&self, job: &str) -> PathBuf {
        self.root.join("jobs").join(job).join("told")
    }

    /// Makes the directories of a job, which belong to its user.
    ///
    /// # Errors
    /// What the system said.
    pub fn make_job(&self, job: &str, user: u32) -> io::Result<()> {
        make(&self.root.join("jobs").join(job), 0o755)?;
        for directory in [self.output(job), self.cache(job)] {
            make(&directory, 0o755)?;
            own(&directory, user)?;
        }
        Ok(())
    }

    /// Takes away what a job left behind, at once, however many files that are. Returns the directory that it is in now, for
    /// [`remove`]; none when it is gone.
    ///
    /// # Errors
    /// What the system said.
    pub fn take_output(&self, job: &str) -> io::Result<Option<PathBuf>> {
        let taken = self.root.join(TRASH).join(identifier::random("output"));
        match fs::rename(self.output(job), &taken) {
            Ok(()) => Ok(Some(taken)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes what was taken away and is still there: a power cut may have come before.
    ///
    /// # Errors
    /// What the system said.
    pub fn empty_trash(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join(TRASH))? {
            remove(&entry?.path())?;
        }
        Ok(())
    }

    /// Deletes what a job kept between its runs. It is no error when that is gone.
    ///
    /// # Errors
    /// What the system said.
    pub fn delete_cache(&self, job: &str) -> io::Result<()> {
        remove(&self.cache(job))
    }

    /// Deletes what a job printed. It is no error when that is gone.
    ///
    /// # Errors
    /// What the system said.
    pub fn delete_log(&self, job: &str) -> io::Result<()> {
        remove(&self.log(job))
    }

    /// The jobs of which a cache lies here, by name.
    ///
    /// # Errors
    /// What the system said.
    pub fn cached_jobs(&self) -> io::Result<Vec<String>> {
        let names =
            fs::read_dir(self.root.join("jobs"))?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| self.cache(name).is_dir()).collect())
    }

    /// Returns when all that any program has written so far is on the disk. Jobs do not sync what they print, and many not even
    /// what they make.
    ///
    /// # Errors
    /// What the system said.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(fs::File::open(&self.root)?)?)
    }

    /// Bytes free for programs without privileges, and in all.
    ///
    /// # Errors
    /// What the system said.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
    }
}

/// Makes a directory and those above it, with this mode whatever the mask; one that is there stays as it is.
pub fn make(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Removes a directory and all in it. It is no error when it is gone.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns when the names in a directory are on the disk.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Makes what a job left behind readable for others and unchangeable for all, the job itself included: from now on it is a
/// model of the appliance. Links are left as they are; they lead nowhere but into the container that follows them.
pub fn publish(path: &Path) -> io::Result<()> {
    let mut left = vec![path.to_owned()];
    let mut seen = 0_usize;
    while let Some(next) = left.pop() {
        seen = seen.saturating_add(1);
        let metadata = fs::symlink_metadata(&next)?;
        if seen > MAX_RESULT || metadata.is_symlink() {
            continue;
        }
        own(&next, ROOT)?;
        fs::set_permissions(&next, fs::Permissions::from_mode(if metadata.is_dir() { 0o755 } else { 0o644 }))?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&next)? {
                left.push(entry?.path());
            }
        }
    }
    Ok(())
}

/// Gives a file or directory to a user. Where this process may not, it stays its own.
pub fn own(path: &Path, user: u32) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    Ok(rustix::fs::chownat(CWD, path, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_gone_before_its_bytes_are_and_these_go_at_the_next_start_at_the_latest() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path(), Volume::Memory { reason: "test".into() }).unwrap();
        assert_eq!(storage.take_output("job").unwrap(), None);
        make(&storage.output("job").join("adapter"), 0o755).unwrap();
        fs::write(storage.output("job").join("adapter/weights"), "w").unwrap();
        let taken = storage.take_output("job").unwrap().unwrap();
        assert!(!storage.output("job").exists());
        assert_eq!(fs::read(taken.join("adapter/weights")).unwrap(), b"w");
        storage.empty_trash().unwrap();
        assert!(!taken.exists());
        remove(&taken).unwrap();
    }

    #[test]
    fn a_result_is_readable_for_others_whatever_the_job_made_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let (result, secret) = (directory.path().join("adapter"), directory.path().join("secret"));
        fs::write(&secret, "s").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        make(&result.join("inner"), 0o700).unwrap();
        fs::write(result.join("inner/weights"), "w").unwrap();
        fs::set_permissions(result.join("inner/weights"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&secret, result.join("out")).unwrap();
        publish(&result).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&result.join("inner")), mode(&result.join("inner/weights"))), (0o755, 0o644));
        assert_eq!(mode(&secret), 0o600, "a link is not followed");
    }
}
