//! MIG: GPUs cut into slices, as the site configuration wants them.
//!
//! The driver's `nvidia-smi` makes the slices; which calls are needed is decided here, from what is wanted and what is
//! there, so that a machine that is right already is left alone. MIG mode is switched before any program uses a GPU.

use crate::PciAddress;
use gap_handover::site::{Cut, Profile};
use gap_root::Root;
use serde::Serialize;
use std::{collections::BTreeMap, io};

/// Where the driver lists the numbers of rights.
const MINORS: &str = "/proc/driver/nvidia-caps/mig-minors";
/// Longest list, in bytes. The driver always lists what 32 GPUs could have: 4322 lines, 110 KB.
const MAX_MINORS: u64 = 1 << 20;
/// Most capabilities that are used.
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

/// Why the rights to slices are not known.
#[derive(Debug, thiserror::Error)]
#[error("reading {MINORS}: {0}; slices of GPUs get no device nodes without it, and are not offered")]
pub struct CapabilitiesError(#[from] io::Error);

/// The capabilities that the driver has numbers for; none where it has no such list. The list has all that there could
/// ever be, so only those whose slice is there (`/proc/driver/nvidia/capabilities`) are returned.
///
/// # Errors
/// [`CapabilitiesError`] when there is a list that cannot be read.
pub fn capabilities(root: &Root) -> Result<Vec<Capability>, CapabilitiesError> {
    let bytes = match root.read(MINORS, MAX_MINORS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().filter_map(|line| line.trim().split_once(' '));
    let all = lines.filter_map(|(name, minor)| Some(Capability { name: name.into(), minor: minor.parse().ok()? }));
    Ok(all.filter(|capability| is_there(root, &capability.name)).take(MAX_CAPABILITIES).collect())
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

/// How one GPU is to be cut: `None` as a whole, else how many slices of each profile.
pub type Slices = Option<BTreeMap<String, u32>>;

/// What is wanted of the GPU with this number; `None` when nothing is said of it. Of several entries the last one counts,
/// as in mig-parted.
pub fn wanted(cuts: &[Cut], number: usize) -> Option<Slices> {
    let cut = cuts.iter().rev().find(|cut| cut.concerns(number))?;
    let slices = || cut.mig_devices.iter().map(|(profile, &count)| (Profile::to_string(profile), count.into()));
    Some(cut.mig_enabled.then(|| slices().collect()))
}

/// How a GPU is cut now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Present {
    /// Whether MIG mode is on.
    pub enabled: bool,
    /// How many slices of each profile there are.
    pub slices: BTreeMap<String, u32>,
}

impl Present {
    /// Whether it is what is wanted.
    pub fn is(&self, wanted: &Slices) -> bool {
        match wanted {
            None => !self.enabled,
            Some(slices) => self.enabled && self.slices == *slices,
        }
    }
}

/// The calls of `nvidia-smi` that lead from what is there to what is wanted; none where it is the same. The GPU is named
/// by its address: a number would mean another one where a GPU before it was lost.
pub fn commands(address: PciAddress, present: &Present, wanted: &Slices) -> Vec<Vec<String>> {
    if present.is(wanted) {
        return Vec::new();
    }
    let gpu = address.to_nvml();
    let smi = |words: &[&str]| ["nvidia-smi"].iter().chain(words).map(|&word| word.to_owned()).collect::<Vec<_>>();
    let clear = || [smi(&["mig", "-i", &gpu, "-dci"]), smi(&["mig", "-i", &gpu, "-dgi"])];
    let mut calls: Vec<Vec<String>> = (!present.slices.is_empty()).then(clear).into_iter().flatten().collect();
    let Some(slices) = wanted else {
        calls.push(smi(&["-i", &gpu, "-mig", "0"]));
        return calls;
    };
    if !present.enabled {
        calls.push(smi(&["-i", &gpu, "-mig", "1"]));
    }
    // Large slices first: small ones would take the places where large ones fit.
    let mut profiles: Vec<&str> =
        slices.iter().flat_map(|(name, count)| (0..*count).map(move |_| name.as_str())).collect();
    profiles.sort_by_key(|name| std::cmp::Reverse(compute(name)));
    if !profiles.is_empty() {
        calls.push(smi(&["mig", "-i", &gpu, "-cgi", &profiles.join(","), "-C"]));
    }
    calls
}

/// The share of a GPU in a profile's name: 3 of `3g.40gb`.
fn compute(profile: &str) -> u32 {
    profile.split("g.").next().and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gap_handover::SiteConfig;

    const MIXED: &str = "[[gpus.mig]]\ndevices = 'all'\nmig-enabled = false\n[[gpus.mig]]\ndevices = [1, 2]\n\
        mig-enabled = true\nmig-devices = { '1g.10gb' = 2, '3g.40gb' = 1 }";

    fn slices(list: &[(&str, u32)]) -> BTreeMap<String, u32> {
        list.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    }

    fn lines(present: &Present, wanted: &Slices) -> Vec<String> {
        commands("0000:3b:00.0".parse().unwrap(), present, wanted).iter().map(|call| call.join(" ")).collect()
    }

    #[test]
    fn the_last_entry_that_concerns_a_gpu_counts() {
        let cuts = SiteConfig::parse(MIXED).unwrap().gpus.mig;
        assert_eq!(wanted(&cuts, 0), Some(None));
        assert_eq!(wanted(&cuts, 1), Some(Some(slices(&[("1g.10gb", 2), ("3g.40gb", 1)]))));
        assert_eq!(wanted(&cuts[1..], 0), None, "nothing is said of it");
    }

    #[test]
    fn a_gpu_that_is_right_is_left_alone() {
        let there = Present { enabled: true, slices: slices(&[("1g.10gb", 7)]) };
        assert!(lines(&there, &Some(slices(&[("1g.10gb", 7)]))).is_empty());
        assert!(lines(&Present { enabled: false, slices: BTreeMap::new() }, &None).is_empty());
    }

    #[test]
    fn slices_are_cleared_before_others_are_made_and_large_ones_come_first() {
        let there = Present { enabled: true, slices: slices(&[("1g.10gb", 7)]) };
        assert_eq!(
            lines(&there, &Some(slices(&[("1g.10gb", 2), ("3g.40gb", 1)]))),
            [
                "nvidia-smi mig -i 00000000:3B:00.0 -dci",
                "nvidia-smi mig -i 00000000:3B:00.0 -dgi",
                "nvidia-smi mig -i 00000000:3B:00.0 -cgi 3g.40gb,1g.10gb,1g.10gb -C"
            ]
        );
        assert_eq!(lines(&there, &None).last().unwrap(), "nvidia-smi -i 00000000:3B:00.0 -mig 0");
    }
}
