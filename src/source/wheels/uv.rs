//! uv, which resolves requirements: the host's, or a pinned one of our own.

use super::{
    archive::Archive,
    error::{WheelsError, without_credentials},
};
use crate::store::Store;
use gap_format::Digest;
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The version that is installed where the host has none.
const PINNED: &str = "0.13.9";
/// Its wheel for x86-64, and the digest of that.
const WHEEL: (&str, &str) = (
    "uv-0.13.9-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
);
/// Longest uv accepted, in bytes.
const MAX_PROGRAM: u64 = 512 << 20;
/// The oldest version that writes what is read here (`pylock.toml`, PEP 751).
const OLDEST: [u32; 2] = [0, 7];
/// Variables by which a user's environment would change what is resolved, beyond where packages come from.
const LEFT_OUT: [&str; 20] = [
    "UV_BUILD_CONSTRAINT",
    "UV_CONSTRAINT",
    "UV_CUSTOM_COMPILE_COMMAND",
    "UV_EXCLUDE",
    "UV_EXCLUDE_NEWER",
    "UV_FORK_STRATEGY",
    "UV_FROZEN",
    "UV_LOCKED",
    "UV_NO_BINARY",
    "UV_NO_BINARY_PACKAGE",
    "UV_NO_BUILD",
    "UV_NO_BUILD_PACKAGE",
    "UV_OFFLINE",
    "UV_OVERRIDE",
    "UV_PRERELEASE",
    "UV_PROJECT",
    "UV_RESOLUTION",
    "UV_TORCH_BACKEND",
    "UV_WORKING_DIR",
    "UV_WORKING_DIRECTORY",
];

/// A uv that works.
#[derive(Debug, Clone)]
pub struct Uv {
    program: PathBuf,
    environment: Vec<(String, String)>,
}

impl Uv {
    /// The host's uv if it is new enough, else the pinned one, which is fetched with the host's pip unless `offline`.
    ///
    /// # Errors
    /// [`WheelsError::NoUv`] if there is neither.
    pub fn find(store: &Store, offline: bool) -> Result<Self, WheelsError> {
        let host = Self { program: "uv".into(), environment: Vec::new() };
        if host.version().is_some_and(|version| version >= OLDEST) {
            return Ok(host);
        }
        Ok(Self { program: pinned(store, offline)?, environment: Vec::new() })
    }

    /// The same with more variables in its environment.
    #[must_use]
    pub fn with_environment(mut self, environment: Vec<(String, String)>) -> Self {
        self.environment.extend(environment);
        self
    }

    fn version(&self) -> Option<[u32; 2]> {
        let output = Command::new(&self.program).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let mut numbers = text.strip_prefix("uv ")?.split(['.', ' ']);
        Some([numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?])
    }

    /// uv with these arguments in `directory`, where none of the user's projects is found.
    pub(super) fn command(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(["--no-progress", "--color", "never", "--no-python-downloads"]);
        command.current_dir(directory);
        for name in LEFT_OUT {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command of [`Uv::command`].
    pub(super) fn output(&self, command: &mut Command) -> Result<Output, WheelsError> {
        command.output().map_err(|source| WheelsError::NotStarted { program: self.program.clone(), source })
    }
}

/// The pinned uv in the store.
fn pinned(store: &Store, offline: bool) -> Result<PathBuf, WheelsError> {
    let no_uv = |reason: String| WheelsError::NoUv { reason, pinned: PINNED };
    let (file, hex) = WHEEL;
    let digest = Digest::from_hex(hex).map_err(|error| no_uv(error.to_string()))?;
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err(no_uv("the one that gapimage would install is for x86-64 Linux".to_owned()));
    }
    let program = store.cache_dir("tools", &digest)?.join("uv");
    let _alone = store.build_lock(&digest, || ())?;
    if program.exists() {
        return Ok(program);
    }
    let wheel = match store.open_source(&digest, None)? {
        Some(wheel) => wheel,
        None if offline => return Err(no_uv("--offline forbids fetching it".to_owned())),
        None => {
            download(store, file, &digest).map_err(no_uv)?;
            store.open_source(&digest, None)?.ok_or_else(|| no_uv("it vanished from the store".to_owned()))?
        }
    };
    unpack(wheel, &program, store.session_dir())?;
    Ok(program)
}

/// Has the host's pip fetch the wheel, from wherever the user has it get packages from, and checks it.
fn download(store: &Store, file: &str, digest: &Digest) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("fetching it failed: {error}");
    let directory = tempfile::tempdir_in(store.session_dir()).map_err(failed)?;
    let requirement = directory.path().join("requirements.txt");
    fs::write(&requirement, format!("uv=={PINNED} --hash=sha256:{}\n", digest.to_hex())).map_err(failed)?;
    let mut pip = Command::new("python3");
    // Not where the user is: Python looks for its modules there first.
    pip.current_dir(directory.path());
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"])
        .args(["--disable-pip-version-check", "--no-input", "--dest"])
        .arg(directory.path())
        .arg("--requirement")
        .arg(&requirement);
    let output =
        pip.output().map_err(|error| format!("python3 with pip, which would fetch it, is missing: {error}"))?;
    if !output.status.success() {
        let said = without_credentials(String::from_utf8_lossy(&output.stderr).trim());
        return Err(format!("fetching it with pip failed: {said}"));
    }
    let wheel = File::open(directory.path().join(file)).map_err(failed)?;
    store.insert_source(Some(digest), MAX_PROGRAM, wheel).map(drop).map_err(|error| error.to_string())
}

fn unpack(wheel: File, program: &Path, scratch: &Path) -> Result<(), WheelsError> {
    let refused = |source| WheelsError::Archive { file: WHEEL.0.to_owned(), source };
    let len = wheel.metadata().map_err(WheelsError::io("looking at", program))?.len();
    let archive = Archive::open(rawzip::FileReader::from(wheel), len).map_err(refused)?;
    let bytes = archive.read(&format!("uv-{PINNED}.data/scripts/uv"), MAX_PROGRAM).map_err(refused)?;
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(scratch)?;
        file.write_all(&bytes)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o755))?;
        file.as_file().sync_all()?;
        file.persist(program).map_err(|error| error.error)
    };
    write().map(drop).map_err(WheelsError::io("writing", program))
}
