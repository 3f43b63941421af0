//! The data volume: the disk that the site names, a disk of the appliance, an empty disk, or memory.
//!
//! A disk is only ever written to when the appliance formatted it before (ext4 labelled [`LABEL`]), began to ([`format`]), or
//! when it is empty: no byte but zeros at its beginning and end, no partitions, not the medium. What is anything else is left
//! alone.
//! Disks come late and in any order, so that the right one is waited for ([`arrival`]).

mod arrival;
mod format;

use super::storage::Volume;
use crate::root::Root;
use arrival::{Arrival, Patience};
use gap_handover::site::Data;
use rustix::mount::{MountFlags, mount};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread,
};

/// Label of the file system that the appliance makes.
const LABEL: &str = "GAPDATA";
/// Where the volume is mounted.
pub const PLACE: &str = "/var/lib/gap";
/// Bytes that must be zero at the beginning and at the end of an empty disk.
const LOOKED_AT: u64 = 4 << 20;
/// Smallest disk that is taken without being named, in bytes.
const SMALLEST: u64 = 1 << 30;
/// Place of ext4's magic number, and of its label (Documentation/filesystems/ext4, "Super Block").
const EXT4_MAGIC: (u64, [u8; 2]) = (1024 + 0x38, [0x53, 0xef]);
const EXT4_LABEL: (u64, usize) = (1024 + 0x78, 16);
/// Disks that carry no data of their own.
const SKIPPED: [&str; 7] = ["dm-", "fd", "loop", "md", "ram", "sr", "zram"];

/// A whole disk, as sysfs lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Disk {
    name: String,
    len: u64,
    serials: BTreeSet<String>,
    is_read_only: bool,
    has_partitions: bool,
}

/// What is on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// The appliance's file system.
    Ours,
    /// What is left of one that was being made.
    Begun,
    /// Zeros where it was looked.
    Empty,
    /// Something.
    Other,
}

/// A disk to use, and what is to be done first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Choice {
    node: PathBuf,
    name: String,
    len: u64,
    is_to_format: bool,
}

/// Why no disk is used.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NoDisk {
    /// Waiting changes nothing.
    AtAll(String),
    /// One may still come.
    Yet(String),
}

impl NoDisk {
    fn reason(self) -> String {
        let (Self::AtAll(reason) | Self::Yet(reason)) = self;
        reason
    }
}

/// Finds the data volume and mounts it at [`PLACE`]; memory, which is there already, when there is none.
/// `medium` is the device that the release lies on; `load` makes the kernel know ext4. Waits for disks: `tell` says so where
/// that takes long.
pub fn open(root: &Root, site: &Data, medium: &str, load: impl FnOnce(), tell: impl Fn(String)) -> Volume {
    let choice = match wait_and_choose(root, site, medium, &Patience::default(), &tell) {
        Ok(choice) => choice,
        Err(none) => return Volume::Memory { reason: none.reason() },
    };
    load();
    match use_disk(root, &choice, tell) {
        Ok(()) => Volume::Disk { device: choice.name },
        Err(reason) => Volume::Memory { reason },
    }
}

/// Chooses as soon as it is clear that no better disk comes.
fn wait_and_choose(
    root: &Root,
    site: &Data,
    medium: &str,
    patience: &Patience,
    tell: impl Fn(String),
) -> Result<Choice, NoDisk> {
    if site.memory {
        return Err(NoDisk::AtAll("the site configuration wants none".to_owned()));
    }
    let mut arrival = Arrival::begin();
    let mut has_told = false;
    loop {
        let disks = disks(root).map_err(|error| NoDisk::AtAll(format!("the disks cannot be listed: {error}")))?;
        let is_over = arrival.is_over(root, &disks, site.disk.is_some(), patience);
        // The node of a new disk may be a moment behind; where there are many, they are not read again and again for that.
        if is_over || arrival.has_just_changed() || site.disk.is_some() {
            let chosen = choose(root, site, medium, &disks);
            // What is empty is taken where it is named; else a disk that was used before may still come.
            let is_clear = match &chosen {
                Ok(choice) => !choice.is_to_format || site.disk.is_some(),
                Err(none) => matches!(none, NoDisk::AtAll(_)),
            };
            if is_over || is_clear {
                return chosen;
            }
        }
        if let (Some(disk), false) = (&site.disk, has_told) {
            tell(format!("waiting for the disk {disk}, for {} s", patience.named.as_secs()));
            has_told = true;
        }
        thread::sleep(patience.look);
    }
}

