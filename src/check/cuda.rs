//! What NVIDIA's drivers, CUDA's versions and the builds of wheels for CUDA have to do with each other.
//!
//! Where each row of the tables comes from is in `docs/check.md`.

use super::facts::{Image, Wheel};
use crate::recipe::{Capability, DriverVersion, Gpu};
use pep440_rs::{LocalSegment, Operator, Version};
use pep508_rs::VersionOrUrl;
use std::fmt;

/// A version of CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cuda {
    /// Family: programs of one family run on every driver that knows the family.
    pub major: u64,
    /// Release in the family.
    pub minor: u64,
}

impl fmt::Display for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The driver that came with a version of CUDA, which knows all of it.
const OWN_DRIVERS: [(Cuda, &str); 25] = [
    (Cuda::new(9, 0), "384.81"),
    (Cuda::new(10, 0), "410.48"),
    (Cuda::new(10, 1), "418.39"),
    (Cuda::new(10, 2), "440.33"),
    (Cuda::new(11, 0), "450.51.05"),
    (Cuda::new(11, 1), "455.23"),
    (Cuda::new(11, 2), "460.27.03"),
    (Cuda::new(11, 3), "465.19.01"),
    (Cuda::new(11, 4), "470.42.01"),
    (Cuda::new(11, 5), "495.29.05"),
    (Cuda::new(11, 6), "510.39.01"),
    (Cuda::new(11, 7), "515.43.04"),
    (Cuda::new(11, 8), "520.61.05"),
    (Cuda::new(12, 0), "525.60.13"),
    (Cuda::new(12, 1), "530.30.02"),
    (Cuda::new(12, 2), "535.54.03"),
    (Cuda::new(12, 3), "545.23.06"),
    (Cuda::new(12, 4), "550.54.14"),
    (Cuda::new(12, 5), "555.42.02"),
    (Cuda::new(12, 6), "560.28.03"),
    (Cuda::new(12, 8), "570.26"),
    (Cuda::new(12, 9), "575.51.03"),
    (Cuda::new(13, 0), "580.65.06"),
    (Cuda::new(13, 1), "590.44.01"),
    (Cuda::new(13, 2), "595.45.04"),
];

impl Cuda {
    /// The version `major.minor`.
    pub const fn new(major: u64, minor: u64) -> Self {
        Self { major, minor }
    }

    /// Reads the tag of a build: `cu118`, `cu124`, `cu130`.
    pub fn from_tag(tag: &str) -> Option<Self> {
        let digits = tag.strip_prefix("cu").filter(|digits| digits.len() == 3)?;
        let number: u64 = digits.parse().ok()?;
        Some(Self::new(number / 10, number % 10))
    }

    /// The first two numbers of a version.
    pub fn from_version(version: &Version) -> Option<Self> {
        match version.release() {
            [major, minor, ..] => Some(Self::new(*major, *minor)),
            _ => None,
        }
    }

    /// The oldest driver on which programs of this family run (minor-version compatibility).
    pub fn oldest_driver(self) -> Option<DriverVersion> {
        let text = match self.major {
            11 => "450.80.02",
            12 => "525",
            13 => "580",
            _ => return None,
        };
        text.parse().ok()
    }

    /// The driver that came with this version: from it on nothing is limited, and code that is compiled while a
    /// program runs (PTX) is understood.
    pub fn own_driver(self) -> Option<DriverVersion> {
        OWN_DRIVERS.iter().find(|(cuda, _)| *cuda == self).and_then(|(_, driver)| driver.parse().ok())
    }
}

/// The first version of CUDA that knows a GPU.
pub const fn first_cuda(capability: Capability) -> Cuda {
    match (capability.major, capability.minor) {
        (..=6, _) => Cuda::new(8, 0),
        (7, 0..5) => Cuda::new(9, 0),
        (7, _) => Cuda::new(10, 0),
        (8, 0..6) => Cuda::new(11, 0),
        (8, 6..9) => Cuda::new(11, 1),
        (8, _) | (9, _) => Cuda::new(11, 8),
        (10, 3..) | (12, 1..) => Cuda::new(12, 9),
        _ => Cuda::new(12, 8),
    }
}

/// The last family of CUDA that knows a GPU, if it is past.
pub const fn last_family(capability: Capability) -> Option<u64> {
    match (capability.major, capability.minor) {
        (..=6, _) | (7, 0..5) => Some(12),
        _ => None,
    }
}

