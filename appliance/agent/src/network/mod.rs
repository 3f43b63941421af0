//! The network, as the site configuration wants it: loopback always, and one wired interface by DHCP or with a fixed
//! address. With neither, no network driver is loaded and no socket but the listener exists.
//!
//! It comes up beside the API, which listens from the start: an interface or a lease that appears late is used late.

pub mod dhcp;
mod link;

pub use link::{Links, NetlinkError};

use crate::{
    console,
    modules::{Modules, ModulesError},
    root::Root,
};
use gap_handover::site::Network;
use serde::Serialize;
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep},
};

/// How long is waited for an interface to appear before a line on the console says that none did.
const INTERFACE_PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked for an interface.
const INTERFACE_POLL: Duration = Duration::from_millis(100);
/// How often is looked once patience has run out: a cable or card may come hours later.
const INTERFACE_SLOW_POLL: Duration = Duration::from_secs(5);
/// Where name servers are noted for programs of the image, in the form of resolv.conf(5).
const RESOLV_CONF: &str = "/run/gap/resolv.conf";

/// An address with its network, as it was given by the site or a DHCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressing {
    /// The machine's own address.
    pub address: Ipv4Addr,
    /// Prefix length, 0–32.
    pub prefix: u8,
    /// Default route.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
}

/// What the API tells of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NetworkState {
    /// `none`, `dhcp` or `static`.
    pub mode: &'static str,
    /// The interface in use.
    pub interface: Option<String>,
    /// The address in use, with its prefix length, as `192.0.2.7/24`.
    pub address: Option<String>,
    /// The default route.
    pub gateway: Option<Ipv4Addr>,
    /// Kernel modules that were loaded for it.
    pub drivers: Vec<String>,
    /// Why there is no address yet.
    pub problem: Option<String>,
}

/// The network's state, shared with the API.
#[derive(Debug)]
pub struct Board {
    state: Mutex<NetworkState>,
    /// Whether all drivers are loaded that will be.
    has_drivers: watch::Sender<bool>,
}

impl Board {
    /// A network of which nothing is up yet.
    pub fn new(network: &Network) -> Self {
        let mode = match network {
            Network::None => "none",
            Network::Dhcp { .. } => "dhcp",
            Network::Static { .. } => "static",
        };
        let state = Mutex::new(NetworkState { mode, ..NetworkState::default() });
        Self { state, has_drivers: watch::Sender::new(matches!(network, Network::None)) }
    }

    /// A copy of what is known now.
    pub fn state(&self) -> NetworkState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all drivers are loaded that will be.
    pub async fn wait_for_drivers(&self) {
        // The sender is this board's own: it is not gone.
        drop(self.has_drivers.subscribe().wait_for(|has_drivers| *has_drivers).await);
    }

    fn change(&self, change: impl FnOnce(&mut NetworkState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The drivers that the network needs, on their way into the kernel.
#[derive(Debug)]
pub struct Drivers(Option<JoinHandle<Result<Vec<String>, ModulesError>>>);

impl Drivers {
    /// Begins to load them, in a thread of their own: a driver may take its time over its devices. Without a network
    /// none is loaded. None opens a socket or brings an interface up.
    pub fn load(root: &Root, network: &Network, kernel_release: String) -> Self {
        let root = root.clone();
        let load = move || Modules::read(&root, &kernel_release).map(|modules| modules.load_network_drivers(&root));
        Self((!matches!(network, Network::None)).then(|| spawn_blocking(load)))
    }

    /// Waits for them and says on the board what was loaded.
    async fn loaded(self, board: &Board) {
        let Some(loading) = self.0 else { return };
        match loading.await {
            Ok(Ok(drivers)) => board.change(|state| state.drivers = drivers),
            Ok(Err(error)) => complain(board, format!("loading network drivers: {error}")),
            Err(error) => complain(board, format!("loading network drivers: {error}")),
        }
    }
}

/// Brings the network up and keeps it: renews leases until it is dropped. `ready` is called with each new address.
///
/// Nothing here is fatal: what goes wrong is said on the console and shown by the API, and tried again where that can
/// help.
pub async fn keep(root: Root, network: Network, drivers: Drivers, board: &Board, ready: impl Fn(Ipv4Addr)) {
    let links = match Links::open() {
        Ok(links) => links,
        Err(error) => {
            board.has_drivers.send_replace(true);
            return complain(board, format!("talking to the kernel about the network: {error}"));
        }
    };
    if let Err(error) = links.up("lo").await {
        complain(board, format!("bringing up the loopback interface: {error}"));
    }
    let (Network::Dhcp { interface } | Network::Static { interface, .. }) = &network else { return };
    let interface = interface.clone();
    drivers.loaded(board).await;
    board.has_drivers.send_replace(true);
    let interface = wait_for_interface(&links, interface.as_deref(), board).await;
    board.change(|state| state.interface = Some(interface.clone()));
    if let Err(error) = links.up(&interface).await {
        return complain(board, format!("bringing up {interface}: {error}"));
    }
    match network {
        Network::None => {}
        Network::Static { address, prefix, gateway, dns, .. } => {
            let addressing = Addressing { address, prefix, gateway, dns };
            assign(&root, &links, &interface, &addressing, board, &ready).await;
        }
        Network::Dhcp { .. } => dhcp::keep_lease(&root, &links, &interface, board, &ready).await,
    }
}

/// Waits, without end but not silently, until there is an interface.
async fn wait_for_interface(links: &Links, wanted: Option<&str>, board: &Board) -> String {
    let deadline = Instant::now() + INTERFACE_PATIENCE;
    let mut has_complained = false;
    loop {
        match links.find_wired(wanted).await {
            Ok(Some(name)) => return name,
            Ok(None) | Err(_) if Instant::now() < deadline => sleep(INTERFACE_POLL).await,
            answer => {
                if !has_complained {
                    let reason = answer.err().map(|error| format!(": {error}")).unwrap_or_default();
                    let name = wanted.unwrap_or("wired");
                    complain(board, format!("no {name} network interface appeared{reason}; still waiting for one"));
                    has_complained = true;
                }
                sleep(INTERFACE_SLOW_POLL).await;
            }
        }
    }
}

/// Puts an address into use.
async fn assign(
    root: &Root,
    links: &Links,
    interface: &str,
    addressing: &Addressing,
    board: &Board,
    ready: &impl Fn(Ipv4Addr),
) {
    if let Err(error) = links.assign(interface, addressing).await {
        return complain(board, format!("giving {interface} the address {}: {error}", addressing.address));
    }
    if let Err(error) = note_name_servers(root, &addressing.dns) {
        complain(board, format!("noting the name servers in {RESOLV_CONF}: {error}"));
    }
    let Addressing { address, prefix, gateway, .. } = addressing;
    board.change(|state| {
        state.address = Some(format!("{address}/{prefix}"));
        state.gateway = *gateway;
        state.problem = None;
    });
    console::say(format_args!("network: {interface} has {address}/{prefix}"));
    ready(*address);
}

fn note_name_servers(root: &Root, servers: &[IpAddr]) -> io::Result<()> {
    let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    fs::write(root.at(RESOLV_CONF), text)
}

fn complain(board: &Board, problem: String) {
    console::say(format_args!("network: {problem}"));
    board.change(|state| state.problem = Some(problem));
}
