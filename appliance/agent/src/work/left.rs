//! What jobs leave in directories of their own, while they run and after.
//!
//! A job may put anything anywhere in there, and exchange it between two looks: a link to a file of the agent, a pipe that
//! nobody writes to, a file of 16 TiB. So everything is opened from its directory downwards, by a way on which no link
//! leads (`openat2` with `RESOLVE_BENEATH`), without waiting, and what was opened is looked at, not its name.

use gap_contract::Output;
use rustix::{
    fd::{AsRawFd, OwnedFd},
    fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2},
};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// A directory of a job: `root` itself lies in a directory that only the agent writes to.
#[derive(Debug)]
pub struct Left {
    root: OwnedFd,
}

/// What is in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: OsString,
    /// What it was when the directory was read.
    pub kind: FileType,
}

impl Left {
    /// What lies in `root`.
    ///
    /// # Errors
    /// What the system said, also where `root` is no directory.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { root: open(root, flags, Mode::empty())? })
    }

    fn beneath(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        Ok(openat2(&self.root, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }

    /// A regular file, opened for reading.
    ///
    /// # Errors
    /// What the system said; `InvalidData` for what is no regular file.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        let file = File::from(self.beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(no("regular file")) }
    }

    /// All of a regular file of at most `limit` bytes.
    ///
    /// # Errors
    /// What the system said; `InvalidData` for what is no regular file, or longer.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.file(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if u64::try_from(read).is_ok_and(|read| read <= limit) {
            Ok(bytes)
        } else {
            Err(no("file as short as it must be"))
        }
    }

    /// A directory, not a link to one, to be looked at.
    ///
    /// # Errors
    /// What the system said.
    pub fn directory(&self, path: &Path) -> io::Result<File> {
        Ok(File::from(self.beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)?))
    }

    /// Whether there is a directory of this name, and not a link to one.
    pub fn has_directory(&self, path: &Path) -> bool {
        self.beneath(path, OFlags::PATH | OFlags::DIRECTORY).is_ok()
    }

    /// What is in a directory, in no order; at most `limit` entries.
    ///
    /// # Errors
    /// What the system said.
    pub fn entries(&self, path: &Path, limit: usize) -> io::Result<Vec<Entry>> {
        let directory = self.beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in Dir::new(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if entries.len() >= limit {
                break;
            }
            if name != b"." && name != b".." {
                entries.push(Entry { name: OsString::from_vec(name.to_vec()), kind: entry.file_type() });
            }
        }
        Ok(entries)
    }

    /// A socket, to connect to by [`Socket::path`].
    ///
    /// # Errors
    /// What the system said; `InvalidData` for what is no socket.
    pub fn socket(&self, path: &Path) -> io::Result<Socket> {
        let socket = self.beneath(path, OFlags::PATH)?;
        let is_socket = FileType::from_raw_mode(fstat(&socket)?.st_mode) == FileType::Socket;
        if is_socket { Ok(Socket(socket)) } else { Err(no("socket")) }
    }
}

/// A socket that was found and is held.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// A path that leads to this very socket, whatever has its name by now.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    /// The socket of this path, in whose directory a job may have put anything.
    ///
    /// # Errors
    /// As for [`Left::socket`].
    pub fn at(path: &Path) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err(no("socket")) };
        Left::open(directory)?.socket(name.as_ref())
    }
}

/// Lines of a file of which at most `limit` bytes are read; what is longer than `longest` comes in pieces. The last one is
/// left out where its end is missing: it is still being written.
pub struct Lines {
    reader: io::Take<BufReader<File>>,
    longest: u64,
}

impl Lines {
    /// The lines of `file` from where it stands.
    pub fn new(file: File, longest: u64, limit: u64) -> Self {
        Self { reader: BufReader::new(file).take(limit), longest }
    }
}

