//! What `gap-init` saw and did, left as JSON at [`PATH`] for the agent.

use gap_format::Digest;
use serde::{Deserialize, Serialize};

/// Where the report lies inside the running system.
pub const PATH: &str = "/run/gap/boot.json";
/// Where the trust root that verified the release lies inside the running system.
pub const TRUST_PATH: &str = "/run/gap/trust.toml";
/// Where the site configuration lies, if the machine was given one.
pub const SITE_PATH: &str = "/run/gap/site.toml";

/// A file without content: it is there once every device that was found has its driver, as far as the initramfs has one.
pub const DRIVERS_PATH: &str = "/run/gap/drivers";

/// The whole report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootReport {
    /// The release that was started.
    pub release: Release,
    /// Where it was read from.
    pub medium: Medium,
    /// SHA-256 of the trust file in the initrd.
    pub trust_fingerprint: Digest,
    /// State of UEFI Secure Boot.
    pub secure_boot: SecureBoot,
    /// Whether anything keeps an older, validly signed release from being started.
    pub rollback_protection: RollbackProtection,
    /// What was found of the machine's clock.
    pub clock: Clock,
    /// The blobs that make up the running system, metadata first, then layers bottom to top.
    pub layers: Vec<Layer>,
    /// When each stage of the boot ended.
    pub stages: Vec<Stage>,
}

/// What the signed statement says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Name of the appliance.
    pub name: String,
    /// Version for people.
    pub version: String,
    /// Number that only rises.
    pub serial: u64,
    /// Digest of `index.json`.
    pub index: Digest,
    /// Key ids of all signatures that were checked and counted.
    pub signers: Vec<String>,
    /// When it stops being accepted, seconds since 1970.
    pub expires: Option<u64>,
}

/// Where the artifact lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Medium {
    /// The block device that holds the artifact's bytes from its first one (a disk, or a loop device over a file).
    pub device: String,
    /// The file on a file system, when it is not the disk itself.
    pub file: Option<String>,
}

/// What was found of the machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// When the boot image was made, seconds since 1970: the clock is never before that. 0 when that is not known.
    pub built: u64,
    /// Whether it was behind that, and was set to it.
    pub was_behind: bool,
}

/// State of UEFI Secure Boot as the firmware reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecureBoot {
    /// The firmware checked the boot image.
    Enabled,
    /// The firmware could check, and was told not to.
    Disabled,
    /// The firmware has no such thing.
    Unsupported,
}

/// What keeps an older release from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollbackProtection {
    /// Nothing: neither Secure Boot nor a TPM counter guards the floor.
    None,
}

/// One block-mounted blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Title from the manifest (`base`, `kernel`, … or `metadata`).
    pub name: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// dm-verity root hash that every read is checked against.
    pub verity_root: Digest,
    /// The verity device that shows it (`/dev/dm-3`).
    pub device: String,
}

/// One stage of the boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// What was done.
    pub name: String,
    /// Milliseconds since the kernel started (CLOCK_BOOTTIME) at which it was finished.
    pub ended_ms: u64,
}
