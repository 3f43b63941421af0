//! The site configuration: found, bounded and read here, acted on by the agent.
//!
//! It comes from QEMU's firmware configuration device or from a FAT volume labelled `GAPSITE`. What does not parse is
//! not handed on, because nothing in it can be relied on: the agent then starts with its defaults, and the console says
//! so.

use gap_handover::{SiteConfig, site};
use std::{fs::File, io::Read, path::Path, thread, time::Duration};

use crate::{
    Attempt, Stop,
    block::{self, BlockDevice},
    clock, fat,
    modules::{Likely, Modules},
    mounts,
    probe::{self, Content},
    story::Story,
};

/// How long a stick may take to show up after the last driver that was loaded.
const PATIENCE: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(50);

/// Looks for a configuration and returns its text when it is a valid one.
pub fn find(root: &Path, story: &Story, modules: &mut Modules) -> Option<String> {
    let (place, text) = match search(root, story, modules)? {
        (place, Ok(text)) => (place, text),
        (place, Err(stop)) => {
            story.announce(format_args!("SITE CONFIGURATION IGNORED: {place}: {stop}; defaults apply"));
            return None;
        }
    };
    match SiteConfig::parse(&text) {
        Ok(_) => {
            story.tell(format_args!("site configuration from {place}"));
            Some(text)
        }
        Err(error) => {
            story.announce(format_args!("SITE CONFIGURATION IGNORED: {place}: {error}; defaults apply"));
            None
        }
    }
}

type Reading = (String, Result<String, Stop>);

fn search(root: &Path, story: &Story, modules: &mut Modules) -> Option<Reading> {
    let raw = root.join("sys/firmware/qemu_fw_cfg/by_name").join(site::FW_CFG_NAME).join("raw");
    if raw.exists() {
        return Some(("fw_cfg".into(), bounded(&raw)));
    }
    // Drivers wait for their disks; a stick comes later, on a machine that has a place for one.
    let mut last_news = clock::since_boot();
    loop {
        // A device that cannot be served has no volume; the boot does not end for that.
        let more = modules.serve_next(Likely::Firmware..=Likely::Other, story).ok()?;
        let now = clock::since_boot();
        if more {
            last_news = now;
        }
        let volume = block::list_from(root).ok()?.into_iter().find(is_site_volume);
        if let Some(device) = volume {
            return Some((
                format!("volume {} on {}", site::VOLUME_LABEL, device.node.display()),
                read(root, &device, story, modules),
            ));
        }
        if more {
            continue;
        }
        // Asked after the drivers are there: without them no machine has USB.
        let patience = if has_usb(root) { PATIENCE } else { Duration::ZERO };
        if now.saturating_sub(last_news) >= patience {
            return None;
        }
        thread::sleep(INTERVAL);
    }
}

fn has_usb(root: &Path) -> bool {
    root.join("sys/bus/usb/devices").read_dir().is_ok_and(|mut devices| devices.next().is_some())
}

fn is_site_volume(device: &BlockDevice) -> bool {
    let Ok(file) = File::open(&device.node) else { return false };
    matches!(probe::identify(&file, device.len), Ok(Content::FileSystem("vfat")))
        && matches!(fat::label(&file), Ok(Some(label)) if label == site::VOLUME_LABEL)
}

fn read(root: &Path, device: &BlockDevice, story: &Story, modules: &mut Modules) -> Result<String, Stop> {
    let at = root.join("medium").join(format!("{}-site", device.name));
    mounts::mount_foreign(&device.node, "vfat", &at, modules, story)?;
    let text = bounded(&at.join(site::FILE_NAME));
    rustix::mount::unmount(&at, rustix::mount::UnmountFlags::empty())
        .attempt(|| format!("unmounting {}", at.display()))?;
    text
}

/// Reads at most one byte more than is allowed; the parser then says that it is too long.
fn bounded(path: &Path) -> Result<String, Stop> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(site::MAX_LEN as u64 + 1).read_to_end(&mut bytes))
        .attempt(|| format!("reading {}", path.display()))?;
    String::from_utf8(bytes).map_err(|_| Stop::Failed(format!("{} is not UTF-8 text", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Consoles;
    use std::fs;
    use std::sync::Arc;

    /// What is found when the firmware device carries `content`, and what the console shows.
    fn with_firmware(content: Option<&[u8]>) -> (Option<String>, String) {
        let root = tempfile::tempdir().unwrap();
        let firmware = root.path().join("sys/firmware/qemu_fw_cfg/by_name/opt/gapimage/site");
        fs::create_dir_all(&firmware).unwrap();
        fs::create_dir_all(root.path().join("sys/class/block")).unwrap();
        fs::create_dir_all(root.path().join("dev")).unwrap();
        fs::write(root.path().join("dev/console"), "").unwrap();
        if let Some(content) = content {
            fs::write(firmware.join("raw"), content).unwrap();
        }
        let found = find(root.path(), &Story::new(Arc::new(Consoles::open_from(root.path()))), &mut Modules::default());
        (found, fs::read_to_string(root.path().join("dev/console")).unwrap())
    }

    #[test]
    fn a_valid_configuration_is_handed_on_as_it_is() {
        let (found, shown) = with_firmware(Some(b"hostname = 'x' # mine"));
        assert_eq!(found.as_deref(), Some("hostname = 'x' # mine"));
        assert!(shown.ends_with("site configuration from fw_cfg\n"), "{shown}");
    }

    #[test]
    fn a_broken_configuration_is_said_loudly_and_not_handed_on() {
        for broken in [&b"trust = 'mine'"[..], b"\xff", &[b'#'; site::MAX_LEN + 1]] {
            let (found, shown) = with_firmware(Some(broken));
            assert_eq!(found, None);
            assert!(shown.contains("SITE CONFIGURATION IGNORED"), "{shown}");
        }
    }

    #[test]
    fn a_machine_without_usb_does_not_wait() {
        let begin = clock::since_boot();
        assert_eq!(with_firmware(None), (None, String::new()));
        assert!(clock::since_boot() - begin < Duration::from_secs(1));
    }
}
