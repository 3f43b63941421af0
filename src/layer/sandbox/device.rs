//! Handing an open device over a socket (`unix(7)`, `SCM_RIGHTS`).

use rustix::{
    cmsg_space,
    io::{Errno, Result},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
};
use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

/// The byte that it travels with.
const CARRIER: u8 = b'D';

/// Sends a device; the receiver gets a descriptor of its own.
///
/// # Errors
/// What the system said.
pub(super) fn send(socket: impl AsFd, device: impl AsFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let devices = [device.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&devices)) {
        return Err(Errno::NOBUFS);
    }
    sendmsg(socket, &[IoSlice::new(&[CARRIER])], &mut control, SendFlags::empty()).map(drop)
}

/// Waits for a device; `None` if the other side ends without sending one.
///
/// # Errors
/// What the system said.
pub(super) fn receive(socket: impl AsFd) -> Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut received = control.drain();
    Ok(received.find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut devices) => devices.next(),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Read, os::unix::net::UnixStream};

    #[test]
    fn a_descriptor_crosses_a_socket_and_its_absence_is_seen() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send(&theirs, File::open("/proc/self/cmdline").unwrap()).unwrap();
        drop(theirs);
        let mut text = String::new();
        File::from(receive(&ours).unwrap().unwrap()).read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
        assert!(receive(&ours).unwrap().is_none());
    }
}
