//! The API's certificate: the site's own, or one that is made here and shown by its fingerprint.
//!
//! Clients know the latter by its fingerprint, so it stays the same as long as it can: in memory from one start of the
//! agent to the next, and on the data volume from one boot to the next. Its key never leaves the machine.

mod kept;

use gap_format::Digest;
use gap_handover::site::Tls;
use kept::Kept;
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
    collections::BTreeSet,
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

/// Where it lies from one start of the agent to the next: in memory.
pub const IN_MEMORY: &str = "/run/gap/identity.json";
/// Its name on the data volume.
const FILE: &str = "identity.json";
/// Years for which a certificate that is made here is valid.
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
    /// It cannot be kept for the next start.
    #[error("the API's certificate cannot be kept in {}, so another one may follow at the next start: {source}", path.display())]
    Keep {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// The certificate in use. One that was made here is made anew when the machine gets another address.
pub struct Identity {
    provider: Arc<CryptoProvider>,
    made: Option<Mutex<Made>>,
    /// Held while a certificate is written, so that an older one does not come after a newer one.
    keeping: Mutex<()>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("sha256", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// A certificate of our own.
struct Made {
    hostname: String,
    /// What it has to be for.
    names: BTreeSet<String>,
    kept: Kept,
    /// Where it lies for the next start.
    places: Vec<PathBuf>,
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
        Ok(Self { provider, made: None, keeping: Mutex::default(), current: RwLock::new(Arc::new(certified)) })
    }

    /// A key and a self-signed certificate for this machine, which nobody keeps.
    ///
    /// # Errors
    /// [`CertificateError`] when none can be made.
    pub fn make(hostname: &str, addresses: &[IpAddr]) -> Result<Self, CertificateError> {
        Self::of(hostname, addresses, None, Vec::new())
    }

    /// The key and the certificate that lie in this file, and otherwise new ones.
    ///
    /// # Errors
    /// [`CertificateError`] when none can be made.
    pub fn open(hostname: &str, addresses: &[IpAddr], path: PathBuf) -> Result<Self, CertificateError> {
        Self::of(hostname, addresses, Kept::read(&path), vec![path])
    }

    fn of(
        hostname: &str,
        addresses: &[IpAddr],
        kept: Option<Kept>,
        places: Vec<PathBuf>,
    ) -> Result<Self, CertificateError> {
        let provider = Arc::new(ring::default_provider());
        let names = names(hostname, addresses);
        let (kept, certified) = fitting(kept, hostname, &names, &provider)?;
        let made = Made { hostname: hostname.to_owned(), names, kept, places };
        let (made, current) = (Some(Mutex::new(made)), RwLock::new(Arc::new(certified)));
        Ok(Self { provider, made, keeping: Mutex::default(), current })
    }

    /// Takes care that the certificate is for these addresses, with the same key. Returns whether it is another one now:
    /// the site's own is left alone, and so is one that is for them already.
    ///
    /// # Errors
    /// [`CertificateError`] when none can be made.
    pub fn cover(&self, addresses: &[IpAddr]) -> Result<bool, CertificateError> {
        let Some(mut made) = self.made() else { return Ok(false) };
        made.names = names(&made.hostname, addresses);
        let kept = made.kept.again()?;
        self.exchange(&mut made, kept)
    }

    /// Goes on with the key and the certificate that lie in this directory, or puts there what is in use. Returns whether
    /// clients see another certificate now.
    ///
    /// # Errors
    /// [`CertificateError`] when none can be made.
    pub fn settle(&self, directory: &Path) -> Result<bool, CertificateError> {
        let Some(mut made) = self.made() else { return Ok(false) };
        let path = directory.join(FILE);
        let kept = Kept::read(&path).map_or_else(|| made.kept.again(), Ok)?;
        made.places.push(path);
        self.exchange(&mut made, kept)
    }

    /// Keeps the certificate that is in use for the next start.
    ///
    /// # Errors
    /// [`CertificateError::Keep`]; it goes on being used all the same.
    pub fn keep(&self) -> Result<(), CertificateError> {
        let _turn = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        // A disk takes its time, for which nobody waits who only looks what is in use.
        let (kept, places) = match self.made() {
            Some(made) => (made.kept.again()?, made.places.clone()),
            None => return Ok(()),
        };
        for path in places {
            kept.write(&path).map_err(|source| CertificateError::Keep { path, source })?;
        }
        Ok(())
    }

    fn made(&self) -> Option<MutexGuard<'_, Made>> {
        self.made.as_ref().map(|made| made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn exchange(&self, made: &mut Made, kept: Kept) -> Result<bool, CertificateError> {
        let (kept, certified) = fitting(Some(kept), &made.hostname, &made.names, &self.provider)?;
        let is_other = kept.certificate != made.kept.certificate;
        made.kept = kept;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
        Ok(is_other)
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

/// All that a certificate has to be for.
fn names(hostname: &str, addresses: &[IpAddr]) -> BTreeSet<String> {
    let own = [hostname, "localhost", "127.0.0.1", "::1"].map(str::to_owned);
    own.into_iter().chain(addresses.iter().map(IpAddr::to_string)).collect()
}

/// What was kept, where it is for all of this and has not ended; else another certificate with the same key, where there is
/// one; else both anew.
fn fitting(
    kept: Option<Kept>,
    hostname: &str,
    names: &BTreeSet<String>,
    provider: &CryptoProvider,
) -> Result<(Kept, CertifiedKey), CertificateError> {
    let certified = |kept: &Kept| {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(kept.key.serialize_der()));
        CertifiedKey::from_der(vec![CertificateDer::from(kept.certificate.clone())], key, provider)
    };
    let is_good = |kept: &Kept| kept.names.is_superset(names) && kept.ends_at > jiff::Timestamp::now().as_second();
    let kept = match kept {
        Some(kept) if is_good(&kept) => match certified(&kept) {
            Ok(certified) => return Ok((kept, certified)),
            // The certificate is another key's, or none.
            Err(_) => certify(kept.key, hostname, names)?,
        },
        Some(kept) => certify(kept.key, hostname, names)?,
        None => certify(KeyPair::generate()?, hostname, names)?,
    };
    let certified = certified(&kept)?;
    Ok((kept, certified))
}

fn certify(key: KeyPair, hostname: &str, names: &BTreeSet<String>) -> Result<Kept, CertificateError> {
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, hostname);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // The day before, for clients whose clock is a little behind. A machine whose clock is years off makes a
    // certificate of that time; who compares the fingerprint does not need the clock.
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let since = today.yesterday().unwrap_or(today);
    let month = u8::try_from(since.month()).unwrap_or(1);
    params.not_before = date_time_ymd(since.year().into(), month, u8::try_from(since.day()).unwrap_or(1));
    params.not_after = date_time_ymd(i32::from(since.year()) + YEARS, month, 1);
    let ends_at = params.not_after.unix_timestamp();
    let certificate = params.self_signed(&key)?.der().to_vec();
    Ok(Kept { names: names.clone(), ends_at, certificate, key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_address_gives_a_new_certificate_with_the_same_key() {
        let identity = Identity::make("appliance", &[]).unwrap();
        let before = identity.fingerprint();
        assert!(identity.cover(&[IpAddr::from([192, 0, 2, 7])]).unwrap());
        assert_ne!(identity.fingerprint(), before);
    }

    /// The key that a certificate in use was made with.
    fn key(identity: &Identity) -> Vec<u8> {
        identity.made().unwrap().kept.key.serialize_der()
    }

    #[test]
    fn the_next_start_shows_the_same_certificate_and_nobody_else_reads_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.json");
        let first = Identity::open("appliance", &[], path.clone()).unwrap();
        first.keep().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let open = |hostname: &str, addresses: &[IpAddr]| Identity::open(hostname, addresses, path.clone()).unwrap();
        assert_eq!(open("appliance", &[]).fingerprint(), first.fingerprint());
        for other in [open("rack4", &[]), open("appliance", &[IpAddr::from([192, 0, 2, 7])])] {
            assert_ne!(other.fingerprint(), first.fingerprint());
            assert_eq!(key(&other), key(&first), "who knows the key knows it again");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in [&text[..100], "", &text.replace("\"key\":\"3", "\"key\":\"4")] {
            std::fs::write(&path, damaged).unwrap();
            assert_ne!(key(&open("appliance", &[])), key(&first), "what is damaged is replaced");
        }
    }

    #[test]
    fn the_data_volume_keeps_the_certificate_from_one_boot_to_the_next() {
        let (volume, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let boot = |n: u32, addresses: &[IpAddr]| {
            let identity = Identity::open("appliance", addresses, memory.path().join(n.to_string())).unwrap();
            let is_other = identity.settle(volume.path()).unwrap();
            identity.keep().unwrap();
            (identity, is_other)
        };
        let (first, is_other) = boot(1, &[]);
        assert!(!is_other, "the volume has none yet");
        let (second, is_other) = boot(2, &[]);
        assert!(is_other && second.fingerprint() == first.fingerprint());
        // An address comes; it comes again at the next boot, and clients see no difference.
        let address = [IpAddr::from([192, 0, 2, 7])];
        assert!(second.cover(&address).unwrap() && !second.cover(&address).unwrap());
        second.keep().unwrap();
        let (third, _) = boot(3, &[]);
        assert!(!third.cover(&address).unwrap());
        assert_eq!((third.fingerprint(), key(&third)), (second.fingerprint(), key(&first)));
        // It came before the volume was open.
        let fourth = Identity::open("appliance", &[], memory.path().join("4")).unwrap();
        assert!(fourth.cover(&address).unwrap() && fourth.settle(volume.path()).unwrap());
        assert_eq!(fourth.fingerprint(), third.fingerprint());
        // The agent is started again in the same boot.
        assert_eq!(boot(3, &[]).0.fingerprint(), third.fingerprint());
    }

    #[test]
    fn a_certificate_that_has_ended_is_followed_by_one_with_the_same_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.json");
        let first = Identity::open("appliance", &[], path.clone()).unwrap();
        first.made().unwrap().kept.ends_at = 1;
        first.keep().unwrap();
        let next = Identity::open("appliance", &[], path).unwrap();
        assert!(next.fingerprint() != first.fingerprint() && key(&next) == key(&first));
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
