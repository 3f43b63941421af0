//! The end: everyone is told, then made to stop; mounts and devices are given back; the machine goes off.

use gap_mapping::Control;
use rustix::{
    fs::sync,
    mount::{UnmountFlags, unmount},
    system::{RebootCommand, reboot},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, mpsc::channel},
    thread,
    time::Duration,
};

use crate::{
    clock,
    events::{End, Event, Events},
    kernel,
    story::Story,
    supervise,
};

/// How long processes may take to end by themselves, and to go away once they are killed.
const GRACE: Duration = Duration::from_secs(10);
const KILLED: Duration = Duration::from_secs(3);
/// How long disks may take to write what is left and to be given back. One that hangs would hold the machine up for ever.
const GIVE_BACK: Duration = Duration::from_secs(20);

/// Stops the machine. Returns only when the kernel refuses to.
pub fn run(root: &Path, end: End, events: &mut Events, story: &Story) {
    story.tell(match end {
        End::PowerOff => "powering off",
        End::Restart => "restarting",
    });
    stop_processes(events, story);
    let (place, teller) = (root.to_owned(), Story::new(Arc::clone(story.consoles())));
    if !within(GIVE_BACK, move || give_back(&place, &teller)) {
        story.tell(format_args!(
            "THE DISKS DO NOT TAKE WHAT IS LEFT TO WRITE within {} s; it may be lost",
            GIVE_BACK.as_secs()
        ));
    }
    story.flush();
    let command = match end {
        End::PowerOff => RebootCommand::PowerOff,
        End::Restart => RebootCommand::Restart,
    };
    if let Err(error) = reboot(command) {
        story.announce(format_args!("failed: the kernel does not stop the machine: {error}"));
    }
}

/// Does something in a thread of its own, and says whether it was done in time.
fn within(limit: Duration, act: impl FnOnce() + Send + 'static) -> bool {
    let (done, is_done) = channel();
    let work = move || {
        act();
        // Nobody waits any more where it took too long.
        let _ = done.send(());
    };
    thread::Builder::new().name("end".into()).spawn(work).is_ok() && is_done.recv_timeout(limit).is_ok()
}

/// Writes what is not on the disks yet, and gives mounts and devices back.
fn give_back(root: &Path, story: &Story) {
    sync();
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    for place in ours(&mounts) {
        if let Err(error) = unmount(&place, UnmountFlags::empty()) {
            story.tell(format_args!("{} stays mounted: {error}", place.display()));
        }
    }
    unmap(root, story);
    let media = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    for place in below(&media, "/medium/") {
        let _ = unmount(&place, UnmountFlags::empty());
    }
    sync();
}

/// Removes what this program and the agent mapped of the medium. What something else stands on goes after that.
fn unmap(root: &Path, story: &Story) {
    let Ok(control) = Control::open_from(root) else { return };
    let mut left = mapped_from(root);
    loop {
        let before = left.len();
        left.retain(|name| control.remove(name).is_err());
        if left.is_empty() || left.len() == before {
            break;
        }
    }
    for name in left {
        story.tell(format_args!("{name} stays mapped"));
    }
}

/// Names of the mapped devices of this appliance, as sysfs lists them.
fn mapped_from(root: &Path) -> Vec<String> {
    let Ok(devices) = fs::read_dir(root.join("sys/class/block")) else { return Vec::new() };
    let name = |device: fs::DirEntry| fs::read_to_string(device.path().join("dm/name")).ok();
    let names = devices.flatten().filter_map(name).map(|name| name.trim().to_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("gap-")).collect();
    names.sort_unstable();
    names
}

fn stop_processes(events: &mut Events, story: &Story) {
    for (signal, patience) in [(libc::SIGTERM, GRACE), (libc::SIGKILL, KILLED)] {
        if kernel::signal_everyone(signal).is_err() || all_ended(events, patience) {
            return;
        }
    }
    story.tell("some processes do not end");
}

/// Takes in children until there are none, for at most this long.
fn all_ended(events: &mut Events, patience: Duration) -> bool {
    let until = clock::since_boot() + patience;
    loop {
        if supervise::reap_all() {
            return true;
        }
        let left = until.saturating_sub(clock::since_boot());
        // Impatience (another signal, the button again) ends the waiting.
        if left.is_zero() || matches!(events.next(left), Event::End(_)) {
            return false;
        }
    }
}

/// Mount points of the OS image, the innermost first.
fn ours(mountinfo: &str) -> Vec<PathBuf> {
    below(mountinfo, "/sysroot")
}

/// Mount points at or below a path, the newest first: field five of `mountinfo`.
fn below(mountinfo: &str, prefix: &str) -> Vec<PathBuf> {
    let places = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let mut places: Vec<PathBuf> = places.filter(|place| place.starts_with(prefix)).map(PathBuf::from).collect();
    places.reverse();
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_disk_that_hangs_does_not_hold_up_the_end() {
        let (_held, never) = channel::<()>();
        let began = Instant::now();
        assert!(!within(Duration::from_millis(20), move || {
            let _ = never.recv();
        }));
        assert!(began.elapsed() < Duration::from_secs(30));
        assert!(within(Duration::from_secs(30), || {}));
    }

    #[test]
    fn devices_of_the_appliance_are_found_by_their_names() {
        let root = tempfile::tempdir().unwrap();
        for (device, name) in [("dm-0", "gap-00-slice\n"), ("dm-1", "gap-00\n"), ("dm-2", "other\n")] {
            let dm = root.path().join("sys/class/block").join(device).join("dm");
            fs::create_dir_all(&dm).unwrap();
            fs::write(dm.join("name"), name).unwrap();
        }
        fs::create_dir_all(root.path().join("sys/class/block/sda")).unwrap();
        assert_eq!(mapped_from(root.path()), ["gap-00", "gap-00-slice"]);
    }

    #[test]
    fn inner_mounts_go_before_outer_ones_and_others_stay() {
        let mountinfo = "1 1 0:2 / / rw - rootfs rootfs rw\n\
                         21 1 0:20 / /proc rw - proc proc rw\n\
                         30 1 253:1 / /sysroot ro - erofs /dev/dm-1 ro\n\
                         31 30 0:21 / /sysroot/run rw - tmpfs tmpfs rw\n\
                         32 1 8:1 / /medium/sda1 ro - ext4 /dev/sda1 ro\n";
        assert_eq!(ours(mountinfo), [Path::new("/sysroot/run"), Path::new("/sysroot")]);
        assert_eq!(below(mountinfo, "/medium/"), [Path::new("/medium/sda1")]);
    }
}
