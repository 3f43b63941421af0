//! Any bytes as a wheel's archive: what it holds lies within the limits and the tree, whatever the archive says.
#![no_main]

use gapimage::{layer::tree::TreePath, source::wheels::archive::Archive};
use libfuzzer_sys::fuzz_target;
use std::{
    collections::BTreeSet,
    io::{self, Read},
};

/// An archive in memory.
struct Bytes<'b>(&'b [u8]);

impl rawzip::ReaderAt for Bytes<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        (&self.0[at..]).read(buf)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(archive) = Archive::open(Bytes(bytes), bytes.len() as u64) else { return };
    let _ = archive.dist_info();
    if archive.check_layout().is_err() {
        return;
    }
    let mut paths = BTreeSet::new();
    for member in archive.members() {
        let path = TreePath::new(&member.path).expect("a checked path");
        assert_eq!(path.as_bytes(), member.path.as_bytes());
        assert!(paths.insert(path), "every name once");
        // A bomb's length is a lie, so only so much is read.
        if let Ok(data) = archive.read(&member.path, 1 << 20) {
            assert_eq!(data.len() as u64, member.size);
        }
    }
});
