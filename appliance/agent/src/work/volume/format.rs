//! Making the file system of a data volume, so that a power cut or an end of the agent in the midst of it costs nothing.
//!
//! Half a file system looks like anybody's data, which is left alone. So the end of the disk, which the file system leaves
//! free, is marked before it is made and cleared after: a disk with the mark is made anew. A file system that was mounted
//! once is never made anew, whatever stands there, nor is what begins as another one does.

use super::{EXT4_MAGIC, LABEL, is_ours, read};
use crate::root::Root;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The program that makes the file system, from e2fsprogs.
const MKFS: [&str; 2] = ["/usr/sbin/mke2fs", "/sbin/mke2fs"];
/// Bytes at the end of the disk that the file system leaves free.
const FREE: u64 = 1 << 20;
/// The mark lies so far before the end of the disk. A partition table lies there too, and takes its place.
const MARK_BEFORE_END: u64 = 4096;
/// Bytes at the beginning that stay zeros while a file system is made: before its superblock.
const UNTOUCHED: usize = 1024;
/// Bytes at the beginning that stay zeros until the superblock is there: it is written last, and its block cleared before.
const BEFORE_SUPERBLOCK: usize = 4096;
/// What others leave behind those: where, and which bytes (the kernel's `include/uapi/linux/raid/md_p.h`,
/// `drivers/md/bcache/bcache_ondisk.h`, ECMA-119, ECMA-167, `fs/jfs/jfs_superblock.h`, `fs/btrfs/disk-io.c`).
const FOREIGN: [(u64, &[u8]); 6] = [
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9]),
    (4096 + 24, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca]),
    (32768 + 1, b"CD001"),
    (32768 + 1, b"BEA01"),
    (32768, b"JFS1"),
    (65536 + 64, b"_BHRfS_M"),
];
/// Places in ext4's superblock: when it was mounted last, and how often.
const EXT4_MOUNTED: [(u64, usize); 2] = [(1024 + 0x2c, 4), (1024 + 0x34, 2)];
/// How long another one who formats the disk is waited for: an agent that ended leaves its `mke2fs` behind.
const BUSY: Duration = Duration::from_secs(600);
/// Time between two looks whether it is still at work.
const LOOK: Duration = Duration::from_secs(1);

/// What marks a disk of this length: the same bytes on another disk mean nothing.
fn mark(len: u64) -> Vec<u8> {
    format!("gapimage: the data volume on this disk of {len} bytes is being formatted\n").into_bytes()
}

/// Whether the appliance began to format this disk and did not come to the end.
///
/// # Errors
/// What the system said.
pub(super) fn is_begun(disk: &File, len: u64) -> io::Result<bool> {
    let read = |at, count| read(disk, at, count);
    let mark = mark(len);
    // One that cannot be read is none.
    if read(len.saturating_sub(MARK_BEFORE_END), mark.len()).ok() != Some(mark) || !is_zero(&read(0, UNTOUCHED)?) {
        return Ok(false);
    }
    let (magic_at, magic) = EXT4_MAGIC;
    if read(magic_at, magic.len())? == magic {
        return Ok(is_ours(disk)? && !was_mounted(disk)?);
    }
    for (at, signature) in FOREIGN {
        if read(at, signature.len())? == signature {
            return Ok(false);
        }
    }
    Ok(is_zero(&read(0, BEFORE_SUPERBLOCK)?))
}

