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
        release(version).map(|(major, minor)| Self::new(major, minor))
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
    let build = match (release(torch)?, cuda.major, cuda.minor) {
        ((2, 0..=7), 11, 8) => Build::new(&[37, 50, 60, 70, 75, 80, 86, 90]),
        ((2, 1..=5), 12, 1) | ((2, 4..=6), 12, 4) | ((2, 6..=12), 12, 6) => Build::new(&[50, 60, 70, 75, 80, 86, 90]),
        ((2, 7), 12, 8) => Build::with_intermediate(&[75, 80, 86, 90, 100, 120], 120),
        ((2, 8..=10), 12, 8) => Build::new(&[70, 75, 80, 86, 90, 100, 120]),
        ((2, 8..=10), 12, 9) => Build::with_intermediate(&[70, 75, 80, 86, 90, 100, 120], 120),
        ((2, 11), 12, 9) | ((2, 9..=10), 13, 0) => Build::with_intermediate(&[75, 80, 86, 90, 100, 120], 120),
        ((2, 11), 12, 8) | ((2, 11..=14), 13, 0) | ((2, 15), 13, 2) => Build::new(&[75, 80, 86, 90, 100, 120]),
        _ => return None,
    };
    Some(build)
}

/// The library of bitsandbytes that is loaded beside a PyTorch for some CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// It is there, and holds code for these GPUs.
    Built(Build),
    /// The wheel holds none that fits.
    Missing,
    /// This release is not known.
    Unknown,
}

/// The library that a wheel of bitsandbytes loads beside a PyTorch for this CUDA. Until 0.49 it is the one for exactly
/// that CUDA; from 0.50 on another one of the same family stands in.
pub fn bitsandbytes_library(bitsandbytes: &Version, cuda: Cuda) -> Library {
    const OLD: Build = Build::with_intermediate(&[50, 52, 60, 61, 70, 75, 80, 86, 89, 90], 90);
    const WITH_MAXWELL: Build = Build::with_intermediate(&[50, 60, 70, 75, 80, 86, 89, 90], 90);
    const FROM_PASCAL: Build = Build::with_intermediate(&[60, 70, 75, 80, 86, 89, 90], 90);
    const FROM_VOLTA: Build = Build::with_intermediate(&[70, 75, 80, 86, 89, 90, 100, 120], 120);
    const FROM_TURING: Build = Build::with_intermediate(&[75, 80, 86, 89, 90, 100, 120], 120);
    let Some(release @ (0, 45..=50)) = release(bitsandbytes) else { return Library::Unknown };
    let build = match (release.1, cuda.major, cuda.minor) {
        (45, 11, 7) => Build::with_intermediate(&[50, 52, 60, 61, 70, 75, 80, 86], 86),
        (45..=46, 11, 8) | (45..=46, 12, 0..=6) => OLD,
        (47, 11, 8) | (47, 12, 0..=6) => WITH_MAXWELL,
        (48..=49, 11, 8) | (48..=49, 12, 0..=6) | (50, 11, _) | (50, 12, 0..=7) => FROM_PASCAL,
        (46, 12, 8..=9) => FROM_TURING,
        (45, 12, 8) | (47..=49, 12, 8..=9) | (50, 12, _) => FROM_VOLTA,
        (48..=49, 13, 0) | (50, 13, _) => FROM_TURING,
        _ => return Library::Missing,
    };
    Library::Built(build)
}

/// What a wheel of vLLM from the package index was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VllmBuild {
    /// The family of CUDA whose runtime it loads.
    pub family: u64,
    /// The least that its kernels are compiled for.
    pub least: Capability,
    /// Of how much of a GPU's memory it makes use unless told otherwise (`gpu_memory_utilization`), in hundredths.
    pub share: u64,
}

/// What a release of vLLM was built for; `None` for one that is not known.
pub fn vllm_build(vllm: &Version) -> Option<VllmBuild> {
    match release(vllm)? {
        (0, 6..=19) => Some(VllmBuild { family: 12, least: Capability::new(7, 0), share: 90 }),
        (0, 20..=33) => Some(VllmBuild { family: 13, least: Capability::new(7, 5), share: 92 }),
        _ => None,
    }
}

/// The first two numbers of a version.
fn release(version: &Version) -> Option<(u64, u64)> {
    match version.release() {
        [major, minor, ..] => Some((*major, *minor)),
        _ => None,
    }
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
        let newer = torch_build(&version("2.15.0"), Cuda::new(13, 2)).unwrap();
        assert_eq!(newer.fit(Capability::new(10, 3)), Fit::Machine);
        assert_eq!(newer.fit(Capability::new(7, 0)), Fit::Never);
        assert_eq!(Build::with_intermediate(&[75], 75).fit(Capability::new(9, 0)), Fit::Compiled);
        assert_eq!(torch_build(&version("3.0"), Cuda::new(14, 0)), None);
    }

    /// What the wheels themselves hold: `torch._C._cuda_getArchFlags` of PyTorch's, the GPU code in the libraries of
    /// bitsandbytes and vLLM.
    #[test]
    fn builds_are_what_the_wheels_on_the_index_hold() {
        let maxwell: &[u32] = &[50, 60, 70, 75, 80, 86, 90];
        let volta: &[u32] = &[70, 75, 80, 86, 90, 100, 120];
        let turing: &[u32] = &[75, 80, 86, 90, 100, 120];
        for (torch, cuda, held) in [
            ("2.5.1", (12, 4), maxwell),
            ("2.6.0", (12, 4), maxwell),
            ("2.7.1", (12, 6), maxwell),
            ("2.8.0", (12, 8), volta),
            ("2.9.1", (12, 8), volta),
            ("2.10.0", (12, 8), volta),
            ("2.11.0", (13, 0), turing),
            ("2.12.1", (13, 0), turing),
            ("2.13.0", (13, 0), turing),
            ("2.14.1", (13, 0), turing),
            ("2.15.0", (13, 2), turing),
        ] {
            assert_eq!(torch_build(&version(torch), Cuda::new(cuda.0, cuda.1)), Some(Build::new(held)), "{torch}");
        }
        let library = |release: &str, major, minor| bitsandbytes_library(&version(release), Cuda::new(major, minor));
        let volta = |release: &str, major, minor| match library(release, major, minor) {
            Library::Built(build) => Some(build.fit(Capability::new(7, 0)) == Fit::Machine),
            Library::Missing | Library::Unknown => None,
        };
        assert_eq!((volta("0.46.1", 12, 6), volta("0.46.1", 12, 8)), (Some(true), Some(false)));
        assert_eq!((volta("0.47.0", 12, 8), volta("0.49.2", 13, 0)), (Some(true), Some(false)));
        // 0.50 has none for 12.9, and takes the one for 12.8.
        assert_eq!(library("0.50.2", 12, 9), library("0.50.2", 12, 8));
        assert_eq!((library("0.47.0", 13, 0), library("0.51.0", 13, 0)), (Library::Missing, Library::Unknown));
        assert_eq!(vllm_build(&version("0.14.1")).unwrap().family, 12);
        assert_eq!(vllm_build(&version("0.33.0")).unwrap().least, Capability::new(7, 5));
    }
}
