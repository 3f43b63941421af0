//! The release on a medium: who signed it, whether it is the one this boot image was made for, and where the blobs of
//! the OS image lie.

use gap_format::{
    ReadAt, VerifyError,
    oci::Manifest,
    release::{Mount, Policy, Release},
    statement::Kind,
    trust::{Clock, Trust},
};
use gap_handover::boot_report;

use crate::{Stop, cmdline::Wanted};

/// Largest image manifest, in bytes.
const MAX_MANIFEST: u64 = 1 << 20;
/// A block-mounted blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Title of the layer, or `metadata`.
    pub name: String,
    /// Where it lies on the medium and what its reads are checked against.
    pub place: Mount,
}

/// A release whose signatures count and which is the one that this boot image was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// What the signed statement says, and who signed it.
    pub statement: boot_report::Release,
    /// Names that the trust root gives to the signers, in the order of their key ids in the statement.
    pub signer_names: Vec<String>,
    /// The OS image: metadata first, then its layers bottom to top.
    pub os: Vec<Blob>,
}

/// Reads the trust root of the boot image.
///
/// # Errors
/// [`Stop::Failed`] when it is no trust file.
pub fn trust_root(raw: &[u8]) -> Result<Trust, Stop> {
    Trust::parse(raw).map_err(|error| Stop::Failed(format!("the trust root of this boot image is refused: {error}")))
}

/// Verifies the release that begins at offset 0 of `medium`, which is `len` bytes long. Its head is read once and only
/// that copy is parsed; blobs are hashed as they are read or covered by hash trees.
///
/// The boot image names exactly one release, so it was accepted when the boot image was: validity windows and expiry
/// do not stop it from starting. A revoked key does.
///
/// # Errors
/// [`Stop::NotTrusted`] with the reason; [`Stop::Failed`] when the medium could not be read.
pub fn verify(medium: &dyn ReadAt, len: u64, trust: &Trust, wanted: &Wanted) -> Result<Trusted, Stop> {
    let policy = Policy {
        clock: Clock::AlreadyAccepted,
        kind: Some(Kind::Appliance),
        name: Some(wanted.name.clone()),
        min_serial: None,
        floor: None,
    };
    let release = Release::open(medium, trust, &policy).map_err(refusal)?;
    let statement = release.statement();
    let serial = statement.release.serial;
    if serial != wanted.serial {
        return Err(Stop::NotTrusted(format!(
            "the release has serial {serial}, and this boot image was made for serial {}",
            wanted.serial
        )));
    }
    if len < statement.length {
        return Err(Stop::NotTrusted(format!(
            "the medium is cut off: the release has {} bytes, and {len} are there",
            statement.length
        )));
    }
    let set = release.mount_set(medium, &wanted.os).map_err(refusal)?;
    // Its titles are for people; an image without any is as good.
    let image = Manifest::parse(&release.read_blob(medium, &set.image, MAX_MANIFEST).map_err(refusal)?).ok();
    Ok(Trusted {
        statement: boot_report::Release {
            name: statement.release.name.clone(),
            version: statement.release.version.clone(),
            serial,
            index: statement.index,
            signers: release.signers().iter().map(|signer| signer.key.to_string()).collect(),
            expires: statement.release.expires.map(gap_format::Timestamp::seconds),
        },
        signer_names: release.signers().iter().map(|signer| signer.name.clone()).collect(),
        os: set.named(image.as_ref()).map(|(name, mount)| Blob { name, place: mount.clone() }).collect(),
    })
}

fn refusal(error: VerifyError) -> Stop {
    if error.could_not_run() { Stop::Failed(error.to_string()) } else { Stop::NotTrusted(error.to_string()) }
}

#[cfg(test)]
mod tests;
