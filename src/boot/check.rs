//! The check that an artifact boots: it is started with a certificate and a token made for this one
//! run, and must answer on its API with them.

use crate::{
    boot::{
        console::Stop,
        program::{self, Access, ProgramError},
        qemu::{Machine, Options, QemuError},
    },
    random,
};
use ed25519_dalek::SigningKey;
use gap_format::Digest;
use gap_handover::site::{Api, Network, SiteConfig, Tls, sign};
use serde_json::Value;
use std::{
    ffi::OsString,
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};
use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig},
};
use zeroize::Zeroizing;

/// Longest that one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// Longest that one look at the API's health may take, one for each lane of asking.
const PATIENCE: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];
/// Time between two looks at the API while it is not up.
const PAUSE: Duration = Duration::from_millis(100);
/// Time between two looks at a scrub that goes on.
const SCRUB_PAUSE: Duration = Duration::from_secs(1);
/// Longest that the appliance may take to switch itself off.
const GRACE: Duration = Duration::from_secs(10);
/// Longest answer of the API that is read, bytes.
const MAX_ANSWER: u64 = 4 << 20;
/// Address that QEMU's network gives its only guest.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// Why the check failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The appliance refused the release.
    #[error("the appliance does not trust what it booted: {0}")]
    NotTrusted(String),
    /// The appliance did not come up.
    #[error("the appliance did not start: {reason}; its console ends with:\n{console}")]
    Failed {
        /// What it said.
        reason: String,
        /// The last lines of the console.
        console: String,
    },
    /// The machine does not run, ended, or took too long.
    #[error(transparent)]
    Machine(#[from] QemuError),
    /// Certificate or token for the run could not be made.
    #[error("cannot make a certificate and a token for the check: {0}")]
    Credentials(String),
    /// The API is up, but does not answer as it should.
    #[error("the appliance is up, but /v1/system does not answer: {0}")]
    Api(String),
    /// The agent did not come to the end of the layers.
    #[error("the appliance has not read all its layers after {} s", limit.as_secs())]
    NotScrubbed {
        /// How long it was given.
        limit: Duration,
    },
    /// The program that was run against it.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// What one run is given to prove itself with.
struct Credentials {
    certificate: String,
    key: Zeroizing<String>,
    token: Zeroizing<String>,
}

impl Credentials {
    fn generate() -> Result<Self, CheckError> {
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let pair =
            rcgen::generate_simple_self_signed(names).map_err(|error| CheckError::Credentials(error.to_string()))?;
        let token = random::token().map_err(|error| CheckError::Credentials(error.to_string()))?;
        let key = Zeroizing::new(pair.signing_key.serialize_pem());
        Ok(Self { certificate: pair.cert.pem(), key, token })
    }

    /// The site configuration that gives a machine this certificate, the hash of this token, and a
    /// fixed address, which is quicker than asking for one; signed where the release asks for that.
    fn site(&self, key: Option<&SigningKey>) -> Result<String, CheckError> {
        let config = SiteConfig {
            hostname: None,
            network: Network::Static { interface: None, address: GUEST, prefix: 24, gateway: None, dns: Vec::new() },
            tls: Some(Tls { certificate: self.certificate.clone(), key: self.key.to_string() }),
            api: Api { token_sha256: Some(Digest::of(self.token.as_bytes()).to_hex()), ..Api::default() },
            ..SiteConfig::default()
        };
        let failed = |error: &dyn std::fmt::Display| CheckError::Credentials(error.to_string());
        let text = toml::to_string(&config).map_err(|error| failed(&error))?;
        key.map_or(Ok(text.clone()), |key| sign(&text, key)).map_err(|error| failed(&error))
    }

    /// A client that trusts exactly this certificate, asks no proxy and follows nobody.
    fn client(&self) -> Result<Agent, CheckError> {
        let certificate = Certificate::from_pem(self.certificate.as_bytes())
            .map_err(|error| CheckError::Credentials(error.to_string()))?;
        let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(vec![certificate]))).build();
        let config = Agent::config_builder().tls_config(tls).proxy(None).max_redirects(0).https_only(true);
        Ok(config.timeout_global(Some(REQUEST_LIMIT)).build().into())
    }
}

