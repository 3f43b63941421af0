//! Requests and their answers.

use super::form::Form;
use serde_json::Value;
use std::{io, sync::Arc, time::Duration};
use ureq::{
    Agent, SendBody,
    http::{Response, header},
    tls::{Certificate, RootCerts, TlsConfig},
};
use zeroize::Zeroizing;

/// Longest that a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest that a usual answer may take, with all of its body.
const USUAL: Duration = Duration::from_secs(60);
/// Longest that a model, or a file that is put together, may keep waiting for the beginning of an answer.
const PATIENT: Duration = Duration::from_secs(660);
/// Longest document that is read into memory, bytes.
const MAX_DOCUMENT: u64 = 64 << 20;

/// Why a request was not answered as it was meant.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The certificate is not one.
    #[error("the certificate of the appliance cannot be read: {0}")]
    Certificate(ureq::Error),
    /// Nothing answered, or something that is not the appliance.
    #[error("{url} does not answer: {source}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What went wrong.
        source: ureq::Error,
    },
    /// The appliance refused.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The appliance's word for it, such as `not_ready`.
        code: String,
        /// A sentence.
        message: String,
        /// The field that it is about.
        param: Option<String>,
    },
    /// The answer is no JSON.
    #[error("the answer of {url} is not understood: {source}")]
    Answer {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// What is sent cannot be read, or what is received cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ClientError {
    /// Whether the same request may well succeed later: the appliance is starting, or loading a model.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => matches!(status, 429 | 503),
            _ => false,
        }
    }
}

/// One appliance, spoken to with one token. It asks no proxy and follows no redirection.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    url: String,
    bearer: Zeroizing<String>,
}

impl Client {
    /// A client for the appliance at `url` (`https://ADDRESS:PORT`) that believes exactly this certificate (PEM); those
    /// that this machine believes when there is none.
    ///
    /// # Errors
    /// [`ClientError::Certificate`].
    pub fn new(url: &str, certificate: Option<&str>, token: &str) -> Result<Self, ClientError> {
        let roots = match certificate {
            Some(pem) => {
                let certificate = Certificate::from_pem(pem.as_bytes()).map_err(ClientError::Certificate)?;
                RootCerts::Specific(Arc::new(vec![certificate]))
            }
            None => RootCerts::PlatformVerifier,
        };
        let config = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .proxy(None)
            .max_redirects(0)
            .https_only(true)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT));
        let bearer = Zeroizing::new(format!("Bearer {}", token.trim()));
        Ok(Self { agent: config.build().into(), url: url.trim_end_matches('/').to_owned(), bearer })
    }

    /// Gets a document.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.get_within(path, USUAL)
    }

    /// Gets a document within this time.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get_within(&self, path: &str, limit: Duration) -> Result<Value, ClientError> {
        let url = self.url_of(path);
        let request = self.agent.get(&url).header(header::AUTHORIZATION, self.bearer.as_str());
        let answer = request.config().timeout_global(Some(limit)).build().call();
        document(&url, answer)
    }

    /// Sends a document.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let url = self.url_of(path);
        document(&url, self.send(&url, body))
    }

    /// Sends a form with a file.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn post_form(&self, path: &str, mut form: Form) -> Result<Value, ClientError> {
        let url = self.url_of(path);
        let request = self
            .agent
            .post(&url)
            .header(header::AUTHORIZATION, self.bearer.as_str())
            .header(header::CONTENT_TYPE, form.content_type())
            .header(header::CONTENT_LENGTH, form.len().to_string());
        let request = request.config().timeout_recv_response(Some(PATIENT)).build();
        document(&url, request.send(SendBody::from_reader(&mut form)))
    }

    fn url_of(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn send(&self, url: &str, body: &Value) -> Result<Response<ureq::Body>, ureq::Error> {
        let request = self.agent.post(url).header(header::AUTHORIZATION, self.bearer.as_str());
        request.config().timeout_recv_response(Some(PATIENT)).build().send_json(body)
    }
}

type Answer = Result<Response<ureq::Body>, ureq::Error>;

/// The answer when it is a good one.
fn good(url: &str, answer: Answer) -> Result<Response<ureq::Body>, ClientError> {
    let unreachable = |source| ClientError::Unreachable { url: url.to_owned(), source };
    let mut answer = answer.map_err(unreachable)?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(MAX_DOCUMENT).read_to_vec().map_err(unreachable)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |field: &str| body.pointer(&format!("/error/{field}")).and_then(Value::as_str).map(str::to_owned);
    let message = text("message").unwrap_or_else(|| format!("{url} answered with status {status}"));
    Err(ClientError::Refused { status, code: text("code").unwrap_or_default(), message, param: text("param") })
}

fn document(url: &str, answer: Answer) -> Result<Value, ClientError> {
    let mut answer = good(url, answer)?;
    let body = answer.body_mut().with_config().limit(MAX_DOCUMENT).read_to_vec();
    let body = body.map_err(|source| ClientError::Unreachable { url: url.to_owned(), source })?;
    serde_json::from_slice(&body).map_err(|source| ClientError::Answer { url: url.to_owned(), source })
}
