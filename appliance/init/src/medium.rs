//! Finding the medium: the disk, partition or file that holds the release this boot image was made for.
//!
//! Devices come late and in any order, so the list is looked at again and again until a deadline; between two looks the
//! modules for one more device are loaded, as the medium is often found before all hardware is up. Releases that lie on
//! a device from its first byte are looked at before any file system is mounted.

use gap_mapping::Number;
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    Attempt, Stop,
    block::{self, BlockDevice},
    clock,
    loop_device::{self, LoopDevice},
    modules::{Likely, Modules},
    mounts,
    probe::{self, Content},
    story::Story,
};

/// Where file systems that may hold a release are mounted, one directory each.
const MEDIA: &str = "medium";
/// Directories of a file system that are looked into, and how a release's file is called.
const PLACES: [&str; 2] = ["", "gapimage"];
const SUFFIX: &str = ".gap";
/// Most files that are looked at on one file system.
const MAX_FILES: usize = 64;
/// Time between two looks at the list of devices.
const INTERVAL: Duration = Duration::from_millis(20);

/// How long a medium is waited for, after a release was found that is not the right one too: which device comes first says
/// nothing about the others.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The medium, and what was found out about it.
#[derive(Debug)]
pub struct Found<T> {
    /// The block device whose first byte is the release's first byte.
    pub node: PathBuf,
    /// Its numbers.
    pub number: Number,
    /// The file, when the device is a loop device over one: name of the device it lies on, and path there.
    pub file: Option<String>,
    /// What the check gave.
    pub release: T,
    /// When the device was first looked at.
    pub seen: Duration,
    /// Must live until the device is mapped.
    pub loop_device: Option<LoopDevice>,
}

/// Looks for a release that `check` accepts, which gets a source and its length in bytes.
///
/// # Errors
/// The reason why the first release that was found was refused, or that there is none, when `patience` ends.
pub fn find<T>(
    root: &Path,
    story: &Story,
    modules: &mut Modules,
    patience: Duration,
    check: &dyn Fn(&File, u64) -> Result<T, Stop>,
) -> Result<Found<T>, Stop> {
    let mut search =
        Search { root, story, modules, check, done: BTreeSet::new(), artifacts: BTreeSet::new(), refused: None };
    let until = clock::since_boot() + patience;
    let mut has_told = false;
    loop {
        let more = search.modules.serve_next(&Likely::MEDIA, story)?;
        let devices = block::list_from(root).attempt(|| "listing block devices".into())?;
        if let Some(found) = search.look(&devices) {
            return Ok(found);
        }
        let left = until.saturating_sub(clock::since_boot());
        if left.is_zero() {
            return Err(search.refused.take().unwrap_or_else(|| nothing(&devices, patience)));
        }
        if search.refused.is_some() && !has_told {
            has_told = true;
            story.tell(format_args!("another medium is waited for, for {} s", left.as_secs()));
        }
        if !more {
            thread::sleep(INTERVAL);
        }
    }
}

fn nothing(devices: &BTreeSet<BlockDevice>, patience: Duration) -> Stop {
    let names: Vec<String> =
        devices.iter().map(|device| format!("{} ({} MiB)", device.name, device.len >> 20)).collect();
    let there = if names.is_empty() { "no disk at all".into() } else { names.join(", ") };
    Stop::Failed(format!("no medium with a release came up in {} s; attached: {there}", patience.as_secs()))
}

/// By what a device is known again: its name, and the kernel's number where there is one. A medium that is exchanged gets the
/// name of the one before.
type Key = (String, Option<u64>);

fn key(device: &BlockDevice) -> Key {
    (device.name.clone(), device.sequence)
}

struct Search<'a, T> {
    root: &'a Path,
    story: &'a Story,
    modules: &'a mut Modules,
    check: &'a dyn Fn(&File, u64) -> Result<T, Stop>,
    /// Devices that were looked at and are still there.
    done: BTreeSet<Key>,
    /// Those of them that hold a release themselves.
    artifacts: BTreeSet<Key>,
    /// Why the first release was refused.
    refused: Option<Stop>,
}