fn choose(root: &Root, site: &Data, medium: &str, disks: &BTreeSet<Disk>) -> Result<Choice, NoDisk> {
    let medium = medium_disk(root, medium);
    let usable = |disk: &&Disk| Some(&disk.name) != medium.as_ref() && !disk.is_read_only;
    let choice = |disk: &Disk, is_to_format| Choice {
        node: root.at(format!("/dev/{}", disk.name)),
        name: disk.name.clone(),
        len: disk.len,
        is_to_format,
    };
    let content = |disk: &Disk| {
        let node = root.at(format!("/dev/{}", disk.name));
        look(&node, disk).map_err(|error| format!("looking at the disk {}: {error}", disk.name))
    };
    if let Some(wanted) = &site.disk {
        let is_it = |disk: &&Disk| disk.name == *wanted || disk.serials.contains(wanted);
        let disk = disks.iter().find(is_it).ok_or_else(|| {
            let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
            let there =
                if names.is_empty() { "there is none".into() } else { format!("there are only {}", names.join(", ")) };
            NoDisk::Yet(format!("the site configuration names the disk {wanted}, and {there}"))
        })?;
        if !usable(&disk) {
            return Err(NoDisk::AtAll(format!("the disk {wanted} is the medium of the release or read-only")));
        }
        return match content(disk).map_err(NoDisk::Yet)? {
            Content::Ours => Ok(choice(disk, false)),
            Content::Begun | Content::Empty => Ok(choice(disk, true)),
            Content::Other => Err(NoDisk::AtAll(format!(
                "the disk {wanted} holds something that the appliance did not write; empty it (wipefs, blkdiscard) first"
            ))),
        };
    }
    let (mut begun, mut empty) = (None, None);
    for disk in disks.iter().filter(usable) {
        match content(disk) {
            Ok(Content::Ours) => return Ok(choice(disk, false)),
            Ok(Content::Begun) if begun.is_none() => begun = Some(choice(disk, true)),
            Ok(Content::Empty) if empty.is_none() && disk.len >= SMALLEST => empty = Some(choice(disk, true)),
            // One that cannot be read is none.
            Ok(_) | Err(_) => {}
        }
    }
    begun
        .or(empty)
        .ok_or_else(|| NoDisk::Yet("there is no empty disk, and the site configuration names none".to_owned()))
}

/// Whole disks by name.
fn disks(root: &Root) -> io::Result<BTreeSet<Disk>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root.at("/sys/block"))? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if SKIPPED.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let line = |file: &str| root.line(format!("/sys/block/{name}/{file}"));
        let sectors: u64 = line("size").and_then(|size| size.parse().ok()).unwrap_or(0);
        let serials = ["serial", "device/serial", "wwid", "device/wwid"].into_iter().filter_map(line).collect();
        let is_part = |entry: &str| root.at(format!("/sys/block/{name}/{entry}/partition")).exists();
        let has_partitions = root.names(format!("/sys/block/{name}"), 1024).iter().any(|entry| is_part(entry));
        let len = sectors.saturating_mul(512);
        if len > 0 {
            let is_read_only = line("ro").is_some_and(|ro| ro == "1");
            found.insert(Disk { serials, is_read_only, has_partitions, len, name });
        }
    }
    Ok(found)
}

/// The disk that the medium is or lies on; a partition's name begins with its disk's.
fn medium_disk(root: &Root, medium: &str) -> Option<String> {
    let name = Path::new(medium).file_name()?.to_str()?;
    // A loop device lies on a file of a file system that is mounted read-only, whose disk is not empty and not ours.
    let parent = fs::canonicalize(root.at(format!("/sys/class/block/{name}"))).ok();
    let is_part = root.at(format!("/sys/class/block/{name}/partition")).exists();
    let disk = parent.filter(|_| is_part).and_then(|path| Some(path.parent()?.file_name()?.to_str()?.to_owned()));
    Some(disk.unwrap_or_else(|| name.to_owned()))
}

fn look(node: &Path, disk: &Disk) -> io::Result<Content> {
    let mut file = File::open(node)?;
    if disk.len < 2 * LOOKED_AT {
        return Ok(Content::Other);
    }
    let (at, magic) = EXT4_MAGIC;
    let is_ext4 = read(&file, at, magic.len())? == magic;
    // Its end may be unreadable, and says nothing any more.
    if is_ext4 && is_ours(&file)? && format::was_mounted(&file)? {
        return Ok(Content::Ours);
    }
    if !disk.has_partitions && format::is_begun(&file, disk.len)? {
        return Ok(Content::Begun);
    }
    if is_ext4 {
        return Ok(if is_ours(&file)? { Content::Ours } else { Content::Other });
    }
    if disk.has_partitions {
        return Ok(Content::Other);
    }
    for from in [0, disk.len.saturating_sub(LOOKED_AT)] {
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        (&mut file).take(LOOKED_AT).read_to_end(&mut bytes)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(Content::Other);
        }
    }
    Ok(Content::Empty)
}

