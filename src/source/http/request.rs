//! Asking a server for a file: redirections, ranges, proxies, and what went wrong.

use super::{
    HttpError, Settings,
    address::Address,
    forward::ForwardConnector,
    proxy::{Proxies, Route},
    shown,
};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    sync::OnceLock,
};
use ureq::{
    Agent, Body, Timeout,
    http::{Response, Uri},
    tls::{RootCerts, TlsConfig},
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

impl Connections {
    /// With proxies of one's own, or those of this host, which are looked up when first needed.
    pub(super) fn new(settings: Settings, proxies: Option<Proxies>) -> Self {
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
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build();
        let proxies = proxies.map_or_else(OnceLock::new, OnceLock::from);
        let forwarding = Agent::with_parts(config.clone(), ForwardConnector::default(), DefaultResolver::default());
        Self { agent: config.new_agent(), forwarding, settings, proxies }
    }

    /// Asks for the file at `url` from byte `start` on. The answer may begin at 0 all the same.
    ///
    /// # Errors
    /// [`HttpError`].
    pub(super) fn open(&self, url: &str, start: u64) -> Result<Answer, HttpError> {
        if let Some(path) = url.strip_prefix("file://") {
            return open_file(path, start);
        }
        let mut current = url.to_owned();
        let mut encrypted = false;
        for _ in 0..=REDIRECTIONS_MAX {
            let address = Address::parse(&current).ok_or_else(|| HttpError::Address { url: shown(&current) })?;
            if encrypted && !address.is_encrypted() {
                return Err(HttpError::Redirection { url: shown(url), reason: "to an address without encryption" });
            }
            encrypted = address.is_encrypted();
            let response = self.ask(&address, start)?;
            match location(&response) {
                Some(location) => current = address.join(location),
                None => return self.answer(url, &current, response, start),
            }
        }
        Err(HttpError::Redirection { url: shown(url), reason: "in circles" })
    }

    fn ask(&self, address: &Address<'_>, start: u64) -> Result<Response<Body>, HttpError> {
        let route = self.proxies.get_or_init(Proxies::of_host).route(address)?;
        let plain = address.plain();
        let malformed = || HttpError::Address { url: shown(&plain) };
        let plain_uri: Uri = plain.parse().map_err(|_| malformed())?;
        let mut request = match &route {
            Route::Forward { origin, .. } => self.forwarding.get(path_at(origin, plain_uri).ok_or_else(malformed)?),
            Route::Direct | Route::Tunnel(_) => self.agent.get(plain_uri),
        };
        if start > 0 {
            request = request.header("Range", format!("bytes={start}-"));
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

    fn answer(&self, url: &str, last: &str, response: Response<Body>, start: u64) -> Result<Answer, HttpError> {
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let length = header("content-length").and_then(|length| length.parse().ok());
        let status = response.status().as_u16();
        let start = match status {
            200 => 0,
            206 => match header("content-range").and_then(range_start) {
                Some(from) if from == start => start,
                _ => return Err(HttpError::Status { url: shown(last), status }),
            },
            // The part is no prefix of what the mirror has: begin again.
            416 if start > 0 => return self.open(url, 0),
            _ => return Err(HttpError::Status { url: shown(last), status }),
        };
        Ok(Answer { reader: Box::new(response.into_body().into_reader()), start, length })
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

/// The first position of `bytes FIRST-LAST/SIZE`.
fn range_start(header: &str) -> Option<u64> {
    header.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
