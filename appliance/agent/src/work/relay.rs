//! Endpoints of the site for a job: what it connects to on its own loopback is relayed to the address that the site
//! configuration names, and nowhere else.
//!
//! The job itself stays without a network. Its keeper opens the ports in the job's network namespace and hands them over;
//! the agent accepts on them, connects, and passes bytes on both ways. It looks into none of them.

use super::site::SiteRules;
use crate::{access::audit::Entry, console};
use gap_handover::site::EndpointName;
use gap_jobs::{container::ports, dispatcher::now};
use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddrV4,
    num::NonZeroU16,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream, UnixListener,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Handle,
    sync::Semaphore,
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::timeout,
    try_join,
};

/// Most connections of a job to one endpoint at a time; a further one is closed at once.
const MAX_CONNECTIONS: usize = 64;
/// How long an endpoint may take to answer a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are passed on at once, at most.
const MAX_PIECE: usize = 16 << 10;
/// How long a keeper may take to hand over its ports.
const HANDOVER: Duration = Duration::from_secs(60);

/// An endpoint as a job has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    name: EndpointName,
    /// On the job's loopback.
    port: NonZeroU16,
    to: SocketAddrV4,
}

/// What went over one way.
#[derive(Debug, Default)]
struct Count {
    connections: AtomicU64,
    refused: AtomicU64,
    /// From the job.
    sent: AtomicU64,
    /// To the job.
    received: AtomicU64,
}

/// The relays of one run of a job.
pub struct Relay {
    job: String,
    site: Arc<SiteRules>,
    ways: Vec<(Way, Arc<Count>)>,
    relaying: Option<JoinHandle<()>>,
}

impl Relay {
    /// Waits for the ports of the job whose bundle lies in `directory`, and relays from then on. What is opened for the
    /// job is in the audit log before.
    ///
    /// # Errors
    /// A sentence that says why the job cannot have an endpoint.
    pub fn open(
        handle: &Handle,
        job: &str,
        directory: &Path,
        endpoints: &BTreeMap<EndpointName, NonZeroU16>,
        site: &Arc<SiteRules>,
    ) -> Result<Self, String> {
        let way = |(name, port): (&EndpointName, &NonZeroU16)| {
            let to = site.endpoints.get(name).ok_or_else(|| {
                format!(
                    "it is to reach the endpoint `{name}`, which the site configuration of this machine does not name"
                )
            })?;
            Ok((Way { name: name.clone(), port: *port, to: **to }, Arc::default()))
        };
        let ways = endpoints.iter().map(way).collect::<Result<Vec<_>, String>>()?;
        let mut relay = Self { job: job.to_owned(), site: Arc::clone(site), ways, relaying: None };
        if relay.ways.is_empty() {
            return Ok(relay);
        }
        let opened = |(way, _): &(Way, _)| relay.record(way, "opened".to_owned());
        if let Some((failed, error)) =
            relay.ways.iter().map(opened).zip(0..).find_map(|(told, n)| Some((n, told.err()?)))
        {
            // Those of before are told to be open.
            relay.ways.truncate(failed);
            relay.close();
            return Err(error);
        }
        let _inside = handle.enter();
        let socket = ports::socket(directory);
        drop(std::fs::remove_file(&socket));
        let waiting = match UnixListener::bind(socket) {
            Ok(waiting) => waiting,
            Err(error) => {
                relay.close();
                return Err(format!("waiting for its ports: {error}"));
            }
        };
        let (ways, name, all) = (relay.ways.clone(), relay.job.clone(), Arc::clone(&site.connections));
        relay.relaying = Some(handle.spawn(async move {
            if let Err(error) = run(waiting, ways, &all).await {
                console::say(format_args!("the endpoints of {name} cannot be reached: {error}"));
            }
        }));
        Ok(relay)
    }

    /// The ports that the keeper has to open.
    pub fn ports(&self) -> Vec<NonZeroU16> {
        self.ways.iter().map(|(way, _)| way.port).collect()
    }

    /// Variables by which the job finds its endpoints.
    pub fn variables(endpoints: &BTreeMap<EndpointName, NonZeroU16>) -> BTreeMap<String, String> {
        let variable = |(name, port): (&EndpointName, &NonZeroU16)| {
            let name = name.as_str().to_ascii_uppercase().replace('-', "_");
            (format!("GAP_ENDPOINT_{name}"), format!("127.0.0.1:{port}"))
        };
        endpoints.iter().map(variable).collect()
    }

