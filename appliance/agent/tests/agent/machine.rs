//! A made-up machine with the real server on loopback, and a client that speaks to it over TLS.

use gap_agent::{
    access::{Access, audit::Audit},
    api::{Api, Site, System, WorkCell},
    boot_clock,
    certificate::Identity,
    clock, gpus, network,
    root::Root,
    scrub,
    server::{self, Limits},
    token::TokenHash,
};
use gap_format::{
    Digest,
    trust::{Role, Signer},
};
use gap_gpu::{
    fabric::Fabric,
    health::{Reading, Slowdown, judge},
    provision::{Gpu, Mode, Provisioned, Slot},
};
use gap_handover::{
    boot_report::{BootReport, Clock, Layer, Medium, Release, RollbackProtection, SecureBoot, Stage},
    control::Request,
    site::{EndpointName, Network, SiteAddress, Time},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub const TOKEN: &str = "a token for tests";

/// A running server over a made-up root.
pub struct Machine {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<Request>>>,
    pub access: Arc<Access>,
    pub audit: Arc<Audit>,
    pub work: Arc<WorkCell>,
    pub system: Arc<System>,
    pub stop: watch::Sender<bool>,
    pub serving: JoinHandle<()>,
    connector: TlsConnector,
    _directory: tempfile::TempDir,
}

/// An answer: status, head, body as JSON and as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: serde_json::Value,
    pub text: String,
}

pub fn report() -> BootReport {
    let layer = |name: &str, size, device: &str| Layer {
        name: name.into(),
        digest: Digest::of(name.as_bytes()),
        size,
        verity_root: Digest::of(device.as_bytes()),
        device: device.into(),
    };
    BootReport {
        release: Release {
            name: "quickstart".into(),
            version: "1.0".into(),
            serial: 3,
            index: Digest::of(b"index"),
            signers: vec!["officer".into()],
            expires: None,
        },
        medium: Medium { device: "/dev/vda".into(), file: None },
        trust_fingerprint: Digest::of(b"trust"),
        secure_boot: SecureBoot::Disabled,
        rollback_protection: RollbackProtection::None,
        clock: Clock { built: 1_700_000_000, was_behind: false },
        layers: vec![layer("metadata", 8192, "/dev/dm-0"), layer("base", 16_384, "/dev/dm-1")],
        stages: vec![Stage { name: "kernel".into(), ended_ms: 900 }],
    }
}

fn endpoint() -> (EndpointName, SiteAddress) {
    ("tracking".parse().unwrap(), "192.0.2.20:5000".parse().unwrap())
}

fn signer() -> Signer {
    let key = "ab".repeat(32).parse().unwrap();
    Signer { name: "officer".into(), key, roles: vec![Role::Appliance] }
}

impl Machine {
    pub fn start(limits: Limits) -> Self {
        Self::start_with(limits, Some(TOKEN))
    }

    /// One whose site names this token, or none.
    pub fn start_with(limits: Limits, token: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        fs::create_dir_all(root.at("/dev")).unwrap();
        fs::create_dir_all(root.at("/sys/bus/pci/devices/0000:01:00.0")).unwrap();
        for (file, text) in [("vendor", "0x10de\n"), ("device", "0x2335\n"), ("class", "0x030200\n")] {
            fs::write(root.at(format!("/sys/bus/pci/devices/0000:01:00.0/{file}")), text).unwrap();
        }
        fs::write(root.at("/dev/dm-0"), vec![0; 8192]).unwrap();
        // Shorter than the layer: reading its second half fails.
        fs::write(root.at("/dev/dm-1"), vec![0; 8192]).unwrap();

        let report = report();
        let identity = Arc::new(Identity::make("appliance", &[]).unwrap());
        let board = gpus::Board::new(root.clone());
        board.set(provisioned());
        let system = Arc::new(System {
            root,
            hostname: "appliance".into(),
            scrub: Arc::new(scrub::Board::new(scrub::layers::of_system(&report, "os"))),
            clock: Arc::new(clock::Board::new(&Time::default(), report.clock)),
            site: Site { endpoints: [endpoint()].into(), ..Site::default() },
            report,
            signers: vec![signer()],
            network: Arc::new(network::Board::new(&Network::None)),
            identity: identity.clone(),
            stages: Mutex::new(vec![boot_clock::stage("agent started")]),
            gpus: Arc::new(board),
        });
        let asked: Arc<Mutex<Vec<Request>>> = Arc::default();
        let ask = asked.clone();
        let ask = Box::new(move |request| ask.lock().unwrap().push(request));
        let access = Arc::new(Access::new(token.map(TokenHash::of), system.clock.clone()));
        let audit = Arc::new(Audit::start().unwrap());
        let work = Arc::<WorkCell>::default();
        let api = Api::new(system.clone(), access.clone(), audit.clone(), ask, limits.body, work.clone());
        let listener = server::listen_on("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let connector = connector(&identity);
        let tls = Arc::new(identity.server_config(None).unwrap());
        let serving = tokio::spawn(server::serve(listener, tls, api.router(), limits, stopping));
        Self { address, asked, access, audit, work, system, stop, serving, connector, _directory: directory }
    }

    pub async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        self.connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    /// Connects from another address.
    pub async fn connect_from(&self, from: IpAddr) -> TlsStream<TcpStream> {
        let stream = tcp(self.address, Some(from)).await;
        self.connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
    }

    pub async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.ask("GET", path, token).await
    }

