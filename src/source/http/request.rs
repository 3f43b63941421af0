//! Asking a server for a file: redirections, ranges, proxies, and what went wrong.

use super::{
    HttpError, Piece, Settings, Span,
    address::Address,
    forward::ForwardConnector,
    proxy::{Proxies, Route},
    shown,
};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::OnceLock,
};
use ureq::{
    Agent, Body, Timeout,
    http::{Response, Uri},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
    unversioned::resolver::DefaultResolver,
};

/// Most redirections that are followed.
const REDIRECTIONS_MAX: usize = 10;

/// Connections to servers.
#[derive(Debug)]
pub(super) struct Connections {
    agent: Agent,
    /// For what is asked of proxies by its whole address.
    forwarding: Agent,
    settings: Settings,
    proxies: OnceLock<Proxies>,
}

/// The bytes of an answer.
pub(super) struct Answer {
    pub(super) reader: Box<dyn Read>,
    /// Position in the file of the first byte that comes.
    pub(super) start: u64,
    /// How many come, if the server says so.
    pub(super) length: Option<u64>,
}

/// What a request says besides the address.
#[derive(Debug, Clone, Copy, Default)]
struct Ask<'a> {
    /// Which bytes are wanted.
    range: Option<&'a str>,
    /// Which forms are.
    accept: Option<&'a str>,
}

impl Connections {
    /// With proxies of one's own, or those of this host, which are looked up when first needed; trusting `roots`.
    pub(super) fn new(settings: Settings, proxies: Option<Proxies>, roots: RootCerts) -> Self {
        let config = Agent::config_builder()
            .timeout_resolve(Some(settings.connect))
            .timeout_connect(Some(settings.connect))
            .timeout_recv_response(Some(settings.stall))
            .timeout_per_read(Some(settings.stall))
            .http_status_as_error(false)
            // Each redirection may need another proxy.
            .max_redirects(0)
            .proxy(None)
            .max_idle_connections_per_host(settings.parallel.get())
            .user_agent(concat!("gapimage/", env!("CARGO_PKG_VERSION")))
            // Digests are those of the files themselves.
            .accept_encoding("identity")
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        let proxies = proxies.map_or_else(OnceLock::new, OnceLock::from);
        let forwarding = Agent::with_parts(config.clone(), ForwardConnector::default(), DefaultResolver::default());
        Self { agent: config.new_agent(), forwarding, settings, proxies }
    }

    /// Asks for the file at `url` from byte `start` on, in one of the forms that `accept` names. The answer may begin at 0
    /// all the same.
    ///
    /// # Errors
    /// [`HttpError`].
    pub(super) fn open(&self, url: &str, start: u64, accept: Option<&str>) -> Result<Answer, HttpError> {
        if let Some(path) = url.strip_prefix("file://") {
            return open_file(path, start);
        }
        let range = (start > 0).then(|| format!("bytes={start}-"));
        let (last, response) = self.follow(url, Ask { range: range.as_deref(), accept })?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let length = header("content-length").and_then(|length| length.parse().ok());
        let status = response.status().as_u16();
        let start = match status {
            200 => 0,
            206 => match header("content-range").and_then(range_start) {
                Some(from) if from == start => start,
                _ => return Err(HttpError::Status { url: shown(&last), status }),
            },
            // The part is no prefix of what the mirror has: begin again.
            416 if start > 0 => return self.open(url, 0, accept),
            _ => return Err(HttpError::Status { url: shown(&last), status }),
        };
        Ok(Answer { reader: Box::new(response.into_body().into_reader()), start, length })
    }

    /// Asks for a span of the file at `url`: the answer, and the length of the whole; `None` if the server only gives
    /// whole files.
    ///
    /// # Errors
    /// [`HttpError`].
    pub(super) fn open_span(&self, url: &str, span: Span) -> Result<Option<(Answer, u64)>, HttpError> {
        let range = match span {
            Span::From(start, len) => format!("bytes={start}-{}", start.saturating_add(len.max(1)) - 1),
            Span::Last(len) => format!("bytes=-{len}"),
        };
        let (last, response) = self.follow(url, Ask { range: Some(&range), accept: None })?;
        let shape = response.headers().get("content-range").and_then(|value| content_range(value.to_str().ok()?));
        match (response.status().as_u16(), shape) {
            (206, Some((start, total))) => {
                let reader = Box::new(response.into_body().into_reader());
                Ok(Some((Answer { reader, start, length: None }, total)))
            }
            (200, _) | (206, None) => Ok(None),
            (status, _) => Err(HttpError::Status { url: shown(&last), status }),
        }
    }

    /// Asks, and again wherever the answer sends; the last address asked and its answer.
    fn follow(&self, url: &str, ask: Ask<'_>) -> Result<(String, Response<Body>), HttpError> {
        let mut current = url.to_owned();
        let mut encrypted = false;
        for _ in 0..=REDIRECTIONS_MAX {
            let address = Address::parse(&current).ok_or_else(|| HttpError::Address { url: shown(&current) })?;
            if encrypted && !address.is_encrypted() {
                return Err(HttpError::Redirection { url: shown(url), reason: "to an address without encryption" });
            }
            encrypted = address.is_encrypted();
            let response = self.ask(&address, ask)?;
            match location(&response).map(|location| address.join(location)) {
                Some(location) => current = location,
                None => return Ok((current, response)),
            }
        }
        Err(HttpError::Redirection { url: shown(url), reason: "in circles" })
    }