fn read(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Whether the ext4 on a disk has the appliance's label.
fn is_ours(file: &File) -> io::Result<bool> {
    let (at, len) = EXT4_LABEL;
    let label = read(file, at, len)?;
    Ok(label.split(|byte| *byte == 0).next().unwrap_or_default() == LABEL.as_bytes())
}

fn use_disk(root: &Root, choice: &Choice, tell: impl Fn(String)) -> Result<(), String> {
    if choice.is_to_format {
        format::format(root, &choice.node, choice.len, tell)?;
    }
    let at = root.at(PLACE);
    fs::create_dir_all(&at).map_err(|error| format!("making {PLACE}: {error}"))?;
    // Programs compile code into their caches and load it, so it may be executed.
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    // A file system with an error is not written to any more, so that what is on it can be saved.
    mount(&choice.node, &at, "ext4", flags, c"errors=remount-ro")
        .map_err(|error| format!("mounting the disk {}: {error}", choice.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    const LEN: u64 = SMALLEST;

    /// What is written where on a disk.
    type Writes<'a> = &'a [(u64, &'a [u8])];

    /// A machine with these disks: name, serial, what is on it.
    fn machine(disks: &[(&str, &str, Writes<'_>)]) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        fs::create_dir_all(root.at("/dev")).unwrap();
        for (name, serial, writes) in disks {
            let sys = root.at(format!("/sys/block/{name}"));
            fs::create_dir_all(&sys).unwrap();
            fs::write(sys.join("size"), (LEN / 512).to_string()).unwrap();
            fs::write(sys.join("ro"), "0\n").unwrap();
            fs::write(sys.join("serial"), format!("{serial}\n")).unwrap();
            let file = File::create(root.at(format!("/dev/{name}"))).unwrap();
            file.set_len(LEN).unwrap();
            for (at, bytes) in *writes {
                file.write_all_at(bytes, *at).unwrap();
            }
        }
        (directory, root)
    }

    fn chosen(root: &Root, site: &Data) -> Result<(String, bool), String> {
        let chosen = choose(root, site, "/dev/vda", &disks(root).unwrap());
        chosen.map(|choice| (choice.name, choice.is_to_format)).map_err(NoDisk::reason)
    }

    fn named(disk: &str) -> Data {
        Data { disk: Some(disk.into()), memory: false }
    }

    const EXT4: (u64, &[u8]) = (EXT4_MAGIC.0, &EXT4_MAGIC.1);

    #[test]
    fn an_empty_disk_is_taken_and_the_medium_never_is() {
        let (_directory, root) = machine(&[("vda", "m", &[]), ("vdb", "b", &[(0, b"data")]), ("vdc", "c", &[])]);
        assert_eq!(chosen(&root, &Data::default()), Ok(("vdc".into(), true)));
        assert!(chosen(&root, &named("vda")).unwrap_err().contains("medium"));
    }

    #[test]
    fn a_disk_of_the_appliance_comes_before_an_empty_one() {
        let ours: &[(u64, &[u8])] = &[EXT4, (EXT4_LABEL.0, b"GAPDATA")];
        let (_directory, root) = machine(&[("vda", "m", &[]), ("vdb", "b", &[]), ("vdc", "c", ours)]);
        assert_eq!(chosen(&root, &Data::default()), Ok(("vdc".into(), false)));
        assert_eq!(chosen(&root, &named("b")), Ok(("vdb".into(), true)), "by its serial number");
    }

    #[test]
    fn a_disk_of_the_appliance_is_taken_though_its_end_cannot_be_read() {
        for mounted in [0, 1] {
            let ours: Writes<'_> = &[EXT4, (EXT4_LABEL.0, b"GAPDATA"), (1024 + 0x34, &[mounted])];
            let (_directory, root) = machine(&[("vdb", "b", &[]), ("vdc", "c", ours)]);
            // Reading there fails, as it does where a sector is bad.
            File::options().write(true).open(root.at("/dev/vdc")).unwrap().set_len(LEN - 8192).unwrap();
            assert_eq!(chosen(&root, &Data::default()), Ok(("vdc".into(), false)), "mounted: {mounted}");
        }
    }

    #[test]
    fn what_holds_anything_is_left_alone() {
        let others: [&[(u64, &[u8])]; 4] =
            [&[(0, b"x")], &[(LEN - 1, b"x")], &[EXT4], &[EXT4, (EXT4_LABEL.0, b"GAPDATAX")]];
        for other in others {
            let (_directory, root) = machine(&[("vdb", "b", other)]);
            assert!(chosen(&root, &Data::default()).is_err());
            assert!(chosen(&root, &named("vdb")).unwrap_err().contains("did not write"));
        }
        let (_directory, root) = machine(&[("vdb", "b", &[])]);
        fs::create_dir_all(root.at("/sys/block/vdb/vdb1")).unwrap();
        fs::write(root.at("/sys/block/vdb/vdb1/partition"), "1").unwrap();
        assert!(chosen(&root, &Data::default()).is_err());
    }

    #[test]
    fn a_disk_that_the_appliance_began_to_format_is_formatted_before_an_empty_one() {
        let mark = format!("gapimage: the data volume on this disk of {LEN} bytes is being formatted\n");
        let begun: Writes<'_> = &[(5000, b"half a file system"), (LEN - 4096, mark.as_bytes())];
        let (_directory, root) = machine(&[("vda", "m", &[]), ("vdb", "b", &[]), ("vdc", "c", begun)]);
        assert_eq!(chosen(&root, &Data::default()), Ok(("vdc".into(), true)));
        assert_eq!(chosen(&root, &named("vdc")), Ok(("vdc".into(), true)));
    }

    #[test]
    fn without_a_disk_the_reason_is_told() {
        let (_directory, root) = machine(&[("vda", "m", &[])]);
        assert!(chosen(&root, &named("nvme9n1")).unwrap_err().contains("only vda"));
        let memory = Data { disk: None, memory: true };
        let volume =
            open(&root, &memory, "/dev/vda", || panic!("no disk, no module"), |_| panic!("nothing is waited for"));
        assert!(matches!(volume, Volume::Memory { reason } if reason.contains("wants none")));
        assert_eq!(
            waited(&root, &Data::default(), &QUICK).unwrap_err(),
            "there is no empty disk, and the site configuration names none"
        );
    }

    const MOMENT: Duration = Duration::from_millis(30);
    /// What is waited for takes as long as it likes here, what is not waited for a moment.
    const LONG: Duration = Duration::from_secs(60);
    const QUICK: Patience =
        Patience { named: MOMENT, settled: MOMENT, slow: MOMENT, drivers: LONG, look: Duration::from_millis(5) };
    const OURS: Writes<'static> = &[EXT4, (EXT4_LABEL.0, b"GAPDATA")];

    fn waited(root: &Root, site: &Data, patience: &Patience) -> Result<(String, bool), String> {
        arrival::tests::all_drivers_are_loaded(root);
        let chosen = wait_and_choose(root, site, "/dev/vda", patience, |_| {});
        chosen.map(|choice| (choice.name, choice.is_to_format)).map_err(NoDisk::reason)
    }

    /// Plugs a disk in after a while, as the kernel does: `sysfs` last.
    fn late(root: &Root, name: &'static str, writes: Writes<'static>) -> thread::JoinHandle<()> {
        let (directory, other) = machine(&[(name, "late", writes)]);
        let root = root.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            for place in ["/dev", "/sys/block"] {
                fs::rename(other.at(place).join(name), root.at(place).join(name)).unwrap();
            }
            drop(directory);
        })
    }

    #[test]
    fn a_disk_that_the_site_names_is_waited_for() {
        let (_directory, root) = machine(&[("vda", "m", &[]), ("vdb", "b", &[])]);
        let patience = Patience { named: LONG, ..QUICK };
        let late = late(&root, "vdc", &[]);
        assert_eq!(waited(&root, &named("late"), &patience), Ok(("vdc".into(), true)));
        late.join().unwrap();
        assert!(waited(&root, &named("gone"), &QUICK).unwrap_err().contains("only vda, vdb, vdc"));
    }

    #[test]
    fn a_disk_of_the_appliance_that_comes_late_is_taken_and_the_empty_one_left_alone() {
        let (_directory, root) = machine(&[("vda", "m", &[]), ("vdb", "b", &[])]);
        let patience = Patience { settled: LONG, ..QUICK };
        let late = late(&root, "vdc", OURS);
        assert_eq!(waited(&root, &Data::default(), &patience), Ok(("vdc".into(), false)));
        late.join().unwrap();
    }

    #[test]
    fn an_empty_disk_is_taken_once_nothing_more_comes() {
        let (_directory, root) = machine(&[("vda", "m", &[]), ("vdb", "b", &[])]);
        assert_eq!(waited(&root, &Data::default(), &QUICK), Ok(("vdb".into(), true)));
    }

    #[test]
    fn a_disk_that_is_there_is_not_waited_for() {
        let (_directory, root) = machine(&[("vda", "m", &[]), ("vdb", "b", &[]), ("vdc", "c", OURS)]);
        let patience = Patience { named: LONG, settled: LONG, slow: LONG, ..QUICK };
        let began = Instant::now();
        assert_eq!(waited(&root, &Data::default(), &patience), Ok(("vdc".into(), false)));
        assert_eq!(waited(&root, &named("b"), &patience), Ok(("vdb".into(), true)));
        assert!(waited(&root, &named("vda"), &patience).is_err());
        assert!(began.elapsed() < LONG / 2);
    }
}
