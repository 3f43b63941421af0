//! The site configuration: found, bounded and read here, acted on by the agent.
//!
//! It comes from QEMU's firmware configuration device or from a FAT volume labelled `GAPSITE`. What does not parse is
//! not handed on, because nothing in it can be relied on: the agent then starts with its defaults, and the console says
//! so.
//!
//! A boot without a stick must not wait for one, and a slow stick must not be missed. So the boot waits while the USB
//! shows a stick that is no disk yet; where it shows none, the agent is started, and for a while a stick that comes all
//! the same gives it a new start. That is looked for in a thread of its own: a disk or a driver that hangs must not hold
//! up what PID 1 is for.

use gap_format::trust::Trust;
use gap_handover::site::{self, LATE, accept};
use std::{
    fmt::Display,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use crate::{
    Attempt, Stop,
    block::{self, BlockDevice},
    clock, fat,
    modules::{Likely, Modules},
    mounts,
    probe::{self, Content},
    story::Story,
    usb::Bus,
};

/// Time between two looks while a stick is on its way.
const INTERVAL: Duration = Duration::from_millis(50);
/// Time between two looks for one that comes late.
const LOOK: Duration = Duration::from_millis(200);

/// What came of the search when the agent is to be started.
#[derive(Debug)]
pub enum Site {
    /// There is this configuration, or none.
    Settled(Option<String>),
    /// There is none, and a slow stick may still bring one.
    Open(Watch),
}

impl Site {
    /// The configuration that there is by now.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Settled(text) => text.as_deref(),
            Self::Open(_) => None,
        }
    }
}

/// Looks for a configuration. Waits only while a stick is on its way; `modules` were loaded at `driven`. `trust` says
/// whether, and by whom, it has to be signed.
pub fn find(root: &Path, story: &Story, modules: Modules, driven: Duration, trust: Trust) -> Site {
    let raw = root.join("sys/firmware/qemu_fw_cfg/by_name").join(site::FW_CFG_NAME).join("raw");
    if raw.exists() {
        return Site::Settled(valid("fw_cfg", bounded(&raw), &trust, story));
    }
    let mut bus = Bus::new(root, driven);
    let mut watch = Watch { root: root.into(), modules, trust, until: Duration::MAX };
    loop {
        match watch.look(story) {
            Look::Found(text) => return Site::Settled(text),
            Look::More => {}
            Look::Nothing if bus.may_bring_a_disk(clock::since_boot()) => thread::sleep(INTERVAL),
            Look::Nothing => break,
        }
    }
    if !bus.is_there() {
        return Site::Settled(None);
    }
    watch.until = clock::since_boot() + LATE;
    story.tell(format_args!(
        "no site configuration; the boot goes on, and a stick that comes within {} s is still heeded",
        LATE.as_secs()
    ));
    Site::Open(watch)
}

/// The text when it is a valid configuration, signed where it has to be; otherwise it is announced that it is not.
fn valid(place: &str, text: Result<String, Stop>, trust: &Trust, story: &Story) -> Option<String> {
    let ignored = |reason: &dyn Display| {
        story.announce(format_args!("SITE CONFIGURATION IGNORED: {place}: {reason}; defaults apply"));
        None
    };
    match text {
        Err(stop) => ignored(&stop),
        Ok(text) => match accept(&text, trust) {
            Err(error) => ignored(&error),
            Ok((_, signers)) => {
                let names: Vec<String> = signers.into_iter().map(|signer| signer.name).collect();
                let signed = if names.is_empty() { String::new() } else { format!(", signed by {}", names.join(", ")) };
                story.tell(format_args!("site configuration from {place}{signed}"));
                Some(text)
            }
        },
    }
}

/// Looks for a volume with a configuration among the devices that have come.
#[derive(Debug)]
pub struct Watch {
    root: PathBuf,
    modules: Modules,
    trust: Trust,
    until: Duration,
}

/// What one look gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// A volume, and its text if that is a valid configuration.
    Found(Option<String>),
    /// No volume, but one more driver was loaded.
    More,
    /// No volume, and nothing new.
    Nothing,
}

impl Watch {
    /// Whether its time has passed.
    fn is_over(&self) -> bool {
        clock::since_boot() >= self.until
    }

