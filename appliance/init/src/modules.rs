//! Kernel modules: those that every boot needs, and those that a device or a file system asks for.
//!
//! `/gap/modules` holds three lists beside the modules: `order`, file names that are always loaded; `alias`, a pattern
//! and a file name a line; `depend`, a file name, a colon and what to load for it, itself last. A module takes tens of
//! milliseconds to load, so that only what this machine has is loaded.

use gap_handover::boot_report;
use rustix::{io::Errno, system::finit_module};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{Attempt, Stop, clock, story::Story};

/// For how long devices are served that come after the OS image was mounted.
const LATE_DEVICES: Duration = Duration::from_secs(30);
/// Time between two looks for them.
const LOOK: Duration = Duration::from_millis(200);

/// The lists of the initramfs.
#[derive(Debug, Default)]
struct Lists {
    root: PathBuf,
    order: Vec<String>,
    aliases: Aliases,
    /// For each file that an alias names, what to load, in order.
    needs: BTreeMap<String, Vec<String>>,
}

impl Lists {
    fn read_from(root: &Path) -> Result<Self, Stop> {
        let read = |name: &str| {
            fs::read_to_string(root.join("gap/modules").join(name))
                .attempt(|| format!("reading the module list /gap/modules/{name}"))
        };
        let words = |needs: &str| needs.split_ascii_whitespace().map(str::to_owned).collect();
        let needs = read("depend")?;
        let needs = needs.lines().filter_map(|line| line.split_once(':'));
        Ok(Self {
            root: root.into(),
            order: read("order")?.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect(),
            aliases: Aliases::parse(&read("alias")?),
            needs: needs.map(|(file, needs)| (file.into(), words(needs))).collect(),
        })
    }
}

/// Loads modules of the initramfs. Several may do so side by side: the kernel takes each module once.
#[derive(Debug, Default)]
pub struct Modules {
    lists: Arc<Lists>,
    /// Files that were loaded, or refused by the kernel.
    tried: BTreeSet<String>,
    /// Devices that were there at the last look, as directories of sysfs.
    known: BTreeSet<PathBuf>,
    /// Names of devices that are not served yet.
    waiting: BTreeSet<(Likely, String)>,
}

impl Modules {
    /// Reads the lists.
    ///
    /// # Errors
    /// [`Stop`] when one cannot be read.
    pub fn read_from(root: &Path) -> Result<Self, Stop> {
        Ok(Self { lists: Arc::new(Lists::read_from(root)?), ..Self::default() })
    }

    /// Begins to load what every boot needs, and what the firmware's devices and USB controllers ask for, beside what is done meanwhile.
    ///
    /// # Errors
    /// [`Stop`] when no thread can be had.
    pub fn begin(&self, story: &Story) -> Result<Background, Stop> {
        let mut modules = Self { lists: Arc::clone(&self.lists), ..Self::default() };
        let story = Story::new(Arc::clone(story.consoles()));
        let (send, always) = channel();
        let work = move || {
            // Nobody waits any more where the boot has failed meanwhile; a machine that halts still needs its button.
            let _ = send.send(modules.load_always(&story));
            modules.serve_beside(&story).map(|()| (modules, clock::since_boot()))
        };
        let thread = thread::Builder::new().name("modules".into()).spawn(work);
        Ok(Background { always, thread: thread.attempt(|| "starting a thread that loads modules".into())? })
    }

    /// Another loader of the same modules, which looks at all devices anew and loads none that this one has loaded.
    pub fn another(&self) -> Self {
        Self { lists: Arc::clone(&self.lists), tried: self.tried.clone(), ..Self::default() }
    }

