//! Recipes: TOML → a typed, validated [`Recipe`].
//!
//! Every mistake is reported as a [`Problem`] that points at the line and column, says what is wrong
//! there and how to mend it; several at once where they do not hang on each other.

mod check;
mod dataset;
mod decode;
mod definition;
mod gpu;
mod job;
mod layer;
mod model;
mod name;
mod policy;
mod problem;
pub mod requirement;
mod run;
mod section;
mod stack;
mod target;
#[cfg(test)]
mod tests;
mod trial;
mod value;
mod wheels;
#[cfg(test)]
mod work_tests;

pub use dataset::{DatasetLayer, DatasetSource, FileBeside, Preparation, TokenizerSource};
pub use gpu::{Capability, Gpu};
pub use job::{
    Adapter, ConfigPath, Engine, Job, Method, Optimizer, Precision, Serving, Sharding, Step, Trainer, Training, Work,
};
pub use layer::{CargoLayer, DebianLayer, FileItem, FilesLayer, Layer, LayerKind, PackageRequest, Workspace};
pub use model::{HubRepository, ModelLayer, ModelSource, PicklePolicy, RepoName, RepoNameRule, is_revision};
pub use policy::{Acceptance, Criterion, LicensePolicy, SecretPolicy};
pub use problem::{Problem, RecipeErrors};
pub use run::RunLayer;
pub use stack::PlacedLayer;
pub use target::{DriverVersion, InvalidDriver, Target};
pub use trial::Test;
pub use wheels::{Provided, Sdists, WheelsLayer};

use gap_format::Digest;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// A whole recipe: one appliance, its images and the layers that they are made of.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The file that it was read from.
    pub path: PathBuf,
    /// Name, version and serial of what it makes.
    pub appliance: Appliance,
    /// The images, in the order in which the recipe names them; then one for each model, then one for each data set.
    pub images: Vec<Image>,
    /// How the bootable image is started; present exactly when an image boots.
    pub boot: Option<Boot>,
    /// All layers by name, those of images and those that are only tools; models and data sets as `model/NAME` and
    /// `dataset/NAME`.
    pub layers: BTreeMap<String, Layer>,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// The definitions that its layers use, each by its path as `use` has it and the SHA-256 of its file.
    pub definitions: BTreeSet<(String, Digest)>,
    /// The machine that it is meant for, if the recipe says.
    pub target: Option<Target>,
    /// What the appliance can be told to run, in the order of the recipe.
    pub jobs: Vec<Job>,
    /// The steps of a chain of work, in the order of the recipe.
    pub steps: Vec<Step>,
    /// Which licences may cross, if the recipe says.
    pub licenses: Option<LicensePolicy>,
    /// What looks like a secret and is none.
    pub secrets: SecretPolicy,
    /// By what the outcome is judged, if the recipe says.
    pub acceptance: Option<Acceptance>,
    /// What must work before anything crosses the gap, in the order of the recipe.
    pub tests: Vec<Test>,
}

/// What the release will be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appliance {
    /// Name, safe as an OCI reference and as a file name.
    pub name: String,
    /// Version for people, safe as an OCI tag.
    pub version: String,
    /// Number that only rises from release to release; at least 1.
    pub serial: u64,
    /// The oldest serial that may still be booted once this release proved healthy; at most `serial`.
    pub rollback_to: u64,
    /// Processor architecture.
    pub arch: Arch,
    /// The trust file that the booted appliance will go by, unless the command line names another.
    pub trust: Option<PathBuf>,
    /// When the release stops being accepted, seconds since 1970.
    pub expires: Option<i64>,
}

/// Processor architectures that an appliance can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
}

impl Arch {
    /// All of them, by the names that recipes use.
    pub const ALL: [Self; 1] = [Self::X86_64];

    /// The name in recipes and statements (that of the kernel and of Rust).
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
        }
    }

    /// The name that Debian and OCI use.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
        }
    }

    /// The Rust target that links against GNU libc.
    pub const fn rust_target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
        }
    }
}

/// One OCI image: an ordered list of layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its reference name in the artifact.
    pub name: String,
    /// What it is for.
    pub kind: ImageKind,
    /// Whether the appliance boots from it; true for at most one.
    pub boot: bool,
    /// Names of its layers, bottom to top; at least one, each at most once. Those of the models and data sets that it
    /// holds come last, as `model/NAME` and `dataset/NAME`.
    pub layers: Vec<String>,
    /// What a container made from it runs by default.
    pub config: ImageConfig,
}

/// What an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// Programs: `[image.NAME]`.
    System,
    /// A model by itself: `[model.NAME]`.
    Model,
    /// A data set by itself: `[dataset.NAME]`.
    Dataset,
}

/// The part of an OCI image configuration that a recipe decides (OCI image-spec, `config`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments, replaced by those that the user gives.
    pub cmd: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Working directory, absolute.
    pub workdir: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`.
    pub user: Option<String>,
    /// Labels by key.
    pub labels: BTreeMap<String, String>,
}

/// How the bootable image is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Layer whose tree holds systemd's EFI stub.
    pub stub: String,
    /// Layer whose tree holds `/init`.
    pub init: String,
    /// Kernel modules for the initrd besides those that every appliance needs.
    pub modules: Vec<String>,
    /// Words added to the kernel's command line; never `gap.*`, `init=` and their like.
    pub cmdline: String,
}

impl Recipe {
    /// Reads and checks the recipe at `path`, with the definitions that it uses.
    ///
    /// # Errors
    /// [`RecipeErrors`]: the file cannot be read, or all problems found in it.
    pub fn load(path: &Path) -> Result<Self, RecipeErrors> {
        decode::load(path)
    }

    /// Decodes and checks a recipe whose text is at hand; `path` is for messages, and its directory is where the
    /// definitions that the recipe uses are looked for.
    ///
    /// # Errors
    /// [`RecipeErrors::Invalid`]: all problems found in it.
    pub fn parse(text: String, path: &Path) -> Result<Self, RecipeErrors> {
        decode::decode(&problem::SourceFile::new(path, text))
    }

    /// The image that the appliance boots from.
    pub fn boot_image(&self) -> Option<&Image> {
        self.images.iter().find(|image| image.boot)
    }

    /// The layer of this name.
    pub fn layer(&self, name: &str) -> Option<&Layer> {
        self.layers.get(name)
    }
}