/// The last branch of drivers that knows a GPU.
pub const fn last_branch(capability: Capability) -> Option<u32> {
    match (capability.major, capability.minor) {
        (..=6, _) | (7, 0..5) => Some(580),
        _ => None,
    }
}

/// The oldest driver that knows a GPU: the one that came with the first CUDA that does.
pub fn oldest_driver_for(gpu: &Gpu) -> Option<DriverVersion> {
    first_cuda(gpu.capability).own_driver()
}

/// For which GPUs a build holds code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build {
    /// Machine code: major and minor of each capability, as `10 * major + minor`.
    machine: &'static [u32],
    /// Intermediate code (PTX) for this capability, which the driver compiles for newer ones.
    intermediate: Option<u32>,
}

/// How a build runs on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It holds machine code for it.
    Machine,
    /// The driver must compile its intermediate code.
    Compiled,
    /// Not at all.
    Never,
}

impl Build {
    const fn new(machine: &'static [u32]) -> Self {
        Self { machine, intermediate: None }
    }

    const fn with_intermediate(machine: &'static [u32], intermediate: u32) -> Self {
        Self { machine, intermediate: Some(intermediate) }
    }

    /// How it runs on a GPU. Machine code runs on later minors of its major (CUDA C++ Programming Guide, "Binary
    /// Compatibility"), intermediate code on everything later ("PTX Compatibility").
    pub fn fit(&self, capability: Capability) -> Fit {
        let wanted = 10 * capability.major + capability.minor;
        let runs = |&code: &u32| code / 10 == capability.major && code <= wanted;
        if self.machine.iter().any(runs) {
            Fit::Machine
        } else if self.intermediate.is_some_and(|code| code <= wanted) {
            Fit::Compiled
        } else {
            Fit::Never
        }
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, code) in self.machine.iter().enumerate() {
            write!(f, "{}sm_{code}", if index == 0 { "" } else { ", " })?;
        }
        match self.intermediate {
            Some(code) => write!(f, " and PTX of compute_{code}"),
            None => Ok(()),
        }
    }
}

/// The GPUs that a wheel of PyTorch from its own builders holds code for; `None` where that is not known.
pub fn torch_build(torch: &Version, cuda: Cuda) -> Option<Build> {
    let release = match torch.release() {
        [major, minor, ..] => (*major, *minor),
        _ => return None,
    };
    let build = match (release, cuda.major, cuda.minor) {
        ((2, 0..=7), 11, 8) => Build::new(&[37, 50, 60, 70, 75, 80, 86, 90]),
        ((2, 1..=5), 12, 1) | ((2, 4..=6), 12, 4) | ((2, 6..=12), 12, 6) => Build::new(&[50, 60, 70, 75, 80, 86, 90]),
        ((2, 7), 12, 8) => Build::with_intermediate(&[75, 80, 86, 90, 100, 120], 120),
        ((2, 8..=10), 12, 8) => Build::new(&[70, 75, 80, 86, 90, 100, 120]),
        ((2, 11), 12, 8) => Build::new(&[75, 80, 86, 90, 100, 120]),
        ((2, 8..=10), 12, 9) => Build::with_intermediate(&[70, 75, 80, 86, 90, 100, 120], 120),
        ((2, 11), 12, 9) | ((2, 9..=11), 13, 0) => Build::with_intermediate(&[75, 80, 86, 90, 100, 120], 120),
        _ => return None,
    };
    Some(build)
}

/// The GPUs that a wheel of bitsandbytes holds code for, beside a PyTorch for this CUDA; `None` where that is not known.
pub fn bitsandbytes_build(bitsandbytes: &Version, cuda: Cuda) -> Option<Build> {
    let release = match bitsandbytes.release() {
        [major, minor, ..] => (*major, *minor),
        _ => return None,
    };
    let build = match (release, cuda.major, cuda.minor) {
        ((0, 46..=47), 11, 8..) | ((0, 46..=47), 12, 0..=6) => Build::new(&[50, 60, 75, 80, 86, 89, 90]),
        ((0, 46..=47), 12, 8) => Build::new(&[75, 80, 86, 89, 90, 100, 120]),
        ((0, 48..=50), 11, 8..) | ((0, 48..=50), 12, 0..=6) => Build::new(&[60, 70, 75, 80, 86, 89, 90]),
        ((0, 48..=50), 12, 8..=9) => Build::new(&[70, 75, 80, 86, 89, 90, 100, 120]),
        ((0, 48..=50), 13, 0) | ((0, 50), 13, 1..=2) => Build::new(&[75, 80, 86, 89, 90, 100, 120]),
        _ => return None,
    };
    Some(build)
}