impl<T> Search<'_, T> {
    /// Looks at every device that is new.
    fn look(&mut self, devices: &BTreeSet<BlockDevice>) -> Option<Found<T>> {
        let there: BTreeSet<Key> = devices.iter().map(key).collect();
        self.done.retain(|known| there.contains(known));
        self.artifacts.retain(|known| there.contains(known));
        let mut file_systems = Vec::new();
        for device in devices {
            // Partitions of a disk that is a release are parts of that release.
            let disk = device.disk.as_ref().map(|disk| (disk.clone(), device.sequence));
            let inside = disk.is_some_and(|disk| self.artifacts.contains(&disk));
            if inside || self.done.contains(&key(device)) {
                continue;
            }
            let Some(content) = self.identify(device) else { continue };
            self.done.insert(key(device));
            match content {
                Content::Artifact => {
                    self.artifacts.insert(key(device));
                    if let Some(found) = self.try_device(device) {
                        return Some(found);
                    }
                }
                Content::FileSystem(kind) => file_systems.push((device, kind)),
                Content::Other => {}
            }
        }
        file_systems.into_iter().find_map(|(device, kind)| self.try_file_system(device, kind))
    }

    /// What lies on a device; `None` to ask again later.
    fn identify(&self, device: &BlockDevice) -> Option<Content> {
        // The node of a new device may be a moment behind.
        let file = File::open(&device.node).ok()?;
        Some(probe::identify(&file, device.len).unwrap_or(Content::Other))
    }

    fn try_device(&mut self, device: &BlockDevice) -> Option<Found<T>> {
        let seen = clock::since_boot();
        let name = device.node.display().to_string();
        let file = File::open(&device.node).map_err(|error| self.refuse(&name, read_error(&name, error))).ok()?;
        let number = number_of(&file)?;
        let release = (self.check)(&file, device.len).map_err(|reason| self.refuse(&name, reason)).ok()?;
        Some(Found { node: device.node.clone(), number, file: None, release, seen, loop_device: None })
    }

    fn try_file_system(&mut self, device: &BlockDevice, kind: &str) -> Option<Found<T>> {
        let at = self.root.join(MEDIA).join(&device.name);
        if let Err(stop) = mounts::mount_foreign(&device.node, kind, &at, self.modules, self.story) {
            self.story.tell(format_args!("{} is passed over: {stop}", device.node.display()));
            return None;
        }
        let found = files(&at).into_iter().find_map(|path| self.try_file(device, &at, &path));
        if found.is_none() {
            let _ = rustix::mount::unmount(&at, rustix::mount::UnmountFlags::empty());
        }
        found
    }

    fn try_file(&mut self, device: &BlockDevice, mount: &Path, path: &Path) -> Option<Found<T>> {
        let seen = clock::since_boot();
        let inside = path.strip_prefix(mount).unwrap_or(path).display();
        let name = format!("{}:/{inside}", device.node.display());
        let accepted = self.accept_file(&name, path);
        let (release, loop_device) = accepted.map_err(|reason| self.refuse(&name, reason)).ok()?;
        let number = number_of(&loop_device.file)?;
        let node = loop_device.node.clone();
        Some(Found { node, number, file: Some(name), release, seen, loop_device: Some(loop_device) })
    }

    /// Checks a file that is called like a release and makes a device of it.
    fn accept_file(&mut self, name: &str, path: &Path) -> Result<(T, LoopDevice), Stop> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| read_error(name, error))?;
        let about = file.metadata().map_err(|error| read_error(name, error))?;
        if !about.is_file() || !matches!(probe::identify(&file, about.len()), Ok(Content::Artifact)) {
            return Err(Stop::NotTrusted(format!("{name} is no release")));
        }
        let release = (self.check)(&file, about.len())?;
        self.modules.serve("loop", self.story)?;
        let device = loop_device::attach(self.root, &file).attempt(|| format!("making a device of {name}"))?;
        Ok((release, device))
    }

    fn refuse(&mut self, name: &str, reason: Stop) {
        self.story.tell(format_args!("{name} is passed over: {reason}"));
        self.refused.get_or_insert(reason);
    }
}

fn read_error(name: &str, source: std::io::Error) -> Stop {
    Stop::System { what: format!("reading {name}"), source }
}

fn number_of(file: &File) -> Option<Number> {
    let device = file.metadata().ok()?.rdev();
    Some(Number { major: rustix::fs::major(device), minor: rustix::fs::minor(device) })
}

