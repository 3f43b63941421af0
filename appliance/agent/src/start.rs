//! The agent from its first step to its last: read what was given, verify again, serve, stop.

use crate::{
    access::{
        Access,
        audit::{Audit, Entry},
    },
    api::{Api, Site, System, WorkCell},
    boot_clock,
    certificate::{CertificateError, IN_MEMORY, Identity},
    clock, console,
    given::{Given, GivenError},
    gpus,
    lockdown::lock_modules,
    machine,
    network::{self, Drivers},
    recheck::{self, RecheckError},
    root::Root,
    scrub,
    server::{self, Limits},
    token::{TokenError, TokenHash},
    work::{
        checking,
        opening::{self, Opening},
    },
};
use gap_format::trust::Signer;
use gap_gpu::provision::Provisioned;
use gap_handover::{
    BootReport, SiteConfig, boot_report,
    control::{EXIT_FAILED, EXIT_NOT_TRUSTED, EXIT_STOPPED, Request},
    site::{Network, WrongClock},
};
use gap_jobs::{dispatcher::now, placement::Slot};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
};

/// Name of a machine that was given none.
const DEFAULT_HOSTNAME: &str = "appliance";
/// Time for the answer to a power-off to reach its client before PID 1 is asked.
const LAST_ANSWER: Duration = Duration::from_millis(200);
/// How often tokens whose time has passed are deleted.
const FORGET_TOKENS: Duration = Duration::from_secs(60);

/// How the agent is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory that stands for `/`.
    pub root: PathBuf,
    /// Where to listen instead of the site configuration's port on all addresses.
    pub listen: Option<SocketAddr>,
    /// Whether the machine is the agent's own: set its name and network, and ask PID 1. Without it the agent only
    /// reads and serves.
    pub owns_machine: bool,
}

/// Why the agent does not serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What PID 1 left is not usable.
    #[error(transparent)]
    Given(#[from] GivenError),
    /// The release is not what PID 1 said, or not trusted.
    #[error(transparent)]
    Recheck(#[from] RecheckError),
    /// There is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There is no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The port cannot be listened on.
    #[error("listening on port {port}: {source}")]
    Listen {
        /// The port.
        port: u16,
        /// The system's answer.
        source: io::Error,
    },
    /// A thread or a signal handler cannot be had.
    #[error("starting: {0}")]
    System(#[from] io::Error),
}

impl StartError {
    /// The exit status that tells PID 1 whether starting again can help.
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Recheck(error) if error.is_fatal() => EXIT_NOT_TRUSTED,
            Self::Given(GivenError::Trust { .. }) => EXIT_NOT_TRUSTED,
            _ => EXIT_FAILED,
        }
    }
}

/// Runs the agent until it is asked to stop. Returns its exit status.
pub async fn run(options: Options) -> u8 {
    match run_to_end(&options).await {
        Ok(()) => EXIT_STOPPED,
        Err(error) => {
            let status = error.exit_status();
            let kind = if status == EXIT_NOT_TRUSTED { "not trusted: " } else { "failed: " };
            console::say(format_args!("{kind}{error}"));
            status
        }
    }
}