impl Iterator for Lines {
    /// The line with its end, if it has one.
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        match self.reader.by_ref().take(self.longest).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(len) => {
                let is_piece = u64::try_from(len).is_ok_and(|len| len == self.longest);
                (line.last() == Some(&b'\n') || is_piece).then_some(Ok(line))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// Whether a run of a training left something that the next one goes on from, or must not take for its own.
pub fn has_begun(output: &Path) -> bool {
    let names = Output::new("");
    let Ok(left) = Left::open(output) else { return false };
    left.has_directory(&names.checkpoints())
        || [names.lineage(), names.metrics()].iter().any(|name| left.file(name).is_ok())
}

fn no(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is no {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::{fs, os::unix::fs::symlink};

    fn directory() -> (tempfile::TempDir, Left) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("output");
        fs::create_dir_all(root.join("adapter")).unwrap();
        fs::write(root.join("adapter/x"), "12345").unwrap();
        fs::write(directory.path().join("secret"), "s").unwrap();
        symlink(directory.path(), root.join("out")).unwrap();
        symlink("adapter", root.join("same")).unwrap();
        symlink("x", root.join("adapter/y")).unwrap();
        let fifo = root.join("pipe");
        rustix::fs::mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
        let left = Left::open(&root).unwrap();
        (directory, left)
    }

    #[test]
    fn what_lies_there_is_read_and_no_link_leads_away() {
        let (directory, left) = directory();
        assert_eq!(left.read("adapter/x".as_ref(), 5).unwrap(), b"12345");
        assert!(left.read("adapter/x".as_ref(), 4).is_err());
        for bad in ["../secret", "/etc/passwd", "out/secret", "adapter/../../secret", "adapter/y", "same/x", "", "none"]
        {
            assert!(left.file(bad.as_ref()).is_err(), "{bad}");
        }
        assert!(left.has_directory("adapter".as_ref()));
        assert!(!left.has_directory("same".as_ref()) && !left.has_directory("out".as_ref()));
        assert!(Left::open(&directory.path().join("output/same")).is_err());
    }

    #[test]
    fn a_training_has_begun_when_it_left_something_itself() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        assert!(!has_begun(&output));
        fs::create_dir(&output).unwrap();
        fs::write(output.join("mine"), "x").unwrap();
        fs::write(directory.path().join("metrics.jsonl"), "{}").unwrap();
        symlink("../metrics.jsonl", output.join("metrics.jsonl")).unwrap();
        symlink("..", output.join("checkpoints")).unwrap();
        assert!(!has_begun(&output), "links are not followed");
        fs::write(output.join("lineage.json"), "{}").unwrap();
        assert!(has_begun(&output));
        for name in ["lineage.json", "checkpoints", "metrics.jsonl"] {
            fs::remove_file(output.join(name)).unwrap();
        }
        fs::create_dir(output.join("checkpoints")).unwrap();
        assert!(has_begun(&output));
        fs::remove_dir(output.join("checkpoints")).unwrap();
        fs::write(output.join("metrics.jsonl"), "{}").unwrap();
        assert!(has_begun(&output));
    }

    #[test]
    fn nobody_waits_for_a_pipe_and_a_directory_is_no_file() {
        let (_directory, left) = directory();
        assert_eq!(left.file("pipe".as_ref()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(left.file("adapter".as_ref()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn entries_are_told_with_what_they_are() {
        let (_directory, left) = directory();
        let mut entries = left.entries(".".as_ref(), 9).unwrap();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let kinds: Vec<_> = entries.iter().map(|entry| (entry.name.to_str().unwrap(), entry.kind)).collect();
        use FileType::{Directory, Fifo, Symlink};
        assert_eq!(kinds, [("adapter", Directory), ("out", Symlink), ("pipe", Fifo), ("same", Symlink)]);
        assert!(left.entries(".".as_ref(), 3).unwrap().len() <= 3);
        assert!(left.entries("out".as_ref(), 9).is_err());
    }

    #[test]
    fn a_socket_is_held_by_what_it_is_and_not_by_its_name() {
        let (directory, left) = directory();
        let root = directory.path().join("output");
        let _listener = std::os::unix::net::UnixListener::bind(root.join("http.sock")).unwrap();
        let found = left.socket("http.sock".as_ref()).unwrap();
        fs::rename(root.join("http.sock"), root.join("old")).unwrap();
        symlink("old", root.join("http.sock")).unwrap();
        assert!(std::os::unix::net::UnixStream::connect(found.path()).is_ok());
        assert!(Socket::at(&root.join("http.sock")).is_err() && Socket::at(&root.join("adapter/x")).is_err());
    }

    #[test]
    fn lines_are_bounded_in_length_and_in_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        fs::write(&path, "ab\ncdefg\nh").unwrap();
        let lines = |longest, limit| -> Vec<Vec<u8>> {
            Lines::new(File::open(&path).unwrap(), longest, limit).map(Result::unwrap).collect()
        };
        assert_eq!(lines(99, 99), [b"ab\n".to_vec(), b"cdefg\n".to_vec()]);
        assert_eq!(lines(4, 99), [b"ab\n".to_vec(), b"cdef".to_vec(), b"g\n".to_vec()]);
        assert_eq!(lines(99, 5), [b"ab\n".to_vec()]);
    }
}
