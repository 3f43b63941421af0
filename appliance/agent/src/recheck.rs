//! Verifying the release a second time, from the medium, with the trust root that PID 1 left.
//!
//! PID 1 verified it to start this very program. The agent does it again, so that what it tells of the release rests
//! on the medium and not on a report alone.

use crate::{given::Given, root::Root};
use gap_format::{
    Digest, Release, Timestamp, VerifyError,
    oci::{MOUNT_TYPE, Manifest, REF_NAME},
    release::{MountSet, Policy},
    statement::Kind,
    trust::{Clock, ParseTrustError, Trust},
};
use gap_handover::{BootReport, boot_report};
use gap_mapping::Number;
use std::{fs::File, io, os::unix::fs::MetadataExt};

/// Longest kernel command line that is read, in bytes; the kernel's own limit on x86 is 2048.
const MAX_COMMAND_LINE: u64 = 64 << 10;

/// Longest manifest or configuration that is read, in bytes.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// Why the agent does not serve this release.
#[derive(Debug, thiserror::Error)]
pub enum RecheckError {
    /// The medium cannot be opened.
    #[error("reading the release again from {device}: {source}")]
    Medium {
        /// The block device.
        device: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The trust root is no trust file.
    #[error("the trust root is refused: {0}")]
    Trust(#[from] ParseTrustError),
    /// The release is refused.
    #[error("the release on the medium is refused: {0}")]
    Refused(#[from] VerifyError),
    /// The kernel was not told which OS image this is.
    #[error("the kernel command line names no OS image (gap.os=sha256:…)")]
    NoImage,
    /// The boot report says something else than the medium.
    #[error("the boot report and the release on the medium disagree about {what}: {reported} and {found}")]
    Disagree {
        /// What they disagree about.
        what: &'static str,
        /// What PID 1 reported.
        reported: String,
        /// What the agent found.
        found: String,
    },
}

impl RecheckError {
    /// Whether starting the agent again cannot help.
    pub const fn is_fatal(&self) -> bool {
        match self {
            Self::Medium { .. } => false,
            Self::Refused(error) => !error.could_not_run(),
            Self::Trust(_) | Self::NoImage | Self::Disagree { .. } => true,
        }
    }
}

/// The release on the medium, verified by the agent itself.
#[derive(Debug)]
pub struct Verified {
    /// Its head.
    pub release: Release,
    /// The medium, whose first byte is the release's.
    pub medium: File,
    /// The manifest of the image that the agent runs in.
    pub image: Digest,
}

impl Verified {
    /// The name of an image in the release.
    pub fn name_of(&self, image: &Digest) -> Option<String> {
        let mut named = self.release.index().manifests.iter().filter(|entry| entry.digest == *image);
        named.find_map(|entry| entry.annotations.get(REF_NAME)).cloned()
    }

    /// How each image is mounted that can be, in the order of the index, or why that cannot be read.
    pub fn mount_sets(&self) -> impl Iterator<Item = Result<MountSet, VerifyError>> {
        let manifests = self.release.index().manifests.iter();
        let mounts = manifests.filter(|entry| entry.artifact_type.as_deref() == Some(MOUNT_TYPE));
        mounts.map(|entry| self.release.mount_set(&self.medium, &entry.digest))
    }

    /// The manifest of an image.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn manifest(&self, image: &Digest) -> Result<Manifest, String> {
        let bytes = self.release.read_blob(&self.medium, image, MAX_DOCUMENT).map_err(|error| error.to_string())?;
        Manifest::parse(&bytes).map_err(|error| error.to_string())
    }

    /// The numbers of the block device that the medium is.
    ///
    /// # Errors
    /// What the system said.
    pub fn device(&self) -> io::Result<Number> {
        let device = self.medium.metadata()?.rdev();
        Ok(Number { major: rustix::fs::major(device), minor: rustix::fs::minor(device) })
    }
}

/// Verifies the release again and compares it with the boot report.
///
/// Validity windows and expiry stop the acceptance of a release, not the start of one whose boot image was accepted;
/// a revoked key stops both.
///
/// # Errors
/// [`RecheckError`] when the medium cannot be read, the release is not trusted, or the report says something else.
pub fn recheck(root: &Root, given: &Given) -> Result<Verified, RecheckError> {
    let report = &given.report;
    let trust = Trust::parse(&given.trust)?;
    let device = &report.medium.device;
    let medium =
        File::open(root.at(device)).map_err(|source| RecheckError::Medium { device: device.clone(), source })?;
    let policy = Policy {
        clock: Clock::AlreadyAccepted,
        kind: Some(Kind::Appliance),
        name: Some(report.release.name.clone()),
        min_serial: None,
        floor: None,
    };
    let release = Release::open(&medium, &trust, &policy)?;
    let image = os_image(root).ok_or(RecheckError::NoImage)?;
    let mounts = release.mount_set(&medium, &image)?;
    agree(report, &facts(&release), &mounts)?;
    Ok(Verified { release, medium, image: mounts.image })
}

/// The digest of the OS image's mount manifest, which the boot image gave the kernel.
fn os_image(root: &Root) -> Option<Digest> {
    let bytes = root.read("/proc/cmdline", MAX_COMMAND_LINE).ok()?;
    let line = String::from_utf8(bytes).ok()?;
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix("gap.os="))?.parse().ok()
}

/// What the medium says, in the report's words.
fn facts(release: &Release) -> boot_report::Release {
    let statement = release.statement();
    boot_report::Release {
        name: statement.release.name.clone(),
        version: statement.release.version.clone(),
        serial: statement.release.serial,
        index: statement.index,
        signers: release.signers().iter().map(|signer| signer.key.to_string()).collect(),
        expires: statement.release.expires.map(Timestamp::seconds),
    }
}

fn agree(report: &BootReport, found: &boot_report::Release, mounts: &MountSet) -> Result<(), RecheckError> {
    let reported = &report.release;
    compare("the version", &reported.version, &found.version)?;
    compare("the serial", &reported.serial, &found.serial)?;
    compare("the digest of index.json", &reported.index, &found.index)?;
    compare("the expiry", &Shown(reported.expires), &Shown(found.expires))?;
    compare("the signers", &reported.signers.join(", "), &found.signers.join(", "))?;
    compare("the number of layers", &report.layers.len(), &mounts.layers.len().saturating_add(1))?;
    for (layer, mount) in report.layers.iter().zip(std::iter::once(&mounts.metadata).chain(&mounts.layers)) {
        compare("the digest of a layer", &layer.digest, &mount.digest)?;
        compare("the size of a layer", &layer.size, &mount.size)?;
        compare("the verity root of a layer", &layer.verity_root, &mount.root)?;
    }
    Ok(())
}

fn compare<T: PartialEq + ToString>(what: &'static str, reported: &T, found: &T) -> Result<(), RecheckError> {
    if reported == found {
        return Ok(());
    }
    Err(RecheckError::Disagree { what, reported: reported.to_string(), found: found.to_string() })
}

/// A time that may be absent.
#[derive(PartialEq)]
struct Shown(Option<u64>);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(seconds) => write!(f, "{seconds} seconds since 1970"),
            None => f.write_str("never"),
        }
    }
}
