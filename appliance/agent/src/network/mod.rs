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
use futures::FutureExt;
use gap_handover::site::Network;
use serde::Serialize;
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    panic::AssertUnwindSafe,
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
/// How often is looked whether the interface still has its address.
const WATCH: Duration = Duration::from_secs(3);
/// Pause after a mistake of the agent's own, before the network is begun anew.
const AFTER_MISTAKE: Duration = Duration::from_secs(5);
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
    /// What is wrong: why there is no address, mostly.
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

    /// There is no address any more; says whether there was one.
    fn forget_address(&self) -> bool {
        let mut had = false;
        self.change(|state| {
            had = state.address.take().is_some();
            state.gateway = None;
        });
        had
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

/// Brings the network up and keeps it: sets interfaces up that come back, and renews leases, until it is dropped. `ready`
/// is called with each new address.
///
/// Nothing here is fatal: what goes wrong is said on the console and shown by the API, and tried again where that can
/// help.
pub async fn keep(root: Root, network: Network, drivers: Drivers, board: &Board, ready: impl Fn(Ipv4Addr)) {
    let load = async {
        drivers.loaded(board).await;
        board.has_drivers.send_replace(true);
    };
    tokio::join!(load, again_after_mistakes(board, AFTER_MISTAKE, || hold(&root, &network, board, &ready)));
}

/// Does something; where a mistake in it, a panic, ends it, that is told and it begins anew after a pause. A machine
/// without network for good would be one that nobody can ask what went wrong.
async fn again_after_mistakes<F: Future<Output = ()>>(board: &Board, pause: Duration, act: impl Fn() -> F) {
    while AssertUnwindSafe(act()).catch_unwind().await.is_err() {
        let seconds = pause.as_secs();
        complain(board, format!("A MISTAKE IN THE AGENT ended its upkeep; it begins anew in {seconds} s"));
        sleep(pause).await;
    }
}

/// Holds the network up, without end where there is to be more of it than loopback.
async fn hold(root: &Root, network: &Network, board: &Board, ready: &impl Fn(Ipv4Addr)) {
    let links = loop {
        match Links::open() {
            Ok(links) => break links,
            Err(error) => complain(board, format!("talking to the kernel about the network: {error}")),
        }
        sleep(INTERFACE_SLOW_POLL).await;
    };
    if let Err(error) = links.up("lo").await {
        complain(board, format!("bringing up the loopback interface: {error}"));
    }
    board.wait_for_drivers().await;
    match network {
        Network::None => {}
        Network::Static { interface, address, prefix, gateway, dns } => {
            let addressing = Addressing { address: *address, prefix: *prefix, gateway: *gateway, dns: dns.clone() };
            keep_fixed(root, &links, interface.as_deref(), &addressing, board, ready).await;
        }
        Network::Dhcp { interface } => dhcp::keep_lease(root, &links, interface.as_deref(), board, ready).await,
    }
}

/// Keeps a fixed address on the interface, which may go and come back.
async fn keep_fixed(
    root: &Root,
    links: &Links,
    wanted: Option<&str>,
    addressing: &Addressing,
    board: &Board,
    ready: &impl Fn(Ipv4Addr),
) {
    let address = addressing.address;
    loop {
        let interface = wait_for_interface(links, wanted, board).await;
        let set = match links.up(&interface).await {
            Ok(()) => assign(root, links, &interface, addressing, board, ready).await,
            Err(error) => Err(error),
        };
        match set {
            Ok(()) => {
                loses(links, &interface, address).await;
                board.forget_address();
                has_gone(board, &interface);
            }
            Err(error) => {
                complain(board, format!("giving {interface} the address {address}: {error}"));
                sleep(INTERFACE_SLOW_POLL).await;
            }
        }
    }
}

/// Returns when the interface is gone, down, or has lost this address.
async fn loses(links: &Links, interface: &str, address: Ipv4Addr) {
    loop {
        sleep(WATCH).await;
        if !links.has(interface, address).await.unwrap_or(false) {
            return;
        }
    }
}

fn has_gone(board: &Board, interface: &str) {
    complain(board, format!("{interface} is gone or was set back; it is set up again as soon as it is there"));
}

/// Waits, without end but not silently, until there is an interface.
async fn wait_for_interface(links: &Links, wanted: Option<&str>, board: &Board) -> String {
    let deadline = Instant::now() + INTERFACE_PATIENCE;
    let mut has_complained = false;
    loop {
        match links.find_wired(wanted).await {
            Ok(Some(name)) => {
                board.change(|state| state.interface = Some(name.clone()));
                return name;
            }
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

/// Puts an address into use. A route or name servers that cannot be had are complained of; the address is in use then all
/// the same.
///
/// # Errors
/// What the kernel said when the interface does not get the address.
async fn assign(
    root: &Root,
    links: &Links,
    interface: &str,
    addressing: &Addressing,
    board: &Board,
    ready: &impl Fn(Ipv4Addr),
) -> Result<(), NetlinkError> {
    links.assign(interface, addressing).await?;
    let Addressing { address, prefix, gateway, dns } = addressing;
    board.change(|state| {
        state.address = Some(format!("{address}/{prefix}"));
        state.gateway = None;
        state.problem = None;
    });
    console::say(format_args!("network: {interface} has {address}/{prefix}"));
    if let Some(gateway) = gateway {
        match links.route(interface, *gateway).await {
            Ok(()) => board.change(|state| state.gateway = Some(*gateway)),
            Err(error) => complain(board, format!("the route through {gateway} on {interface}: {error}")),
        }
    }
    if let Err(error) = note_name_servers(root, dns) {
        complain(board, format!("noting the name servers in {RESOLV_CONF}: {error}"));
    }
    ready(*address);
    Ok(())
}

fn note_name_servers(root: &Root, servers: &[IpAddr]) -> io::Result<()> {
    let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    fs::write(root.at(RESOLV_CONF), text)
}

fn complain(board: &Board, problem: String) {
    console::say(format_args!("network: {problem}"));
    board.change(|state| state.problem = Some(problem));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_mistake_is_told_and_the_upkeep_begins_anew() {
        let board = Board::new(&Network::None);
        let turns = AtomicUsize::new(0);
        again_after_mistakes(&board, Duration::from_millis(1), || async {
            assert!(turns.fetch_add(1, Ordering::SeqCst) > 1, "the first two turns are mistaken");
        })
        .await;
        assert_eq!(turns.load(Ordering::SeqCst), 3);
        assert!(board.state().problem.is_some_and(|problem| problem.contains("MISTAKE")));
    }
}
