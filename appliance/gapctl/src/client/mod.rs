//! The connection to an appliance and requests over it.

mod again;
mod error;
mod exchange;
mod request;
mod trust;

pub use again::patiently;
pub use error::ClientError;
pub use request::{Answer, Body, Method, Request};
pub use trust::{Fingerprint, FingerprintError, Identity, Trust};

use http_body_util::BodyExt;
use hyper::{
    StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, UPGRADE},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use std::{io, ops::ControlFlow, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::Url;
use zeroize::Zeroizing;

/// Longest that connecting and the handshake may take, each.
const CONNECT: Duration = Duration::from_secs(15);
/// Longest answer that is kept in memory, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// Port of the API where the address names none.
const PORT: u16 = 8443;

/// An appliance: where it is, how it is recognised, and the token that opens it.
pub struct Client {
    runtime: Runtime,
    host: String,
    port: u16,
    connector: TlsConnector,
    token: Option<Zeroizing<String>>,
}

impl Client {
    /// For `https://HOST[:PORT]`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError`] for an address that is none, or a certificate that cannot be used.
    pub fn new(
        server: &str,
        trust: &Trust,
        identity: Option<&Identity>,
        token: Option<Zeroizing<String>>,
    ) -> Result<Self, ClientError> {
        let (host, port) = address(server)?;
        let connector = TlsConnector::from(Arc::new(trust.config(identity)?));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(ClientError::System)?;
        Ok(Self { runtime, host, port, connector, token })
    }

    /// Fingerprint of the certificate that the server shows, whatever it is. Nothing else is sent to it.
    ///
    /// # Errors
    /// [`ClientError`] when it is not reached or speaks no TLS.
    pub fn fingerprint(server: &str) -> Result<Fingerprint, ClientError> {
        let client = Self::new(server, &Trust::Anybody, None, None)?;
        client.runtime.block_on(async {
            let stream = client.connect().await?;
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            shown.map(|certificate| Fingerprint::of(certificate)).ok_or(ClientError::NoCertificate)
        })
    }

    /// Sends a request and takes the whole answer.
    ///
    /// # Errors
    /// [`ClientError`] when it is not answered, or the answer is that it is refused.
    pub fn ask(&self, request: Request) -> Result<Answer, ClientError> {
        let mut bytes = Vec::new();
        let mut is_too_long = false;
        self.stream(request, |piece| {
            is_too_long = bytes.len() + piece.len() > MAX_ANSWER;
            if is_too_long {
                return ControlFlow::Break(());
            }
            bytes.extend_from_slice(piece);
            ControlFlow::Continue(())
        })?;
        if is_too_long { Err(ClientError::TooLong(MAX_ANSWER)) } else { Ok(Answer(bytes)) }
    }

    /// Sends a request and hands the answer on as it comes, until `take` breaks off.
    ///
    /// # Errors
    /// [`ClientError`] when it is not answered, or the answer is that it is refused.
    pub fn stream(&self, request: Request, mut take: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let patience = request.patience;
            let mut answer = self.send(request).await?;
            while let Some(frame) = self.patient(patience, answer.body_mut().frame()).await? {
                let frame = frame.map_err(ClientError::Broken)?;
                if frame.data_ref().is_some_and(|piece| take(piece).is_break()) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Has the connection of a request become something else (RFC 9110, section 7.8), and hands it to `work`.
    ///
    /// # Errors
    /// [`ClientError`] when that is refused, or the connection broke.
    pub fn upgrade<F: Future<Output = io::Result<()>>>(
        &self,
        request: Request,
        protocol: &str,
        work: impl FnOnce(TokioIo<Upgraded>) -> F,
    ) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let answer = self.deliver(request, Some(protocol)).await?;
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(self.refusal(answer).await);
            }
            let connection = self.patient(CONNECT, hyper::upgrade::on(answer)).await?.map_err(ClientError::Broken)?;
            work(TokioIo::new(connection)).await.map_err(ClientError::System)
        })
    }

    async fn send(&self, request: Request) -> Result<hyper::Response<Incoming>, ClientError> {
        let answer = self.deliver(request, None).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
    }

    /// Sends a request, which may ask for another protocol, and takes the head of whatever is answered.
    async fn deliver(
        &self,
        request: Request,
        protocol: Option<&str>,
    ) -> Result<hyper::Response<Incoming>, ClientError> {
        let patience = request.patience;
        let mut message = hyper::Request::builder().method(request.method.name()).uri(request.path);
        if let Some(protocol) = protocol {
            message = message.header(CONNECTION, "upgrade").header(UPGRADE, protocol);
        }
        message = message.header(HOST, format!("{}:{}", self.host, self.port));
        if let Some(kind) = request.body.kind() {
            message = message.header(CONTENT_TYPE, kind);
        }
        if let Some(token) = &self.token {
            let bearer = Zeroizing::new(format!("Bearer {}", token.as_str()));
            message = message.header(AUTHORIZATION, bearer.as_str());
        }
        let message =
            message.body(request.body.into_bytes()).map_err(|error| ClientError::Request(error.to_string()))?;
        let stream = self.connect().await?;
        exchange::exchange(stream, message, patience).await?.ok_or_else(|| self.silent(patience))
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, ClientError> {
        let unreachable = |source| ClientError::Unreachable { server: self.server(), source };
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = self.patient(CONNECT, TcpStream::connect((host, self.port))).await?.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| ClientError::Address(self.server()))?;
        let stream = self.patient(CONNECT, self.connector.connect(name, stream)).await?;
        stream.map_err(|source| ClientError::of_handshake(self.server(), source))
    }

    async fn patient<T>(&self, patience: Duration, wanted: impl Future<Output = T>) -> Result<T, ClientError> {
        timeout(patience, wanted).await.map_err(|_| self.silent(patience))
    }

    fn silent(&self, patience: Duration) -> ClientError {
        ClientError::Silent { server: self.server(), seconds: patience.as_secs() }
    }

    /// Where it is: `https://HOST:PORT`.
    pub fn server(&self) -> String {
        format!("https://{}:{}", self.host, self.port)
    }

    async fn refusal(&self, answer: hyper::Response<Incoming>) -> ClientError {
        #[derive(Deserialize)]
        struct Envelope {
            error: Said,
        }
        #[derive(Deserialize)]
        struct Said {
            message: String,
            code: Option<String>,
        }
        let status = answer.status().as_u16();
        let header = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = http_body_util::Limited::new(answer.into_body(), MAX_ANSWER).collect();
        let body = timeout(CONNECT, body).await.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes);
        let said: Option<Envelope> = body.and_then(|body| serde_json::from_slice(&body).ok());
        let (message, code) = match said {
            Some(Envelope { error }) => (error.message, error.code.unwrap_or_default()),
            None => (format!("it answered with status {status} and no reason"), String::new()),
        };
        ClientError::Refused { status, message, code, retry_after: header.map(Duration::from_secs) }
    }
}

