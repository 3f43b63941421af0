//! MIG: GPUs cut into slices, as a configuration in mig-parted's YAML wants them.
//!
//! The driver's `nvidia-smi` makes the slices; which calls are needed is decided here, from what is wanted and what is
//! there, so that a machine that is right already is left alone. MIG mode is switched before any program uses a GPU.

use crate::driver::read;
use gap_root::Root;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest configuration, in bytes.
pub const MAX_CONFIGURATION: usize = 64 << 10;
/// No GPU has more slices.
const MAX_SLICES: u32 = 7;
/// Most capabilities that are read.
const MAX_CAPABILITIES: usize = 4096;

/// One line of `/proc/driver/nvidia-caps/mig-minors`: a right that a device node stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// `config`, `monitor`, `gpu0/gi1/access`, `gpu0/gi1/ci0/access`.
    pub name: String,
    /// The number in `/dev/nvidia-caps/nvidia-capN`.
    pub minor: u32,
}

impl Capability {
    /// Its device node.
    pub fn path(&self) -> String {
        format!("/dev/nvidia-caps/nvidia-cap{}", self.minor)
    }
}

/// The capabilities that the driver has numbers for. The file lists all that there could ever be, so only those whose
/// slice is there (`/proc/driver/nvidia/capabilities`) are returned.
pub fn capabilities(root: &Root) -> Vec<Capability> {
    let Some(text) = read(root, "/proc/driver/nvidia-caps/mig-minors") else { return Vec::new() };
    let lines = text.lines().filter_map(|line| line.trim().split_once(' '));
    let all = lines.filter_map(|(name, minor)| Some(Capability { name: name.into(), minor: minor.parse().ok()? }));
    all.filter(|capability| is_there(root, &capability.name)).take(MAX_CAPABILITIES).collect()
}

fn is_there(root: &Root, name: &str) -> bool {
    let is_plain =
        name.split('/').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let place = match name.split_once('/') {
        Some((gpu, rest)) => format!("/proc/driver/nvidia/capabilities/{gpu}/mig/{rest}"),
        None => format!("/proc/driver/nvidia/capabilities/mig/{name}"),
    };
    is_plain && root.at(place).exists()
}

/// What is no configuration of slices.
#[derive(Debug, thiserror::Error)]
pub enum MigError {
    /// It is too long.
    #[error("a MIG configuration of {0} bytes is too long; {MAX_CONFIGURATION} are allowed")]
    TooLong(usize),
    /// It is not YAML of this form.
    #[error("reading the MIG configuration: {0}")]
    Form(String),
    /// It has another version.
    #[error("the MIG configuration has version {0:?}; version v1 is known")]
    Version(String),
    /// There is no set of that name.
    #[error("the MIG configuration has no set {asked:?}; it has {there}")]
    NoSuchSet {
        /// The name that was asked for.
        asked: String,
        /// The names that are there.
        there: String,
    },
    /// A profile is not spelled as the driver spells profiles.
    #[error("{0:?} is no MIG profile such as 1g.10gb")]
    Profile(String),
    /// More slices than a GPU has.
    #[error("{0} slices are wanted of one GPU; none has more than {MAX_SLICES}")]
    TooMany(u32),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Document {
    version: String,
    mig_configs: BTreeMap<String, Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    device_filter: Option<OneOrMore>,
    devices: Devices,
    mig_enabled: bool,
    #[serde(default)]
    mig_devices: BTreeMap<String, u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Devices {
    Indexes(Vec<usize>),
    Word(String),
}

/// How one GPU is to be cut: `None` as a whole, else how many slices of each profile.
pub type Slices = Option<BTreeMap<String, u32>>;

/// One set of a configuration.
#[derive(Debug)]
pub struct Wanted(Vec<Entry>);

impl std::fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Entry").field("enabled", &self.mig_enabled).field("slices", &self.mig_devices).finish()
    }
}

