//! Ports on a job's own loopback: opened by its keeper, who is in the job's network namespace, and handed to the agent,
//! who is not. A listening socket belongs to the namespace that it was made in, whoever holds it.

use rustix::{
    fd::AsFd,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{Ipv4Addr, TcpListener},
    num::NonZeroU16,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

/// Most ports of a job.
pub const MAX_PORTS: usize = 32;
/// Name of the socket in a job's run directory over which they are handed.
const SOCKET: &str = "ports.sock";

/// Where the agent waits for the ports of the job whose bundle lies in `directory`.
pub fn socket(directory: &Path) -> PathBuf {
    directory.join(SOCKET)
}

/// Opens ports on the loopback of this process's network namespace and hands them over. Does nothing without ports.
///
/// # Errors
/// What the system said.
pub(super) fn hand_over(directory: &Path, ports: &[NonZeroU16]) -> io::Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let open = |port: &NonZeroU16| TcpListener::bind((Ipv4Addr::LOCALHOST, port.get()));
    let listeners: Vec<TcpListener> = ports.iter().map(open).collect::<Result<_, _>>()?;
    let descriptors: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PORTS))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !rights.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a job has at most 32 ports"));
    }
    let stream = UnixStream::connect(socket(directory))?;
    // Rights travel with at least one byte.
    sendmsg(stream, &[IoSlice::new(&[1])], &mut rights, SendFlags::empty())?;
    Ok(())
}

/// Takes the ports that a keeper hands over, in the order in which it was told of them.
///
/// # Errors
/// What the system said; unexpected end when the keeper ended before.
pub fn take(stream: &UnixStream) -> io::Result<Vec<TcpListener>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PORTS))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut listeners = Vec::new();
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            listeners.extend(descriptors.map(TcpListener::from));
        }
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpStream,
        os::unix::net::UnixListener,
        thread,
    };

    #[test]
    fn ports_that_a_keeper_opened_are_accepted_on_by_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        let waiting = UnixListener::bind(socket(directory.path())).unwrap();
        let free = || NonZeroU16::new(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()).unwrap();
        let ports = [free(), free()];
        let path = directory.path().to_owned();
        let keeper = thread::spawn(move || hand_over(&path, &ports));
        let (stream, _) = waiting.accept().unwrap();
        let listeners = take(&stream).unwrap();
        keeper.join().unwrap().unwrap();
        let found: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        assert_eq!(found, ports.map(NonZeroU16::get));
        let mut client = TcpStream::connect(("127.0.0.1", ports[1].get())).unwrap();
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        listeners[1].accept().unwrap().0.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn a_keeper_that_ends_before_is_noticed_and_without_ports_nobody_waits() {
        let directory = tempfile::tempdir().unwrap();
        hand_over(directory.path(), &[]).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(take(&ours).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
