//! The file in which an artifact is assembled. Where the file system can, it has no name until it is whole, so that
//! whatever ends the process, Ctrl-C or a power cut, leaves nothing behind. From its making to its last name it is locked, so
//! that no other build takes it for abandoned, whatever it is called in between.

use rustix::{
    fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, linkat, openat},
    io::Errno,
};
use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};
use tempfile::{Builder, NamedTempFile};

/// Around the random part of the names of drafts.
const PREFIX: &str = ".gapimage-";
const SUFFIX: &str = ".partial";
/// Who may do what with an artifact, before the umask.
const MODE: u32 = 0o644;

/// A file that is to become an artifact.
#[derive(Debug)]
pub(super) enum Draft {
    /// Without a name until it is whole.
    Unnamed(File),
    /// With a name, where there is no other way.
    Named(NamedTempFile),
}

impl Draft {
    /// Makes an empty file in `dir`, and removes those that killed processes left there.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn new_in(dir: &Path) -> io::Result<Self> {
        sweep(dir);
        if let Some(file) = unnamed(dir)? {
            return Ok(Self::Unnamed(file));
        }
        Self::named(dir)
    }

    fn named(dir: &Path) -> io::Result<Self> {
        loop {
            let permissions = Permissions::from_mode(MODE);
            let file = Builder::new().prefix(PREFIX).suffix(SUFFIX).permissions(permissions).tempfile_in(dir)?;
            flock(&file, FlockOperation::LockExclusive)?;
            // One that was swept before it was locked has lost its name.
            if file.as_file().metadata()?.nlink() > 0 {
                return Ok(Self::Named(file));
            }
        }
    }

    pub(super) fn file(&self) -> &File {
        match self {
            Self::Unnamed(file) => file,
            Self::Named(file) => file.as_file(),
        }
    }

    /// Gives the file its name, in the same directory, in the place of whatever has it.
    ///
    /// # Errors
    /// What the system said; the file is gone then, and what had the name still has it.
    pub(super) fn persist(self, output: &Path) -> io::Result<()> {
        let named = match self {
            Self::Named(file) => file,
            Self::Unnamed(file) => {
                let link = descriptor(&file);
                let give = |path: &Path| {
                    linkat(CWD, &link, CWD, path, AtFlags::SYMLINK_FOLLOW)?;
                    file.try_clone()
                };
                // A link cannot replace what is there; a renamed file can.
                let dir = output.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                Builder::new().prefix(PREFIX).suffix(SUFFIX).make_in(dir, give)?
            }
        };
        named.persist(output).map(drop).map_err(|error| error.error)
    }
}

/// A file without a name, if the file system has such and it can be given one later.
fn unnamed(dir: &Path) -> io::Result<Option<File>> {
    match openat(CWD, dir, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from_raw_mode(MODE)) {
        Ok(file) => {
            let file = File::from(file);
            // It has a draft's name for a moment, between link and rename.
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            Ok(Some(file).filter(|file| descriptor(file).exists()))
        }
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn descriptor(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Removes drafts that nobody is writing; that one cannot be removed is no reason not to build.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_draft = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        if is_draft
            && let Ok(file) = File::open(entry.path())
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_draft_takes_its_name_over_what_has_it_and_leaves_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("a.gap");
        for make in [Draft::new_in, Draft::named] {
            fs::write(&output, "before").unwrap();
            let draft = make(dir.path()).unwrap();
            draft.file().write_all(b"after").unwrap();
            assert_eq!(fs::read(&output).unwrap(), b"before");
            draft.persist(&output).unwrap();
            assert_eq!(fs::read(&output).unwrap(), b"after");
            assert_eq!(names(dir.path()), ["a.gap"]);
            drop(make(dir.path()).unwrap());
            assert_eq!(names(dir.path()), ["a.gap"]);
            fs::remove_file(&output).unwrap();
            make(dir.path()).unwrap().persist(&output).unwrap();
            assert_eq!(names(dir.path()), ["a.gap"]);
        }
    }

    #[test]
    fn what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".gapimage-abandoned.partial"), "x").unwrap();
        fs::write(dir.path().join(".gapimage-other"), "x").unwrap();
        let living = Draft::named(dir.path()).unwrap();
        drop(Draft::new_in(dir.path()).unwrap());
        assert_eq!(names(dir.path()).len(), 2, "the living one and what is no draft");
        living.persist(&dir.path().join("b.gap")).unwrap();
        assert_eq!(names(dir.path()), [".gapimage-other", "b.gap"]);
    }

    #[test]
    fn a_draft_that_just_got_its_first_name_is_not_swept() {
        let dir = tempfile::tempdir().unwrap();
        let draft = Draft::new_in(dir.path()).unwrap();
        if let Draft::Unnamed(file) = &draft {
            let path = dir.path().join(".gapimage-linked.partial");
            linkat(CWD, descriptor(file), CWD, &path, AtFlags::SYMLINK_FOLLOW).unwrap();
            sweep(dir.path());
            assert!(path.exists());
        }
    }

    #[test]
    fn a_file_system_with_unnamed_files_shows_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let draft = Draft::new_in(dir.path()).unwrap();
        if matches!(draft, Draft::Unnamed(_)) {
            assert_eq!(names(dir.path()), [""; 0]);
        }
    }
}
