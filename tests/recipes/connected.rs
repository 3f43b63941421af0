//! The connected side: a Debian root with PyTorch and unmodified Transformers, in which models are made and with whose answers
//! those of images are compared.

use crate::fixture::{cache, repository, stdout, succeed};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};
use tempfile::TempDir;

/// The root, made once.
fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = cache().join("torch");
        succeed(Command::new(repository().join("tests/torch.sh")).arg(&root));
        root
    })
}

/// A directory of its own in the root.
pub struct Connected {
    dir: TempDir,
}

impl Connected {
    /// An empty one.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir_in(root().join("tmp")).unwrap() }
    }

    /// Where it lies on this machine.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a Python program of the repository in it, with `variables` (`NAME=VALUE`); relative paths start from it. What it
    /// printed.
    pub fn python(&self, script: &str, variables: &[&str], arguments: &[&str]) -> String {
        let inside = Path::new("/").join(self.path().strip_prefix(root()).unwrap());
        fs::copy(repository().join(script), self.path().join("script.py")).unwrap();
        let mut command = Command::new("chroot");
        command.arg(root()).args(["env", "-C"]).arg(inside).args(["PYTHONPATH=/opt/site", "HF_HUB_OFFLINE=1"]);
        stdout(&succeed(command.args(variables).args(["python3", "script.py"]).args(arguments)))
    }

    /// The files of a directory in it, by name.
    pub fn files(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(self.path().join(name)).unwrap().map(|entry| entry.unwrap().path());
        let named = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
        entries.map(named).collect()
    }
}

/// What pip lays down of one wheel alone, fetched once.
pub fn unpacked(requirement: &str) -> PathBuf {
    let place = cache().join(requirement.replace("==", "-"));
    if !place.exists() {
        let work = tempfile::tempdir_in(cache()).unwrap();
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]);
        succeed(pip.arg("--target").arg(work.path()).arg(requirement));
        // Another test may have been faster.
        let _ = fs::rename(work.keep(), &place);
    }
    place
}
