//! A DHCP client (RFC 2131) on an ordinary UDP socket that is bound to one interface.
//!
//! Answers are asked for as broadcasts, so that no raw socket is needed before there is an address. What a server says
//! is bounded and checked before it is used: the agent takes from it an address, a prefix, a router and name servers,
//! and nothing else (no host name, no time, no file to boot).

mod message;

use super::{Addressing, Board, Links, assign, complain, has_gone, loses, wait_for_interface};
use crate::root::Root;
use message::{Lease, Reply, Terms};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};
use tokio::{
    net::UdpSocket,
    time::{Instant, sleep, timeout_at},
};

/// First wait for an answer; doubled after each try (RFC 2131, 4.1).
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Longest wait for an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(32);
/// Tries after which the console says that nobody answers.
const TRIES_UNTIL_COMPLAINT: u32 = 3;
/// Shortest time between two requests of a server that hands out absurdly short leases.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(10);

/// Gets an address and keeps it, renewing the lease, without end. The interface may go and come back meanwhile.
pub async fn keep_lease(root: &Root, links: &Links, wanted: Option<&str>, board: &Board, ready: &impl Fn(Ipv4Addr)) {
    let mut wait = FIRST_WAIT;
    loop {
        let interface = wait_for_interface(links, wanted, board).await;
        match hold_one_lease(root, links, &interface, board, ready).await {
            Err(DhcpError::Lost) => has_gone(board, &interface),
            Err(error) => complain(board, format!("DHCP on {interface}: {error}")),
            Ok(ended) => match ended {},
        }
        // What was held ended; what was never had is asked for less and less often.
        wait = if board.forget_address() { FIRST_WAIT } else { (wait * 2).min(LONGEST_WAIT) };
        sleep(wait).await;
    }
}

/// From discovery to the end of one lease.
async fn hold_one_lease(
    root: &Root,
    links: &Links,
    interface: &str,
    board: &Board,
    ready: &impl Fn(Ipv4Addr),
) -> Result<Infallible, DhcpError> {
    links.up(interface).await.map_err(|error| DhcpError::Up(error.to_string()))?;
    let hardware_address =
        links.hardware_address(interface).await.map_err(|error| DhcpError::Link(error.to_string()))?;
    let mut client = Client { socket: open(interface)?, hardware_address };
    let offer =
        client.discover(|| complain(board, format!("no DHCP server answers on {interface}; still asking"))).await?;
    let mut lease = client.request(&offer).await?;
    let mut in_use: Option<Addressing> = None;
    loop {
        let began = Instant::now();
        if in_use.as_ref() != Some(&lease.addressing) {
            let assigned = assign(root, links, interface, &lease.addressing, board, ready).await;
            assigned.map_err(|error| DhcpError::Assign(lease.addressing.address, error.to_string()))?;
            in_use = Some(lease.addressing.clone());
        }
        let renewal = async {
            sleep(lease.terms.renew.max(SHORTEST_RENEWAL)).await;
            client.renew(&lease, began).await
        };
        let renewed = tokio::select! {
            renewed = renewal => renewed,
            () = loses(links, interface, lease.addressing.address) => Err(DhcpError::Lost),
        };
        match renewed {
            Ok(renewed) => lease = renewed,
            Err(error) => {
                drop(links.clear(interface).await);
                return Err(error);
            }
        }
    }
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    /// The socket fails.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// The interface cannot be brought up.
    #[error("bringing it up: {0}")]
    Up(String),
    /// The interface has no hardware address.
    #[error("{0}")]
    Link(String),
    /// The address that the server gave cannot be used.
    #[error("giving it the address {0}: {1}")]
    Assign(Ipv4Addr, String),
    /// The interface is gone, or has lost its address.
    #[error("the interface is gone")]
    Lost,
    /// A message cannot be written.
    #[error("writing a message: {0}")]
    Encode(String),
    /// The server took its offer back.
    #[error("the server refuses the address that it offered")]
    Refused,
    /// Nobody answered.
    #[error("the server does not answer any more")]
    Silent,
}