/// Files that are called like a release, in order.
fn files(mount: &Path) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    for place in PLACES.map(|place| mount.join(place)) {
        if !fs::symlink_metadata(&place).is_ok_and(|about| about.is_dir()) {
            continue;
        }
        let entries = fs::read_dir(&place).into_iter().flatten().flatten().map(|entry| entry.path());
        found.extend(entries.filter(|path| path.to_string_lossy().ends_with(SUFFIX)).take(MAX_FILES));
    }
    found.into_iter().take(MAX_FILES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Consoles;
    use std::sync::Arc;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    fn machine(devices: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sys/class/block")).unwrap();
        fs::create_dir_all(root.path().join("dev")).unwrap();
        for (name, content) in devices {
            let directory = root.path().join("sys/class/block").join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("size"), (content.len() / 512).to_string()).unwrap();
            fs::write(root.path().join("dev").join(name), content).unwrap();
        }
        root
    }

    fn artifact(mark: u8) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[..5].copy_from_slice(b".gpt\0");
        bytes[257..263].copy_from_slice(b"ustar\0");
        bytes[1023] = mark;
        bytes
    }

    fn mark_is(head: &File, mark: u8) -> Result<u8, Stop> {
        let mut byte = [0];
        gap_format::ReadAt::read_exact_at(head, &mut byte, 1023).unwrap();
        if byte == [mark] { Ok(mark) } else { Err(Stop::NotTrusted(format!("mark {}", byte[0]))) }
    }

    fn search(root: &tempfile::TempDir, mark: u8) -> Result<Found<u8>, Stop> {
        search_for(SHORT, root, mark)
    }

    fn search_for(patience: Duration, root: &tempfile::TempDir, mark: u8) -> Result<Found<u8>, Stop> {
        let story = Story::new(Arc::new(Consoles::open_from(root.path())));
        find(root.path(), &story, &mut Modules::default(), patience, &|head, _| mark_is(head, mark))
    }

    /// Plugs a release in after a while.
    fn late(root: &tempfile::TempDir, delay: Duration) -> thread::JoinHandle<()> {
        let path = root.path().to_owned();
        thread::spawn(move || {
            thread::sleep(delay);
            let directory = path.join("sys/class/block/sdx");
            fs::write(path.join("dev/sdx"), artifact(2)).unwrap();
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("size"), "2").unwrap();
        })
    }

    #[test]
    fn the_release_that_is_wanted_is_taken_among_several() {
        let root = machine(&[("sda", &artifact(1)), ("sdb", &[7; 1024]), ("sdc", &artifact(2))]);
        let found = search(&root, 2).unwrap();
        assert_eq!((found.node, found.file, found.release), (root.path().join("dev/sdc"), None, 2));
    }

    #[test]
    fn the_first_refusal_is_the_reason() {
        let root = machine(&[("sda", &artifact(1)), ("sdb", &artifact(3))]);
        assert_eq!(search(&root, 2).unwrap_err().to_string(), "not trusted: mark 1");
    }

    #[test]
    fn without_any_release_the_attached_devices_are_named() {
        let reason = search(&machine(&[("sda", &[0; 2048])]), 2).unwrap_err().to_string();
        assert!(reason.starts_with("failed: no medium") && reason.ends_with("attached: sda (0 MiB)"), "{reason}");
        assert!(search(&machine(&[]), 2).unwrap_err().to_string().ends_with("no disk at all"));
    }

    #[test]
    fn a_device_that_comes_late_is_found() {
        let root = machine(&[]);
        let late = late(&root, Duration::from_millis(40));
        assert_eq!(search_for(LONG, &root, 2).unwrap().release, 2);
        late.join().unwrap();
    }

    #[test]
    fn a_device_that_comes_late_is_found_after_another_one_was_refused() {
        let root = machine(&[("sda", &artifact(1))]);
        // Longer than was once waited after a refusal.
        let late = late(&root, Duration::from_millis(3500));
        assert_eq!(search_for(LONG, &root, 2).unwrap().release, 2);
        late.join().unwrap();
    }

    #[test]
    fn a_medium_that_is_exchanged_under_the_same_name_is_looked_at() {
        let root = machine(&[("sda", &artifact(1))]);
        let story = Story::new(Arc::new(Consoles::open_from(root.path())));
        let directory = root.path().join("sys/class/block/sda");
        let list = || block::list_from(root.path()).unwrap();
        let mut search = Search {
            root: root.path(),
            story: &story,
            modules: &mut Modules::default(),
            check: &|head, _| mark_is(head, 2),
            done: BTreeSet::new(),
            artifacts: BTreeSet::new(),
            refused: None,
        };
        assert!(search.look(&list()).is_none() && search.refused.is_some());
        // It was gone between two looks.
        fs::write(root.path().join("dev/sda"), artifact(2)).unwrap();
        assert!(search.look(&list()).is_none(), "the same device is looked at once");
        fs::remove_file(directory.join("size")).unwrap();
        assert!(search.look(&list()).is_none());
        fs::write(directory.join("size"), "2").unwrap();
        assert_eq!(search.look(&list()).unwrap().release, 2);
        // It came and went too fast for that; the kernel counted it.
        search.done = list().iter().map(key).collect();
        fs::write(directory.join("diskseq"), "9").unwrap();
        assert_eq!(search.look(&list()).unwrap().release, 2);
    }

    #[test]
    fn files_in_two_places_are_looked_at_and_links_out_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("z.gap"), "").unwrap();
        fs::write(root.path().join("b.gap"), "").unwrap();
        fs::write(root.path().join("a.tar"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("gapimage")).unwrap();
        assert_eq!(files(root.path()), [root.path().join("b.gap")]);
        fs::remove_file(root.path().join("gapimage")).unwrap();
        fs::create_dir(root.path().join("gapimage")).unwrap();
        fs::write(root.path().join("gapimage/a.gap"), "").unwrap();
        assert_eq!(files(root.path()), [root.path().join("b.gap"), root.path().join("gapimage/a.gap")]);
    }
}