/// What the check found.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The answer of `/v1/system`.
    pub system: Value,
    /// From switching the machine on until its API was healthy.
    pub healthy_after: Duration,
}

/// Boots what `options` describe, waits at most `limit` until the API is healthy, asks it for
/// `/v1/system`, and switches the machine off. Site configuration and, unless one is given, port of
/// `options` are chosen here. With `scrubbed`, waits further until the agent has read every layer once. A `program` is run
/// against the appliance before it is switched off (docs/appliance.md, "Trying it"). Every line of the console passes
/// `console`.
///
/// # Errors
/// [`CheckError`]; [`CheckError::NotTrusted`] when the appliance refused the release.
pub fn check(
    options: &Options,
    limit: Duration,
    scrubbed: bool,
    program: &[OsString],
    mut console: impl FnMut(&str),
) -> Result<Checked, CheckError> {
    let credentials = Credentials::generate()?;
    let client = credentials.client()?;
    let options = Options {
        site: Some(credentials.site(options.site_key.as_ref())?),
        port: options.port.or(Some(0)),
        ..options.clone()
    };
    let mut machine = Machine::start(&options)?;
    let port = machine.port().ok_or(QemuError::NoPort)?;
    let health = HealthWatch::start(&client, port);
    let healthy = wait_until_healthy(&mut machine, &health, limit, &mut console)?;
    let healthy_after = healthy.duration_since(machine.started());
    drop(health);
    let mut look = || {
        machine.new_lines()?.iter().for_each(|line| console(line));
        get_system(&client, port, &credentials.token).map_err(CheckError::Api)
    };
    let system = if scrubbed { wait_until_scrubbed(limit, SCRUB_PAUSE, &mut look)? } else { look()? };
    if let Some(program) = program.split_first() {
        let access = Access { port, certificate: &credentials.certificate, token: &credentials.token };
        program::run(program, &access, &mut machine, &mut console)?;
    }
    machine.powerdown(GRACE)?;
    Ok(Checked { system, healthy_after })
}

/// Looks at the system until every layer is read, but no longer than `limit`.
fn wait_until_scrubbed(
    limit: Duration,
    pause: Duration,
    mut look: impl FnMut() -> Result<Value, CheckError>,
) -> Result<Value, CheckError> {
    let deadline = Instant::now() + limit;
    loop {
        let system = look()?;
        if is_scrubbed(&system) {
            return Ok(system);
        }
        if Instant::now() >= deadline {
            return Err(CheckError::NotScrubbed { limit });
        }
        thread::sleep(pause);
    }
}

/// Whether the agent has come to a verdict on every layer.
fn is_scrubbed(system: &Value) -> bool {
    let layers = system.get("layers").and_then(Value::as_array);
    let settled = |layer: &Value| {
        let size = layer.get("size").and_then(Value::as_u64);
        size.is_some() && layer.get("checked_bytes").and_then(Value::as_u64) == size
    };
    layers.is_some_and(|layers| layers.iter().all(settled))
}

