//! What can go wrong with wheels before they are installed.

use super::{
    archive::ArchiveError,
    index::PageError,
    metadata::MetadataError,
    name::NameError,
    sdist::SdistError,
    target::{Glibc, Target},
};
use crate::{
    recipe::requirement::RequirementError,
    source::{debian::deb::DebError, http::HttpError},
    store::StoreError,
};
use gap_format::Digest;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why wheels cannot be resolved or fetched. Addresses are shown without credentials.
#[derive(Debug, thiserror::Error)]
pub enum WheelsError {
    /// The layers below have no Python.
    #[error(
        "the Debian layers below have no {}; add the package `{}` to one of them",
        wanted.as_ref().map_or("Python 3".to_owned(), |series| format!("Python {series}")),
        wanted.as_ref().map_or("python3".to_owned(), |series| format!("python{series}"))
    )]
    NoPython {
        /// The series asked for.
        wanted: Option<String>,
    },
    /// The layers below have no C library.
    #[error("the Debian layers below have no `libc6`, so it is unknown which wheels run on them")]
    NoGlibc,
    /// No wheels are made for a C library that old.
    #[error("the image has glibc {0}, and wheels need 2.17 or newer; use a newer suite")]
    OldGlibc(Glibc),
    /// There is no uv and no way to get one.
    #[error(
        "wheels are resolved by `uv`, which is not installed, and {reason}; install uv {pinned} or newer (`pip install \
         uv`)"
    )]
    NoUv {
        /// Why it cannot be had.
        reason: String,
        /// The version that would have been installed.
        pinned: &'static str,
    },
    /// uv cannot be started.
    #[error("`{}` cannot be started: {source}", program.display())]
    NotStarted {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The requirements have no solution, or uv failed in another way: its own words.
    #[error("uv cannot resolve the requirements for {target}:\n{said}")]
    Unsolvable {
        /// What was resolved for.
        target: Target,
        /// What uv said, without credentials.
        said: String,
    },
    /// uv said something that is not understood.
    #[error("the answer of uv is not understood: {0}")]
    Answer(String),
    /// A project comes from elsewhere than an index.
    #[error("`{0}` comes from an address or directory of its own; only wheels from an index can be locked")]
    Direct(String),
    /// There is no wheel for a project.
    #[error(
        "there is no wheel of `{name}` {version} for {target}; take another version, allow its source with `sdist = [\"{name}\"]`, or serve a wheel of it from an index of your own"
    )]
    NoWheel {
        /// The project.
        name: String,
        /// Its version.
        version: String,
        /// What was looked for.
        target: Target,
    },
    /// A project that is to be built has no source that may be taken.
    #[error(
        "no index has a source distribution (`NAME-VERSION.tar.gz`) of `{name}` for {target} that the requirements allow"
    )]
    NoSdist {
        /// The project.
        name: String,
        /// What was looked for.
        target: Target,
    },
    /// A project that is to be built is not needed.
    #[error("`sdist` names `{0}`, which nothing needs; take it out, or ask for it in `requirements`")]
    UnneededSdist(String),
    /// A source distribution cannot be read.
    #[error("the source distribution `{file}`: {source}")]
    Sdist {
        /// Its name.
        file: String,
        /// Why not.
        source: SdistError,
    },
    /// What builds is not like what runs.
    #[error(
        "sources would be built with {built} and run with {target}: `build_on` needs the same Python, and a C library that is \
         not newer"
    )]
    OtherBuilder {
        /// What builds.
        built: Target,
        /// What runs.
        target: Target,
    },
    /// A wheel is for something else.
    #[error("the wheel `{file}` is not for {target}")]
    OtherPlatform {
        /// Its name.
        file: String,
        /// What it should be for.
        target: Target,
    },
    /// A wheel is not what its name or the lock says.
    #[error("the wheel `{file}` is of {found}, not of {expected}")]
    Identity {
        /// Its name.
        file: String,
        /// What its metadata says.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A line of requirements is none.
    #[error("`{line}` is no requirement: {source}")]
    Requirement {
        /// The line, escaped.
        line: String,
        /// What is wrong.
        source: RequirementError,
    },
    /// The image lacks what it is said to provide.
    #[error(
        "no Debian package below brings the Python project `{name}`, which the recipe says the image provides; \
         those that there are: {known}"
    )]
    NotProvided {
        /// The project.
        name: String,
        /// What there is.
        known: String,
    },
    /// The user's settings of pip or uv cannot be used.
    #[error("{origin} {what}")]
    Settings {
        /// The file or variable.
        origin: String,
        /// What is odd.
        what: String,
    },
    /// No index has a locked file any more.
    #[error(
        "no index has the file `{file}` with the digest {sha256}: {tried}; check the index settings of pip or uv, or lock \
         again"
    )]
    NotOffered {
        /// Its name.
        file: String,
        /// Its digest.
        sha256: Digest,
        /// Where it was looked for.
        tried: String,
    },
    /// A page of an index cannot be read.
    #[error("{url}: {source}")]
    Page {
        /// The page.
        url: String,
        /// Why not.
        source: PageError,
    },
    /// A wheel cannot be read.
    #[error("the wheel `{file}`: {source}")]
    Archive {
        /// Its name.
        file: String,
        /// Why not.
        source: ArchiveError,
    },
    /// A project's metadata cannot be read.
    #[error("the wheel `{file}`: {source}")]
    Metadata {
        /// The wheel's name.
        file: String,
        /// Why not.
        source: MetadataError,
    },
    /// A name that cannot be.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A download failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A Debian package cannot be looked into.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// Fetching a Debian package failed.
    #[error(transparent)]
    Fetch(#[from] crate::source::debian::fetch::FetchError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system refused something.
    #[error("{doing} `{}`: {source}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl WheelsError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// A text with everything between `://` and `@` taken out of its addresses.
pub(super) fn without_credentials(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        clean.push_str(before);
        clean.push_str("://");
        let end = after.find(|letter: char| letter.is_whitespace() || "/?#`'\"<>)".contains(letter));
        let (authority, tail) = after.split_at(end.unwrap_or(after.len()));
        clean.push_str(authority.rsplit('@').next().unwrap_or_default());
        rest = tail;
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_what_programs_say() {
        let said = "failed: `https://user:SECRET@host/simple/x` and http://tok:SECRET@h:1 (see https://plain/y)";
        assert_eq!(without_credentials(said), "failed: `https://host/simple/x` and http://h:1 (see https://plain/y)");
        assert_eq!(without_credentials("a://b@"), "a://");
    }
}
