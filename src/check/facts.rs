//! All that is judged: plain values, gathered from a recipe and its lock or made by a test.

use super::report::Status;
use crate::recipe::{Acceptance, DriverVersion, Job, LicensePolicy, Step, Target};
use pep440_rs::Version;
use pep508_rs::{PackageName, Requirement, VerbatimUrl};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of an appliance before it is built.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Name of the appliance.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The machine.
    pub target: Option<Target>,
    /// The NVIDIA driver in the appliance, or on the machine.
    pub driver: Option<Driver>,
    /// Layers that the lock has no rows for: what it lacks may be all that is wrong.
    pub unlocked: Vec<String>,
    /// The images.
    pub images: Vec<Image>,
    /// Images in which something is tried before anything crosses.
    pub tested: BTreeSet<String>,
    /// The models.
    pub models: Vec<Model>,
    /// The data sets.
    pub datasets: Vec<Dataset>,
    /// The jobs.
    pub jobs: Vec<Job>,
    /// The steps.
    pub steps: Vec<Step>,
    /// The configurations that jobs and steps go by.
    pub configs: Vec<Config>,
    /// Which licences may cross.
    pub licenses: Option<LicensePolicy>,
    /// By what the outcome is judged.
    pub acceptance: Option<Acceptance>,
    /// What a scan of the layers found.
    pub layers: Vec<Layer>,
}

/// An NVIDIA driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// Its version.
    pub version: DriverVersion,
    /// What says so: a package, or the recipe's `[target]`.
    pub origin: String,
}

/// An image and the packages in it.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Its name in the recipe.
    pub name: String,
    /// Debian packages.
    pub debian: Vec<DebianPackage>,
    /// Cargo packages whose binaries are in it.
    pub programs: Vec<String>,
    /// Crates from the registry that those are made of.
    pub crates: Vec<Crate>,
    /// The version of Python in it.
    pub python: Option<Version>,
    /// The version of the GNU C library in it.
    pub glibc: Option<Version>,
    /// Python wheels.
    pub wheels: Vec<Wheel>,
    /// Python distributions that Debian packages bring, by name.
    pub provided: BTreeMap<String, Version>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
}

/// A Debian package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DebianPackage {
    /// Its name.
    pub name: String,
    /// Its version as Debian writes it.
    pub version: String,
    /// Licences that its copyright file names.
    pub licenses: Vec<String>,
    /// Whether it is from the component `main`, all of which Debian holds to be free software.
    pub is_main: bool,
}

/// A Rust crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SPDX expression, if its manifest has one.
    pub license: Option<String>,
}

/// A Python wheel.
#[derive(Debug, Clone)]
pub struct Wheel {
    /// Name of the distribution, normalised (PEP 503).
    pub name: PackageName,
    /// Its version (PEP 440).
    pub version: Version,
    /// Its compatibility tags (PEP 425), one for each combination.
    pub tags: Vec<Tag>,
    /// What it requires (PEP 508).
    pub requires: Vec<Requirement<VerbatimUrl>>,
    /// What its metadata says of its licences; all of them hold.
    pub licenses: Vec<String>,
}

/// A compatibility tag of a wheel (PEP 425).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// `cp313`, `py3`.
    pub python: String,
    /// `cp313`, `abi3`, `none`.
    pub abi: String,
    /// `manylinux_2_28_x86_64`, `any`.
    pub platform: String,
}

/// A model.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Its name in the recipe.
    pub name: String,
    /// Its name on the hub (`org/name`), if it has one.
    pub hub: Option<String>,
    /// Its `config.json`, if it could be read.
    pub config: Option<Value>,
    /// How many parameters its weights have.
    pub parameters: Option<u64>,
    /// Bytes of its weights.
    pub weight_bytes: Option<u64>,
    /// Bytes of all its files.
    pub bytes: Option<u64>,
    /// What looking at its files found; `None` if nobody looked.
    pub findings: Option<Vec<ModelFinding>>,
    /// What its card says of its licences; all of them hold.
    pub licenses: Vec<String>,
}