    /// Loads what all devices ask for, also those that come within [`LATE_DEVICES`], in a thread of its own. Once those that
    /// are there are served, the file [`boot_report::DRIVERS_PATH`] in the OS image at `image` tells the agent: a disk that is
    /// not there by then may only come by itself.
    ///
    /// # Errors
    /// [`Stop`] when no thread can be had.
    pub fn go_on(mut self, story: &Story, image: &Path) -> Result<(), Stop> {
        let story = Story::new(Arc::clone(story.consoles()));
        let told = image.join(boot_report::DRIVERS_PATH.trim_start_matches('/'));
        let work = move || {
            let until = clock::since_boot() + LATE_DEVICES;
            let mut has_told = false;
            // A controller may take longer than that; the agent is told after it all the same.
            while !has_told || clock::since_boot() < until {
                match self.serve_next(&Likely::ALL, &story) {
                    Ok(true) => {}
                    Ok(false) if has_told => thread::sleep(LOOK),
                    Ok(false) => {
                        has_told = true;
                        story.tell(format_args!("every device has its driver, {} kernel modules", self.loaded()));
                        if let Err(error) = fs::write(&told, "") {
                            story.tell(format_args!("the agent is not told that all drivers are loaded: {error}"));
                        }
                    }
                    Err(stop) => story.tell(stop),
                }
            }
        };
        thread::Builder::new()
            .name("drivers".into())
            .spawn(work)
            .attempt(|| "starting a thread that loads drivers".into())?;
        Ok(())
    }

    fn load_always(&mut self, story: &Story) -> Result<(), Stop> {
        let lists = Arc::clone(&self.lists);
        lists.order.iter().try_for_each(|name| self.load(name, story))
    }

    /// How many modules were loaded.
    pub fn loaded(&self) -> usize {
        self.tried.len()
    }

    /// Loads what the firmware's devices and USB controllers ask for: the power button, and where a site configuration
    /// may come from. Sticks take their time, which passes while the medium is looked for.
    fn serve_beside(&mut self, story: &Story) -> Result<(), Stop> {
        while self.serve_next(&[Likely::Firmware, Likely::Usb], story)? {}
        Ok(())
    }

    /// Loads what one more device of these kinds asks for, those first that are likely to hold the medium and quick to
    /// start. False when every such device that is there by now is served.
    ///
    /// # Errors
    /// [`Stop`] when a module of the lists is not there.
    pub fn serve_next(&mut self, kinds: &[Likely], story: &Story) -> Result<bool, Stop> {
        let before = self.tried.len();
        self.look();
        loop {
            let next = self.waiting.iter().find(|(likely, _)| kinds.contains(likely)).cloned();
            let Some(next) = next else { return Ok(false) };
            self.waiting.remove(&next);
            self.serve(&next.1, story)?;
            if self.tried.len() > before {
                return Ok(true);
            }
        }
    }

    /// Takes note of the devices that came since the last look, and forgets those that went: what is plugged in at the
    /// same place later may be another one.
    fn look(&mut self) {
        let there = devices(&self.lists.root);
        for device in there.difference(&self.known) {
            let Ok(name) = fs::read_to_string(device.join("modalias")) else { continue };
            let name = name.trim_end();
            self.waiting.insert((Likely::of(name), name.to_owned()));
        }
        self.known = there;
    }

    /// Loads what goes by a name: `fs-ext4`, or a module's own.
    ///
    /// # Errors
    /// [`Stop`] when a module of the lists is not there.
    pub fn serve(&mut self, name: &str, story: &Story) -> Result<(), Stop> {
        let lists = Arc::clone(&self.lists);
        let own = format!("{name}.ko");
        let files = lists.aliases.files_for(name).chain([own.as_str()]);
        files.filter_map(|file| lists.needs.get(file)).flatten().try_for_each(|file| self.load(file, story))
    }

    /// Loads one file, once. When the kernel refuses it, that is told and passed over: whether it was needed shows
    /// itself later, by what is missing.
    fn load(&mut self, name: &str, story: &Story) -> Result<(), Stop> {
        if name.contains('/') || name.starts_with('.') {
            return Err(Stop::Failed(format!("a list in /gap/modules names `{name}`, which is no plain file name")));
        }
        if !self.tried.insert(name.into()) {
            return Ok(());
        }
        let path = self.lists.root.join("gap/modules").join(name);
        let file = File::open(path).attempt(|| format!("opening the module {name}"))?;
        match finit_module(file, c"", 0) {
            Ok(()) | Err(Errno::EXIST | Errno::NODEV) => {}
            Err(error) => story.tell(format_args!("module {name} is not loaded: {error}")),
        }
        Ok(())
    }
}

