//! What a layer can be made of.

use super::{DatasetLayer, ModelLayer, RunLayer, WheelsLayer};
use crate::layer::tree::TreePath;
use std::{fmt, path::PathBuf};

/// A layer of a recipe, with shared definitions filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its name in the recipe.
    pub name: String,
    /// What it is made of.
    pub kind: LayerKind,
    /// Line in the recipe at which it is defined, from 1.
    pub line: usize,
}

impl Layer {
    /// Its name within its section of the recipe: `NAME` of `model/NAME`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit_once('/').map_or(&self.name, |(_, name)| name)
    }
}

/// The kinds of layers; a recipe chooses one by the key of the same name, or by a section of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerKind {
    /// Packages of a Debian archive.
    Debian(DebianLayer),
    /// A binary of a Cargo workspace.
    Cargo(CargoLayer),
    /// Files from beside the recipe.
    Files(FilesLayer),
    /// Packages of a Python index, installed into the image's Python.
    Wheels(WheelsLayer),
    /// What a program makes.
    Run(RunLayer),
    /// A model: `[model.NAME]`, as the layer `model/NAME`.
    Model(ModelLayer),
    /// A data set: `[dataset.NAME]`, as the layer `dataset/NAME`.
    Dataset(DatasetLayer),
}

impl LayerKind {
    /// The key that chooses this kind.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Debian(_) => "debian",
            Self::Cargo(_) => "cargo",
            Self::Files(_) => "files",
            Self::Wheels(_) => "wheels",
            Self::Run(_) => "run",
            Self::Model(_) => "model",
            Self::Dataset(_) => "dataset",
        }
    }
}

/// Packages of a Debian archive, resolved on top of the Debian layers below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebianLayer {
    /// Suite or codename (`trixie`, `trixie-backports`, `stable/updates`).
    pub suite: String,
    /// Components of the archive, in the order of the recipe.
    pub components: Vec<String>,
    /// Base address of the mirror; environment or host decide when absent.
    pub mirror: Option<String>,
    /// Keyring that the archive's signature is checked against; the host's when absent.
    pub keyring: Option<PathBuf>,
    /// What is asked for.
    pub packages: Vec<PackageRequest>,
    /// Packages that count as installed in any version although they are not: what they would do is not needed.
    pub assume: Vec<String>,
    /// Whether maintainer scripts run (`dpkg --configure` in the sandbox).
    pub configure: bool,
    /// Whether all packages marked essential are added.
    pub essential: bool,
    /// Whether recommended packages are added.
    pub recommends: bool,
    /// Whether dependencies are added; without, the list is taken as it is.
    pub dependencies: bool,
}

/// One package asked for: `NAME`, `NAME=VERSION`, or with one of `>=`, `<=`, `>>`, `<<`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackageRequest {
    /// Name of the package.
    pub name: String,
    /// Operator and version (`=2.41-12`), if the recipe constrains it.
    pub constraint: Option<String>,
}

impl fmt::Display for PackageRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.constraint.as_deref().unwrap_or_default())
    }
}

/// A binary of a Cargo workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CargoLayer {
    /// Where the workspace is.
    pub workspace: Workspace,
    /// Package of the workspace.
    pub package: String,
    /// Binary of the package.
    pub bin: String,
    /// Where the binary lies in the layer.
    pub to: TreePath,
    /// Whether it is linked statically (`+crt-static`).
    pub static_link: bool,
    /// Features of the package to enable besides the default ones, sorted.
    pub features: Vec<String>,
    /// The layer in whose tree compiler, linker and C library are found.
    pub build_root: String,
}

/// Where a Cargo workspace is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workspace {
    /// A directory on this machine.
    Directory(PathBuf),
    /// The programs of the appliance itself (gap-init and gapd), whose sources are part of gapimage.
    Builtin,
}

impl Workspace {
    /// What recipes say for [`Workspace::Builtin`].
    pub const BUILTIN: &'static str = "builtin";
}

impl fmt::Display for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Builtin => f.write_str(Self::BUILTIN),
        }
    }
}

/// Files from beside the recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesLayer {
    /// The files and directories, in the order of the recipe; a later one wins.
    pub items: Vec<FileItem>,
}

/// One file, or one directory taken whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileItem {
    /// The directory of the file that names it, on this machine.
    pub base: PathBuf,
    /// The path as the recipe has it: relative to that directory, without `..`.
    pub path: String,
    /// Where it goes: absolute, without `..`. With a `/` at the end, a file goes into that directory under its own
    /// name.
    pub to: String,
    /// Permission bits of the file (or of all files of the directory); those on disk, reduced to 0644 or 0755, when
    /// absent.
    pub mode: Option<u32>,
}
