//! What PID 1 left for the agent in `/run/gap`: boot report, trust root, site configuration.

use crate::root::Root;
use gap_format::{
    Digest,
    trust::{Signer, Trust},
};
use gap_handover::{
    BootReport, SiteConfig,
    boot_report::{PATH, SITE_PATH, TRUST_PATH},
    site::{self, SiteError},
};
use std::io;

/// Longest boot report accepted, in bytes.
const MAX_REPORT: u64 = 4 << 20;
/// Longest trust file accepted, in bytes.
const MAX_TRUST: u64 = 1 << 20;
/// Longest site configuration read, in bytes; the schema's own limit is lower and gives the better message.
const MAX_SITE: u64 = 1 << 20;

/// Everything that was handed over.
#[derive(Debug, Clone)]
pub struct Given {
    /// What PID 1 saw and did.
    pub report: BootReport,
    /// The raw bytes of the trust root.
    pub trust: Vec<u8>,
    /// What the owner of the machine decided; the defaults when nothing was given.
    pub site: SiteConfig,
    /// Who signed that; nobody where the release asks for no signature.
    pub site_signers: Vec<Signer>,
}

/// Why the agent cannot work with what it was given.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// A file is missing or cannot be read.
    #[error("reading {path}, which PID 1 leaves for the agent: {source}")]
    Read {
        /// The file.
        path: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The boot report is not one.
    #[error("{PATH} is not a boot report: {0}")]
    Report(#[from] serde_json::Error),
    /// The trust root is another than the one that the boot report speaks of.
    #[error("{TRUST_PATH} has the fingerprint {found}, but the boot report names {reported}")]
    Trust {
        /// Fingerprint of the file.
        found: Digest,
        /// Fingerprint in the report.
        reported: Digest,
    },
}

impl Given {
    /// Reads all three. A site configuration that is not valid, or not signed as the release asks, counts as none: the machine then has no network, and
    /// `complain` is told why.
    ///
    /// # Errors
    /// [`GivenError`] when the report or the trust root is missing, not valid, or they disagree.
    pub fn read(root: &Root, complain: impl Fn(String)) -> Result<Self, GivenError> {
        let read = |path, limit| root.read(path, limit).map_err(|source| GivenError::Read { path, source });
        let report: BootReport = serde_json::from_slice(&read(PATH, MAX_REPORT)?)?;
        let trust = read(TRUST_PATH, MAX_TRUST)?;
        let found = Digest::of(&trust);
        if found != report.trust_fingerprint {
            return Err(GivenError::Trust { found, reported: report.trust_fingerprint });
        }
        let ignored = |error: &dyn std::fmt::Display| {
            complain(format!("{error}; going on without a site configuration"));
            (SiteConfig::default(), Vec::new())
        };
        let (site, site_signers) = match root.read(SITE_PATH, MAX_SITE) {
            Ok(bytes) => accept_site(&bytes, &trust).unwrap_or_else(|error| ignored(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (SiteConfig::default(), Vec::new()),
            Err(error) => ignored(&format!("reading {SITE_PATH}: {error}")),
        };
        Ok(Self { report, trust, site, site_signers })
    }
}

/// The configuration and who signed it, checked here once more: PID 1 is not taken at its word.
fn accept_site(bytes: &[u8], trust: &[u8]) -> Result<(SiteConfig, Vec<Signer>), SiteError> {
    let trust = Trust::parse(trust).map_err(|_| SiteError::Value("there is no trust root to check it against"))?;
    // Bytes that are no UTF-8 become replacement characters, which no value of the schema takes.
    site::accept(&String::from_utf8_lossy(bytes), &trust)
}