/// Modules that are being loaded beside the boot.
#[derive(Debug)]
pub struct Background {
    always: Receiver<Result<(), Stop>>,
    thread: JoinHandle<Result<(Modules, Duration), Stop>>,
}

impl Background {
    /// Waits for those that every boot needs.
    ///
    /// # Errors
    /// [`Stop`] when one of them is not there.
    pub fn wait_for_always(&self) -> Result<(), Stop> {
        self.always.recv().unwrap_or_else(|_| Err(Self::died()))
    }

    /// Waits for all; from then on `modules` knows what was loaded. Gives the time since the kernel started when that was
    /// done.
    ///
    /// # Errors
    /// [`Stop`] when one of them is not there.
    pub fn join(self, modules: &mut Modules) -> Result<Duration, Stop> {
        let (others, done) = self.thread.join().unwrap_or_else(|_| Err(Self::died()))?;
        modules.tried.extend(others.tried);
        Ok(done)
    }

    fn died() -> Stop {
        Stop::Failed("the thread that loads modules died; this is a mistake in it".into())
    }
}

/// In which order devices are served: a controller without disks may take a second to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Likely {
    /// The firmware's own devices, and keys.
    Firmware,
    /// Disks of virtual machines, and NVMe.
    Disk,
    /// Controllers of USB; what is plugged into them comes later.
    Usb,
    /// All else.
    Other,
}

impl Likely {
    /// All but the firmware's devices: what a medium may be attached to.
    pub const MEDIA: [Self; 3] = [Self::Disk, Self::Usb, Self::Other];
    /// Every device.
    pub const ALL: [Self; 4] = [Self::Firmware, Self::Disk, Self::Usb, Self::Other];

    fn of(name: &str) -> Self {
        let begins = |prefix: &str| name.starts_with(prefix);
        match name {
            _ if begins("acpi:") || begins("input:") => Self::Firmware,
            // The class of NVMe controllers, and the vendor number of virtio.
            _ if begins("virtio:") || begins("pci:v00001AF4") || name.contains("bc01sc08i02") => Self::Disk,
            _ if begins("pci:") && name.contains("bc0Csc03") => Self::Usb,
            _ => Self::Other,
        }
    }
}

/// Patterns and the files that they ask for, by the bus that a pattern begins with (`pci:`), because a machine has a
/// hundred devices on all buses, and the list some thousand patterns, nearly all of two buses.
#[derive(Debug, Default)]
struct Aliases(BTreeMap<String, Vec<(String, String)>>);

impl Aliases {
    fn parse(list: &str) -> Self {
        let mut buses: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for (pattern, file) in list.lines().filter_map(|line| line.rsplit_once(' ')) {
            buses.entry(bus(pattern).into()).or_default().push((pattern.into(), file.into()));
        }
        Self(buses)
    }

    /// Files that a name asks for, some of them perhaps more than once.
    fn files_for(&self, name: &str) -> impl Iterator<Item = &str> {
        let own = Some(bus(name)).filter(|bus| !bus.is_empty());
        let worth_a_try = own.into_iter().chain([""]).filter_map(|bus| self.0.get(bus)).flatten();
        worth_a_try.filter(move |(pattern, _)| gap_modalias::matches(pattern, name)).map(|(_, file)| file.as_str())
    }
}

/// What stands before the colon; nothing where that is not plain, as in `acpi*:PNP0C0C:*` or `fs-ext4`.
fn bus(pattern: &str) -> &str {
    let before = pattern.split_once(':').map_or("", |(bus, _)| bus);
    if before.bytes().all(|byte| byte.is_ascii_alphanumeric()) { before } else { "" }
}

