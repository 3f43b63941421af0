//! The kernel's log, in which the driver reports errors of GPUs.

use crate::root::Root;
use rustix::{
    fs::{Mode, OFlags, open},
    io::{Errno, read},
};
use std::os::fd::OwnedFd;

/// Longest record, in bytes (`LOG_LINE_MAX` and its head).
const RECORD: usize = 8 << 10;
/// Most that is read at once, in bytes.
const MAX_NEWS: usize = 16 << 20;

/// The log, and how far it was read.
#[derive(Debug, Default)]
pub struct KernelLog(Option<OwnedFd>);

impl KernelLog {
    /// What the kernel wrote since the last call; with the first call all that it still has. Empty where it cannot be
    /// read.
    pub fn news(&mut self, root: &Root) -> String {
        let mut news = Vec::new();
        if self.0.is_none() {
            // Each read gives one record; with none left it would wait.
            self.0 =
                open(root.at("/dev/kmsg"), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok();
        }
        let Some(file) = &self.0 else { return String::new() };
        let mut record = [0; RECORD];
        while news.len() < MAX_NEWS {
            match read(file, &mut record) {
                Ok(length) if length > 0 => news.extend(record.iter().take(length)),
                // A record was overwritten while it was read; the next one is there.
                Err(Errno::PIPE | Errno::INTR) => {}
                _ => break,
            }
        }
        String::from_utf8_lossy(&news).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

    #[test]
    fn only_what_is_new_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let mut log = KernelLog::default();
        assert_eq!(log.news(&root), "", "there is none yet");
        fs::create_dir(root.at("/dev")).unwrap();
        fs::write(root.at("/dev/kmsg"), "one\n").unwrap();
        assert_eq!(log.news(&root), "one\n");
        fs::OpenOptions::new().append(true).open(root.at("/dev/kmsg")).unwrap().write_all(b"two\n").unwrap();
        assert_eq!(log.news(&root), "two\n");
        assert_eq!(log.news(&root), "");
    }
}
