//! Loop devices: a release that lies as a file on a file system becomes a block device.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

use crate::kernel::{self, LOOP_CONFIG};

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// `lo_flags` in `struct loop_config`: after `fd`, `block_size`, five 64-bit and three 32-bit fields of `loop_info64`.
const FLAGS_AT: usize = 8 + 5 * 8 + 3 * 4;
/// Another process may take the free number between question and use; no other one does so for long.
const ATTEMPTS: usize = 8;

/// A loop device. It goes away when it is dropped and nothing is mapped onto it any more.
#[derive(Debug)]
pub struct LoopDevice {
    /// Its node (`/dev/loop0`).
    pub node: PathBuf,
    /// Keeps the device until something else holds it.
    pub file: File,
}

/// Makes a read-only device of a file, without a second copy in the page cache where the file system can do that.
///
/// # Errors
/// What the kernel answered.
pub fn attach(root: &Path, backing: &File) -> io::Result<LoopDevice> {
    let control = OpenOptions::new().read(true).write(true).open(root.join("dev/loop-control"))?;
    let config = config(backing)?;
    let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
    for _ in 0..ATTEMPTS {
        let node = root.join(format!("dev/loop{}", kernel::free_loop_device(control.as_fd())?));
        let file = File::open(&node)?;
        match kernel::configure_loop_device(file.as_fd(), &config) {
            Ok(()) => return Ok(LoopDevice { node, file }),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn config(backing: &File) -> io::Result<[u8; LOOP_CONFIG]> {
    let mut config = [0; LOOP_CONFIG];
    let mut put = |at: usize, value: u32| -> io::Result<()> {
        let field = config.get_mut(at..at + 4).ok_or(io::ErrorKind::InvalidInput)?;
        field.copy_from_slice(&value.to_ne_bytes());
        Ok(())
    };
    put(0, u32::try_from(backing.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?)?;
    put(FLAGS_AT, LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_the_layout_of_the_kernels_structure() {
        let file = File::open("/dev/null").unwrap();
        let config = config(&file).unwrap();
        assert_eq!(config[0..4], u32::try_from(file.as_raw_fd()).unwrap().to_ne_bytes());
        assert_eq!(config[60..64], 21_u32.to_ne_bytes());
        assert_eq!(config.iter().filter(|byte| **byte != 0).count(), 2);
    }
}
