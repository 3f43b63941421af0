//! GPUs in containers: what a device brings by the machine's specification (Container Device Interface 0.6.0), which
//! `gap-gpu` writes.
//!
//! The root of a container is read-only, so the driver's files cannot be put where they lie outside. They are shown in a
//! directory of their own, which the dynamic linker is told of. Hooks are not run: nothing here needs one.

use super::order::inside;
use gap_gpu::cdi::PLACE;
use gap_jobs::container::{BindMount, DeviceNode};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Longest specification that is read, in bytes.
const MAX_SPEC: u64 = 4 << 20;
/// The variable by which the dynamic linker finds the driver's libraries.
pub(super) const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// What the devices of a job bring.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Device nodes.
    pub nodes: Vec<DeviceNode>,
    /// Files of the driver.
    pub binds: Vec<BindMount>,
    /// Variables.
    pub env: BTreeMap<String, String>,
}

/// Why a job does not get its devices.
#[derive(Debug, thiserror::Error)]
pub enum DevicesError {
    /// The specification cannot be read.
    #[error("reading {PLACE}: {0}")]
    Read(#[from] io::Error),
    /// It is not of its form.
    #[error("{PLACE} is not understood: {0}")]
    Form(#[from] serde_json::Error),
    /// It does not know a device.
    #[error("this machine has no device `{0}` any more")]
    Unknown(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
}

#[derive(Clone, Deserialize)]
struct Node {
    path: PathBuf,
    major: i64,
    minor: i64,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: PathBuf,
    container_path: PathBuf,
}

/// What these devices bring; `root` stands for `/`. Nothing for a job without any.
///
/// # Errors
/// [`DevicesError`].
pub fn of(root: &Path, names: &[String]) -> Result<Brought, DevicesError> {
    if names.is_empty() {
        return Ok(Brought::default());
    }
    let path = root.join(PLACE.trim_start_matches('/'));
    if fs::metadata(&path)?.len() > MAX_SPEC {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
    }
    let Spec { devices, container_edits } = serde_json::from_slice(&fs::read(path)?)?;
    let mut brought = Brought::default();
    brought.take(container_edits);
    for name in names {
        let device = devices.iter().find(|device| device.name == *name);
        brought.take(device.ok_or_else(|| DevicesError::Unknown(name.clone()))?.container_edits.clone());
    }
    if !brought.binds.is_empty() {
        brought.env.insert(LIBRARY_PATH.to_owned(), inside::DRIVER.to_owned());
    }
    Ok(brought)
}

impl Brought {
    fn take(&mut self, edits: Edits) {
        let pairs = edits.env.iter().filter_map(|variable| variable.split_once('='));
        self.env.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for Node { path, major, minor } in edits.device_nodes {
            let node = DeviceNode { path, major, minor };
            if !self.nodes.contains(&node) {
                self.nodes.push(node);
            }
        }
        self.binds.extend(edits.mounts.into_iter().map(|mount| BindMount {
            to: place(&mount.container_path),
            from: mount.host_path,
            is_writable: false,
        }));
    }
}

/// Where a job sees a file of the driver.
fn place(path: &Path) -> PathBuf {
    match path.file_name() {
        // Sockets of the driver's services; `/run` is every container's own.
        Some(_) if path.starts_with("/run") => path.to_owned(),
        Some(name) => Path::new(inside::DRIVER).join(name),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let spec = r#"{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [
            {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0", "major": 195, "minor": 0}]}},
            {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1", "major": 195, "minor": 1}]}}],
            "containerEdits": {"env": ["NVIDIA_VISIBLE_DEVICES=void"],
                "deviceNodes": [{"path": "/dev/nvidiactl", "major": 195, "minor": 255}],
                "mounts": [{"hostPath": "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
                            "containerPath": "/usr/lib/x86_64-linux-gnu/libcuda.so.1", "options": ["ro"]},
                           {"hostPath": "/run/nvidia-persistenced/socket",
                            "containerPath": "/run/nvidia-persistenced/socket"}]}}"#;
        fs::create_dir_all(root.path().join("run/cdi")).unwrap();
        fs::write(root.path().join("run/cdi/nvidia.com-gpu.json"), spec).unwrap();
        root
    }

    #[test]
    fn a_job_gets_its_own_devices_and_the_drivers_files() {
        let root = machine();
        let brought = of(root.path(), &["1".to_owned()]).unwrap();
        let nodes: Vec<&str> = brought.nodes.iter().map(|node| node.path.to_str().unwrap()).collect();
        assert_eq!(nodes, ["/dev/nvidiactl", "/dev/nvidia1"]);
        let places: Vec<&str> = brought.binds.iter().map(|bind| bind.to.to_str().unwrap()).collect();
        assert_eq!(places, ["/run/job/driver/libcuda.so.1", "/run/nvidia-persistenced/socket"]);
        assert!(brought.binds.iter().all(|bind| !bind.is_writable));
        assert_eq!(brought.env["LD_LIBRARY_PATH"], "/run/job/driver");
        assert_eq!(brought.env["NVIDIA_VISIBLE_DEVICES"], "void");
    }

    #[test]
    fn a_device_that_is_gone_is_named_and_without_devices_nothing_is_brought() {
        let root = machine();
        assert!(matches!(of(root.path(), &["7".to_owned()]), Err(DevicesError::Unknown(name)) if name == "7"));
        assert_eq!(of(Path::new("/nonexistent"), &[]).unwrap(), Brought::default());
    }
}
