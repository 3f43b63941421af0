//! This terminal, connected with one on the appliance.

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::read,
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr},
};
use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    select,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// What the connection becomes.
pub const PROTOCOL: &str = "gap-terminal";
/// Kinds of messages: what is typed, and the size of the window.
const TYPED: u8 = 0;
const RESIZED: u8 = 1;
/// Largest piece, in bytes.
const PIECE: usize = 4096;
/// How often the thread that reads what is typed looks whether it is still wanted, in milliseconds.
const LOOK: i64 = 200;

/// This terminal without echo, lines and signals of its own; it is as it was when this is dropped. Where standard input is no
/// terminal, nothing is changed.
pub struct Raw(Option<Termios>);

impl Raw {
    /// Hands every key on as it is pressed.
    ///
    /// # Errors
    /// What the system said.
    pub fn enter() -> io::Result<Self> {
        let input = io::stdin();
        if !isatty(&input) {
            return Ok(Self(None));
        }
        let before = tcgetattr(&input)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // There is nobody to tell.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Connects this terminal until the other side ends.
///
/// # Errors
/// What broke.
pub async fn relay(connection: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(connection);
    let mut resized = signal(SignalKind::window_change())?;
    let is_wanted = Arc::new(AtomicBool::new(true));
    let mut typed = Some(typed(Arc::clone(&is_wanted))?);
    send_size(&mut to).await?;
    let mut piece = [0; PIECE];
    let ended = loop {
        select! {
            read = from.read(&mut piece) => match read {
                Ok(0) => break Ok(()),
                Ok(length) => show(piece.get(..length).unwrap_or_default())?,
                Err(error) => break Err(error),
            },
            _ = resized.recv() => send_size(&mut to).await?,
            bytes = async { match &mut typed { Some(typed) => typed.recv().await, None => std::future::pending().await } } => {
                match bytes {
                    Some(bytes) => send(&mut to, TYPED, &bytes).await?,
                    // Nothing more comes from here; what runs there may have more to show.
                    None => {
                        send(&mut to, TYPED, &[0x04]).await?;
                        typed = None;
                    }
                }
            }
        }
    };
    is_wanted.store(false, Ordering::Relaxed);
    ended
}

fn show(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

async fn send_size(to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let Ok(size) = tcgetwinsize(io::stdout()) else { return Ok(()) };
    let [rows, columns] = [size.ws_row, size.ws_col].map(u16::to_be_bytes);
    send(to, RESIZED, &[rows, columns].concat()).await
}

async fn send(to: &mut (impl AsyncWrite + Unpin), kind: u8, piece: &[u8]) -> io::Result<()> {
    let length = u16::try_from(piece.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    to.write_all(&[&[kind][..], &length.to_be_bytes(), piece].concat()).await?;
    to.flush().await
}

/// What is typed, from a thread of its own: reading a terminal waits, and nothing ends that but a key.
fn typed(is_wanted: Arc<AtomicBool>) -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(16);
    let pause = rustix::time::Timespec { tv_sec: 0, tv_nsec: LOOK * 1_000_000 };
    thread::Builder::new().name("keys".into()).spawn(move || {
        let input = io::stdin();
        let mut piece = [0; PIECE];
        while is_wanted.load(Ordering::Relaxed) {
            match poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&pause)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(_) => return,
            }
            match read(&input, &mut piece) {
                Ok(length) if length > 0 => {
                    if sender.blocking_send(piece.get(..length).unwrap_or_default().to_vec()).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_have_a_kind_and_a_length() {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        send(&mut ours, TYPED, b"ls\n").await.unwrap();
        drop(ours);
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"\x00\x00\x03ls\n");
    }
}
