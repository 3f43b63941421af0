//! A small web server on the loopback device that can misbehave.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

/// How a file is served.
#[derive(Debug, Clone)]
pub enum Behaviour {
    Good,
    /// The connection ends after so many bytes of each answer.
    Cut(usize),
    /// Nothing comes after so many bytes.
    Stall(usize),
    /// A byte at a time, forever slowly.
    Trickle,
    /// Other bytes of the same length.
    Lie,
    /// More bytes than the file has.
    Longer,
    /// An error, so many times; then good.
    Fail(u16, u32),
    /// Ranges are not heeded.
    NoRanges,
    /// Nothing more ever comes after so many bytes.
    Hang(usize),
    /// It lies elsewhere.
    Redirect(String),
}

#[derive(Debug, Clone)]
struct Served {
    data: Arc<[u8]>,
    behaviour: Behaviour,
}

#[derive(Debug, Clone, Default)]
pub struct Server {
    files: Arc<Mutex<BTreeMap<String, Served>>>,
    /// `path` or `path@start` of every request.
    log: Arc<Mutex<Vec<String>>>,
    credentials: Arc<Mutex<Vec<String>>>,
    pub url: String,
}

impl Server {
    pub fn start() -> Self {
        Self::with("http", |stream| stream)
    }

    /// A server for `https://localhost`, and the certificate of its authority as PEM.
    pub fn start_with_tls() -> (Self, String) {
        let (config, authority) = tls_config();
        let wrap = move |stream| StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
        let mut server = Self::with("https", wrap);
        server.url = server.url.replace("127.0.0.1", "localhost");
        (server, authority)
    }

    fn with<S: Read + Write>(scheme: &str, wrap: impl Fn(TcpStream) -> S + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { url: format!("{scheme}://{}", listener.local_addr().unwrap()), ..Self::default() };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (server, wrap) = (serving.clone(), wrap.clone());
                // A client that goes away in the middle is part of the tests.
                std::thread::spawn(move || server.answer(wrap(stream)).unwrap_or_default());
            }
        });
        server
    }

    pub fn put(&self, path: &str, data: impl Into<Arc<[u8]>>) {
        self.serve(path, data, Behaviour::Good);
    }

    pub fn serve(&self, path: &str, data: impl Into<Arc<[u8]>>, behaviour: Behaviour) {
        self.files.lock().unwrap().insert(format!("/{path}"), Served { data: data.into(), behaviour });
    }

    pub fn misbehave(&self, path: &str, behaviour: Behaviour) {
        self.files.lock().unwrap().get_mut(&format!("/{path}")).unwrap().behaviour = behaviour;
    }

    /// Serves a file under another path as well.
    pub fn also_at(&self, path: &str, other: &str) {
        let mut files = self.files.lock().unwrap();
        let served = files[&format!("/{path}")].clone();
        files.insert(format!("/{other}"), served);
    }

    /// `Authorization` of every request that had one.
    pub fn credentials(&self) -> Vec<String> {
        self.credentials.lock().unwrap().clone()
    }

    pub fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    fn answer(&self, stream: impl Read + Write) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let target = line.split(' ').nth(1).unwrap_or_default();
            // Through a proxy, the whole address comes.
            let path = target.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
            let path = path.map_or_else(|| target.to_owned(), |(_, path)| format!("/{path}"));
            let mut start = 0;
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                if header.trim().is_empty() {
                    break;
                }
                if header.to_ascii_lowercase().starts_with("authorization:") {
                    self.credentials.lock().unwrap().push(header.split_once(": ").unwrap().1.trim().to_owned());
                }
                if let Some(range) = header.to_ascii_lowercase().strip_prefix("range: bytes=") {
                    start = range.trim().trim_end_matches('-').parse().unwrap();
                }
            }
            let mark = if start > 0 { format!("{path}@{start}") } else { path.clone() };
            self.log.lock().unwrap().push(mark);
            if !self.send(reader.get_mut(), &path, start)? {
                return Ok(());
            }
        }
    }

    /// Whether the connection stays usable.
    fn send(&self, stream: &mut impl Write, path: &str, start: usize) -> std::io::Result<bool> {
        let Some(served) = self.take(path) else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(true);
        };
        if let Behaviour::Fail(status, _) = served.behaviour {
            write!(stream, "HTTP/1.1 {status} Trouble\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(true);
        }
        if let Behaviour::Redirect(location) = served.behaviour {
            write!(stream, "HTTP/1.1 302 Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(true);
        }
        let start = if matches!(served.behaviour, Behaviour::NoRanges) { 0 } else { start };
        let total = served.data.len();
        if start > 0 && start >= total {
            stream.write_all(b"HTTP/1.1 416 Range\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(true);
        }
        let mut body = served.data[start..].to_vec();
        match served.behaviour {
            Behaviour::Lie => body.iter_mut().for_each(|byte| *byte ^= 1),
            Behaviour::Longer => body.extend_from_slice(&[0; 100]),
            _ => {}
        }
        match start {
            0 => write!(stream, "HTTP/1.1 200 OK\r\n")?,
            _ => write!(stream, "HTTP/1.1 206 Part\r\nContent-Range: bytes {start}-{}/{total}\r\n", total - 1)?,
        }
        write!(stream, "Content-Length: {}\r\n\r\n", body.len())?;
        match served.behaviour {
            Behaviour::Cut(at) if at < body.len() => {
                stream.write_all(&body[..at])?;
                stream.flush()?;
                return Ok(false);
            }
            Behaviour::Stall(at) => {
                stream.write_all(&body[..at.min(body.len())])?;
                stream.flush()?;
                std::thread::sleep(Duration::from_secs(2));
                return Ok(false);
            }
            Behaviour::Hang(at) => {
                stream.write_all(&body[..at.min(body.len())])?;
                stream.flush()?;
                std::thread::sleep(Duration::from_secs(3600));
            }
            Behaviour::Trickle => {
                for byte in body {
                    stream.write_all(&[byte])?;
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            _ => stream.write_all(&body)?,
        }
        stream.flush()?;
        Ok(true)
    }

    fn take(&self, path: &str) -> Option<Served> {
        let mut files = self.files.lock().unwrap();
        let served = files.get_mut(path)?;
        let now = served.clone();
        if let Behaviour::Fail(status, times) = served.behaviour {
            served.behaviour = if times > 1 { Behaviour::Fail(status, times - 1) } else { Behaviour::Good };
        }
        Some(now)
    }
}

/// For `localhost`, by an authority made for the occasion.
fn tls_config() -> (Arc<ServerConfig>, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    (Arc::new(config), pem)
}
