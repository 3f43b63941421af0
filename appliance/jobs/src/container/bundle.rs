//! What a job sees and may use, as an OCI runtime configuration (runtime-spec 1.2).

use libcontainer::oci_spec::{
    OciSpecError,
    runtime::{
        Capabilities, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDeviceBuilder, LinuxDeviceType, LinuxMemoryBuilder,
        LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResourcesBuilder, Mount, MountBuilder,
        PosixRlimitBuilder, PosixRlimitType, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
    },
};
use std::{collections::HashMap, io, path::PathBuf};

/// Name of the configuration in a bundle.
pub(super) const CONFIG: &str = "config.json";
/// Most processes and threads of a job.
const MAX_PROCESSES: i64 = 16_384;
/// Most open files of a process.
const MAX_FILES: u64 = 1 << 20;
/// What no job needs to see of the kernel.
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
    "/sys/kernel/security",
];
/// What no job may write to.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// All that a container is made from.
#[derive(Debug, Clone)]
pub struct Confinement {
    /// Name of the container: that of the job.
    pub id: String,
    /// The image's mount point.
    pub root: PathBuf,
    /// Program and arguments.
    pub command: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// Where the program starts.
    pub directory: PathBuf,
    /// User and group.
    pub user: u32,
    /// Name of the machine as the job sees it.
    pub hostname: String,
    /// What is shown from outside, in order. The places are made where they are missing, which works below `/run`.
    pub binds: Vec<BindMount>,
    /// Device nodes besides the usual.
    pub devices: Vec<DeviceNode>,
    /// Memory in bytes.
    pub memory: u64,
    /// Memory for `/dev/shm`, in bytes; part of `memory` like all that is written to memory.
    pub shared_memory: u64,
}

/// A file or directory from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    /// Where it lies.
    pub from: PathBuf,
    /// Where the job sees it.
    pub to: PathBuf,
    /// Whether the job may write to it.
    pub is_writable: bool,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Where the job sees it.
    pub path: PathBuf,
    /// Major number of the character device.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A value is missing in the configuration.
    #[error("describing the container: {0}")]
    Spec(#[from] OciSpecError),
    /// It cannot be written.
    #[error("writing the container's configuration to {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl Confinement {
    /// The runtime configuration.
    ///
    /// # Errors
    /// [`BundleError::Spec`], which a complete confinement does not give.
    pub fn spec(&self) -> Result<Spec, BundleError> {
        let none = Capabilities::new();
        let capabilities = LinuxCapabilitiesBuilder::default()
            .bounding(none.clone())
            .effective(none.clone())
            .inheritable(none.clone())
            .permitted(none.clone())
            .ambient(none)
            .build()?;
        let rlimit = |kind, limit: u64| PosixRlimitBuilder::default().typ(kind).soft(limit).hard(limit).build();
        let process = ProcessBuilder::default()
            .terminal(false)
            .user(UserBuilder::default().uid(self.user).gid(self.user).umask(0o077_u32).build()?)
            .args(self.command.clone())
            .env(self.env.clone())
            .cwd(self.directory.clone())
            .capabilities(capabilities)
            .rlimits(vec![rlimit(PosixRlimitType::RlimitNofile, MAX_FILES)?, rlimit(PosixRlimitType::RlimitCore, 0)?])
            .no_new_privileges(true)
            .oom_score_adj(500)
            .build()?;
        let spec = SpecBuilder::default()
            .version("1.2.0")
            .root(RootBuilder::default().path(self.root.clone()).readonly(true).build()?)
            .hostname(self.hostname.clone())
            .process(process)
            .mounts(self.mounts()?)
            .linux(
                LinuxBuilder::default()
                    .namespaces(namespaces()?)
                    .resources(self.resources()?)
                    .cgroups_path(super::Cgroup::path_of(&self.id))
                    .devices(self.devices()?)
                    .masked_paths(MASKED.map(str::to_owned).to_vec())
                    .readonly_paths(READ_ONLY.map(str::to_owned).to_vec())
                    .rootfs_propagation("private")
                    .build()?,
            )
            .build()?;
        Ok(spec)
    }

    /// Writes the configuration into `directory`, which exists.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn bundle(&self, directory: &std::path::Path) -> Result<(), BundleError> {
        let spec = self.spec()?;
        let path = directory.join(CONFIG);
        let write = || -> io::Result<()> { std::fs::write(&path, serde_json::to_vec(&spec)?) };
        write().map_err(|source| BundleError::Write { path: path.clone(), source })
    }

    fn mounts(&self) -> Result<Vec<Mount>, OciSpecError> {
        let shared = format!("size={}", self.shared_memory);
        let half = format!("size={}", self.memory / 2);
        let mut mounts = vec![
            kernel("proc", "/proc", &["nosuid", "noexec", "nodev"])?,
            kernel("tmpfs", "/dev", &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"])?,
            kernel("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"])?,
            kernel("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"])?,
            kernel("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", &shared])?,
            kernel("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"])?,
            kernel("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"])?,
            kernel("tmpfs", "/tmp", &["nosuid", "nodev", "mode=1777", &half])?,
            kernel("tmpfs", "/run", &["nosuid", "nodev", "mode=0755", "size=16m"])?,
        ];
        for bind in &self.binds {
            let access = if bind.is_writable { "rw" } else { "ro" };
            let options = ["rbind", "nosuid", "nodev", access].map(str::to_owned).to_vec();
            let mount = MountBuilder::default()
                .typ("bind")
                .source(bind.from.clone())
                .destination(bind.to.clone())
                .options(options);
            mounts.push(mount.build()?);
        }
        Ok(mounts)
    }

    fn resources(&self) -> Result<libcontainer::oci_spec::runtime::LinuxResources, OciSpecError> {
        let memory = i64::try_from(self.memory).unwrap_or(i64::MAX);
        // With equal limits for memory alone and for memory and swap there is no swap.
        let memory = LinuxMemoryBuilder::default().limit(memory).swap(memory).build()?;
        let pids = LinuxPidsBuilder::default().limit(MAX_PROCESSES).build()?;
        // One process out of memory ends the job as a whole: half of one is of no use.
        let unified = HashMap::from([("memory.oom.group".to_owned(), "1".to_owned())]);
        LinuxResourcesBuilder::default().memory(memory).pids(pids).unified(unified).build()
    }

    fn devices(&self) -> Result<Vec<libcontainer::oci_spec::runtime::LinuxDevice>, OciSpecError> {
        let device = |node: &DeviceNode| {
            LinuxDeviceBuilder::default()
                .path(node.path.clone())
                .typ(LinuxDeviceType::C)
                .major(node.major)
                .minor(node.minor)
                .file_mode(0o666_u32)
                .uid(0_u32)
                .gid(0_u32)
                .build()
        };
        self.devices.iter().map(device).collect()
    }
}

