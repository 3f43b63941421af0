//! The listener: a Unix socket or the loopback interface, HTTP/1.1, and the limits that keep one client from harming others.

use crate::options::Listen;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Connections that are served at once; others wait in the kernel.
const CONNECTIONS: usize = 1024;
/// Longest head of a request, in bytes, and most fields of it.
const MAX_HEAD: (usize, usize) = (16 << 10, 64);
/// Time for the head of a request, and longest idle time between two.
const HEAD: Duration = Duration::from_secs(75);
/// Pause after the system could not take a connection, for want of memory or descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Time that running requests get at shutdown. The appliance waits half a minute longer before it ends the server by force.
const SHUTDOWN: Duration = Duration::from_secs(120);

/// Something that gives connections.
#[derive(Debug)]
pub enum Listener {
    /// A socket in the file system.
    Unix(UnixListener),
    /// The loopback interface.
    Tcp(TcpListener),
}

impl Listener {
    /// Begins to listen. A socket in the file system can be used by its owner and its group.
    ///
    /// # Errors
    /// What the system said, for instance that the address is taken.
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Loopback(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Listen::Unix(path) => {
                remove_stale(path)?;
                let listener = UnixListener::bind(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
                Ok(Self::Unix(listener))
            }
        }
    }

    /// Where it listens, for people.
    pub fn address(&self) -> String {
        match self {
            Self::Unix(listener) => {
                match listener.local_addr().ok().and_then(|address| Some(address.as_pathname()?.display().to_string()))
                {
                    Some(path) => format!("unix:{path}"),
                    None => "unix:".to_owned(),
                }
            }
            Self::Tcp(listener) => listener.local_addr().map(|address| format!("http://{address}")).unwrap_or_default(),
        }
    }
}

/// A socket that an earlier server left behind would be in the way.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there"));
            }
            fs::remove_file(path)
        }
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else than a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Serves until `stop` becomes true or its sender is gone; running requests are then finished within a bounded time.
pub async fn serve(listener: Listener, router: Router, stop: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut stopping = stop.clone();
    loop {
        // The permit comes before the connection, so that what is too much waits in the kernel and costs nothing here.
        let next = async {
            let permit = permits.clone().acquire_owned().await;
            let stream = match &listener {
                Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
                Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            };
            (permit, stream)
        };
        let (permit, accepted) = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            next = next => next,
        };
        let Ok(stream) = accepted else {
            sleep(PAUSE).await;
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            match stream {
                Stream::Unix(stream) => connection(stream, router, stop).await,
                Stream::Tcp(stream) => {
                    drop(stream.set_nodelay(true));
                    connection(stream, router, stop).await;
                }
            }
            drop(permit);
        });
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    drop(timeout(SHUTDOWN, finished).await);
}

enum Stream {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

/// Serves one connection to its end. Errors are the client's and end with it.
async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_header_size(MAX_HEAD.0)
        .max_headers(MAX_HEAD.1)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(timeout(SHUTDOWN, connection).await);
}
