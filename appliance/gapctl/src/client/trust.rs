//! How a server is recognised: by the fingerprint that its console shows, or by the site's own authority.

use super::ClientError;
use gap_format::Digest;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

/// SHA-256 of a certificate, as the console of an appliance shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(Digest);

/// It is no fingerprint.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no fingerprint: it has 64 hexadecimal digits")]
pub struct FingerprintError(String);

impl Fingerprint {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Digest::of(certificate))
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Colons and spaces between the digits, and capitals, are as good.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let plain: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect::<String>().to_ascii_lowercase();
        Digest::from_hex(&plain).map(Self).map_err(|_| FingerprintError(text.to_owned()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.to_hex())
    }
}

/// Which certificates are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The one with this fingerprint, whatever names are in it.
    Pinned(Fingerprint),
    /// Those that the authorities in this PEM file vouch for, for the server's name.
    Authorities(PathBuf),
    /// All: to see which one is shown, and nothing else.
    Anybody,
}

/// What shows the server who this is, where the site wants to see it: PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The certificate and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key (PKCS#8).
    pub key: PathBuf,
}

impl Trust {
    pub(super) fn config(&self, identity: Option<&Identity>) -> Result<ClientConfig, ClientError> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Self::Pinned(fingerprint) => Arc::new(Shown { expected: Some(*fingerprint), provider: provider.clone() }),
            Self::Anybody => Arc::new(Shown { expected: None, provider: provider.clone() }),
            Self::Authorities(path) => authorities(path, provider.clone())?,
        };
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| ClientError::Request(error.to_string()))?;
        let config = config.dangerous().with_custom_certificate_verifier(verifier);
        match identity {
            None => Ok(config.with_no_client_auth()),
            Some(identity) => {
                let wrong = |reason: String| ClientError::unusable(&identity.key, reason);
                let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(|error| wrong(error.to_string()))?;
                let shown = config.with_client_auth_cert(certificates(&identity.certificate)?, key);
                shown.map_err(|error| wrong(error.to_string()))
            }
        }
    }
}

/// The certificates in a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let wrong = |reason: String| ClientError::unusable(path, reason);
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let read: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| wrong(error.to_string()))?;
    if read.is_empty() { Err(wrong("there is no certificate in it".to_owned())) } else { Ok(read) }
}

fn authorities(path: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, ClientError> {
    let wrong = |reason: String| ClientError::unusable(path, reason);
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map(|verifier| verifier as Arc<dyn ServerCertVerifier>).map_err(|error| wrong(error.to_string()))
}

/// Looks at the certificate alone; that the server holds its key is checked by the handshake's signature as always.
#[derive(Debug)]
struct Shown {
    expected: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.expected {
            Some(expected) if expected != Fingerprint::of(shown) => {
                Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_may_be_copied_in_any_dress() {
        let plain = Fingerprint::of(b"certificate");
        let text = plain.to_string();
        let colons = text.to_ascii_uppercase().as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair)).fold(
            String::new(),
            |line, pair| if line.is_empty() { pair.into_owned() } else { format!("{line}:{pair}") },
        );
        assert_eq!(colons.parse::<Fingerprint>().unwrap(), plain);
        assert!(text[1..].parse::<Fingerprint>().is_err());
    }
}