    /// Goes on in a thread of its own until a volume comes, or its time has passed. The text comes then, if it is a valid
    /// configuration; what comes from is closed in any case.
    ///
    /// # Errors
    /// [`Stop`] when no thread can be had.
    pub fn go_on(mut self, story: &Story) -> Result<Receiver<String>, Stop> {
        let story = Story::new(Arc::clone(story.consoles()));
        let (send, late) = channel();
        let work = move || {
            while !self.is_over() {
                match self.look(&story) {
                    Look::Found(text) => {
                        // Nobody waits for it once the machine stops.
                        let _ = text.map(|text| send.send(text));
                        return;
                    }
                    Look::More => {}
                    Look::Nothing => thread::sleep(LOOK),
                }
            }
        };
        thread::Builder::new()
            .name("site".into())
            .spawn(work)
            .attempt(|| "starting a thread that looks for a site configuration".into())?;
        Ok(late)
    }

    /// Loads what one more device asks for and looks for the volume.
    pub fn look(&mut self, story: &Story) -> Look {
        // A device that cannot be served has no volume; the boot does not end for that.
        let more = self.modules.serve_next(&Likely::ALL, story).unwrap_or(false);
        let volume = block::list_from(&self.root).unwrap_or_default().into_iter().find(is_site_volume);
        match volume {
            Some(device) => {
                let place = format!("volume {} on {}", site::VOLUME_LABEL, device.node.display());
                let text = read(&self.root, &device, story, &mut self.modules);
                Look::Found(valid(&place, text, &self.trust, story))
            }
            None if more => Look::More,
            None => Look::Nothing,
        }
    }
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
    use crate::{console::Consoles, usb::tests::plug};
    use ed25519_dalek::SigningKey;
    use gap_format::trust::starter;
    use std::{fs, process::Command, sync::Arc};

