//! The GPUs that a target can name.

use std::fmt;

/// Compute capability: the instruction set of a GPU (CUDA C++ Programming Guide, "Compute Capabilities").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability {
    /// Generation.
    pub major: u32,
    /// Variant in the generation.
    pub minor: u32,
}

impl Capability {
    /// The capability `major.minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// The name of the architecture.
    pub const fn architecture(self) -> &'static str {
        match (self.major, self.minor) {
            (10.., _) => "Blackwell",
            (9, _) => "Hopper",
            (8, 9) => "Ada Lovelace",
            (8, _) => "Ampere",
            (7, 5) => "Turing",
            (7, _) => "Volta",
            _ => "Pascal",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A kind of GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gpu {
    /// Its name in recipes.
    pub name: &'static str,
    /// Its compute capability.
    pub capability: Capability,
    /// Its memory in bytes: the gigabytes of its data sheet taken as 10⁹, which no card falls short of.
    pub memory: u64,
    /// Whether it is a data-center GPU, for which NVIDIA supports CUDA's forward compatibility.
    pub data_center: bool,
}

const fn data_center(name: &'static str, major: u32, minor: u32, gigabytes: u64) -> Gpu {
    Gpu { name, capability: Capability::new(major, minor), memory: gigabytes * 1_000_000_000, data_center: true }
}

const fn workstation(name: &'static str, major: u32, minor: u32, gigabytes: u64) -> Gpu {
    Gpu { data_center: false, ..data_center(name, major, minor, gigabytes) }
}

/// All that are known; where each row comes from is in `docs/check.md`.
const GPUS: [Gpu; 29] = [
    data_center("P100", 6, 0, 16),
    data_center("V100-16GB", 7, 0, 16),
    data_center("V100-32GB", 7, 0, 32),
    data_center("T4", 7, 5, 16),
    data_center("A100-40GB", 8, 0, 40),
    data_center("A100-80GB", 8, 0, 80),
    data_center("A30", 8, 0, 24),
    data_center("A2", 8, 6, 16),
    data_center("A10", 8, 6, 24),
    data_center("A16", 8, 6, 16),
    data_center("A40", 8, 6, 48),
    data_center("L4", 8, 9, 24),
    data_center("L40", 8, 9, 48),
    data_center("L40S", 8, 9, 48),
    data_center("H100-80GB", 9, 0, 80),
    data_center("H100-94GB", 9, 0, 94),
    data_center("GH200-96GB", 9, 0, 96),
    data_center("H200", 9, 0, 141),
    data_center("B200", 10, 0, 180),
    data_center("B300", 10, 3, 262),
    data_center("RTX-PRO-6000-Server", 12, 0, 96),
    workstation("RTX-PRO-6000", 12, 0, 96),
    workstation("RTX-6000-Ada", 8, 9, 48),
    workstation("RTX-A6000", 8, 6, 48),
    workstation("RTX-3090", 8, 6, 24),
    workstation("RTX-4080", 8, 9, 16),
    workstation("RTX-4090", 8, 9, 24),
    workstation("RTX-5080", 12, 0, 16),
    workstation("RTX-5090", 12, 0, 32),
];

impl Gpu {
    /// The GPU of this name, however its letters are written.
    pub fn named(name: &str) -> Option<Self> {
        GPUS.into_iter().find(|gpu| gpu.name.eq_ignore_ascii_case(name))
    }

    /// All that are known.
    pub fn all() -> impl Iterator<Item = Self> {
        GPUS.into_iter()
    }

    /// The names of all that are known.
    pub fn names() -> impl Iterator<Item = &'static str> {
        GPUS.iter().map(|gpu| gpu.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_found_in_any_case() {
        let mut names: Vec<String> = Gpu::names().map(str::to_lowercase).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), GPUS.len());
        assert_eq!(Gpu::named("h100-80gb").unwrap().capability, Capability::new(9, 0));
        assert_eq!(Gpu::named("H100"), None);
    }
}
