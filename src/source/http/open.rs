//! One request: redirects followed, credentials kept where they belong, the answer looked at before its body is read.

use super::{Client, HttpError, shown};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};
use ureq::{
    Timeout,
    http::{HeaderMap, Response, StatusCode, Uri},
};

/// How often a server may send the client elsewhere.
const REDIRECTS_MAX: usize = 8;
/// How much of what a server says about a mistake is shown, in characters.
const MESSAGE_MAX: usize = 300;

/// The body of an answer.
pub(super) struct Body {
    pub(super) reader: Box<dyn Read>,
    /// Position in the file of the first byte that comes.
    pub(super) start: u64,
    pub(super) length: Option<u64>,
}

impl Client {
    /// Asks for a file from byte `start` on; it may come from its beginning all the same.
    pub(super) fn open(&self, url: &str, start: u64) -> Result<Body, HttpError> {
        if let Some(path) = url.strip_prefix("file://") {
            return open_file(path, start);
        }
        let response = self.ask(url, start)?;
        let headers = response.headers();
        let length = text(headers, "content-length").and_then(|length| length.parse().ok());
        let status = response.status().as_u16();
        let start = match status {
            200 => 0,
            206 => match text(headers, "content-range").and_then(range_start) {
                Some(from) if from == start => start,
                _ => return Err(refused(url, status, headers)),
            },
            // The part is no prefix of what the mirror has: begin again.
            416 if start > 0 => return self.open(url, 0),
            _ => return Err(refused(url, status, headers)),
        };
        if is_page(headers) && !names_a_page(url) {
            return Err(HttpError::WebPage { url: shown(url) });
        }
        Ok(Body { reader: Box::new(response.into_body().into_reader()), start, length })
    }

    /// Sends the request, and sends it again to wherever the server says.
    fn ask(&self, url: &str, start: u64) -> Result<Response<ureq::Body>, HttpError> {
        let mut at: Uri = url.parse().map_err(|_| HttpError::Address { url: shown(url) })?;
        for _ in 0..=REDIRECTS_MAX {
            if !matches!(at.scheme_str(), Some("http" | "https")) {
                return Err(HttpError::Address { url: shown(url) });
            }
            let mut request = self.agent.get(&at);
            if start > 0 {
                request = request.header("Range", format!("bytes={start}-"));
            }
            if let Some(header) = self.access.as_ref().and_then(|access| access.header_for(&at)) {
                request = request.header("Authorization", header);
            }
            let response = request.call().map_err(|error| self.explain(url, error))?;
            if !redirects(response.status()) {
                return Ok(response);
            }
            let location = text(response.headers(), "location").unwrap_or_default();
            let unusable = || HttpError::Redirect { url: shown(url), problem: "to an address that cannot be used" };
            at = target(&at, location).ok_or_else(unusable)?;
        }
        Err(HttpError::Redirect { url: shown(url), problem: "too often" })
    }

    pub(super) fn explain(&self, url: &str, error: ureq::Error) -> HttpError {
        let url = shown(url);
        match error {
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                HttpError::Unreachable { url, reason: format!("no connection in {:?}", self.settings.connect) }
            }
            ureq::Error::Timeout(_) => HttpError::Stalled { url, limit: self.settings.stall },
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
                HttpError::Stalled { url, limit: self.settings.stall }
            }
            ureq::Error::HostNotFound => HttpError::Unreachable { url, reason: "no such host".to_owned() },
            ureq::Error::Io(error) => HttpError::Unreachable { url, reason: error.to_string() },
            error => HttpError::Unreachable { url, reason: error.to_string() },
        }
    }
}

fn redirects(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where `location` leads from `base` (RFC 3986, section 5.2; without `..`, which no server that is known sends).
fn target(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().filter(|location| !location.is_empty())?;
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    if location.contains("://") && !location.starts_with(['/', '?']) {
        return location.parse().ok();
    }
    let absolute = match (location.strip_prefix("//"), location.starts_with('/')) {
        (Some(elsewhere), _) => format!("{scheme}://{elsewhere}"),
        (None, true) => format!("{scheme}://{authority}{location}"),
        (None, false) if location.starts_with('?') => format!("{scheme}://{authority}{}{location}", base.path()),
        (None, false) => {
            let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{scheme}://{authority}{directory}/{location}")
        }
    };
    absolute.parse().ok()
}

fn refused(url: &str, status: u16, headers: &HeaderMap) -> HttpError {
    let said = |name| {
        let text = text(headers, name).unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(MESSAGE_MAX).collect::<String>()
    };
    HttpError::Status { url: shown(url), status, code: said("x-error-code"), message: said("x-error-message") }
}

fn is_page(headers: &HeaderMap) -> bool {
    let kind = text(headers, "content-type").unwrap_or_default().to_ascii_lowercase();
    kind.starts_with("text/html") || kind.starts_with("application/xhtml")
}

fn names_a_page(url: &str) -> bool {
    let path = shown(url).to_ascii_lowercase();
    path.ends_with(".html") || path.ends_with(".htm") || path.ends_with('/')
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn open_file(path: &str, start: u64) -> Result<Body, HttpError> {
    let failed = |source| HttpError::File { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let start = if start <= length { start } else { 0 };
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    Ok(Body { reader: Box::new(file), start, length: Some(length - start) })
}

/// The first position of `bytes FIRST-LAST/SIZE`.
fn range_start(header: &str) -> Option<u64> {
    header.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let base: Uri = "https://hub.example:8443/org/name/resolve/main/a?x=1".parse().unwrap();
        for (location, leads) in [
            ("https://cdn.example/b?sig=1#part", Some("https://cdn.example/b?sig=1")),
            ("//cdn.example/b", Some("https://cdn.example/b")),
            ("/api/b?next=http://x", Some("https://hub.example:8443/api/b?next=http://x")),
            ("b", Some("https://hub.example:8443/org/name/resolve/main/b")),
            ("?y=2", Some("https://hub.example:8443/org/name/resolve/main/a?y=2")),
            ("", None),
            ("http://", None),
        ] {
            let found = target(&base, location).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), leads, "{location}");
        }
    }
}