/// Host (IPv6 in brackets) and port of an address.
fn address(server: &str) -> Result<(String, u16), ClientError> {
    let wrong = || ClientError::Address(server.to_owned());
    let text = if server.contains("://") { server.to_owned() } else { format!("https://{server}") };
    let url = Url::parse(&text).map_err(|_| wrong())?;
    let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.username().is_empty();
    if url.scheme() != "https" || !is_bare {
        return Err(wrong());
    }
    // The URL's own default would be 443, also where it is written out.
    let names_443 = text.trim_end_matches('/').ends_with(":443");
    let port = url.port().unwrap_or(if names_443 { 443 } else { PORT });
    Ok((url.host_str().ok_or_else(wrong)?.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_scheme_and_port() {
        let of = |text: &str| address(text).unwrap();
        assert_eq!(of("rack4"), ("rack4".to_owned(), PORT));
        assert_eq!(of("https://192.0.2.7:9443/"), ("192.0.2.7".to_owned(), 9443));
        assert_eq!(of("192.0.2.7:443"), ("192.0.2.7".to_owned(), 443));
        assert_eq!(of("[2001:db8::1]:8443"), ("[2001:db8::1]".to_owned(), 8443));
        for bad in ["http://rack4", "https://rack4/v1", "https://me@rack4", "", "rack 4", "rack4?x"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