impl Wanted {
    /// Reads the set `name` of a configuration (mig-parted's version `v1`).
    ///
    /// # Errors
    /// [`MigError`] when the text is not such a configuration, or has no such set.
    pub fn parse(text: &str, name: &str) -> Result<Self, MigError> {
        if text.len() > MAX_CONFIGURATION {
            return Err(MigError::TooLong(text.len()));
        }
        let document: Document = serde_saphyr::from_str(text).map_err(|error| MigError::Form(error.to_string()))?;
        if document.version != "v1" {
            return Err(MigError::Version(document.version));
        }
        let there = document.mig_configs.keys().cloned().collect::<Vec<_>>().join(", ");
        let entries = document.mig_configs.into_iter().find(|(key, _)| key == name);
        let (_, entries) = entries.ok_or_else(|| MigError::NoSuchSet { asked: name.to_owned(), there })?;
        for entry in &entries {
            if let Some(profile) = entry.mig_devices.keys().find(|profile| !is_profile(profile)) {
                return Err(MigError::Profile(profile.clone()));
            }
            let slices = entry.mig_devices.values().fold(0_u32, |sum, count| sum.saturating_add(*count));
            if slices > MAX_SLICES {
                return Err(MigError::TooMany(slices));
            }
            if let Devices::Word(word) = &entry.devices
                && word != "all"
            {
                return Err(MigError::Form(format!("devices: {word:?} is neither \"all\" nor a list of numbers")));
            }
        }
        Ok(Self(entries))
    }

    /// What it wants of the GPU with this index and PCI device id (`0x2330`); `None` when it says nothing of it. Of
    /// several entries the last one counts, as in mig-parted.
    pub fn of(&self, index: usize, device: &str) -> Option<Slices> {
        let entry = self.0.iter().rev().find(|entry| entry.concerns(index, device))?;
        Some(entry.mig_enabled.then(|| entry.mig_devices.clone()))
    }
}

impl Entry {
    fn concerns(&self, index: usize, device: &str) -> bool {
        // mig-parted's filter has device and vendor in one word: 0x233010DE.
        let word = format!("{}10DE", device.to_ascii_uppercase().replacen("0X", "0x", 1));
        let passes = match &self.device_filter {
            None => true,
            Some(OneOrMore::One(filter)) => filter.is_empty() || filter.eq_ignore_ascii_case(&word),
            Some(OneOrMore::More(filters)) => filters.iter().any(|filter| filter.eq_ignore_ascii_case(&word)),
        };
        passes
            && match &self.devices {
                Devices::Indexes(indexes) => indexes.contains(&index),
                Devices::Word(_) => true,
            }
    }
}

/// `1g.10gb`, `1g.10gb+me`, `1c.2g.20gb`: what the driver calls a profile.
fn is_profile(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".+".contains(&byte);
    text.len() <= 32 && text.contains("g.") && text.bytes().all(allowed)
}

/// How a GPU is cut now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Present {
    /// Whether MIG mode is on.
    pub enabled: bool,
    /// How many slices of each profile there are.
    pub slices: BTreeMap<String, u32>,
}

/// The calls of `nvidia-smi` that lead from what is there to what is wanted; none where it is the same.
pub fn commands(index: usize, present: &Present, wanted: &Slices) -> Vec<Vec<String>> {
    let index = index.to_string();
    let smi = |words: &[&str]| ["nvidia-smi"].iter().chain(words).map(|&word| word.to_owned()).collect::<Vec<_>>();
    let clear = || [smi(&["mig", "-i", &index, "-dci"]), smi(&["mig", "-i", &index, "-dgi"])];
    let mut calls = Vec::new();
    let is_cut = !present.slices.is_empty();
    match wanted {
        None if !present.enabled => {}
        None => {
            calls.extend(is_cut.then(clear).into_iter().flatten());
            calls.push(smi(&["-i", &index, "-mig", "0"]));
        }
        Some(slices) if present.enabled && &present.slices == slices => {}
        Some(slices) => {
            calls.extend(is_cut.then(clear).into_iter().flatten());
            if !present.enabled {
                calls.push(smi(&["-i", &index, "-mig", "1"]));
            }
            // Large slices first: small ones would take the places where large ones fit.
            let mut profiles: Vec<&str> =
                slices.iter().flat_map(|(name, count)| (0..*count).map(move |_| name.as_str())).collect();
            profiles.sort_by_key(|name| std::cmp::Reverse(compute(name)));
            if !profiles.is_empty() {
                calls.push(smi(&["mig", "-i", &index, "-cgi", &profiles.join(","), "-C"]));
            }
        }
    }
    calls
}

