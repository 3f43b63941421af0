//! The host's Rust toolchain: what it is, and where.

use super::{checkout::Checkout, error::CargoError, manifest};
use serde::{Deserialize, Serialize};
use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The variable by which rustup is told which toolchain to take.
const RUSTUP_TOOLCHAIN: &str = "RUSTUP_TOOLCHAIN";

/// Which compiler makes the binary. The same version, commit and host give the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Toolchain {
    /// Version (`1.95.0`).
    pub rustc: String,
    /// Hash of the commit that it was built from.
    pub commit: String,
    /// The platform that it runs on (`x86_64-unknown-linux-gnu`).
    pub host: String,
}

impl Toolchain {
    /// The toolchain that the host uses in the workspace.
    ///
    /// # Errors
    /// [`CargoError`] if there is none, or it does not say what it is.
    pub fn of_host(workspace: &Checkout) -> Result<Self, CargoError> {
        let text = rustc(workspace, &["-vV"])?;
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.filter(|value| *value != "unknown").map(str::to_owned).ok_or_else(|| CargoError::Answer {
                command: "rustc -vV",
                what: format!("it does not say its `{name}`; use a toolchain installed by rustup"),
            })
        };
        Ok(Self { rustc: field("release")?, commit: field("commit-hash")?, host: field("host")? })
    }
}

/// The directory of the toolchain that the host uses in the workspace: `bin/cargo`, `bin/rustc`, `lib/`.
///
/// # Errors
/// [`CargoError`] if there is none, or if it is mixed with the rest of the system and cannot be used apart from it.
pub fn sysroot(workspace: &Checkout) -> Result<PathBuf, CargoError> {
    let path = PathBuf::from(rustc(workspace, &["--print", "sysroot"])?.trim_end());
    let apart = path.is_absolute() && path != Path::new("/usr") && path.join("lib/rustlib").is_dir();
    match apart && ["bin/cargo", "bin/rustc"].iter().all(|program| path.join(program).is_file()) {
        true => Ok(path),
        false => Err(CargoError::Answer {
            command: "rustc --print sysroot",
            what: format!("`{}` is no toolchain of its own; use one installed by rustup", path.display()),
        }),
    }
}

/// A program of the toolchain that the workspace asks for. What it says when it fails is for people.
///
/// It is not started in the workspace, which may be somebody else's: Cargo and rustup would take settings from there that
/// name programs to run.
///
/// # Errors
/// [`CargoError`] if the workspace asks for a toolchain by a path.
pub(super) fn program(name: &str, workspace: &Checkout) -> Result<Command, CargoError> {
    let mut command = Command::new(name);
    command.current_dir("/").env_remove("RUST_BACKTRACE");
    // What the user says comes first, as with rustup itself.
    if env::var_os(RUSTUP_TOOLCHAIN).is_none()
        && let Some(channel) = channel(workspace.dir())?
    {
        command.env(RUSTUP_TOOLCHAIN, channel);
    }
    Ok(command)
}

/// The toolchain that a directory, or the nearest above it, asks for by name.
fn channel(dir: &Path) -> Result<Option<String>, CargoError> {
    let dir = dir.canonicalize().map_err(CargoError::io("looking for", dir))?;
    for dir in dir.ancestors() {
        for name in ["rust-toolchain", "rust-toolchain.toml"] {
            let path = dir.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => return manifest::channel(&text, &path),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(CargoError::io("reading", &path)(error)),
            }
        }
    }
    Ok(None)
}

fn rustc(workspace: &Checkout, arguments: &[&str]) -> Result<String, CargoError> {
    let output = program("rustc", workspace)?
        .args(arguments)
        .output()
        .map_err(|source| CargoError::NotInstalled { program: "rustc", source })?;
    if !output.status.success() {
        return Err(failed(format!("rustc {}", arguments.join(" ")), workspace, &output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The error for a program that failed, with the last lines that it said.
pub(super) fn failed(command: String, workspace: &Checkout, stderr: &[u8]) -> CargoError {
    const LINES: usize = 12;
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    CargoError::Failed { command, workspace: workspace.shown(), stderr: last.join("\n") }
}
