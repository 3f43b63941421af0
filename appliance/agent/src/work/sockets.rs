//! The directory in which a job that serves puts its socket: a small file system in memory of its own. The memory that the
//! agent writes to is the agent's, and no job may fill it.

use super::storage;
use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};
use std::{ffi::CString, io, path::Path};

/// How much fits, and how many files: a socket takes one of these and no room.
const BOUNDS: &str = "size=64k,nr_inodes=64";

/// Makes it, empty, for this user.
///
/// # Errors
/// What the system said.
pub fn make(at: &Path, user: u32) -> io::Result<()> {
    remove(at)?;
    storage::make(at, 0o755)?;
    let options = CString::new(format!("{BOUNDS},mode=0755,uid={user},gid={user}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("sockets", at, "tmpfs", flags, options.as_c_str())?)
}

/// Takes it away. It is no error when it is gone.
///
/// # Errors
/// What the system said.
pub fn remove(at: &Path) -> io::Result<()> {
    loop {
        match unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // No file system is mounted there, or none any more.
            Err(Errno::INVAL | Errno::NOENT) => return storage::remove(at),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, process::Command};

    #[test]
    fn a_job_gets_a_small_place_for_its_socket_and_leaves_nothing_of_it() {
        let inside = "work::sockets::tests::in_a_mount_namespace_of_its_own";
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount"]).arg(program).args(["--exact", inside, "--ignored"]);
        let ran = command.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    }

    #[test]
    #[ignore = "mounts; the test above runs it where that changes nothing"]
    fn in_a_mount_namespace_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("sockets");
        make(&at, 0).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(at.join("http.sock")).unwrap();
        assert_eq!(fs::write(at.join("much"), vec![1; 1 << 20]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        fs::remove_file(at.join("much")).unwrap();
        let many = (0..1000).map(|n| fs::write(at.join(n.to_string()), "")).take_while(Result::is_ok).count();
        assert!((1..64).contains(&many), "{many}");
        // The job is started again, also after an agent that did not put it away.
        make(&at, 0).unwrap();
        assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
        remove(&at).unwrap();
        assert!(!at.exists());
        remove(&at).unwrap();
    }
}