/// The share of a GPU in a profile's name: 3 of `3g.40gb`.
fn compute(profile: &str) -> u32 {
    let before = profile.split("g.").next().unwrap_or_default();
    before.rsplit('.').next().and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIGURATION: &str = "version: v1\nmig-configs:\n  whole:\n    - devices: all\n      mig-enabled: false\n  \
        mixed:\n    - devices: all\n      mig-enabled: false\n    - devices: [1, 2]\n      mig-enabled: true\n      \
        mig-devices:\n        \"1g.10gb\": 2\n        \"3g.40gb\": 1\n  filtered:\n    - device-filter: \"0x233010DE\"\n      \
        devices: all\n      mig-enabled: true\n      mig-devices: {}\n";

    fn wanted(name: &str) -> Wanted {
        Wanted::parse(CONFIGURATION, name).unwrap()
    }

    fn slices(list: &[(&str, u32)]) -> BTreeMap<String, u32> {
        list.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    }

    #[test]
    fn the_last_entry_that_concerns_a_gpu_counts() {
        let wanted = wanted("mixed");
        assert_eq!(wanted.of(0, "0x2330"), Some(None));
        assert_eq!(wanted.of(1, "0x2330"), Some(Some(slices(&[("1g.10gb", 2), ("3g.40gb", 1)]))));
    }

    #[test]
    fn a_filter_goes_by_device_and_vendor() {
        assert_eq!(wanted("filtered").of(0, "0x2330"), Some(Some(BTreeMap::new())));
        assert_eq!(wanted("filtered").of(0, "0x20b2"), None);
    }

    #[test]
    fn a_missing_set_is_named_with_those_that_are_there() {
        let error = Wanted::parse(CONFIGURATION, "al").unwrap_err().to_string();
        assert_eq!(error, "the MIG configuration has no set \"al\"; it has filtered, mixed, whole");
    }

    #[test]
    fn profiles_that_could_be_arguments_are_refused() {
        let text = "version: v1\nmig-configs:\n  x:\n    - devices: all\n      mig-enabled: true\n      mig-devices: {\"-C g.\": 1}\n";
        assert!(matches!(Wanted::parse(text, "x"), Err(MigError::Profile(_))));
    }

    #[test]
    fn a_gpu_that_is_right_is_left_alone() {
        let there = Present { enabled: true, slices: slices(&[("1g.10gb", 7)]) };
        assert!(commands(0, &there, &Some(slices(&[("1g.10gb", 7)]))).is_empty());
        assert!(commands(0, &Present { enabled: false, slices: BTreeMap::new() }, &None).is_empty());
    }

    #[test]
    fn slices_are_cleared_before_others_are_made_and_large_ones_come_first() {
        let there = Present { enabled: true, slices: slices(&[("1g.10gb", 7)]) };
        let calls = commands(3, &there, &Some(slices(&[("1g.10gb", 2), ("3g.40gb", 1)])));
        let lines: Vec<String> = calls.iter().map(|call| call.join(" ")).collect();
        assert_eq!(
            lines,
            [
                "nvidia-smi mig -i 3 -dci",
                "nvidia-smi mig -i 3 -dgi",
                "nvidia-smi mig -i 3 -cgi 3g.40gb,1g.10gb,1g.10gb -C"
            ]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(version: v1\n)?.{0,200}") {
            let _ = Wanted::parse(&text, "x");
        }
    }
}
