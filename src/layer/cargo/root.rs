//! What a build root must hold.

use crate::{layer::tree::TreePath, recipe::Arch};

/// Something that a build root lacks, and the Debian package that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The file, absolute.
    pub path: &'static str,
    /// The package.
    pub package: &'static str,
}

/// What is needed to link, and in static builds too.
const NEEDED_X86_64: [Missing; 6] = [
    Missing { path: "/lib64", package: "base-files" },
    Missing { path: "/usr/bin/gcc", package: "gcc" },
    Missing { path: "/usr/bin/ar", package: "binutils" },
    Missing { path: "/usr/lib64/ld-linux-x86-64.so.2", package: "libc6" },
    Missing { path: "/usr/lib/x86_64-linux-gnu/crt1.o", package: "libc6-dev" },
    Missing { path: "/usr/lib/x86_64-linux-gnu/libz.so.1", package: "zlib1g" },
];

/// What a build root for `arch` lacks, if `exists` says which paths it has.
pub fn missing(arch: Arch, exists: impl Fn(&TreePath) -> bool) -> Vec<Missing> {
    let needed = match arch {
        Arch::X86_64 => &NEEDED_X86_64,
    };
    let lacks = |missing: &&Missing| !TreePath::new(missing.path).is_ok_and(|path| exists(&path));
    needed.iter().filter(lacks).copied().collect()
}