async fn run_to_end(options: &Options) -> Result<(), StartError> {
    let root = Root::new(&options.root);
    let mut stages = vec![boot_clock::stage("agent started")];
    let given = Given::read(&root, console::say)?;
    let hostname = given.site.hostname.clone().unwrap_or_else(|| DEFAULT_HOSTNAME.to_owned());
    // What takes its time and shows nothing to anybody goes on beside the verification; nothing listens and no
    // interface is up before its verdict.
    let drivers = options.owns_machine.then(|| Drivers::load(&root, &given.site.network, machine::kernel().release));
    let identity = spawn_blocking({
        let (site, hostname, root) = (given.site.clone(), hostname.clone(), root.clone());
        move || identity(&site, &hostname, &root)
    });
    let verified = Arc::new(recheck::recheck(&root, &given)?);
    let signers = verified.release.signers().to_vec();
    stages.push(boot_clock::stage("release verified again"));
    tell_release(&given.report, &signers);

    let Given { report, site, site_signers, .. } = given;
    if options.owns_machine
        && let Err(error) = rustix::system::sethostname(hostname.as_bytes())
    {
        console::say(format_args!("the name of the machine is not set to {hostname}: {error}"));
    }
    let token = TokenHash::of_site(&site)?;
    let identity = Arc::new(identity.await.map_err(io::Error::from)??);
    let listener = listen(options, &site)?;
    let image = verified.name_of(&verified.image).unwrap_or_else(|| verified.image.to_string());
    let layers = scrub::layers::of_system(&report, &image);
    let system = Arc::new(System {
        root: root.clone(),
        hostname,
        scrub: Arc::new(scrub::Board::new(layers)),
        clock: Arc::new(clock::Board::new(&site.time, report.clock)),
        report,
        signers,
        network: Arc::new(network::Board::new(&site.network)),
        site: Site { signers: site_signers, endpoints: site.endpoints.clone() },
        identity: identity.clone(),
        stages: Mutex::new(stages),
        gpus: Arc::new(gpus::Board::new(root.clone())),
    });

    let (ask, mut asked) = mpsc::channel(1);
    let limits = Limits::default();
    // When the channel is full, a wish for PID 1 is on its way already.
    let ask = Box::new(move |request| ask.try_send(request).unwrap_or_default());
    let (access, audit) = (Arc::new(Access::new(token, system.clock.clone())), Arc::new(Audit::start()?));
    let work = Arc::<WorkCell>::default();
    let api = Api::new(system.clone(), access.clone(), audit.clone(), ask, limits.body, work.clone());
    let (stop, stopping) = watch::channel(false);
    tell_api(&listener, &identity);
    let tls = Arc::new(identity.server_config(site.api.client_authorities.as_deref())?);
    let serving = tokio::spawn(server::serve(listener, tls, api.router(), limits, stopping));
    system.stage("API healthy");

    let opening = Opening {
        root: root.clone(),
        data: site.data.clone(),
        medium: system.report.medium.device.clone(),
        verified: verified.clone(),
        access,
        audit: audit.clone(),
        identity: system.identity.clone(),
        clock: system.clock.clone(),
        endpoints: site.endpoints.clone(),
        gpus: system.gpus.clone(),
        slots: Box::new({
            let system = system.clone();
            move || slots(system.gpus.wait())
        }),
    };
    let working = tokio::spawn(open_work(system.clone(), opening, work.clone(), options.owns_machine));

    tell_clock(&system.clock);
    let clock =
        options.owns_machine.then(|| tokio::spawn(keep_clock(system.clone(), clock::addresses(&site.time), audit)));
    let network = tokio::spawn(keep_network(system.clone(), site.network, drivers));
    let scrub_stop = Arc::new(AtomicBool::new(false));
    let owns_machine = options.owns_machine;
    let more = Box::new(move |known: &[scrub::Layer]| match owns_machine {
        true => scrub::layers::of_others(&verified, known),
        false => Vec::new(),
    });
    let open = Box::new(move |layer: &scrub::Layer| scrub::layers::open(&root, layer));
    scrub::start(system.scrub.clone(), scrub::DEFAULT_SPEED, scrub_stop.clone(), more, open)?;
    if options.owns_machine {
        tokio::spawn(gpus::follow(system.gpus.clone()));
        let (locking, system) = ((system.clone(), work.clone()), system.clone());
        // Nobody waits for it: the API shows the outcome once it is there.
        drop(spawn_blocking(move || {
            system.gpus.set(gpus::bring_up(&system.root, machine::kernel().release, site.gpus.mig));
            system.stage("GPUs provisioned");
        }));
        tokio::spawn(lock_modules(locking.0, locking.1));
    }

    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
            Some(request) = asked.recv() => {
                tokio::time::sleep(LAST_ANSWER).await;
                if !options.owns_machine {
                    break;
                }
                ask_pid_1(request);
            }
        }
    }
    scrub_stop.store(true, Ordering::Relaxed);
    working.abort();
    if let Some(work) = work.get() {
        // Jobs write their checkpoints; the API answers meanwhile.
        drop(spawn_blocking(move || work.dispatcher.stop()).await);
    }
    network.abort();
    clock.inspect(JoinHandle::abort);
    stop.send_replace(true);
    drop(serving.await);
    Ok(())
}

/// What of the GPUs jobs are given.
fn slots(gpus: &Provisioned) -> Vec<Slot> {
    gpus.slots.iter().map(|slot| Slot { name: slot.name.clone(), memory: slot.memory }).collect()
}

fn identity(site: &SiteConfig, hostname: &str, root: &Root) -> Result<Identity, CertificateError> {
    if let Some(tls) = &site.tls {
        return Identity::from_site(tls);
    }
    let known: Vec<IpAddr> = match &site.network {
        Network::Static { address, .. } => vec![(*address).into()],
        Network::Dhcp { .. } | Network::None => Vec::new(),
    };
    let identity = Identity::open(hostname, &known, root.at(IN_MEMORY))?;
    identity.keep().unwrap_or_else(console::say);
    Ok(identity)
}

fn listen(options: &Options, site: &SiteConfig) -> Result<TcpListener, StartError> {
    let port = options.listen.map_or_else(|| site.api.port.unwrap_or(server::DEFAULT_PORT), |address| address.port());
    let listener = options.listen.map_or_else(|| server::listen_everywhere(port), server::listen_on);
    listener.map_err(|source| StartError::Listen { port, source })
}

