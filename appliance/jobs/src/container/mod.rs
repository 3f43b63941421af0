//! The container around a job: what it sees, what it may use, and the process that keeps it.
//!
//! The agent writes a bundle ([`Confinement::bundle`]: an OCI runtime configuration) and starts itself once more as that
//! job's keeper ([`keeper::run`]), a process with one thread, which libcontainer needs to clone from. The keeper takes
//! a network namespace with nothing but a loopback in it, has libcontainer build the container and waits for its end. One
//! that has its namespace already waits for the next job ([`Spare`]).
//! Inside, the first process ([`init`]) puts on the system call filter, starts the program, passes signals on and takes
//! in orphans.
//!
//! | what | how |
//! |---|---|
//! | network | own namespace, loopback only; where the site grants endpoints, the agent listens on ports of it |
//! | processes, mounts, host name, IPC, cgroups | own namespaces |
//! | identity | a user of its own, no capabilities, no new privileges |
//! | root | the image's verified mount, read-only; devices on it have no meaning |
//! | writable | its output and cache on the data volume, and `/tmp`, `/run`, `/dev/shm` in its own memory |
//! | memory, swap, processes | bounds of cgroup v2 |
//! | processors | the usual weight of cgroup v2, by which jobs share them |
//! | terminal | for a debug job one pseudoterminal of the agent's; no other is reached by it |
//! | system calls | an allow list |

mod bundle;
pub mod cgroup;
mod init;
pub mod keeper;
pub mod ports;
mod seccomp;
mod spawn;
pub mod terminal;

pub use bundle::{BindMount, BundleError, Confinement, DeviceNode};
pub use cgroup::Cgroup;
pub use spawn::{Container, Spare, Spawned};

/// The word on the command line by which the agent starts itself as a keeper; a job's name, its directory and the ports
/// that the keeper has to open follow it, or nothing where it waits for them.
pub const KEEPER: &str = "keep-container";
