//! The one call that no safe library offers: `ioctl` on `/dev/mapper/control`.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Length of `struct dm_ioctl` (linux/dm-ioctl.h).
pub const DM_HEADER: usize = 312;

/// `_IOWR(0xfd, 0, struct dm_ioctl)`, to which the command's number is added.
const DM_IOCTL: u32 = 0xc138_fd00;

/// Issues a device-mapper command on `/dev/mapper/control`. `buffer` is a `struct dm_ioctl` and what follows it; the
/// answer replaces it.
///
/// # Errors
/// What the kernel answered; [`io::ErrorKind::InvalidInput`] when the buffer is shorter than the structure.
pub fn device_mapper(control: BorrowedFd<'_>, command: u8, buffer: &mut [u8]) -> io::Result<()> {
    let length = u32::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    if buffer.len() < DM_HEADER {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // `data_size`: the kernel reads and writes no further than this.
    buffer.get_mut(12..16).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(&length.to_ne_bytes());
    // SAFETY: the pointer is valid for reads and writes of `buffer.len()` bytes, which is at least the structure and
    // exactly the `data_size` in it; the kernel copies and keeps no pointer.
    let result = unsafe {
        libc::ioctl(control.as_raw_fd(), libc::Ioctl::from(DM_IOCTL | u32::from(command)), buffer.as_mut_ptr())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, os::fd::AsFd};

    #[test]
    fn a_buffer_shorter_than_the_structure_never_reaches_the_kernel() {
        let file = File::open("/dev/null").unwrap();
        let error = device_mapper(file.as_fd(), 0, &mut [0; DM_HEADER - 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(device_mapper(file.as_fd(), 0, &mut [0; DM_HEADER]).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