    struct Machine {
        root: tempfile::TempDir,
        story: Story,
        trust: Trust,
    }

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[1; 32])
    }

    impl Machine {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("sys/class/block")).unwrap();
            fs::create_dir_all(root.path().join("dev")).unwrap();
            fs::write(root.path().join("dev/console"), "").unwrap();
            let story = Story::new(Arc::new(Consoles::open_from(root.path())));
            let trust = Trust::parse(starter("site", &key().verifying_key()).as_bytes()).unwrap();
            Self { root, story, trust }
        }

        /// The same machine with a release that asks for a signature.
        fn strict(self) -> Self {
            let text = starter("officer", &key().verifying_key()).replace("\"root\"", "\"root\", \"site\"");
            let trust = Trust::parse(format!("{text}[role.site]\nthreshold = 1\n").as_bytes()).unwrap();
            Self { trust, ..self }
        }

        fn with_firmware(content: &[u8]) -> Self {
            let machine = Self::new();
            let firmware = machine.root.path().join("sys/firmware/qemu_fw_cfg/by_name/opt/gapimage/site");
            fs::create_dir_all(&firmware).unwrap();
            fs::write(firmware.join("raw"), content).unwrap();
            machine
        }

        /// A FAT volume with the label, which cannot be mounted here.
        fn add_volume(root: &Path) {
            let (volume, directory) = (root.join("dev/sdx"), root.join("sys/class/block/sdx"));
            File::create(&volume).unwrap().set_len(1 << 20).unwrap();
            let made = Command::new("/sbin/mkfs.vfat").args(["-n", "GAPSITE"]).arg(&volume).output().unwrap();
            assert!(made.status.success());
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("size"), "2048").unwrap();
        }

        fn find(&self) -> Site {
            find(self.root.path(), &self.story, Modules::default(), clock::since_boot(), self.trust.clone())
        }

        fn shown(&self) -> String {
            self.story.consoles().flush(Duration::from_secs(60));
            fs::read_to_string(self.root.path().join("dev/console")).unwrap()
        }
    }

    #[test]
    fn a_valid_configuration_is_handed_on_as_it_is() {
        let machine = Machine::with_firmware(b"hostname = 'x' # mine");
        assert_eq!(machine.find().text(), Some("hostname = 'x' # mine"));
        assert!(machine.shown().ends_with("site configuration from fw_cfg\n"), "{}", machine.shown());
    }

    #[test]
    fn a_broken_configuration_is_said_loudly_and_not_handed_on() {
        for broken in [&b"trust = 'mine'"[..], b"\xff", &[b'#'; site::MAX_LEN + 1]] {
            let machine = Machine::with_firmware(broken);
            assert!(matches!(machine.find(), Site::Settled(None)));
            assert!(machine.shown().contains("SITE CONFIGURATION IGNORED"), "{}", machine.shown());
        }
    }

    #[test]
    fn where_the_release_names_keys_an_unsigned_configuration_is_ignored_as_a_whole() {
        let plain = "hostname = 'x'\n";
        let signed = site::sign(plain, &key()).unwrap();
        let machine = Machine::with_firmware(signed.as_bytes()).strict();
        assert_eq!(machine.find().text(), Some(signed.as_str()));
        assert!(
            machine.shown().ends_with("site configuration from fw_cfg, signed by officer\n"),
            "{}",
            machine.shown()
        );
        let other = site::sign(plain, &SigningKey::from_bytes(&[2; 32])).unwrap();
        for refused in [plain.to_owned(), other, signed.replace("'x'", "'y'")] {
            let machine = Machine::with_firmware(refused.as_bytes()).strict();
            assert!(matches!(machine.find(), Site::Settled(None)));
            let shown = machine.shown();
            assert!(shown.contains("SITE CONFIGURATION IGNORED: fw_cfg: ") && shown.contains("not signed"), "{shown}");
        }
    }

    #[test]
    fn a_machine_without_usb_neither_waits_nor_watches() {
        let (machine, begin) = (Machine::new(), clock::since_boot());
        assert!(matches!(machine.find(), Site::Settled(None)));
        assert!(clock::since_boot() - begin < Duration::from_secs(1));
        assert_eq!(machine.shown(), "");
    }

    #[test]
    fn without_a_stick_the_boot_goes_on_and_a_late_one_is_still_seen() {
        let (machine, begin) = (Machine::new(), clock::since_boot());
        plug(machine.root.path(), "usb1", "09");
        let Site::Open(mut watch) = machine.find() else { panic!("the search is over") };
        assert!(clock::since_boot() - begin < Duration::from_secs(1));
        assert!(!watch.is_over());
        assert_eq!(watch.look(&machine.story), Look::Nothing);
        Machine::add_volume(machine.root.path());
        assert!(matches!(watch.look(&machine.story), Look::Found(_)));
        assert!(machine.shown().contains("volume GAPSITE on "), "{}", machine.shown());
    }

    #[test]
    fn a_late_stick_is_looked_for_beside_and_one_that_hangs_holds_nothing_up() {
        let machine = Machine::new();
        plug(machine.root.path(), "usb1", "09");
        let Site::Open(watch) = machine.find() else { panic!("the search is over") };
        // Opening it waits for somebody who writes, as a disk does that does not answer.
        let directory = machine.root.path().join("sys/class/block/sdx");
        let made = Command::new("mkfifo").arg(machine.root.path().join("dev/sdx")).status().unwrap();
        assert!(made.success());
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("size"), "2048").unwrap();
        let late = watch.go_on(&machine.story).unwrap();
        assert_eq!(late.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty));

        let machine = Machine::new();
        plug(machine.root.path(), "usb1", "09");
        let Site::Open(watch) = machine.find() else { panic!("the search is over") };
        Machine::add_volume(machine.root.path());
        // It cannot be mounted here, so that there is no text, and nothing more to wait for.
        assert!(watch.go_on(&machine.story).unwrap().recv().is_err());
        assert!(machine.shown().contains("SITE CONFIGURATION IGNORED"), "{}", machine.shown());
    }

    #[test]
    fn a_stick_that_is_no_disk_yet_is_waited_for() {
        let machine = Machine::new();
        plug(machine.root.path(), "1-1:1.0", "08");
        let root = machine.root.path().to_owned();
        let late = thread::spawn(move || {
            thread::sleep(Duration::from_millis(700));
            Machine::add_volume(&root);
        });
        assert!(matches!(machine.find(), Site::Settled(_)));
        assert!(machine.shown().contains("volume GAPSITE on "), "{}", machine.shown());
        late.join().unwrap();
    }
}
