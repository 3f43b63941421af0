//! A workspace on disk, where Cargo can look at it.

use super::{error::CargoError, manifest};
use crate::{builtin, recipe::Workspace};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A workspace that lies on disk for as long as this lives.
#[derive(Debug)]
pub struct Checkout {
    dir: PathBuf,
    unpacked: Option<TempDir>,
}

impl Checkout {
    /// The directory of `workspace`; the one that is part of gapimage is unpacked in `scratch`.
    ///
    /// # Errors
    /// [`CargoError::Io`] if it cannot be unpacked. A directory that does not exist is noticed when it is used.
    pub fn of(workspace: &Workspace, scratch: &Path) -> Result<Self, CargoError> {
        match workspace {
            Workspace::Directory(dir) => Ok(Self { dir: dir.clone(), unpacked: None }),
            Workspace::Builtin => {
                let unpacked = TempDir::new_in(scratch).map_err(CargoError::io("making a directory in", scratch))?;
                unpack(unpacked.path())?;
                Ok(Self { dir: unpacked.path().to_owned(), unpacked: Some(unpacked) })
            }
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How to name it in a message: one that was unpacked is gone by then.
    pub(super) fn shown(&self) -> PathBuf {
        match self.unpacked {
            Some(_) => Workspace::BUILTIN.into(),
            None => self.dir.clone(),
        }
    }
}

/// Unpacks the sources that are part of gapimage. Their manifests are those of a checkout, save what concerns packages
/// that are not there, so that staging either gives the same files.
fn unpack(dest: &Path) -> Result<(), CargoError> {
    let members: Vec<String> = builtin::packages().iter().map(|&package| package.to_owned()).collect();
    for &(name, content) in builtin::workspace() {
        let path = dest.join(name);
        let text = || {
            let error =
                |error: std::str::Utf8Error| CargoError::Manifest { path: name.into(), what: error.to_string() };
            std::str::from_utf8(content).map_err(error)
        };
        match name {
            "Cargo.toml" => write(&path, manifest::reduce_root(text()?, &path, &members, false)?.as_bytes())?,
            "rust-toolchain.toml" => write(&path, manifest::reduce_toolchain(text()?, &path)?.as_bytes())?,
            _ => write(&path, content)?,
        }
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Result<(), CargoError> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(CargoError::io("making", dir))?;
    }
    fs::write(path, content).map_err(CargoError::io("writing", path))
}