    pub async fn ask(&self, method: &str, path: &str, token: Option<&str>) -> Answer {
        self.send(request(method, path, token).as_bytes()).await
    }

    /// Sends a body of JSON.
    pub async fn post(&self, path: &str, token: &str, body: &serde_json::Value) -> Answer {
        self.send_body(path, token, "application/json", body.to_string().as_bytes()).await
    }

    /// Sends a body of this kind.
    pub async fn send_body(&self, path: &str, token: &str, kind: &str, body: &[u8]) -> Answer {
        let head = post_head(path, token, kind, body.len());
        self.send(&[head.as_bytes(), body].concat()).await
    }

    /// Sends these bytes and reads until the server closes.
    pub async fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect().await.unwrap();
        // The server may answer and close before it has read everything.
        drop(stream.write_all(bytes).await);
        drop(stream.flush().await);
        read_answer(&mut stream).await
    }
}

fn post_head(path: &str, token: &str, kind: &str, len: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
         Content-Type: {kind}\r\nContent-Length: {len}\r\n\r\n"
    )
}

fn request(method: &str, path: &str, token: Option<&str>) -> String {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{token}Connection: close\r\n\r\n")
}

pub async fn read_answer(stream: &mut TlsStream<TcpStream>) -> Answer {
    let mut bytes = Vec::new();
    drop(stream.read_to_end(&mut bytes).await);
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer {
        status,
        head: head.to_ascii_lowercase(),
        body: serde_json::from_str(body).unwrap_or_default(),
        text: body.to_owned(),
    }
}

/// A client that trusts this certificate and no other.
pub fn connector(identity: &Identity) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(identity.certificate()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    TlsConnector::from(Arc::new(config.with_no_client_auth()))
}

/// Asks a server that is known by the SHA-256 of its certificate.
pub async fn ask_by_fingerprint(address: SocketAddr, sha256: &str, method: &str, path: &str, token: &str) -> Answer {
    send_by_fingerprint(address, sha256, request(method, path, Some(token)).as_bytes()).await
}

/// Sends a body of JSON to a server that is known by the SHA-256 of its certificate.
pub async fn post_by_fingerprint(
    address: SocketAddr,
    sha256: &str,
    path: &str,
    token: &str,
    body: &serde_json::Value,
) -> Answer {
    let body = body.to_string();
    let head = post_head(path, token, "application/json", body.len());
    send_by_fingerprint(address, sha256, &[head.as_bytes(), body.as_bytes()].concat()).await
}

async fn send_by_fingerprint(address: SocketAddr, sha256: &str, bytes: &[u8]) -> Answer {
    let mut stream = connect_by_fingerprint(address, sha256, None).await;
    stream.write_all(bytes).await.unwrap();
    read_answer(&mut stream).await
}

/// Connects to a server that is known by the SHA-256 of its certificate, from this address where one is said.
pub async fn connect_by_fingerprint(address: SocketAddr, sha256: &str, from: Option<IpAddr>) -> TlsStream<TcpStream> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(ByFingerprint { sha256: sha256.to_owned(), provider: provider.clone() });
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let stream = tcp(address, from).await;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

async fn tcp(address: SocketAddr, from: Option<IpAddr>) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0)).unwrap();
    }
    socket.connect(address).await.unwrap()
}

/// How often each status stands in answers that came one after the other.
pub fn statuses(answers: &[u8]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for head in String::from_utf8_lossy(answers).split("HTTP/1.1 ").skip(1) {
        *counts.entry(head[..3].parse().unwrap()).or_default() += 1;
    }
    counts
}

/// Trusts one certificate, as somebody does who compared its fingerprint with the console.
#[derive(Debug)]
struct ByFingerprint {
    sha256: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_it = Digest::of(certificate).to_hex() == self.sha256;
        is_it.then(ServerCertVerified::assertion).ok_or_else(|| rustls::Error::General("another certificate".into()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A GPU that has something to tell of everything.
fn provisioned() -> Provisioned {
    let reading = Reading {
        uncorrected_ecc: Some(1),
        remap_pending: Some(true),
        remap_failed: Some(false),
        slowdown: vec![Slowdown::PowerBrake],
        temperature: Some(60),
    };
    Provisioned {
        mode: Mode::Gpu,
        driver: Some("550.163.01".into()),
        gpus: vec![Gpu {
            address: "0000:3b:00.0".parse().unwrap(),
            device: "0x2335".into(),
            uuid: Some("GPU-1".into()),
            model: Some("NVIDIA H200".into()),
            memory: Some(1 << 37),
            slices: vec!["1g.18gb".into()],
            health: judge(&reading, &[94]),
            reading: Some(reading),
        }],
        fabric: Fabric::None,
        devices: vec!["0:0".into()],
        slots: vec![Slot { name: "MIG-1".into(), gpu: "0000:3b:00.0".parse().unwrap(), memory: 1 << 34 }],
        problems: vec!["a problem".into()],
    }
}