/// The network namespace is the keeper's: there a loopback is brought up before.
fn namespaces() -> Result<Vec<libcontainer::oci_spec::runtime::LinuxNamespace>, OciSpecError> {
    let kinds = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Cgroup,
    ];
    kinds.into_iter().map(|kind| LinuxNamespaceBuilder::default().typ(kind).build()).collect()
}

fn kernel(kind: &str, at: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    MountBuilder::default().typ(kind).source(kind).destination(at).options(options).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confinement() -> Confinement {
        Confinement {
            id: "job-1".into(),
            root: "/run/gap/images/train".into(),
            command: vec!["/usr/bin/true".into()],
            env: vec!["PATH=/usr/bin".into()],
            directory: "/".into(),
            user: 100_001,
            hostname: "job".into(),
            binds: vec![BindMount { from: "/a".into(), to: "/run/job/model".into(), is_writable: false }],
            devices: Vec::new(),
            memory: 1 << 30,
            shared_memory: 1 << 28,
        }
    }

    #[test]
    fn a_job_has_no_capability_and_gets_no_privilege() {
        let spec = serde_json::to_value(confinement().spec().unwrap()).unwrap();
        let process = &spec["process"];
        assert_eq!((&process["noNewPrivileges"], &process["user"]["uid"]), (&true.into(), &100_001.into()));
        for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
            assert_eq!(process["capabilities"][set], serde_json::json!([]), "{set}");
        }
        assert_eq!(spec["root"]["readonly"], true);
    }

    #[test]
    fn a_job_has_namespaces_of_its_own_and_takes_the_network_of_its_keeper() {
        let spec = serde_json::to_value(confinement().spec().unwrap()).unwrap();
        let kinds: Vec<&str> =
            spec["linux"]["namespaces"].as_array().unwrap().iter().map(|kind| kind["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["pid", "ipc", "uts", "mount", "cgroup"]);
    }

    #[test]
    fn what_is_shown_is_read_only_unless_said_otherwise() {
        let spec = serde_json::to_value(confinement().spec().unwrap()).unwrap();
        let mounts = spec["mounts"].as_array().unwrap();
        let bind = mounts.iter().find(|mount| mount["destination"] == "/run/job/model").unwrap();
        assert_eq!(bind["options"], serde_json::json!(["rbind", "nosuid", "nodev", "ro"]));
        let shared = mounts.iter().find(|mount| mount["destination"] == "/dev/shm").unwrap();
        assert!(shared["options"].as_array().unwrap().contains(&"size=268435456".into()));
    }

    #[test]
    fn memory_and_processes_are_bounded() {
        let spec = serde_json::to_value(confinement().spec().unwrap()).unwrap();
        let resources = &spec["linux"]["resources"];
        assert_eq!(resources["memory"]["limit"], 1 << 30);
        assert_eq!(resources["memory"]["swap"], 1 << 30);
        assert_eq!(resources["pids"]["limit"], MAX_PROCESSES);
    }
}