/// The devices of the machine that may say what they are (`modalias` in sysfs).
fn devices(root: &Path) -> BTreeSet<PathBuf> {
    let children = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    children(root.join("sys/bus"))
        .flat_map(|bus| children(bus.join("devices")))
        .chain(children(root.join("sys/class/input")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Consoles;

    fn machine(order: &str, devices: &[&str]) -> (tempfile::TempDir, Story) {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("gap/modules");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("order"), order).unwrap();
        fs::write(directory.join("alias"), "virtio:d00000002v* virtio_blk.ko\nfs-ext4 ext4.ko\npci:* radio.ko\n")
            .unwrap();
        let depend = "virtio_blk.ko: virtio_blk.ko\next4.ko: jbd2.ko ext4.ko\nloop.ko: loop.ko\nradio.ko: radio.ko\n";
        fs::write(directory.join("depend"), depend).unwrap();
        for name in ["dm_mod.ko", "virtio_blk.ko", "jbd2.ko", "ext4.ko", "loop.ko", "radio.ko"] {
            fs::write(directory.join(name), "no module").unwrap();
        }
        for (number, name) in devices.iter().enumerate() {
            let device = root.path().join(format!("sys/bus/virtio/devices/{number}"));
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("modalias"), format!("{name}\n")).unwrap();
        }
        let story = Story::new(Arc::new(Consoles::open_from(root.path())));
        (root, story)
    }

    fn tried(modules: &Modules) -> Vec<&str> {
        modules.tried.iter().map(String::as_str).collect()
    }

    fn serve_all(modules: &mut Modules, story: &Story) {
        while modules.serve_next(&Likely::ALL, story).unwrap() {}
    }

    /// A loader that has loaded what every boot needs.
    fn loaded_from(root: &tempfile::TempDir, story: &Story) -> Modules {
        let mut modules = Modules::read_from(root.path()).unwrap();
        let background = modules.begin(story).unwrap();
        background.wait_for_always().unwrap();
        background.join(&mut modules).unwrap();
        modules
    }

    #[test]
    fn only_what_is_asked_for_is_loaded() {
        let (root, story) = machine("dm_mod.ko\n", &["virtio:d00000002v00001AF4", "virtio:d00000001v00001AF4"]);
        let mut modules = loaded_from(&root, &story);
        assert_eq!(tried(&modules), ["dm_mod.ko"]);
        serve_all(&mut modules, &story);
        assert_eq!(tried(&modules), ["dm_mod.ko", "virtio_blk.ko"]);
        modules.serve("fs-ext4", &story).unwrap();
        modules.serve("loop", &story).unwrap();
        modules.serve("fs-btrfs", &story).unwrap();
        assert_eq!(tried(&modules), ["dm_mod.ko", "ext4.ko", "jbd2.ko", "loop.ko", "virtio_blk.ko"]);
    }

    #[test]
    fn likely_devices_come_first_and_one_at_a_time() {
        let (root, story) = machine("", &["pci:v00008086d00002922bc01sc06i01", "virtio:d00000002v00001AF4"]);
        let mut modules = loaded_from(&root, &story);
        assert!(tried(&modules).is_empty());
        assert!(modules.serve_next(&Likely::ALL, &story).unwrap());
        assert_eq!(tried(&modules), ["virtio_blk.ko"]);
        assert!(modules.serve_next(&Likely::ALL, &story).unwrap());
        assert_eq!(tried(&modules), ["radio.ko", "virtio_blk.ko"]);
        assert!(!modules.serve_next(&Likely::ALL, &story).unwrap());
    }

    #[test]
    fn a_device_that_comes_late_is_served_and_one_that_replaces_another_too() {
        let (root, story) = machine("", &["virtio:d00000001v00001AF4"]);
        let mut modules = loaded_from(&root, &story);
        serve_all(&mut modules, &story);
        assert!(tried(&modules).is_empty());
        let place = root.path().join("sys/bus/virtio/devices/0");
        fs::rename(&place, root.path().join("gone")).unwrap();
        serve_all(&mut modules, &story);
        fs::create_dir(&place).unwrap();
        fs::write(place.join("modalias"), "virtio:d00000002v00001AF4\n").unwrap();
        serve_all(&mut modules, &story);
        assert_eq!(tried(&modules), ["virtio_blk.ko"]);
    }

    #[test]
    fn drivers_of_all_devices_are_loaded_beside_the_agent_which_is_told_when() {
        let (root, story) = machine("", &["virtio:d00000002v00001AF4", "pci:v00001000d00000016"]);
        let modules = loaded_from(&root, &story);
        let told = root.path().join(boot_report::DRIVERS_PATH.trim_start_matches('/'));
        fs::create_dir_all(told.parent().unwrap()).unwrap();
        // A device whose module is not there must not keep the agent waiting.
        fs::remove_file(root.path().join("gap/modules/radio.ko")).unwrap();
        fs::create_dir_all(root.path().join("dev")).unwrap();
        fs::write(root.path().join("dev/console"), "").unwrap();
        let story = Story::new(Arc::new(Consoles::open_from(root.path())));
        modules.another().go_on(&story, root.path()).unwrap();
        let until = clock::since_boot() + Duration::from_secs(25);
        while !told.exists() {
            assert!(clock::since_boot() < until);
            thread::sleep(LOOK);
        }
        story.consoles().flush(Duration::from_secs(60));
        let shown = fs::read_to_string(root.path().join("dev/console")).unwrap();
        for module in ["virtio_blk.ko", "radio.ko"] {
            assert!(shown.contains(module), "{shown}");
        }
    }

    #[test]
    fn a_pattern_is_found_by_its_bus_or_whatever_its_bus() {
        let aliases = Aliases::parse("pci:v1* a.ko\nacpi*:PNP0C0C:* b.ko\nfs-ext4 c.ko\nusb:v1* d.ko\n* e.ko\n");
        let files = |name: &str| aliases.files_for(name).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(files("pci:v1d2"), ["a.ko", "e.ko"]);
        assert_eq!(files("acpi:PNP0C0C:"), ["b.ko", "e.ko"]);
        assert_eq!(files("fs-ext4"), ["c.ko", "e.ko"]);
    }

    #[test]
    fn a_module_that_every_boot_needs_and_is_not_there_ends_the_boot() {
        let (root, story) = machine("dm_mod.ko\nmissing.ko\n", &[]);
        let background = Modules::read_from(root.path()).unwrap().begin(&story).unwrap();
        let Err(Stop::System { what, .. }) = background.wait_for_always() else { panic!("the boot went on") };
        assert_eq!(what, "opening the module missing.ko");
    }

    #[test]
    fn the_firmwares_devices_are_served_beside_the_search_and_others_in_it() {
        let (root, story) = machine("", &["acpi:PNP0C0C:", "virtio:d00000002v00001AF4"]);
        let alias = root.path().join("gap/modules/alias");
        fs::write(&alias, fs::read_to_string(&alias).unwrap() + "acpi*:PNP0C0C:* loop.ko\n").unwrap();
        let mut modules = Modules::read_from(root.path()).unwrap();
        let background = modules.begin(&story).unwrap();
        while modules.serve_next(&Likely::MEDIA, &story).unwrap() {}
        assert_eq!(tried(&modules), ["virtio_blk.ko"]);
        background.join(&mut modules).unwrap();
        assert_eq!(tried(&modules), ["loop.ko", "virtio_blk.ko"]);
    }

    #[test]
    fn a_list_does_not_lead_out_of_its_directory() {
        for order in ["../b.ko\n", "x/b.ko\n", "/b.ko\n"] {
            let (root, story) = machine(order, &[]);
            let background = Modules::read_from(root.path()).unwrap().begin(&story).unwrap();
            assert!(matches!(background.wait_for_always(), Err(Stop::Failed(_))));
        }
    }
}
