//! Why an artifact is not trusted, in sentences for the person at the gate.

use crate::{
    Digest, Timestamp,
    canonical::CanonicalError,
    dsse::EnvelopeError,
    floor::FloorError,
    frame::TooLarge,
    layout::LayoutError,
    oci::ParseOciError,
    statement::{Kind, StatementError},
    trust::TrustError,
};
use std::io;

/// Why a verification did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The medium could not be read: nothing is known about the artifact.
    #[error("cannot read {what}: {source}")]
    Io {
        /// What was being read.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The artifact ends too early.
    #[error("the artifact is cut off: it should have {expected} bytes and ends after {found}")]
    Truncated {
        /// Length that it should have, or at least the length that was asked for.
        expected: u64,
        /// Length found; less where the end was met while reading.
        found: u64,
    },
    /// Bytes follow the artifact in a file or a pipe.
    #[error("something follows the artifact: it should end at offset {expected}, and more bytes come after")]
    Extended {
        /// Length that it should have.
        expected: u64,
    },
    /// The head is not that of an artifact.
    #[error("this is no gapimage artifact: the tar header of {expected} should be at offset {offset}")]
    NotAnArtifact {
        /// Where a header was expected.
        offset: u64,
        /// The member that it should belong to.
        expected: &'static str,
    },
    /// A member of the head is larger than allowed.
    #[error("{path} (header at offset {offset}) claims {size} bytes, and {limit} are allowed")]
    HeadSize {
        /// The member.
        path: &'static str,
        /// Where its header is.
        offset: u64,
        /// Length in the header.
        size: u64,
        /// Longest allowed.
        limit: u64,
    },
    /// See [`EnvelopeError`].
    #[error("the envelope release.dsse.json at offset {offset} is refused: {source}")]
    Envelope {
        /// Where the envelope is.
        offset: u64,
        /// What is wrong with it.
        source: EnvelopeError,
    },
    /// See [`TrustError`].
    #[error("the release is not trusted: {0}")]
    Trust(#[from] TrustError),
    /// See [`StatementError`].
    #[error("the release statement in release.dsse.json is refused: {0}")]
    Statement(#[from] StatementError),
    /// The release may not be accepted any more.
    #[error("the release expired on {until}, and it is {now}")]
    Expired {
        /// Its expiry.
        until: Timestamp,
        /// The verifier's time.
        now: Timestamp,
    },
    /// The release is of another kind than wanted.
    #[error("the release is of kind {found}, and {expected} was expected")]
    Kind {
        /// The kind that was wanted.
        expected: Kind,
        /// The kind in the statement.
        found: Kind,
    },
    /// See [`FloorError`].
    #[error("{0}")]
    Floor(#[from] FloorError),
    /// A document of the head is not the one that the statement or the layout names.
    #[error("{path} at offset {offset} is not the one that was signed: its digest is {found} and should be {expected}")]
    Document {
        /// The member.
        path: String,
        /// Where its data begins.
        offset: u64,
        /// Digest that it should have.
        expected: Digest,
        /// Digest that it has.
        found: Digest,
    },
    /// See [`LayoutError`].
    #[error("layout.json is refused: {0}")]
    Layout(#[from] LayoutError),
    /// See [`TooLarge`].
    #[error("layout.json is refused: {0}")]
    TooLarge(#[from] TooLarge),
    /// See [`CanonicalError`].
    #[error("{0}")]
    Canonical(#[from] CanonicalError),
    /// See [`ParseOciError`].
    #[error("{path} is refused: {source}")]
    Oci {
        /// The document.
        path: String,
        /// What is wrong with it.
        source: ParseOciError,
    },
    /// The layout puts a member where it does not belong.
    #[error("layout.json puts {path} at offset {found}, and its place is {expected}")]
    Place {
        /// The member.
        path: String,
        /// Offset that follows from the members before it.
        expected: u64,
        /// Offset in the layout.
        found: u64,
    },
    /// The statement gives another length than the layout.
    #[error("the signed statement gives the artifact {stated} bytes, and its layout adds up to {computed}")]
    Length {
        /// Length in the statement.
        stated: u64,
        /// Length that follows from the layout.
        computed: u64,
    },
    /// Bytes between the content differ from what the format prescribes.
    #[error("{what} differs at offset {offset} from what the format prescribes")]
    Differs {
        /// What the bytes belong to.
        what: String,
        /// The first differing byte.
        offset: u64,
    },
    /// A blob does not have its digest.
    #[error("{path} at offset {offset} is damaged or altered: its digest is {found}")]
    Blob {
        /// The member.
        path: String,
        /// Where its data begins.
        offset: u64,
        /// Digest that it has.
        found: Digest,
    },
    /// A covered blob does not have its verity root.
    #[error("{path} at offset {offset} is damaged or altered: its verity root is {found} and should be {expected}")]
    Root {
        /// The member.
        path: String,
        /// Where its data begins.
        offset: u64,
        /// Root that it should have.
        expected: Digest,
        /// Root that it has.
        found: Digest,
    },
    /// The artifact holds no such blob, or not of that length.
    #[error("the artifact does not hold the blob {digest} that {wanted_by} names, or not in the length named there")]
    Missing {
        /// The blob.
        digest: Digest,
        /// Who names it.
        wanted_by: String,
    },
    /// A blob is larger than its reader takes.
    #[error("the blob {digest} has {size} bytes, and {limit} are allowed here")]
    BlobSize {
        /// The blob.
        digest: Digest,
        /// Its length.
        size: u64,
        /// Longest allowed.
        limit: u64,
    },
    /// A mount manifest does not say how to mount an image.
    #[error("the mount manifest {manifest} is refused: {reason}")]
    Mount {
        /// The manifest.
        manifest: Digest,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl VerifyError {
    /// Whether the verification could not run, as opposed to an artifact that is not trusted.
    pub const fn could_not_run(&self) -> bool {
        matches!(self, Self::Io { .. })
    }

    /// An error met when reading `what`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
