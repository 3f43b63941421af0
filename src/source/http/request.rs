//! Asking a server for a file: redirections, ranges, proxies, and what went wrong.

use super::{
    Access, HttpError, Settings,
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
    http::{HeaderMap, Response, Uri},
    tls::{RootCerts, TlsConfig},
    unversioned::resolver::DefaultResolver,
};

/// How much of what a server says about a mistake is kept, in characters.
const MESSAGE_MAX: usize = 300;
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

/// What goes along with every request for a file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Terms<'a> {
    /// The forms that are understood (`Accept`).
    pub(super) accept: Option<&'a str>,
    /// Credentials, and the one server that gets them.
    pub(super) access: Option<&'a Access>,
}

/// The bytes of an answer.
pub(super) struct Answer {
    pub(super) reader: Box<dyn Read>,
    /// Position in the file of the first byte that comes.
    pub(super) start: u64,
    /// How many come, if the server says so.
    pub(super) length: Option<u64>,
}

/// How servers are reached and believed.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Proxies of one's own; those of this host, looked up when first needed, when absent.
    pub(super) proxies: Option<Proxies>,
    /// Certificates that are trusted; those of the system when absent.
    pub(super) roots: Option<RootCerts>,
}

impl Connections {
    /// No connection is opened before it is needed.
    pub(super) fn new(settings: Settings, ways: Ways) -> Self {
        let roots = ways.roots.unwrap_or(RootCerts::PlatformVerifier);
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
        let proxies = ways.proxies.map_or_else(OnceLock::new, OnceLock::from);
        let forwarding = Agent::with_parts(config.clone(), ForwardConnector::default(), DefaultResolver::default());
        Self { agent: config.new_agent(), forwarding, settings, proxies }
    }

    /// Asks for the file at `url` from byte `start` on. The answer may begin at 0 all the same.
    ///
    /// # Errors
    /// [`HttpError`].
    pub(super) fn open(&self, url: &str, start: u64, terms: Terms<'_>) -> Result<Answer, HttpError> {
        if let Some(path) = url.strip_prefix("file://") {
            return open_file(path, start);
        }
        let range = (start > 0).then(|| format!("bytes={start}-"));
        let response = self.ask(url, range.as_deref(), terms)?;
        self.answer(url, response, start, terms)
    }

    /// Asks for what is at `url`, or at where that leads; `range` is a header (RFC 9110).
    ///
    /// # Errors
    /// [`HttpError`] if no server answers.
    pub(super) fn ask(&self, url: &str, range: Option<&str>, terms: Terms<'_>) -> Result<Response<Body>, HttpError> {
        let mut current = url.to_owned();
        let mut encrypted = false;
        for _ in 0..=REDIRECTIONS_MAX {
            let address = Address::parse(&current).ok_or_else(|| HttpError::Address { url: shown(&current) })?;
            if encrypted && !address.is_encrypted() {
                return Err(HttpError::Redirection { url: shown(url), reason: "to an address without encryption" });
            }
            encrypted = address.is_encrypted();
            let response = self.ask_one(&address, range, terms)?;
            match location(&response) {
                Some(location) => current = address.join(location),
                None => return Ok(response),
            }
        }
        Err(HttpError::Redirection { url: shown(url), reason: "in circles" })
    }

    fn ask_one(
        &self,
        address: &Address<'_>,
        range: Option<&str>,
        terms: Terms<'_>,
    ) -> Result<Response<Body>, HttpError> {
        let route = self.proxies.get_or_init(Proxies::of_host).route(address)?;
        let plain = address.plain();
        let malformed = || HttpError::Address { url: shown(&plain) };
        let plain_uri: Uri = plain.parse().map_err(|_| malformed())?;
        let authorization = match terms.access.and_then(|access| access.header_for(&plain_uri)) {
            Some(header) => Some(header.to_owned()),
            None => address.authorization(),
        };
        let headers = [("Range", range), ("Accept", terms.accept), ("Authorization", authorization.as_deref())];
        let mut request = match &route {
            Route::Forward { origin, .. } => self.forwarding.get(path_at(origin, plain_uri).ok_or_else(malformed)?),
            Route::Direct | Route::Tunnel(_) => self.agent.get(plain_uri),
        };
        for (name, value) in headers.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            request = request.header(name, value);
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

    fn answer(&self, url: &str, response: Response<Body>, start: u64, terms: Terms<'_>) -> Result<Answer, HttpError> {
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let length = header("content-length").and_then(|length| length.parse().ok());
        let status = response.status().as_u16();
        let start = match status {
            200 => 0,
            206 => match header("content-range").and_then(range_start) {
                Some(from) if from == start => start,
                _ => return Err(refused(url, status, response.headers())),
            },
            // The part is no prefix of what the mirror has: begin again.
            416 if start > 0 => return self.open(url, 0, terms),
            _ => return Err(refused(url, status, response.headers())),
        };
        if header("content-type").is_some_and(is_page) && terms.accept.is_none() && !names_a_page(url) {
            return Err(HttpError::WebPage { url: shown(url) });
        }
        Ok(Answer { reader: Box::new(response.into_body().into_reader()), start, length })
    }

    /// What to say of a failure in the middle of an answer.
    pub(super) fn broken(&self, url: &str, error: io::Error) -> HttpError {
        explain(url, None, ureq::Error::from(error), &self.settings)
    }
}

/// The error of a server that answers with one.
pub(super) fn refused(url: &str, status: u16, headers: &HeaderMap) -> HttpError {
    let said = |name| {
        let text = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(MESSAGE_MAX).collect::<String>()
    };
    HttpError::Status { url: shown(url), status, code: said("x-error-code"), message: said("x-error-message") }
}

fn is_page(content_type: &str) -> bool {
    let kind = content_type.to_ascii_lowercase();
    kind.starts_with("text/html") || kind.starts_with("application/xhtml")
}

/// Pages are what one gets where one asks for them: as a file, a directory, or in a form that says so.
fn names_a_page(url: &str) -> bool {
    let path = shown(url).to_ascii_lowercase();
    path.ends_with(".html") || path.ends_with(".htm") || path.ends_with('/')
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
pub(super) fn range_start(header: &str) -> Option<u64> {
    header.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
