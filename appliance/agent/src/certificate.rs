//! The API's certificate: the site's own, or one that is made at boot and shown by its fingerprint.

use gap_format::Digest;
use gap_handover::site::Tls;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

/// Years for which a certificate made at boot is valid. It lives only until the next boot, so its end has no meaning;
/// but clients ask for one.
const YEARS: i32 = 10;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The site's certificate is no PEM.
    #[error("tls.certificate of the site configuration: {0}")]
    Chain(rustls::pki_types::pem::Error),
    /// The site gives no certificate.
    #[error("tls.certificate of the site configuration holds no certificate")]
    Empty,
    /// The site's key is no PEM.
    #[error("tls.key of the site configuration: {0}")]
    Key(rustls::pki_types::pem::Error),
    /// Certificate and key cannot be used together, or not at all.
    #[error("the certificate of the API cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The authorities of clients cannot be used.
    #[error("api.client_authorities of the site configuration: {0}")]
    Clients(String),
    /// None can be made.
    #[error("making a certificate for the API: {0}")]
    Make(#[from] rcgen::Error),
}

/// The certificate in use. One that was made here is made anew when the machine gets another address.
#[derive(Debug)]
pub struct Identity {
    provider: Arc<CryptoProvider>,
    made: Option<Made>,
    current: RwLock<Arc<CertifiedKey>>,
}

/// What a certificate of our own is made from.
#[derive(Debug)]
struct Made {
    key: KeyPair,
    hostname: String,
}

impl Identity {
    /// The site's certificate and key (PEM).
    ///
    /// # Errors
    /// [`CertificateError`] when they are not usable, or not for each other.
    pub fn from_site(tls: &Tls) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(tls.certificate.as_bytes()).collect();
        let chain = chain.map_err(CertificateError::Chain)?;
        if chain.is_empty() {
            return Err(CertificateError::Empty);
        }
        let key = PrivateKeyDer::from_pem_slice(tls.key.as_bytes()).map_err(CertificateError::Key)?;
        let provider = Arc::new(ring::default_provider());
        let certified = CertifiedKey::from_der(chain, key, &provider)?;
        Ok(Self { provider, made: None, current: RwLock::new(Arc::new(certified)) })
    }

    /// A key and a self-signed certificate for this machine.
    ///
    /// # Errors
    /// [`CertificateError`] when none can be made.
    pub fn make(hostname: &str, addresses: &[IpAddr]) -> Result<Self, CertificateError> {
        let provider = Arc::new(ring::default_provider());
        let made = Made { key: KeyPair::generate()?, hostname: hostname.to_owned() };
        let certified = made.certify(addresses, &provider)?;
        Ok(Self { provider, made: Some(made), current: RwLock::new(Arc::new(certified)) })
    }

    /// Makes the certificate anew, with the same key, for these addresses. Returns whether that was done: the site's
    /// own certificate is left alone.
    ///
    /// # Errors
    /// [`CertificateError`] when none can be made.
    pub fn cover(&self, addresses: &[IpAddr]) -> Result<bool, CertificateError> {
        let Some(made) = &self.made else { return Ok(false) };
        let certified = Arc::new(made.certify(addresses, &self.provider)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(true)
    }

    /// SHA-256 of the certificate that clients see (DER).
    pub fn fingerprint(&self) -> Digest {
        Digest::of(self.certificate().as_ref())
    }

    /// The certificate that clients see (DER).
    pub fn certificate(&self) -> CertificateDer<'static> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.cert.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()))
    }

    /// A TLS configuration that shows this identity: TLS 1.3 and 1.2, HTTP/1.1. With `clients` (PEM), it listens only to
    /// clients whose certificates these authorities vouch for.
    ///
    /// # Errors
    /// [`CertificateError::Clients`] when `clients` are no authorities, [`CertificateError::Unusable`] when the
    /// cryptography knows no such protocol.
    pub fn server_config(self: Arc<Self>, clients: Option<&str>) -> Result<ServerConfig, CertificateError> {
        let builder =
            ServerConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions()?;
        let verifier = match clients {
            Some(authorities) => client_verifier(authorities, self.provider.clone())?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(self);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Asks every client for a certificate of one of these authorities (PEM).
fn client_verifier(
    authorities: &str,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        let authority = authority.map_err(|error| CertificateError::Clients(error.to_string()))?;
        roots.add(authority).map_err(|error| CertificateError::Clients(error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|error| CertificateError::Clients(error.to_string()))
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Made {
    fn certify(&self, addresses: &[IpAddr], provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
        let mut names = vec![self.hostname.clone(), "localhost".to_owned()];
        names.extend(["127.0.0.1", "::1"].map(str::to_owned));
        names.extend(addresses.iter().map(IpAddr::to_string));
        names.sort_unstable();
        names.dedup();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.hostname.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // The day before, for clients whose clock is a little behind. A machine whose clock is years off makes a
        // certificate of that time; who compares the fingerprint does not need the clock.
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let since = today.yesterday().unwrap_or(today);
        let month = u8::try_from(since.month()).unwrap_or(1);
        params.not_before = date_time_ymd(since.year().into(), month, u8::try_from(since.day()).unwrap_or(1));
        params.not_after = date_time_ymd(i32::from(since.year()) + YEARS, month, 1);
        let certificate = params.self_signed(&self.key)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        Ok(CertifiedKey::from_der(vec![certificate.der().clone()], key, provider)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_address_gives_a_new_certificate_with_the_same_key() {
        let identity = Identity::make("appliance", &[]).unwrap();
        let before = identity.fingerprint();
        assert!(identity.cover(&[IpAddr::from([192, 0, 2, 7])]).unwrap());
        assert_ne!(identity.fingerprint(), before);
    }

    #[test]
    fn the_sites_certificate_is_used_as_it_is() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["a.example".into()]).unwrap().self_signed(&key).unwrap();
        let tls = Tls { certificate: certificate.pem(), key: key.serialize_pem() };
        let identity = Identity::from_site(&tls).unwrap();
        assert_eq!(identity.certificate(), *certificate.der());
        assert!(!identity.cover(&[]).unwrap());
    }

    #[test]
    fn authorities_of_clients_that_are_none_are_refused() {
        let identity = Arc::new(Identity::make("appliance", &[]).unwrap());
        for bad in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let refused = identity.clone().server_config(Some(bad));
            assert!(matches!(refused, Err(CertificateError::Clients(_))), "{bad}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["a.example".into()]).unwrap().self_signed(&key).unwrap();
        let other = KeyPair::generate().unwrap().serialize_pem();
        assert!(Identity::from_site(&Tls { certificate: certificate.pem(), key: other }).is_err());
        assert!(Identity::from_site(&Tls { certificate: String::new(), key: key.serialize_pem() }).is_err());
    }
}