/// Opens the work and goes on looking after its servers. On a machine that is not the agent's own there is none: it
/// would format disks and end containers there.
async fn open_work(system: Arc<System>, opening: Opening, cell: Arc<WorkCell>, owns_machine: bool) {
    let access = opening.access.clone();
    let opened = if owns_machine {
        spawn_blocking(move || opening.open()).await.unwrap_or_else(|error| Err(error.to_string()))
    } else {
        Err("this machine is not the agent's own".to_owned())
    };
    if let Err(reason) = &opened {
        console::say(format_args!("NO JOBS ARE TAKEN: {reason}"));
        opening::without_volume(&access).unwrap_or_else(console::say);
    }
    tokio::spawn(forget_tokens(access));
    cell.set(opened);
    let Some(work) = cell.get() else { return };
    system.stage("jobs ready");
    let swept = work.clone();
    drop(spawn_blocking(move || swept.sweep().unwrap_or_else(console::say)));
    tokio::spawn(opening::forget_history(work.clone()));
    checking::check_all(&work).await.unwrap_or_else(console::say);
    opening::watch_servers(work).await;
}

/// Deletes tokens soon after their time has passed, for ever.
async fn forget_tokens(access: Arc<Access>) {
    loop {
        tokio::time::sleep(FORGET_TOKENS).await;
        let access = access.clone();
        if let Ok(Err(error)) = spawn_blocking(move || access.forget(now())).await {
            console::say(error);
        }
    }
}

/// Keeps the network, and the certificate in step with it; leaves both alone where no drivers are to be loaded.
async fn keep_network(system: Arc<System>, network: Network, drivers: Option<Drivers>) {
    let Some(drivers) = drivers else { return };
    let is_known = matches!(network, Network::Static { .. });
    let first = Once::new();
    let ready = |address| {
        first.call_once(|| system.stage("network ready"));
        if is_known {
            return;
        }
        match system.identity.cover(&[IpAddr::V4(address)]) {
            Ok(true) => {
                console::say(format_args!(
                    "certificate for {address}, SHA-256 {}",
                    system.identity.fingerprint().to_hex()
                ));
                let identity = system.identity.clone();
                drop(spawn_blocking(move || identity.keep().unwrap_or_else(console::say)));
            }
            Ok(false) => {}
            Err(error) => console::say(error),
        }
    };
    network::keep(system.root.clone(), network, drivers, &system.network, ready).await;
}

/// Keeps the clock by the site's time servers. What moves it is in the audit log: times of records depend on it.
async fn keep_clock(system: Arc<System>, servers: Vec<SocketAddr>, audit: Arc<Audit>) {
    let say = |what: String| {
        console::say(&what);
        let entry = Entry {
            at: now(),
            who: "clock".to_owned(),
            role: "appliance".to_owned(),
            from: "time servers of the site".to_owned(),
            what,
            outcome: "noted".to_owned(),
        };
        let audit = Arc::clone(&audit);
        tokio::spawn(async move { audit.keep(entry).await.unwrap_or_else(console::say) });
    };
    clock::keep(servers, system.report.clock.built, &system.clock, clock::step, say).await;
}

/// Says loudly that the clock is not known to be right, and what that means here.
fn tell_clock(clock: &clock::Board) {
    if clock.is_right() {
        return;
    }
    let then = match clock.state().wrong_clock {
        WrongClock::Continue => "jobs are taken all the same",
        WrongClock::Wait => "jobs wait until it is right",
        WrongClock::RefuseJobs => "no jobs are taken until it is right",
    };
    console::say(format_args!("THE CLOCK OF THIS MACHINE IS NOT KNOWN TO BE RIGHT: {then}"));
}

fn ask_pid_1(request: Request) {
    let what = match request {
        Request::PowerOff => "power off",
        Request::Reboot => "reboot",
    };
    console::say(format_args!("asked through the API to {what}"));
    let signal = Signal::from_named_raw(request.signal_number());
    let sent = signal.ok_or(rustix::io::Errno::INVAL).and_then(|signal| kill_process(Pid::INIT, signal));
    if let Err(error) = sent {
        console::say(format_args!("PID 1 cannot be asked to {what}: {error}"));
    }
}

fn tell_release(report: &BootReport, signers: &[Signer]) {
    let boot_report::Release { name, version, serial, .. } = &report.release;
    let signers: Vec<&str> = signers.iter().map(|signer| signer.name.as_str()).collect();
    let signers = signers.join(", ");
    console::say(format_args!("release {name} {version} (serial {serial}) verified again, signed by {signers}"));
}

fn tell_api(listener: &TcpListener, identity: &Identity) {
    let place = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    console::say(format_args!("API on https://{place}, certificate SHA-256 {}", identity.fingerprint().to_hex()));
}
