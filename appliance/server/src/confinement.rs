//! A server that cannot call out. After it listens, the kernel refuses it every system call that could reach another
//! machine or start another program, whatever a library underneath may try.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter_all_threads};
use std::{collections::BTreeMap, env::consts::ARCH};

/// Calls that make or name a connection, run programs, or do either on the side (`io_uring`).
const REFUSED: [i64; 10] = [
    libc::SYS_connect,
    libc::SYS_socket,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_io_uring_setup,
];
/// The same calls by the numbers of the x32 convention.
const X32: i64 = 0x4000_0000;

/// Refuses the calls from now on, in all threads, for good.
///
/// # Errors
/// Where the kernel does not take the filter.
pub fn confine() -> Result<(), seccompiler::Error> {
    let numbers = REFUSED.iter().flat_map(|number| [*number, *number | X32]);
    let rules: BTreeMap<i64, Vec<_>> = numbers.map(|number| (number, Vec::new())).collect();
    let refusal = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, ARCH.try_into()?)?;
    apply_filter_all_threads(&BpfProgram::try_from(filter)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{ErrorKind, Read, Write},
        net::{TcpListener, TcpStream, UdpSocket},
        os::unix::net::UnixStream,
        process::Command,
        thread,
    };

    /// In a process of its own: what is refused stays refused.
    #[test]
    fn a_confined_process_answers_but_calls_nobody() {
        if std::env::var_os("CONFINED").is_none() {
            let mut again = Command::new(std::env::current_exe().unwrap());
            let name = "confinement::tests::a_confined_process_answers_but_calls_nobody";
            let output = again.args([name, "--exact", "--nocapture"]).env("CONFINED", "1").output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let earlier = thread::spawn(move || {
            thread::park();
            TcpStream::connect(address).unwrap_err().kind()
        });
        confine().unwrap();
        earlier.thread().unpark();
        assert_eq!(earlier.join().unwrap(), ErrorKind::PermissionDenied);
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(UdpSocket::bind("127.0.0.1:0").unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(UnixStream::connect("/run/any").unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(Command::new("/bin/true").status().unwrap_err().kind(), ErrorKind::PermissionDenied);
        let (mut accepted, _) = listener.accept().unwrap();
        client.write_all(b"ping").unwrap();
        let mut found = [0; 4];
        accepted.read_exact(&mut found).unwrap();
        assert_eq!(&found, b"ping");
    }
}
