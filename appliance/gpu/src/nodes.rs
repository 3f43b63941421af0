//! Device nodes, and the links in `/dev/char` that container runtimes resolve device numbers by.
//!
//! Without those links a runtime that reloads its device rules takes a container's GPU away, and NVML says "Unknown
//! Error" in it.

use crate::{
    devices::Majors,
    driver::{self, DriverGpu, Ownership},
    mig::Capability,
};
use gap_root::Root;
use rustix::fs::{CWD, FileType, Mode, chmod, chown, makedev, mknodat};
use serde::Serialize;
use std::{fs, io, path::PathBuf};

/// `nvidiactl` and `nvidia-modeset` have fixed minor numbers.
const CONTROL_MINOR: u32 = 255;
const MODESET_MINOR: u32 = 254;

/// A character device that must be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// `/dev/nvidia0`.
    pub path: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// Why a node is not there.
#[derive(Debug, thiserror::Error)]
#[error("making {path}: {source}")]
pub struct NodeError {
    /// What could not be made.
    path: String,
    /// The system's answer.
    source: io::Error,
}

/// The nodes that the driver's GPUs, switches and MIG capabilities ask for, in the order of their paths.
pub fn plan(majors: &Majors, gpus: &[DriverGpu], switches: usize, caps: &[Capability], owner: Ownership) -> Vec<Node> {
    let node =
        |path: String, major, minor| Node { path, major, minor, uid: owner.uid, gid: owner.gid, mode: owner.mode };
    let gpu = majors.gpu();
    let mut nodes: Vec<Node> = gpus.iter().map(|gpu_of| node(nvidia(gpu_of.minor), gpu, gpu_of.minor)).collect();
    if !gpus.is_empty() || switches > 0 {
        nodes.push(node("/dev/nvidiactl".into(), gpu, CONTROL_MINOR));
        nodes.push(node("/dev/nvidia-modeset".into(), gpu, MODESET_MINOR));
    }
    if let Some(uvm) = majors.of("nvidia-uvm") {
        nodes.push(node("/dev/nvidia-uvm".into(), uvm, 0));
        nodes.push(node("/dev/nvidia-uvm-tools".into(), uvm, 1));
    }
    if let Some(link) = majors.of("nvidia-nvlink") {
        nodes.push(node("/dev/nvidia-nvlink".into(), link, 0));
    }
    if let (Some(switch), 1..) = (majors.of("nvidia-nvswitch"), switches) {
        nodes.push(node("/dev/nvidia-nvswitchctl".into(), switch, CONTROL_MINOR));
        let count = u32::try_from(switches).unwrap_or(CONTROL_MINOR).min(CONTROL_MINOR);
        nodes.extend((0..count).map(|minor| node(format!("/dev/nvidia-nvswitch{minor}"), switch, minor)));
    }
    if let Some(major) = majors.of("nvidia-caps") {
        let read_only = |cap: &Capability| Node { mode: 0o444, ..node(cap.path(), major, cap.minor) };
        nodes.extend(caps.iter().map(read_only));
    }
    nodes.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    nodes
}

/// `/dev/nvidiaN`.
pub fn nvidia(minor: u32) -> String {
    format!("/dev/nvidia{minor}")
}

/// What the driver wants now.
pub fn wanted(root: &Root, switches: usize, caps: &[Capability]) -> Vec<Node> {
    plan(&Majors::read(root), &driver::gpus(root), switches, caps, driver::ownership(root))
}

/// Makes nodes and links that are missing or wrong; leaves right ones alone.
///
/// # Errors
/// [`NodeError`] names the first that could not be made.
pub fn make(root: &Root, nodes: &[Node]) -> Result<(), NodeError> {
    for node in nodes {
        let failed = |path: &str, source| NodeError { path: path.to_owned(), source };
        let place = root.at(&node.path);
        make_node(&place, node).map_err(|source| failed(&node.path, source))?;
        let link = format!("/dev/char/{}:{}", node.major, node.minor);
        let target = PathBuf::from("..").join(node.path.strip_prefix("/dev/").unwrap_or(&node.path));
        make_link(&root.at(&link), &target).map_err(|source| failed(&link, source))?;
    }
    Ok(())
}

fn make_node(place: &PathBuf, node: &Node) -> io::Result<()> {
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    let device = makedev(node.major, node.minor);
    let is_right = rustix::fs::lstat(place)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == device);
    if !is_right {
        remove(place)?;
        mknodat(CWD, place, FileType::CharacterDevice, Mode::from_raw_mode(node.mode), device)?;
    }
    // The umask had its say in mknod(2), and a node may be left from an earlier start.
    chown(place, Some(rustix::process::Uid::from_raw(node.uid)), Some(rustix::process::Gid::from_raw(node.gid)))?;
    Ok(chmod(place, Mode::from_raw_mode(node.mode))?)
}

fn make_link(place: &PathBuf, target: &PathBuf) -> io::Result<()> {
    if fs::read_link(place).is_ok_and(|there| &there == target) {
        return Ok(());
    }
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    remove(place)?;
    std::os::unix::fs::symlink(target, place)
}

fn remove(place: &PathBuf) -> io::Result<()> {
    match fs::remove_file(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