    /// Closes all connections. How much went over them is in the audit log.
    pub fn close(self) {
        if let Some(relaying) = &self.relaying {
            relaying.abort();
        }
        for (way, count) in &self.ways {
            self.record(way, format!("closed: {count}")).unwrap_or_else(console::say);
        }
    }

    fn record(&self, way: &Way, outcome: String) -> Result<(), String> {
        let entry = Entry {
            at: now(),
            who: self.job.clone(),
            role: "job".to_owned(),
            from: format!("127.0.0.1:{} of the job", way.port),
            what: format!("endpoint {} at {}", way.name, way.to),
            outcome,
        };
        self.site.audit.record(entry).map_err(|error| error.to_string())
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [connections, refused, sent, received] =
            [&self.connections, &self.refused, &self.sent, &self.received].map(|count| count.load(Ordering::Relaxed));
        write!(f, "{connections} connections, {refused} refused, {sent} bytes sent, {received} received")
    }
}

/// Takes the ports and relays from all of them, without end.
async fn run(waiting: UnixListener, ways: Vec<(Way, Arc<Count>)>, all: &Arc<Semaphore>) -> io::Result<()> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let (stream, _) = timeout(HANDOVER, waiting.accept()).await.map_err(late)??;
    drop(waiting);
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(HANDOVER))?;
    let listeners = spawn_blocking(move || ports::take(&stream)).await.map_err(io::Error::from)??;
    let mut relays = JoinSet::new();
    for (listener, (way, count)) in listeners.into_iter().zip(ways) {
        listener.set_nonblocking(true)?;
        relays.spawn(relay(TcpListener::from_std(listener)?, way.to, count, Arc::clone(all)));
    }
    drop(relays.join_all().await);
    Ok(())
}

