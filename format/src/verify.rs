//! Verifying a whole artifact: every byte is generated and compared, or hashed under the signature.
//!
//! From a file or a disk all cores hash at once; from a pipe everything passes once, in constant memory.

mod body;
mod stream;

use crate::{
    Digest, ReadAt, VerifyError,
    head::Head,
    layout::Member,
    release::{Policy, Release, Unverified, Verified},
    trust::Trust,
};
use std::{io::Read, num::NonZeroUsize};

/// How long the medium is and what may follow the artifact on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// A file of this many bytes: it ends where the artifact ends.
    File(u64),
    /// A disk of this many bytes: anything may follow, and is reported.
    Disk(u64),
}

/// How to check, and whom to tell.
#[derive(Clone, Copy)]
pub struct Check<'a> {
    /// Also compute the flat digest of blobs that are covered by a verity root.
    pub full: bool,
    /// Threads that hash.
    pub threads: NonZeroUsize,
    /// Told the bytes hashed since the last call and the bytes to hash in all, from any thread.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

impl Check<'_> {
    /// The default check on every core, telling nobody.
    pub fn quiet() -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { full: false, threads, progress: &|_, _| () }
    }

    /// Whether the flat digest of a blob is computed.
    const fn wants_flat(&self, member: &Member) -> bool {
        self.full || member.verity.is_none()
    }
}

/// An artifact of which every byte is accounted for.
#[derive(Debug, Clone)]
pub struct Accounted<S = Verified> {
    /// Its release.
    pub release: Release<S>,
    /// Bytes that follow the artifact on a disk. Nothing is known about them.
    pub trailing: u64,
}

/// Verifies an artifact in a file or on a disk.
///
/// # Errors
/// See [`VerifyError`]; [`VerifyError::could_not_run`] tells a failing medium from a bad artifact.
pub fn verify(
    source: &dyn ReadAt,
    extent: Extent,
    trust: &Trust,
    policy: &Policy,
    check: &Check<'_>,
) -> Result<Accounted, VerifyError> {
    let release = Release::open(source, trust, policy)?;
    account_for(release, source, extent, check)
}

/// Verifies an artifact that comes through a pipe, in one pass and constant memory.
///
/// # Errors
/// As [`verify`].
pub fn verify_stream(
    source: &mut dyn Read,
    trust: &Trust,
    policy: &Policy,
    check: &Check<'_>,
) -> Result<Accounted, VerifyError> {
    let release = Release::verify(Head::read(source)?, trust, policy)?;
    stream::check(&release, source, check)?;
    Ok(Accounted { release, trailing: 0 })
}

/// Accounts for every byte of an artifact without asking who signed it: what a signer does first.
///
/// # Errors
/// As [`verify`].
pub fn account(source: &dyn ReadAt, extent: Extent, check: &Check<'_>) -> Result<Accounted<Unverified>, VerifyError> {
    account_for(Release::inspect(source)?, source, extent, check)
}

fn account_for<S: Sync>(
    release: Release<S>,
    source: &dyn ReadAt,
    extent: Extent,
    check: &Check<'_>,
) -> Result<Accounted<S>, VerifyError> {
    let expected = release.frame().total();
    let (Extent::File(found) | Extent::Disk(found)) = extent;
    if found < expected {
        return Err(VerifyError::Truncated { expected, found });
    }
    if found > expected && matches!(extent, Extent::File(_)) {
        return Err(VerifyError::Extended { expected });
    }
    body::check(&release, source, check)?;
    Ok(Accounted { release, trailing: found - expected })
}

/// Bytes that a check hashes, for its progress.
fn work<S>(release: &Release<S>, check: &Check<'_>) -> u64 {
    let passes = |blob: &Member| u64::from(check.wants_flat(blob)) + u64::from(blob.verity.is_some());
    release.layout().blobs().iter().map(|blob| blob.size.saturating_mul(passes(blob))).fold(0, u64::saturating_add)
}

/// The error for a blob whose flat digest is wrong.
fn expect_blob(member: &Member, found: Digest) -> Result<(), VerifyError> {
    if found == member.digest {
        return Ok(());
    }
    Err(VerifyError::Blob { path: member.path.clone(), offset: member.offset, found })
}

/// The error for a blob whose verity root is wrong.
fn expect_root(member: &Member, found: Digest) -> Result<(), VerifyError> {
    match member.verity {
        Some(verity) if verity.root != found => {
            let (path, offset) = (member.path.clone(), member.offset);
            Err(VerifyError::Root { path, offset, expected: verity.root, found })
        }
        _ => Ok(()),
    }
}
