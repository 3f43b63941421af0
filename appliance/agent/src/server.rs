//! The HTTPS listener: TLS, HTTP/1.1, and the limits that keep one client from harming the others.

use crate::api::Peer;
use axum::Router;
use hyper::{body::Incoming, server::conn::http1, service::Service, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// Port when the site configuration names none.
pub const DEFAULT_PORT: u16 = 8443;
/// Connections that wait in the kernel until they are taken.
const BACKLOG: i32 = 256;
/// Longest head of a request that is read, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Most header fields of a request.
const MAX_FIELDS: usize = 64;
/// Pause after the system could not take a connection, for want of memory or descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How much and how long is waited for clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections that are served at once; others wait in the kernel.
    pub connections: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for the head of a request, and longest idle time between two.
    pub head: Duration,
    /// Time for the body of a request.
    pub body: Duration,
    /// Age from which a connection takes no further request.
    pub connection: Duration,
    /// Longest time that the request on it then may still take: an upload, an answer of a model.
    pub request: Duration,
    /// Time that running requests get at shutdown.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            connection: Duration::from_secs(300),
            request: Duration::from_secs(3600),
            shutdown: Duration::from_secs(3),
        }
    }
}

/// Listens on all addresses of the machine, of IPv6 and IPv4, or of IPv4 alone where the kernel has no IPv6.
///
/// # Errors
/// What the system said, for instance that the port is taken.
pub fn listen_everywhere(port: u16) -> io::Result<TcpListener> {
    let both = || {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_only_v6(false)?;
        bind(socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
    };
    both().or_else(|_| listen_on(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))
}

/// Listens on one address.
///
/// # Errors
/// What the system said.
pub fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    bind(Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?, address)
}

fn bind(socket: Socket, address: SocketAddr) -> io::Result<TcpListener> {
    // An agent that is started again must not wait for connections of the last one to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves until `stop` becomes true or its sender is gone; running requests are then finished within a bounded time.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    limits: Limits,
    stop: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let mut stopping = stop.clone();
    loop {
        // The permit comes before the connection, so that what is too much waits in the kernel and costs nothing here.
        let next = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = Connection { acceptor: acceptor.clone(), router: router.clone(), limits };
                let stop = stop.clone();
                connections.spawn(async move {
                    connection.run(stream, peer, stop).await;
                    drop(permit);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    drop(timeout(limits.shutdown, finished).await);
}

struct Connection {
    acceptor: TlsAcceptor,
    router: Router,
    limits: Limits,
}

impl Connection {
    /// Serves one connection to its end. Errors are the client's and end with it.
    async fn run(self, stream: TcpStream, peer: SocketAddr, mut stop: watch::Receiver<bool>) {
        drop(stream.set_nodelay(true));
        let Ok(Ok(stream)) = timeout(self.limits.handshake, self.acceptor.accept(stream)).await else { return };
        let service = TowerToHyperService::new(self.router);
        let peer = Peer(peer.ip().to_canonical());
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer);
            service.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_header_size(MAX_HEAD)
            .max_headers(MAX_FIELDS)
            .serve_connection(TokioIo::new(stream), service)
            // A terminal takes the connection over; how long it lasts is its job's affair.
            .with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = stop.wait_for(|stop| *stop) => {}
            () = sleep(self.limits.connection) => {}
        }
        if !*stop.borrow() {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = stop.wait_for(|stop| *stop) => {}
                () = sleep(self.limits.request) => {}
            }
        }
        connection.as_mut().graceful_shutdown();
        drop(timeout(self.limits.shutdown, connection).await);
    }
}