/// Whether the ext4 on a disk was ever mounted.
///
/// # Errors
/// What the system said.
pub(super) fn was_mounted(disk: &File) -> io::Result<bool> {
    for (at, len) in EXT4_MOUNTED {
        if !is_zero(&read(disk, at, len)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Formats a disk of `len` bytes.
pub(super) fn format(root: &Root, node: &Path, len: u64, tell: impl Fn(String)) -> Result<(), String> {
    let program =
        MKFS.iter().map(|path| root.at(path)).find(|path| path.exists()).ok_or(
            "there is an empty disk, but the OS image cannot format it: its recipe needs the package e2fsprogs",
        )?;
    let failed = |error: io::Error| format!("formatting {}: {error}", node.display());
    let claim = || rustix::fs::open(node, OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty()).map(drop);
    wait_until_free(BUSY, LOOK, claim, || {
        tell(format!("{} is still being formatted by an earlier start, which is waited for", node.display()));
    })
    .map_err(|error| failed(error.into()))?;
    let at = len.saturating_sub(MARK_BEFORE_END);
    let mark = mark(len);
    write_through(node, &mark, at).map_err(failed)?;
    let output = Command::new(program)
        .args(["-q", "-F", "-t", "ext4", "-L", LABEL, "-E", "lazy_itable_init=1,lazy_journal_init=1"])
        .arg(node)
        .arg(format!("{}k", len.saturating_sub(FREE) / 1024))
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("formatting {}: {}", node.display(), said.trim()));
    }
    write_through(node, &vec![0; mark.len()], at).map_err(failed)
}

fn write_through(node: &Path, bytes: &[u8], at: u64) -> io::Result<()> {
    let disk = File::options().write(true).open(node)?;
    disk.write_all_at(bytes, at)?;
    disk.sync_all()
}

/// Waits as long as `claim` says that somebody else has the disk.
fn wait_until_free(
    limit: Duration,
    look: Duration,
    mut claim: impl FnMut() -> Result<(), Errno>,
    tell: impl FnOnce(),
) -> Result<(), Errno> {
    let began = Instant::now();
    let mut tell = Some(tell);
    loop {
        match claim() {
            Err(Errno::BUSY) if began.elapsed() < limit => {
                if let Some(tell) = tell.take() {
                    tell();
                }
                thread::sleep(look);
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::LOOKED_AT, *};
    use std::{fs, os::unix::fs::symlink};

    const LEN: u64 = 64 << 20;

    /// A machine with an empty disk and this program to format it.
    fn machine(program: &str) -> (tempfile::TempDir, Root, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        for place in ["/dev", "/usr/sbin"] {
            fs::create_dir_all(root.at(place)).unwrap();
        }
        symlink(program, root.at(MKFS[0])).unwrap();
        let node = root.at("/dev/vdb");
        File::create(&node).unwrap().set_len(LEN).unwrap();
        (directory, root, node)
    }

    fn begun(node: &Path) -> bool {
        is_begun(&File::open(node).unwrap(), LEN).unwrap()
    }

    #[test]
    fn a_disk_that_is_formatted_has_no_mark_any_more() {
        let (_directory, root, node) = machine("/usr/sbin/mke2fs");
        format(&root, &node, LEN, |_| ()).unwrap();
        assert!(!begun(&node) && is_ours(&File::open(&node).unwrap()).unwrap());
        let mut end = vec![1; FREE as usize];
        File::open(&node).unwrap().read_exact_at(&mut end, LEN - FREE).unwrap();
        assert!(end.iter().all(|byte| *byte == 0));
        // The mark alone makes nothing of it once it was mounted.
        write_through(&node, &mark(LEN), LEN - MARK_BEFORE_END).unwrap();
        assert!(begun(&node), "cut off before the mark was cleared");
        write_through(&node, &[1], EXT4_MOUNTED[0].0).unwrap();
        assert!(!begun(&node));
    }

    #[test]
    fn a_format_that_was_cut_off_is_known_and_nothing_else_is_taken_for_one() {
        let (_directory, root, node) = machine("/bin/false");
        assert!(format(&root, &node, LEN, |_| ()).is_err());
        // Where it is looked whether the disk is empty.
        write_through(&node, b"half a file system", LOOKED_AT / 2).unwrap();
        assert!(begun(&node));
        assert!(!is_begun(&File::open(&node).unwrap(), LEN - 512).unwrap(), "a disk of another length");
        for (at, signature) in FOREIGN {
            write_through(&node, signature, at).unwrap();
            assert!(!begun(&node), "another's from {at} on");
            write_through(&node, &vec![0; signature.len()], at).unwrap();
            assert!(begun(&node));
        }
        // F2FS, where ext4's superblock would be.
        write_through(&node, &[0x10, 0x20, 0xf5, 0xf2], 1024).unwrap();
        assert!(!begun(&node));
        write_through(&node, &[0; 4], 1024).unwrap();
        write_through(&node, b"boot sector", 0).unwrap();
        assert!(!begun(&node), "somebody used it since");
    }

    #[test]
    fn one_who_still_formats_the_disk_is_waited_for() {
        let (mut tries, mut told) = (0, 0);
        let claim = || {
            tries += 1;
            if tries < 3 { Err(Errno::BUSY) } else { Ok(()) }
        };
        assert_eq!(wait_until_free(Duration::from_secs(600), Duration::ZERO, claim, || told += 1), Ok(()));
        assert_eq!((tries, told), (3, 1));
        assert_eq!(wait_until_free(Duration::ZERO, Duration::ZERO, || Err(Errno::BUSY), || ()), Err(Errno::BUSY));
        assert_eq!(wait_until_free(Duration::MAX, Duration::ZERO, || Err(Errno::NODEV), || ()), Err(Errno::NODEV));
    }
}
