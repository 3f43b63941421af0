//! Where everything that outlives a job lies on the data volume.

use rustix::fs::{CWD, Gid, Uid};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

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
        for name in ["files", "jobs", "uploads"] {
            make(&root.join(name), 0o755)?;
        }
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

/// Gives a file or directory to a user. Where this process may not, it stays its own.
pub fn own(path: &Path, user: u32) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    Ok(rustix::fs::chownat(CWD, path, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?)
}