/// A UDP socket on port 68 that hears and speaks on this interface alone.
fn open(interface: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_broadcast(true)?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, message::CLIENT_PORT).into())?;
    UdpSocket::from_std(socket.into())
}

struct Client {
    socket: UdpSocket,
    hardware_address: Vec<u8>,
}

impl Client {
    /// Asks until a server offers something that can be used.
    async fn discover(&mut self, complain: impl Fn()) -> Result<Lease, DhcpError> {
        let mut wait = FIRST_WAIT;
        for tries in 1_u32.. {
            let id = transaction_id()?;
            let discover = message::discover(id, &self.hardware_address).map_err(DhcpError::Encode)?;
            self.send(&discover, Ipv4Addr::BROADCAST).await?;
            if let Some(Reply::Offer(offer)) =
                self.hear(id, Instant::now() + wait, |reply| matches!(reply, Reply::Offer(_))).await?
            {
                return Ok(offer);
            }
            if tries == TRIES_UNTIL_COMPLAINT {
                complain();
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        Err(DhcpError::Silent)
    }

    /// Takes an offer.
    async fn request(&mut self, offer: &Lease) -> Result<Lease, DhcpError> {
        let mut wait = FIRST_WAIT;
        for _ in 0..4 {
            let id = transaction_id()?;
            let request = message::request(id, &self.hardware_address, offer).map_err(DhcpError::Encode)?;
            self.send(&request, Ipv4Addr::BROADCAST).await?;
            match self.hear(id, Instant::now() + wait, |reply| !matches!(reply, Reply::Offer(_))).await? {
                Some(Reply::Acknowledged(lease)) => return Ok(lease),
                Some(_) => return Err(DhcpError::Refused),
                None => wait *= 2,
            }
        }
        Err(DhcpError::Silent)
    }

    /// Asks the lease's server for more time, and after a while any server, until the lease ends.
    async fn renew(&mut self, lease: &Lease, began: Instant) -> Result<Lease, DhcpError> {
        let Terms { rebind, end, .. } = lease.terms;
        loop {
            let elapsed = began.elapsed();
            if elapsed >= end {
                return Err(DhcpError::Silent);
            }
            let to = if elapsed < rebind { lease.server } else { Ipv4Addr::BROADCAST };
            let id = transaction_id()?;
            let renew = message::renew(id, &self.hardware_address, lease).map_err(DhcpError::Encode)?;
            // A server that cannot be reached is as good as one that is silent.
            let sent = self.send(&renew, to).await;
            let wait = ((end - elapsed) / 8).max(SHORTEST_RENEWAL);
            let until = Instant::now() + wait;
            if sent.is_err() {
                sleep(wait).await;
                continue;
            }
            match self.hear(id, until, |reply| !matches!(reply, Reply::Offer(_))).await? {
                Some(Reply::Acknowledged(lease)) => return Ok(lease),
                Some(_) => return Err(DhcpError::Refused),
                None => {}
            }
        }
    }

    async fn send(&self, message: &[u8], to: Ipv4Addr) -> io::Result<()> {
        self.socket.send_to(message, SocketAddrV4::new(to, message::SERVER_PORT)).await.map(drop)
    }

    /// The first answer to this transaction that is wanted, or `None` when the time is over.
    async fn hear(
        &self,
        id: u32,
        until: Instant,
        is_wanted: impl Fn(&Reply) -> bool,
    ) -> Result<Option<Reply>, DhcpError> {
        let mut buffer = [0; message::MAX_LEN];
        loop {
            let Ok(received) = timeout_at(until, self.socket.recv_from(&mut buffer)).await else { return Ok(None) };
            let (length, from) = received?;
            let bytes = buffer.get(..length).unwrap_or_default();
            let reply = message::read(bytes, id, &self.hardware_address);
            if let Some(reply) = reply.filter(|reply| from.port() == message::SERVER_PORT && is_wanted(reply)) {
                return Ok(Some(reply));
            }
        }
    }
}

/// A number that an answer has to repeat.
fn transaction_id() -> io::Result<u32> {
    let mut bytes = [0; 4];
    let random = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    random.map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(u32::from_ne_bytes(bytes))
}
