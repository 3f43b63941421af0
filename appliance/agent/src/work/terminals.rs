//! Terminals of debug jobs, from the start of a job to the end of the connection of whoever works in it.

use gap_jobs::{JobId, container::terminal};
use rustix::io::Errno;
use std::{
    collections::BTreeMap,
    fmt, io,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::unix::pipe::{Receiver, Sender},
    select,
    time::sleep,
};

/// Largest piece of what is typed, in bytes.
const MAX_PIECE: usize = 4096;
/// Bytes of a message before what it carries: its kind and its length.
const HEAD: usize = 3;
/// From so many bytes on that the program has not read the client is not listened to.
const MAX_WAITING: usize = 1 << 20;
/// How long it may take a program to read some of them before the connection is ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// Kinds of messages from the client: what is typed, and the size of its window.
const TYPED: u8 = 0;
const RESIZED: u8 = 1;

/// Terminals that nobody works in yet.
#[derive(Default)]
pub struct Terminals(Mutex<BTreeMap<JobId, OwnedFd>>);

/// What went over a terminal.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that were typed.
    pub typed: u64,
    /// Bytes that were shown.
    pub shown: u64,
}

impl Terminals {
    /// A job was started and has this terminal.
    pub fn offer(&self, job: &JobId, terminal: OwnedFd) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(job.clone(), terminal);
    }

    /// Takes the terminal of a job; once.
    pub fn take(&self, job: &JobId) -> Option<OwnedFd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(job)
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes typed, {} shown", self.typed, self.shown)
    }
}

/// Connects a client with a terminal until either of them ends; gives what went over it, and how that ended.
///
/// What the terminal shows goes to the client as it is. From the client come messages: one byte for the kind, two for the
/// length (big-endian), and so many bytes: what is typed (0), or rows and columns of its window, two bytes each (1). Anything
/// else ends the connection.
pub async fn connect(client: impl AsyncRead + AsyncWrite + Unpin, terminal: OwnedFd) -> (Traffic, io::Result<()>) {
    let mut traffic = Traffic::default();
    let ended = work(client, terminal, &mut traffic).await;
    (traffic, ended)
}

async fn work(client: impl AsyncRead + AsyncWrite + Unpin, terminal: OwnedFd, traffic: &mut Traffic) -> io::Result<()> {
    // A terminal is none, but is read, written and waited for as one.
    let keys = Sender::from_owned_fd_unchecked(terminal.try_clone()?)?;
    let mut screen = Receiver::from_owned_fd_unchecked(terminal)?;
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let Traffic { typed, shown } = traffic;
    let ended = select! {
        ended = take_in(&mut from_client, &keys, typed) => ended,
        ended = show(&mut screen, &mut to_client, shown) => ended,
    };
    // The client may be gone already.
    drop(to_client.shutdown().await);
    ended
}

async fn show(screen: &mut Receiver, client: &mut (impl AsyncWrite + Unpin), shown: &mut u64) -> io::Result<()> {
    let mut piece = [0; MAX_PIECE];
    loop {
        let length = match screen.read(&mut piece).await {
            Ok(length) => length,
            // The kernel's word for a terminal whose other end is closed.
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => 0,
            Err(error) => return Err(error),
        };
        if length == 0 {
            return Ok(());
        }
        client.write_all(piece.get(..length).unwrap_or_default()).await?;
        client.flush().await?;
        *shown = shown.saturating_add(length as u64);
    }
}

/// Takes in messages and passes on what is typed. The client is listened to as long as there is room for what the program has
/// not read yet, so that one that goes away is noticed.
async fn take_in(client: &mut (impl AsyncRead + Unpin), keys: &Sender, typed: &mut u64) -> io::Result<()> {
    let (mut received, mut waiting) = (Vec::new(), Vec::new());
    let mut piece = [0; MAX_PIECE];
    let ended = loop {
        if let Err(error) = understand(&mut received, &mut waiting, keys) {
            break Err(error);
        }
        let is_full = waiting.len() >= MAX_WAITING;
        select! {
            biased;
            ready = keys.writable(), if !waiting.is_empty() => {
                if let Err(error) = ready.and_then(|()| write(&mut waiting, typed, |bytes| keys.try_write(bytes))) {
                    break Err(error);
                }
            }
            read = client.read(&mut piece), if !is_full => match read {
                Ok(0) if received.len() < HEAD => break Ok(()),
                Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => received.extend_from_slice(piece.get(..length).unwrap_or_default()),
                Err(error) => break Err(error),
            },
            () = sleep(PATIENCE), if is_full => break Err(io::ErrorKind::TimedOut.into()),
        }
    };
    // What the program can take at once it gets, whatever follows.
    ended.and(write(&mut waiting, typed, |bytes| Ok(rustix::io::write(keys, bytes)?)))
}

