//! NVSwitch: GPUs behind switches compute only once the fabric manager has trained the links.

use gap_root::Root;
use serde::{Serialize, Serializer};
use std::{fs, os::unix::fs::MetadataExt, time::Duration};

/// Where Debian and NVIDIA install it.
const PROGRAMS: [&str; 2] = ["/usr/bin/nv-fabricmanager", "/usr/lib/nvidia/nv-fabricmanager"];
/// Its configuration, likewise.
const CONFIGURATIONS: [&str; 2] = ["/usr/share/nvidia/nvswitch/fabricmanager.cfg", "/etc/nvidia/fabricmanager.cfg"];
/// How long one GPU's links may take beside what the start itself takes: an eight-GPU board needs most of a minute.
const START: Duration = Duration::from_secs(30);
const EACH_GPU: Duration = Duration::from_secs(15);

/// What the switches ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fabric {
    /// There is no switch.
    None,
    /// The manager must run before any program uses a GPU.
    Needed {
        /// Program and arguments.
        command: Vec<String>,
    },
    /// There are switches and no manager: GPUs will be seen, and no program will be able to use them.
    Missing {
        /// What to bake into the OS image.
        remedy: &'static str,
    },
}

impl Serialize for Fabric {
    /// `none`, `managed`, `missing`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::None => "none",
            Self::Needed { .. } => "managed",
            Self::Missing { .. } => "missing",
        })
    }
}

/// What this machine's switches ask for.
pub fn plan(root: &Root, switches: usize) -> Fabric {
    if switches == 0 {
        return Fabric::None;
    }
    let first = |candidates: &[&'static str]| candidates.iter().copied().find(|path| root.at(path).is_file());
    match (first(&PROGRAMS), first(&CONFIGURATIONS)) {
        (Some(program), Some(configuration)) => {
            Fabric::Needed { command: [program, "-c", configuration].map(str::to_owned).into() }
        }
        _ => Fabric::Missing {
            remedy: "add the package nvidia-fabricmanager of the driver's own version to the OS image",
        },
    }
}

/// Whether the manager that this command starts runs already. It outlives an agent that is started again, and refuses to run
/// twice.
pub fn is_running(root: &Root, command: &[String]) -> bool {
    let Some(program) = command.first().and_then(|program| fs::metadata(root.at(program)).ok()) else { return false };
    let processes = fs::read_dir(root.at("/proc")).into_iter().flatten().flatten();
    // Names can be chosen by any program; the file that it was started from cannot.
    processes.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)).any(|entry| {
        let running = fs::metadata(entry.path().join("exe"));
        running.is_ok_and(|running| (running.dev(), running.ino()) == (program.dev(), program.ino()))
    })
}

/// How long to wait for the manager; grows with the number of GPUs, whose links it trains.
pub fn deadline(gpus: usize) -> Duration {
    START.saturating_add(EACH_GPU.saturating_mul(u32::try_from(gpus).unwrap_or(u32::MAX)))
}