fn wait_until_healthy(
    machine: &mut Machine,
    health: &HealthWatch,
    limit: Duration,
    console: &mut impl FnMut(&str),
) -> Result<Instant, CheckError> {
    let deadline = Instant::now() + limit;
    loop {
        let look = machine.wait_for(PAUSE, |line| {
            console(line);
            Stop::of_line(line)
        });
        match look {
            Ok(Stop::NotTrusted(reason)) => return Err(CheckError::NotTrusted(reason)),
            Ok(Stop::Failed(reason)) => return Err(CheckError::Failed { reason, console: machine.last_lines() }),
            Err(QemuError::Timeout { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if let Ok(healthy) = health.healthy.try_recv() {
            return Ok(healthy);
        }
        if Instant::now() >= deadline {
            return Err(QemuError::Timeout { limit, console: machine.last_lines() }.into());
        }
    }
}

/// Asks for `/healthz` again and again until it answers, in a few lanes that differ in patience.
///
/// QEMU's network takes a connection at once and lets it hang while the guest's is not up yet. An
/// impatient lane notices soon when it is; a patient one gets its answer from a slow machine.
struct HealthWatch {
    healthy: Receiver<Instant>,
    stop: Arc<AtomicBool>,
}

impl HealthWatch {
    fn start(client: &Agent, port: u16) -> Self {
        let (sender, healthy) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        for patience in PATIENCE {
            let (client, sender, stop) = (client.clone(), sender.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let request = client.get(format!("https://127.0.0.1:{port}/healthz"));
                    if request.config().timeout_global(Some(patience)).build().call().is_ok() {
                        // Another lane may have been first, then nobody listens any more.
                        let _ = sender.send(Instant::now());
                        return;
                    }
                    thread::sleep(PAUSE);
                }
            });
        }
        Self { healthy, stop }
    }
}

impl Drop for HealthWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn get_system(client: &Agent, port: u16, token: &str) -> Result<Value, String> {
    let bearer = Zeroizing::new(format!("Bearer {token}"));
    let request = client.get(format!("https://127.0.0.1:{port}/v1/system")).header("Authorization", bearer.as_str());
    let mut answer = request.call().map_err(|error| error.to_string())?;
    let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(|error| error.to_string())?;
    serde_json::from_slice(&body).map_err(|error: serde_json::Error| io::Error::from(error).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

    #[test]
    fn the_site_configuration_is_one_that_the_appliance_takes() {
        let credentials = Credentials::generate().unwrap();
        let config = SiteConfig::parse(&credentials.site(None).unwrap()).unwrap();
        assert_eq!(config.api.token_sha256, Some(Digest::of(credentials.token.as_bytes()).to_hex()));
        assert!(matches!(config.network, Network::Static { address, .. } if address == GUEST));
        assert_eq!(config.tls.unwrap().certificate, credentials.certificate);
    }

    #[test]
    fn layers_that_are_not_read_in_time_are_no_success() {
        let mut read = 0;
        let mut look = || {
            read += 1;
            Ok(serde_json::json!({"layers": [{"size": 3, "checked_bytes": read}]}))
        };
        let long = Duration::from_secs(600);
        assert_eq!(wait_until_scrubbed(long, Duration::ZERO, &mut look).unwrap()["layers"][0]["checked_bytes"], 3);
        let late = wait_until_scrubbed(Duration::ZERO, Duration::ZERO, look);
        assert!(matches!(late, Err(CheckError::NotScrubbed { .. })), "{late:?}");
    }

    #[test]
    fn every_run_has_its_own_token() {
        assert_ne!(*Credentials::generate().unwrap().token, *Credentials::generate().unwrap().token);
    }

    /// A TLS server with these credentials that answers like an appliance; gives its port.
    fn serve(credentials: &Credentials) -> u16 {
        use std::{
            io::{Read, Write},
            net::TcpListener,
        };
        let certificate = CertificateDer::from_pem_slice(credentials.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let (config, bearer) = (Arc::new(config), format!("bearer {}\r\n", *credentials.token));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
                let mut request = [0; 2048];
                let Ok(len) = stream.read(&mut request) else { continue };
                let request = String::from_utf8_lossy(&request[..len]).to_lowercase();
                let open = request.starts_with("get /healthz ");
                let known = request.starts_with("get /v1/system ") && request.contains(&bearer);
                let status = if open || known { "200 OK" } else { "401 Unauthorized" };
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: 12\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(format!("{head}{{\"serial\":7}}").get(..head.len() + 12).unwrap().as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        port
    }

    #[test]
    fn health_is_noticed_and_the_system_described() {
        let credentials = Credentials::generate().unwrap();
        let (client, port) = (credentials.client().unwrap(), serve(&credentials));
        let health = HealthWatch::start(&client, port);
        health.healthy.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(get_system(&client, port, &credentials.token).unwrap()["serial"], 7);
        assert!(get_system(&client, port, "another").unwrap_err().contains("401"));
    }

    #[test]
    fn a_machine_with_another_certificate_is_not_believed() {
        let (ours, others) = (Credentials::generate().unwrap(), Credentials::generate().unwrap());
        let port = serve(&others);
        assert!(get_system(&ours.client().unwrap(), port, &ours.token).is_err());
    }
}