/// Carries out the messages that have come whole; what is typed is put with what waits for the program.
fn understand(received: &mut Vec<u8>, waiting: &mut Vec<u8>, keys: &Sender) -> io::Result<()> {
    while let Some(&[kind, high, low]) = received.first_chunk::<HEAD>() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_PIECE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let end = HEAD.saturating_add(length);
        let Some(piece) = received.get(HEAD..end) else { return Ok(()) };
        match (kind, piece) {
            (TYPED, piece) => waiting.extend_from_slice(piece),
            (RESIZED, &[a, b, c, d]) => {
                terminal::resize(keys, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        received.drain(..end);
    }
    Ok(())
}

/// Gives the program as much as it can take now.
fn write(waiting: &mut Vec<u8>, typed: &mut u64, keys: impl Fn(&[u8]) -> io::Result<usize>) -> io::Result<()> {
    while !waiting.is_empty() {
        match keys(waiting) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => {
                waiting.drain(..length);
                *typed = typed.saturating_add(length as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn message(kind: u8, piece: &[u8]) -> Vec<u8> {
        let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
        [&[kind], &length[..], piece].concat()
    }

    fn shell(script: &str) -> (OwnedFd, Child) {
        let (ours, theirs) = terminal::open().unwrap();
        let stdio = || Stdio::from(theirs.try_clone().unwrap());
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(stdio()).stdout(stdio()).stderr(stdio());
        (ours, command.spawn().unwrap())
    }

    async fn talk(script: &str, messages: &[u8]) -> ((Traffic, io::Result<()>), String) {
        let (ours, mut child) = shell(script);
        let (mut person, client) = tokio::io::duplex(1 << 16);
        let connecting = tokio::spawn(connect(client, ours));
        person.write_all(messages).await.unwrap();
        let mut shown = Vec::new();
        drop(person.read_to_end(&mut shown).await);
        drop(child.wait());
        (connecting.await.unwrap(), String::from_utf8_lossy(&shown).into_owned())
    }

    #[tokio::test]
    async fn what_is_typed_arrives_and_what_is_shown_comes_back_until_the_program_ends() {
        let size = [0, 40, 0, 132];
        let messages = [message(RESIZED, &size), message(TYPED, b"hello\n")].concat();
        let ((traffic, ended), shown) = talk("read line; stty size; echo got $line", &messages).await;
        assert!(shown.contains("40 132") && shown.contains("got hello"), "{shown}");
        ended.unwrap();
        assert_eq!((traffic.typed, traffic.shown), (6, shown.len() as u64));
    }

    #[tokio::test]
    async fn messages_that_are_none_end_the_connection() {
        for wrong in [message(7, b"x"), message(RESIZED, b"x"), vec![TYPED, 0xff, 0xff]] {
            let ((traffic, ended), _) = talk("sleep 0.2", &[message(TYPED, b"secret"), wrong.clone()].concat()).await;
            assert!(ended.is_err(), "{wrong:?}");
            assert_eq!(traffic.typed, 6, "what was typed before is counted");
        }
    }

    #[tokio::test]
    async fn a_client_that_goes_away_is_noticed_while_the_program_reads_nothing() {
        let (ours, mut child) = shell("stty raw -echo; echo ready; exec sleep 600");
        let (mut person, client) = tokio::io::duplex(1 << 16);
        let connecting = tokio::spawn(connect(client, ours));
        person.read_exact(&mut [0; 5]).await.unwrap();
        // More than the kernel keeps for the program.
        for _ in 0..48 {
            person.write_all(&message(TYPED, &[b'x'; MAX_PIECE])).await.unwrap();
        }
        drop(person);
        let (traffic, ended) = tokio::time::timeout(PATIENCE * 5, connecting).await.expect("it is noticed").unwrap();
        ended.unwrap();
        assert!(traffic.typed < 48 * MAX_PIECE as u64, "{traffic}");
        child.kill().unwrap();
        drop(child.wait());
    }

    #[test]
    fn a_terminal_is_taken_once() {
        let (terminals, job) = (Terminals::default(), JobId::new(JobId::OTHER));
        assert!(terminals.take(&job).is_none());
        terminals.offer(&job, terminal::open().unwrap().0);
        assert!(terminals.take(&job).is_some() && terminals.take(&job).is_none());
    }
}