/// What a wheel computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The processor alone.
    Cpu,
    /// NVIDIA GPUs, through this CUDA.
    Cuda(Cuda),
    /// Something that is no NVIDIA GPU (ROCm, XPU).
    Foreign,
    /// It does not say.
    Unknown,
}

/// What the wheel of PyTorch or of vLLM computes on: by the local part of its version (`+cu124`), else by the CUDA
/// runtime that it requires.
pub fn backend(wheel: &Wheel, image: &Image) -> Backend {
    if let Some(backend) = local_backend(&wheel.version) {
        return backend;
    }
    let runtime = wheel.requires.iter().find(|requirement| is_runtime(requirement.name.as_ref()));
    let Some(runtime) = runtime else { return Backend::Unknown };
    let pinned = match &runtime.version_or_url {
        Some(VersionOrUrl::VersionSpecifier(specifiers)) => {
            let exact = specifiers.iter().find(|one| matches!(one.operator(), Operator::Equal | Operator::EqualStar));
            exact.and_then(|one| Cuda::from_version(one.version()))
        }
        _ => None,
    };
    let installed = || image.wheel(runtime.name.as_ref()).and_then(|wheel| Cuda::from_version(&wheel.version));
    pinned.or_else(installed).map_or(Backend::Unknown, Backend::Cuda)
}

fn local_backend(version: &Version) -> Option<Backend> {
    version.local().iter().find_map(|segment| {
        let LocalSegment::String(text) = segment else { return None };
        match text.as_str() {
            "cpu" => Some(Backend::Cpu),
            "xpu" => Some(Backend::Foreign),
            rocm if rocm.starts_with("rocm") => Some(Backend::Foreign),
            other => Cuda::from_tag(other).map(Backend::Cuda),
        }
    })
}

/// The distributions that carry CUDA's runtime: one for each family up to 12, without a suffix from 13 on.
fn is_runtime(name: &str) -> bool {
    matches!(name, "nvidia-cuda-runtime-cu11" | "nvidia-cuda-runtime-cu12" | "nvidia-cuda-runtime" | "cuda-toolkit")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn tags_and_versions_name_a_cuda() {
        assert_eq!(Cuda::from_tag("cu124"), Some(Cuda::new(12, 4)));
        assert_eq!(Cuda::from_tag("cu118"), Some(Cuda::new(11, 8)));
        assert_eq!(Cuda::from_tag("cu92"), None);
        assert_eq!(Cuda::from_version(&version("12.8.90")), Some(Cuda::new(12, 8)));
        assert_eq!(local_backend(&version("2.6.0+cu124")), Some(Backend::Cuda(Cuda::new(12, 4))));
        assert_eq!(local_backend(&version("2.6.0+rocm6.2")), Some(Backend::Foreign));
        assert_eq!(local_backend(&version("2.6.0+cpu")), Some(Backend::Cpu));
        assert_eq!(local_backend(&version("2.6.0")), None);
    }

    #[test]
    fn every_family_has_an_oldest_driver_and_none_is_above_that_of_a_release() {
        for (cuda, driver) in OWN_DRIVERS {
            let driver: DriverVersion = driver.parse().unwrap();
            if let Some(oldest) = cuda.oldest_driver() {
                // CUDA 11.0 came out before the driver that the family was later held to.
                assert!(oldest <= driver || cuda == Cuda::new(11, 0), "{cuda}");
            }
        }
    }

    #[test]
    fn machine_code_runs_on_later_minors_and_intermediate_code_on_everything_later() {
        let torch = torch_build(&version("2.6.0"), Cuda::new(12, 4)).unwrap();
        assert_eq!(torch.fit(Capability::new(9, 0)), Fit::Machine);
        assert_eq!(torch.fit(Capability::new(8, 9)), Fit::Machine);
        assert_eq!(torch.fit(Capability::new(12, 0)), Fit::Never);
        let newer = torch_build(&version("2.9.1"), Cuda::new(13, 0)).unwrap();
        assert_eq!(newer.fit(Capability::new(10, 3)), Fit::Machine);
        assert_eq!(newer.fit(Capability::new(7, 0)), Fit::Never);
        assert_eq!(Build::with_intermediate(&[75], 75).fit(Capability::new(9, 0)), Fit::Compiled);
        assert_eq!(torch_build(&version("3.0"), Cuda::new(14, 0)), None);
    }
}