/// Something about the files of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFinding {
    /// What it is about.
    pub part: ModelPart,
    /// How bad it is.
    pub status: Status,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// The parts of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelPart {
    /// Weights, and everything that is none of the others.
    Weights,
    /// What turns text into tokens.
    Tokenizer,
    /// What says how the weights are put together.
    Configuration,
}

/// A data set.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    /// Its name in the recipe.
    pub name: String,
    /// What its data card says, if there is one.
    pub card: Option<DataCard>,
    /// What it says of its licences; all of them hold.
    pub licenses: Vec<String>,
    /// Bytes of all its files.
    pub bytes: Option<u64>,
}

/// What is known of a data set that was looked through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataCard {
    /// Form of its records: `instruction`, `conversation`, `preference`, `text`.
    pub format: String,
    /// Number of records.
    pub records: u64,
    /// Rows that are no record and were left out.
    pub left_out: u64,
    /// Records that are there twice, or nearly; `None` if nobody looked.
    pub duplicates: Option<u64>,
    /// Personal data that was found and is still there; `None` if nobody looked.
    pub personal: Option<u64>,
    /// Records by part (`train`, `validation`, `test`).
    pub splits: BTreeMap<String, u64>,
    /// Tokens of the longest record, if they were counted.
    pub longest: Option<u64>,
}

/// A configuration file of a job or step.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `job NAME` or `step NAME`.
    pub owner: String,
    /// The path as the recipe has it.
    pub path: String,
    /// What it holds, or why it cannot be read.
    pub content: Result<Value, String>,
}

/// What a scan of a layer for secrets found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its name in the recipe.
    pub name: String,
    /// What was found; `None` if the layer is not there to be scanned.
    pub secrets: Option<super::secrets::Found>,
}

impl Facts {
    /// The image of this name.
    pub fn image(&self, name: &str) -> Option<&Image> {
        self.images.iter().find(|image| image.name == name)
    }

    /// The model of this name.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name == name)
    }

    /// The data set of this name.
    pub fn dataset(&self, name: &str) -> Option<&Dataset> {
        self.datasets.iter().find(|dataset| dataset.name == name)
    }

    /// The configurations of `job NAME` or `step NAME` that could be read.
    pub fn configs_of<'f>(&'f self, owner: &'f str) -> impl Iterator<Item = (&'f Config, &'f Value)> {
        let of = self.configs.iter().filter(move |config| config.owner == owner);
        of.filter_map(|config| Some((config, config.content.as_ref().ok()?)))
    }
}

impl Image {
    /// The wheel of this name.
    pub fn wheel(&self, name: &str) -> Option<&Wheel> {
        self.wheels.iter().find(|wheel| wheel.name.as_ref() == name)
    }

    /// The version of a Python distribution: of a wheel, else of what a Debian package brings, or is called by
    /// (`python3-NAME`).
    pub fn python_package(&self, name: &str) -> Option<Version> {
        if let Some(wheel) = self.wheel(name) {
            return Some(wheel.version.clone());
        }
        if let Some(version) = self.provided.get(name) {
            return Some(version.clone());
        }
        let debian = format!("python3-{name}");
        let package = self.debian.iter().find(|package| package.name == debian)?;
        upstream(&package.version).parse().ok()
    }

    /// The Debian package of this name.
    pub fn debian_package(&self, name: &str) -> Option<&DebianPackage> {
        self.debian.iter().find(|package| package.name == name)
    }

    /// Whether Python wheels are in it.
    pub fn holds_wheels(&self) -> bool {
        !self.wheels.is_empty()
    }
}

/// The part of a Debian version that its authors gave it: without epoch, revision and repacking (`+dfsg`, `+ds`, `~`).
pub fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let version = version.rsplit_once('-').map_or(version, |(rest, _)| rest);
    version.split(['+', '~']).next().unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_s_versions_lose_what_debian_added() {
        for (debian, authors) in [
            ("2.6.0+dfsg-7", "2.6.0"),
            ("1:1.26.4+ds-13", "1.26.4"),
            ("2.41-12", "2.41"),
            ("550.163.01-2~x", "550.163.01"),
        ] {
            assert_eq!(upstream(debian), authors);
        }
    }
}
