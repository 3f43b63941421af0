//! Why a request came to nothing.

use super::trust::FingerprintError;
use miette::Diagnostic;
use std::{io, path::Path, time::Duration};

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ClientError {
    /// The address is none.
    #[error("`{0}` is no address of an appliance")]
    #[diagnostic(help("write it as https://HOST:PORT, or HOST alone for port 8443"))]
    Address(String),
    /// The server was not reached.
    #[error("connecting to {server}: {source}")]
    #[diagnostic(help(
        "the console of the appliance shows the address and port that it listens on; `gapctl login` changes them here"
    ))]
    Unreachable {
        /// Where.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// Its certificate is not the one that is expected, or it speaks no TLS.
    #[error("the server at {server} is not trusted: {reason}")]
    #[diagnostic(help(
        "an appliance without a certificate from the site makes a new one at each boot: compare the fingerprint on its \
         console and log in again. If they differ, somebody else answers there"
    ))]
    NotTrusted {
        /// Where.
        server: String,
        /// Why.
        reason: String,
    },
    /// It showed no certificate.
    #[error("the server showed no certificate")]
    NoCertificate,
    /// A certificate or fingerprint that was given cannot be used.
    #[error(transparent)]
    Fingerprint(#[from] FingerprintError),
    /// A file with certificates or a key cannot be used.
    #[error("{path}: {reason}")]
    #[diagnostic(help("it is PEM, a key PKCS#8 without a passphrase"))]
    Unusable {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The request cannot be written.
    #[error("the request cannot be sent: {0}")]
    Request(String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    #[diagnostic(help("try again; what the appliance took is there, and uploads go on where they were"))]
    Broken(hyper::Error),
    /// Nothing came for too long, and of what was sent nothing was taken.
    #[error("{server} said nothing for {seconds} s")]
    Silent {
        /// Where.
        server: String,
        /// How long.
        seconds: u64,
    },
    /// The answer is longer than is kept in memory.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// A line of the answer is longer than is kept in memory.
    #[error("a line of the answer is longer than {0} bytes")]
    LineTooLong(usize),
    /// The answer is not what it should be.
    #[error("the answer is not understood: {0}")]
    #[diagnostic(help("is this gapctl as new as the appliance? `gapctl --version` and `gapctl system` tell"))]
    Answer(#[from] serde_json::Error),
    /// The appliance refused.
    #[error("the appliance refused: {message} (status {status})")]
    Refused {
        /// The status.
        status: u16,
        /// Its words.
        message: String,
        /// Its word for programs.
        code: String,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// This machine failed.
    #[error(transparent)]
    System(io::Error),
}

impl ClientError {
    /// A file with certificates or a key that cannot be used.
    pub(super) fn unusable(path: &Path, reason: String) -> Self {
        Self::Unusable { path: path.display().to_string(), reason }
    }

    /// What a failed handshake means.
    pub(super) fn of_handshake(server: String, error: io::Error) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure)) => {
                let reason = "its certificate has another fingerprint than the one that was confirmed".to_owned();
                Self::NotTrusted { server, reason }
            }
            Some(cause) => Self::NotTrusted { server, reason: cause.to_string() },
            None => Self::Unreachable { server, source: error },
        }
    }

    /// Whether the same request may succeed soon: nothing was reached, or the appliance asks to come back.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken(_) | Self::Silent { .. } => true,
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 503),
            _ => false,
        }
    }
}