/// Relays what connects to `listener`, as long as there is one of `all` for it. Dropping it closes all connections.
async fn relay(listener: TcpListener, to: SocketAddrV4, count: Arc<Count>, all: Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let permit =
            Arc::clone(&permits).try_acquire_owned().and_then(|own| Ok((own, Arc::clone(&all).try_acquire_owned()?)));
        match (accepted, permit) {
            (Ok((inside, _)), Ok(permit)) => {
                let count = Arc::clone(&count);
                connections.spawn(async move {
                    if pass(inside, to, &count).await.is_err() {
                        count.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    drop(permit);
                });
            }
            (Ok(_), Err(_)) => drop(count.refused.fetch_add(1, Ordering::Relaxed)),
            // No memory or descriptors for a moment.
            (Err(_), _) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// One connection, from its beginning to its end.
async fn pass(inside: TcpStream, to: SocketAddrV4, count: &Count) -> io::Result<()> {
    let outside = timeout(PATIENCE, TcpStream::connect(to)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    // A machine may get an address by DHCP that the site gave to an endpoint: its own API is none.
    if outside.local_addr()?.ip() == outside.peer_addr()?.ip() && !to.ip().is_loopback() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    count.connections.fetch_add(1, Ordering::Relaxed);
    let (from_job, to_job) = inside.into_split();
    let (from_endpoint, to_endpoint) = outside.into_split();
    let ways = (copy(from_job, to_endpoint, &count.sent), copy(from_endpoint, to_job, &count.received));
    // How it ends is the two ends' own affair.
    drop(try_join!(ways.0, ways.1));
    Ok(())
}

/// One direction of a connection. Every piece is counted when it goes, because the end of a job may break off any of them.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, count: &AtomicU64) -> io::Result<()> {
    let mut piece = vec![0; MAX_PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        count.fetch_add(length as u64, Ordering::Relaxed);
        to.write_all(piece.get(..length).unwrap_or_default()).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An endpoint that says everything back, and a relay to it.
    async fn echo() -> (std::net::SocketAddr, Arc<Count>, JoinHandle<()>) {
        echo_within(Arc::new(Semaphore::new(1000))).await
    }

    async fn echo_within(all: Arc<Semaphore>) -> (std::net::SocketAddr, Arc<Count>, JoinHandle<()>) {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let std::net::SocketAddr::V4(to) = echo.local_addr().unwrap() else { panic!("IPv4") };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    drop(tokio::io::copy(&mut read, &mut write).await);
                });
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, count) = (listener.local_addr().unwrap(), Arc::<Count>::default());
        let relaying = tokio::spawn(relay(listener, to, Arc::clone(&count), all));
        (address, count, relaying)
    }

    #[tokio::test]
    async fn what_is_told_to_be_open_is_told_to_be_closed_when_the_job_does_not_get_it() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Arc::new(crate::access::audit::Audit::start().unwrap());
        audit.attach(&directory.path().join("audit.log")).unwrap();
        let clock = crate::clock::Board::new(
            &gap_handover::site::Time::default(),
            gap_handover::boot_report::Clock { built: 0, was_behind: false },
        );
        let endpoints = ["one", "two"].map(|name| (name.parse().unwrap(), "192.0.2.1:5000".parse().unwrap())).into();
        let site = Arc::new(SiteRules::new(Arc::new(clock), endpoints, Arc::clone(&audit)));
        let port = NonZeroU16::new(5000).unwrap();
        let wanted = ["one", "two"].map(|name| (name.parse().unwrap(), port)).into();
        let nowhere = directory.path().join("nowhere");
        let opened = Relay::open(&Handle::current(), "job-1", &nowhere, &wanted, &site);
        assert!(opened.is_err_and(|error| error.contains("waiting for its ports")));
        let told = audit.read(0, 9).unwrap().into_iter().map(|record| record.entry.outcome);
        let told: Vec<String> = told.map(|outcome| outcome.chars().take(6).collect()).collect();
        assert_eq!(told, ["opened", "opened", "closed", "closed"]);
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_are_counted() {
        let (address, count, _relaying) = echo().await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "hello");
        while count.received.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(count.to_string(), "1 connections, 0 refused, 5 bytes sent, 5 received");
    }

    #[tokio::test]
    async fn what_was_sent_over_a_connection_that_is_broken_off_is_counted() {
        let (address, count, relaying) = echo().await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.read_exact(&mut [0; 5]).await.unwrap();
        relaying.abort();
        assert_eq!(count.to_string(), "1 connections, 0 refused, 5 bytes sent, 5 received");
    }

    #[tokio::test]
    async fn connections_are_bounded_and_end_with_the_relay() {
        let (address, count, relaying) = echo().await;
        let mut clients = Vec::new();
        for _ in 0..=MAX_CONNECTIONS {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let mut last = clients.pop().unwrap();
        assert_eq!(last.read(&mut [0]).await.unwrap_or(0), 0, "one too many is closed");
        assert_eq!(count.refused.load(Ordering::Relaxed), 1);
        relaying.abort();
        for mut client in clients {
            assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
        }
    }

    #[tokio::test]
    async fn connections_of_all_jobs_together_are_bounded() {
        let all = Arc::new(Semaphore::new(2));
        let ((one, _, _one), (other, count, _other)) = (echo_within(all.clone()).await, echo_within(all).await);
        let first = TcpStream::connect(one).await.unwrap();
        let mut second = TcpStream::connect(other).await.unwrap();
        for stream in [&first, &second] {
            stream.writable().await.unwrap();
            assert_eq!(stream.try_write(b"x").unwrap(), 1);
        }
        second.read_exact(&mut [0]).await.unwrap();
        first.readable().await.unwrap();
        let mut third = TcpStream::connect(other).await.unwrap();
        let closed = timeout(PATIENCE, third.read(&mut [0])).await.expect("one too many is closed");
        assert_eq!((closed.unwrap_or(0), count.refused.load(Ordering::Relaxed)), (0, 1));
        drop(first);
        // Its place is free as soon as the relay has seen that.
        let free = async {
            loop {
                let mut next = TcpStream::connect(other).await.unwrap();
                next.write_all(b"x").await.unwrap();
                if next.read(&mut [0]).await.unwrap_or(0) == 1 {
                    break;
                }
            }
        };
        timeout(PATIENCE, free).await.unwrap();
    }

    #[tokio::test]
    async fn an_endpoint_that_is_not_there_closes_the_connection() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let std::net::SocketAddr::V4(to) = gone.local_addr().unwrap() else { panic!("IPv4") };
        drop(gone);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, count) = (listener.local_addr().unwrap(), Arc::<Count>::default());
        tokio::spawn(relay(listener, to, Arc::clone(&count), Arc::new(Semaphore::new(1))));
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
        while count.refused.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