    fn ask(&self, address: &Address<'_>, ask: Ask<'_>) -> Result<Response<Body>, HttpError> {
        let route = self.proxies.get_or_init(Proxies::of_host).route(address)?;
        let plain = address.plain();
        let malformed = || HttpError::Address { url: shown(&plain) };
        let plain_uri: Uri = plain.parse().map_err(|_| malformed())?;
        let mut request = match &route {
            Route::Forward { origin, .. } => self.forwarding.get(path_at(origin, plain_uri).ok_or_else(malformed)?),
            Route::Direct | Route::Tunnel(_) => self.agent.get(plain_uri),
        };
        for (name, value) in [("Range", ask.range), ("Accept", ask.accept)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        if let Some(authorization) = address.authorization() {
            request = request.header("Authorization", authorization);
        }
        if let Route::Forward { authorization, .. } = &route {
            request = request.header("Host", address.authority());
            if let Some(authorization) = authorization {
                request = request.header("Proxy-Authorization", authorization);
            }
        }
        let request = match &route {
            Route::Tunnel(proxy) => request.config().proxy(Some(proxy.clone())).build(),
            _ => request,
        };
        request.call().map_err(|error| explain(&plain, route.shown(), error, &self.settings))
    }

    /// What to say of a failure in the middle of an answer.
    pub(super) fn broken(&self, url: &str, error: io::Error) -> HttpError {
        explain(url, None, ureq::Error::from(error), &self.settings)
    }
}

/// The path of an address at another server: the proxy that is asked for it.
fn path_at(origin: &str, address: Uri) -> Option<Uri> {
    let mut parts = origin.parse::<Uri>().ok()?.into_parts();
    parts.path_and_query = address.into_parts().path_and_query;
    Uri::from_parts(parts).ok()
}

/// Where an answer sends the client instead.
fn location(response: &Response<Body>) -> Option<&str> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    response.headers().get("location").filter(|_| redirects)?.to_str().ok()
}

fn explain(url: &str, proxy: Option<String>, error: ureq::Error, settings: &Settings) -> HttpError {
    let url = shown(url);
    let unreachable = |reason: String| {
        let reason = match &proxy {
            Some(proxy) => format!("{reason} (through the proxy {proxy})"),
            None => reason,
        };
        HttpError::Unreachable { url: url.clone(), reason }
    };
    match error {
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            unreachable(format!("no connection in {:?}", settings.connect))
        }
        ureq::Error::Timeout(_) => HttpError::Stalled { url, limit: settings.stall },
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            HttpError::Stalled { url, limit: settings.stall }
        }
        ureq::Error::HostNotFound => unreachable("no such host".to_owned()),
        ureq::Error::Rustls(error) => certificate(&url, &error).unwrap_or_else(|| unreachable(error.to_string())),
        ureq::Error::Io(error) => {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            inner.and_then(|inner| certificate(&url, inner)).unwrap_or_else(|| unreachable(error.to_string()))
        }
        error => unreachable(error.to_string()),
    }
}

/// The error of a server whose certificate is not trusted.
fn certificate(url: &str, error: &rustls::Error) -> Option<HttpError> {
    matches!(error, rustls::Error::InvalidCertificate(_))
        .then(|| HttpError::Certificate { url: url.to_owned(), reason: error.to_string() })
}

fn open_file(path: &str, start: u64) -> Result<Answer, HttpError> {
    let failed = |source| HttpError::File { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let start = if start <= length { start } else { 0 };
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    Ok(Answer { reader: Box::new(file), start, length: Some(length - start) })
}

/// A span of a local file.
pub(super) fn file_piece(path: &str, span: Span) -> Result<Piece, HttpError> {
    let failed = |source| HttpError::File { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let total = file.metadata().map_err(failed)?.len();
    let (start, len) = match span {
        Span::From(start, len) => (start.min(total), len),
        Span::Last(len) => (total.saturating_sub(len), len),
    };
    let mut data = Vec::new();
    file.seek(SeekFrom::Start(start)).and_then(|_| file.take(len).read_to_end(&mut data)).map_err(failed)?;
    Ok(Piece { start, data, total })
}

/// The certificates in a PEM file.
pub(super) fn certificates(path: &Path) -> Result<RootCerts, HttpError> {
    let bad = |reason: String| HttpError::Certificates { path: path.display().to_string(), reason };
    let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let mut found: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| bad(error.to_string()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(bad("it holds none".to_owned())) } else { Ok(RootCerts::new_with_certs(&found)) }
}

/// First position and length of the whole, of `bytes FIRST-LAST/SIZE`.
fn content_range(header: &str) -> Option<(u64, u64)> {
    Some((range_start(header)?, header.rsplit_once('/')?.1.parse().ok()?))
}

/// The first position of `bytes FIRST-LAST/SIZE`.
fn range_start(header: &str) -> Option<u64> {
    header.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
