//! The Container Device Interface specification of this machine's GPUs (CDI 0.6.0, kind `nvidia.com/gpu`).
//!
//! A job names devices as `nvidia.com/gpu=0`, `nvidia.com/gpu=GPU-…`, `nvidia.com/gpu=0:1` (the second slice of the
//! first GPU) or `nvidia.com/gpu=all`; the runtime finds here which nodes and which of the driver's files these are.

use crate::{
    driver::DriverGpu,
    mig::Capability,
    nodes::{Node, nvidia},
    nvml::Slice,
};
use gap_root::Root;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::Path,
};

/// Version of the format.
const VERSION: &str = "0.6.0";
/// Kind of the devices.
pub const KIND: &str = "nvidia.com/gpu";
/// Where runtimes look for specifications that are made at each boot.
pub const PLACE: &str = "/run/cdi/nvidia.com-gpu.json";
/// Directories of the OS image that hold the driver's libraries.
const LIBRARIES: [&str; 3] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu/nvidia/current", "/usr/lib64"];
/// The driver's libraries that programs in a container load; graphics are left out.
const LIBRARY_NAMES: [&str; 11] = [
    "libcuda.so",
    "libcudadebugger.so",
    "libnvidia-cfg.so",
    "libnvidia-gpucomp.so",
    "libnvidia-ml.so",
    "libnvidia-nvvm.so",
    "libnvidia-opencl.so",
    "libnvidia-pkcs11-openssl3.so",
    "libnvidia-pkcs11.so",
    "libnvidia-ptxjitcompiler.so",
    "libnvidia-sandboxutils.so",
];
/// Programs, sockets and firmware that are brought along where they are there.
const FILES: [&str; 5] = [
    "/run/nvidia-fabricmanager/socket",
    "/run/nvidia-persistenced/socket",
    "/usr/bin/nvidia-cuda-mps-control",
    "/usr/bin/nvidia-cuda-mps-server",
    "/usr/bin/nvidia-smi",
];
/// Most entries of a directory that are looked through.
const MAX_ENTRIES: usize = 65536;

/// A specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    cdi_version: &'static str,
    kind: &'static str,
    devices: Vec<Device>,
    container_edits: Edits,
}

/// A device that a container may name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    name: String,
    container_edits: Edits,
}

/// What a device changes in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Edits {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    device_nodes: Vec<DeviceNode>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<Mount>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceNode {
    path: String,
    #[serde(rename = "type")]
    kind: &'static str,
    major: u32,
    minor: u32,
    file_mode: u32,
    permissions: &'static str,
    uid: u32,
    gid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: String,
    container_path: String,
    options: [&'static str; 4],
}

/// What one GPU brings: itself, its slices.
#[derive(Debug)]
pub struct Part<'a> {
    /// The GPU.
    pub gpu: &'a DriverGpu,
    /// Its slices; where there are some, the GPU as a whole computes nothing.
    pub slices: &'a [Slice],
}

impl Spec {
    /// Describes these GPUs, in the order of their indexes, with the nodes that were made and the driver's files in the
    /// OS image.
    pub fn describe(root: &Root, parts: &[Part<'_>], nodes: &[Node], capabilities: &[Capability]) -> Self {
        let nodes: BTreeMap<&str, &Node> = nodes.iter().map(|node| (node.path.as_str(), node)).collect();
        let mut devices = Vec::new();
        let mut all = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let own = node(&nodes, &nvidia(part.gpu.minor));
            let names = [Some(index.to_string()), part.gpu.uuid.clone()];
            all.extend(own.clone());
            if part.slices.is_empty() {
                devices.extend(named(names.into_iter().flatten(), own.into_iter().collect()));
                continue;
            }
            for (number, slice) in part.slices.iter().enumerate() {
                let rights = rights(part.gpu.minor, slice, capabilities);
                let rights: Vec<DeviceNode> = rights.iter().filter_map(|path| node(&nodes, path)).collect();
                all.extend(rights.clone());
                let names = [format!("{index}:{number}"), slice.uuid.clone()];
                devices.extend(named(names, own.iter().cloned().chain(rights).collect()));
            }
        }
        if !all.is_empty() {
            devices.extend(named(["all".to_owned()], all));
        }
        let common = ["/dev/nvidiactl", "/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"];
        let container_edits = Edits {
            // The older way of naming devices must not add others.
            env: vec!["NVIDIA_VISIBLE_DEVICES=void".to_owned()],
            device_nodes: common.iter().filter_map(|path| node(&nodes, path)).collect(),
            mounts: mounts(root),
        };
        Self { cdi_version: VERSION, kind: KIND, devices, container_edits }
    }

    /// The names of all devices.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.devices.iter().map(|device| device.name.as_str())
    }

    /// Writes it where runtimes look: as a whole or not at all.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, root: &Root) -> io::Result<()> {
        let place = root.at(PLACE);
        let directory = place.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let mut draft = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer_pretty(&mut draft, self)?;
        draft.write_all(b"\n")?;
        draft.as_file().sync_all()?;
        draft.persist(place)?;
        Ok(())
    }
}

fn named(names: impl IntoIterator<Item = String>, nodes: Vec<DeviceNode>) -> Vec<Device> {
    let edits = Edits { device_nodes: nodes, ..Edits::default() };
    names.into_iter().map(|name| Device { name, container_edits: edits.clone() }).collect()
}

fn node(nodes: &BTreeMap<&str, &Node>, path: &str) -> Option<DeviceNode> {
    let node = nodes.get(path)?;
    Some(DeviceNode {
        path: path.to_owned(),
        kind: "c",
        major: node.major,
        minor: node.minor,
        file_mode: node.mode,
        permissions: "rw",
        uid: node.uid,
        gid: node.gid,
    })
}

/// How many nodes open a slice.
pub(crate) const RIGHTS: usize = 2;

/// The nodes that open a slice of the GPU with this minor number: the right to its GPU instance and that to its compute
/// instance. Fewer than [`RIGHTS`] where the driver does not have them.
pub(crate) fn rights(gpu: u32, slice: &Slice, capabilities: &[Capability]) -> Vec<String> {
    let (instance, compute) = slice.instance;
    let names = [format!("gpu{gpu}/gi{instance}/access"), format!("gpu{gpu}/gi{instance}/ci{compute}/access")];
    capabilities.iter().filter(|capability| names.contains(&capability.name)).map(Capability::path).collect()
}

/// The driver's files, each at its own place in the container, read-only.
fn mounts(root: &Root) -> Vec<Mount> {
    let is_driver = |name: &str| {
        LIBRARY_NAMES.iter().any(|library| name.strip_prefix(library).is_some_and(|rest| rest.starts_with('.')))
    };
    let libraries = LIBRARIES.iter().flat_map(|directory| {
        let names = root.names(directory, MAX_ENTRIES);
        names.into_iter().filter(|name| is_driver(name)).map(move |name| format!("{directory}/{name}"))
    });
    let files = FILES.iter().map(|path| (*path).to_owned()).filter(|path| root.at(path).exists());
    let mut paths: Vec<String> = libraries.chain(files).collect();
    paths.sort_unstable();
    let mount = |path: String| Mount {
        host_path: path.clone(),
        container_path: path,
        options: ["ro", "nosuid", "nodev", "bind"],
    };
    paths.into_iter().map(mount).collect()
}
