//! Source distributions as the resolver and the lock see them: chosen first, then one version each that stands fast.

use super::{
    LockedSdist, LockedWheel,
    error::WheelsError,
    fetch::{fetch_offer, linked, offers_of},
    metadata::Metadata,
    name::ProjectName,
    provided::write_stand_in,
    resolve::{Query, parsed},
    sdist::{self, Description, SdistName},
    sources::Sources,
    target::Target,
};
use crate::source::http::Client;
use gap_format::Digest;
use pep508_rs::{MarkerEnvironment, pep440_rs::Version};
use std::{path::Path, str::FromStr};

/// What the versions of what is built are called before the resolver: no index has them, so that nothing from there is taken
/// instead.
const LOCAL: &str = "sdist";

/// A source distribution that was chosen, and is in the store.
pub(super) struct Taken {
    file: SdistName,
    sha256: Digest,
    size: u64,
    description: Description,
}

/// Chooses and fetches the source of every project that the recipe wants built.
pub(super) fn take(
    query: &Query<'_>,
    target: &Target,
    environment: &MarkerEnvironment,
    sources: &Sources,
    client: &Client,
) -> Result<Vec<Taken>, WheelsError> {
    let layer = query.layer;
    if layer.sdists.projects.is_empty() {
        return Ok(Vec::new());
    }
    let links = linked(sources, client)?;
    let said =
        layer.requirements.iter().chain(&layer.constraints).map(|line| parsed(line)).collect::<Result<Vec<_>, _>>()?;
    let said: Vec<_> = said.into_iter().filter(|it| it.evaluate_markers(environment, &[])).collect();
    let python =
        Version::from_str(&target.python.to_string()).map_err(|error| WheelsError::Answer(error.to_string()))?;
    let projects = layer.sdists.projects.iter().map(|name| {
        let project = ProjectName::new(name)?;
        let offers = offers_of(&project, sources, &links, client)?;
        let previous = query.previous.and_then(|rows| rows.sdists.iter().find(|row| row.name == project));
        let bounds = sdist::bounds(&project, said.iter());
        let best = sdist::best(&project, &offers, &bounds, &python, previous.map(|row| row.version.as_str()));
        let (offer, file) = best.ok_or_else(|| WheelsError::NoSdist { name: project.to_string(), target: *target })?;
        let (sha256, size) = fetch_offer(offer, sources, client, query.store, query.progress)?;
        let description = describe(query, &file, &sha256, size)?;
        Ok(Taken { file, sha256, size, description })
    });
    projects.collect()
}

fn describe(query: &Query<'_>, file: &SdistName, sha256: &Digest, size: u64) -> Result<Description, WheelsError> {
    let failed = |source| WheelsError::Sdist { file: file.as_str().to_owned(), source };
    let archive = query.store.open_source(sha256, Some(size))?;
    let archive = archive.ok_or_else(|| failed(std::io::Error::from(std::io::ErrorKind::NotFound).into()))?;
    let description = sdist::describe(archive).map_err(failed)?;
    let Metadata { name, version, .. } = &description.metadata;
    if *name != file.project || Version::from_str(version).as_ref() != Ok(&file.version) {
        return Err(WheelsError::Identity {
            file: file.as_str().to_owned(),
            found: format!("{name} {}", version.escape_debug()),
            expected: format!("{} {}", file.project, file.version),
        });
    }
    Ok(description)
}

impl Taken {
    /// The project.
    pub fn project(&self) -> &ProjectName {
        &self.file.project
    }

    /// Its metadata.
    pub const fn metadata(&self) -> &Metadata {
        &self.description.metadata
    }

    /// What it says that it is built with.
    pub fn build(&self) -> &[String] {
        &self.description.build
    }

    fn version_for_the_resolver(&self) -> String {
        let version = self.file.version.to_string();
        let separator = if version.contains('+') { '.' } else { '+' };
        format!("{version}{separator}{LOCAL}")
    }

    /// The constraint under which the resolver takes the stand-in.
    pub fn constraint(&self) -> String {
        format!("{}=={}", self.file.project, self.version_for_the_resolver())
    }

    /// Writes a wheel that stands for it into `directory`.
    pub fn write_stand_in(&self, directory: &Path) -> Result<(), WheelsError> {
        let requires: Vec<String> = self.metadata().requires.iter().map(ToString::to_string).collect();
        write_stand_in(directory, &self.file.project, &self.version_for_the_resolver(), &requires)
    }

    /// Its row.
    pub fn row(self, requested: bool, requires: Vec<String>, builder: &Target, build: Vec<LockedWheel>) -> LockedSdist {
        LockedSdist {
            name: self.file.project.clone(),
            version: self.description.metadata.version,
            file: self.file.as_str().to_owned(),
            size: self.size,
            sha256: self.sha256,
            requested,
            licenses: self.description.metadata.licenses,
            requires,
            python: builder.python,
            build,
        }
    }
}
