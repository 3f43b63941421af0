//! One build, from the locked inputs to a tree with the binary in it.

use super::{Bind, BuildError, Order, Runner, Step, missing};
use crate::{
    layer::tree::{Content, Meta, Node, Tree, TreePath},
    source::cargo::{Staged, Toolchain, pins_exactly, sysroot, unpack_crates},
    store::Store,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Seek},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Times of the files in the layer, and what programs that ask for the build's date are told: there is no better one,
/// for the release's date must not change every layer.
const BUILD_TIME: i64 = 0;
/// When a build that does not end is stopped.
const TIME_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// Paths of the build and what they are called in the binary.
const RENAMED: [(&str, &str); 5] =
    [("/src", "src"), ("/vendor", "crates"), ("/cargo", "cargo"), ("/rust", "rust"), ("/target", "target")];
/// Cargo's configuration: the crates come from `/vendor`, whatever registry they are from.
const CONFIGURATION: &str =
    "[source.crates-io]\nreplace-with = \"vendored\"\n\n[source.vendored]\ndirectory = \"/vendor\"\n";

/// Builds the binary in a build root that `runner` shows to programs and of which `root` knows what exists. All sources must be in the store. `waiting` is called if
/// somebody else is building with the same crates.
///
/// # Errors
/// [`BuildError`].
pub fn build(
    order: &Order<'_>,
    root: &dyn Fn(&TreePath) -> bool,
    store: &Store,
    runner: &dyn Runner,
    waiting: impl FnOnce(),
) -> Result<Tree, BuildError> {
    check_root(order, root)?;
    let toolchain = check_toolchain(order)?;
    let key = order.cache_key();
    let _turn = store.build_lock(&key, waiting)?;
    let cache = store.cache_dir("cargo", &key)?;
    let session = store.session_dir();
    let work = tempfile::tempdir_in(session).map_err(BuildError::io("making a directory in", session))?;
    let workshop = Workshop::set_up(order, store, &cache, work.path(), &toolchain)?;
    // The staged sources may be older than what was compiled before from others: never go by their times.
    workshop.forget_local_packages()?;
    let run = |arguments: Vec<String>| workshop.run(order, runner, arguments);
    run(["update", "--workspace", "--offline"].map(str::to_owned).to_vec())?;
    pins_exactly(&workshop.staged.root().join("Cargo.lock"), order.locked)?;
    run(build_arguments(order))?;
    let binary = workshop.target.join(order.arch.rust_target()).join("release").join(&order.layer.bin);
    let content = spool(&binary, session)?;
    let node = Node::File { meta: Meta::root_owned(0o755, BUILD_TIME), content };
    Ok(Tree::from_iter([(order.layer.to.clone(), node)]))
}

fn check_root(order: &Order<'_>, root: &dyn Fn(&TreePath) -> bool) -> Result<(), BuildError> {
    let missing = missing(order.arch, root);
    match missing.is_empty() {
        true => Ok(()),
        false => Err(BuildError::Root { layer: order.layer.build_root.clone(), missing }),
    }
}

/// The directory of the locked toolchain.
fn check_toolchain(order: &Order<'_>) -> Result<PathBuf, BuildError> {
    let found = Toolchain::of_host(&order.layer.workspace)?;
    if found != order.locked.toolchain {
        let locked = Box::new(order.locked.toolchain.clone());
        return Err(BuildError::Toolchain { locked, found: Box::new(found) });
    }
    Ok(sysroot(&order.layer.workspace)?)
}

fn build_arguments(order: &Order<'_>) -> Vec<String> {
    let layer = order.layer;
    let mut arguments: Vec<String> = ["build", "--frozen", "--release", "--target"].map(str::to_owned).to_vec();
    arguments.push(order.arch.rust_target().to_owned());
    arguments.extend(["--package".to_owned(), layer.package.clone(), "--bin".to_owned(), layer.bin.clone()]);
    if !layer.features.is_empty() {
        arguments.extend(["--features".to_owned(), layer.features.join(",")]);
    }
    arguments
}

/// The directories of one build.
struct Workshop {
    staged: Staged,
    target: PathBuf,
    binds: Vec<Bind>,
}

impl Workshop {
    fn set_up(
        order: &Order<'_>,
        store: &Store,
        cache: &Path,
        work: &Path,
        toolchain: &Path,
    ) -> Result<Self, BuildError> {
        let make = |path: PathBuf| match fs::create_dir_all(&path) {
            Ok(()) => Ok(path),
            Err(error) => Err(BuildError::io("making", &path)(error)),
        };
        let staged = Staged::stage(order.layer, &make(work.join("src"))?)?;
        if *staged.digest() != order.locked.sources {
            return Err(BuildError::Changed { package: order.layer.package.clone() });
        }
        let vendor = vendor(order, store, cache)?;
        let home = make(work.join("cargo"))?;
        let configuration = home.join("config.toml");
        fs::write(&configuration, CONFIGURATION).map_err(BuildError::io("writing", &configuration))?;
        let target = make(cache.join("target"))?;
        make(target.join("tmp"))?;
        let bind = |source: &Path, target, writable| Bind { source: source.to_owned(), target, writable };
        let mut binds = vec![
            bind(staged.root(), "/src", true),
            bind(&vendor, "/vendor", false),
            bind(&home, "/cargo", true),
            bind(&target, "/target", true),
            bind(toolchain, "/rust", false),
        ];
        // Where the library's sources are installed, the compiler names them in panics by their place on this host.
        if toolchain.join("lib/rustlib/src").exists() {
            binds.push(bind(&make(work.join("empty"))?, "/rust/lib/rustlib/src", false));
        }
        Ok(Self { staged, target, binds })
    }

    /// Makes Cargo compile the packages of the workspace again, whatever their times say.
    fn forget_local_packages(&self) -> Result<(), BuildError> {
        for dir in directories_called(&self.target, ".fingerprint")? {
            for entry in fs::read_dir(&dir).map_err(BuildError::io("listing", &dir))? {
                let path = entry.map_err(BuildError::io("listing", &dir))?.path();
                let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('-'));
                if name.is_some_and(|(name, _)| self.staged.packages().iter().any(|package| package == name)) {
                    fs::remove_dir_all(&path).map_err(BuildError::io("removing", &path))?;
                }
            }
        }
        Ok(())
    }

    fn run(&self, order: &Order<'_>, runner: &dyn Runner, arguments: Vec<String>) -> Result<(), BuildError> {
        let command: Vec<String> = std::iter::once("cargo".to_owned()).chain(arguments).collect();
        let shown = command.iter().take(2).cloned().collect::<Vec<_>>().join(" ");
        let env = environment(order);
        let step = Step { binds: &self.binds, command, env, dir: "/src", time_limit: TIME_LIMIT };
        let finished = runner.run(&step).map_err(|source| BuildError::Sandbox { command: shown.clone(), source })?;
        match finished.success {
            true => Ok(()),
            false => Err(BuildError::Failed {
                command: shown,
                package: order.layer.package.clone(),
                output: finished.output,
            }),
        }
    }
}

fn environment(order: &Order<'_>) -> BTreeMap<&'static str, String> {
    let mut flags: Vec<String> =
        RENAMED.iter().map(|(path, name)| format!("--remap-path-prefix={path}={name}")).collect();
    let linking = if order.layer.static_link { "+crt-static" } else { "-crt-static" };
    flags.push(format!("-Ctarget-feature={linking}"));
    let linker = match order.arch {
        crate::recipe::Arch::X86_64 => "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER",
    };
    let fixed = [
        ("AR", "ar"),
        ("CARGO_HOME", "/cargo"),
        ("CARGO_INCREMENTAL", "0"),
        ("CARGO_NET_OFFLINE", "true"),
        ("CARGO_TARGET_DIR", "/target"),
        ("CARGO_TERM_COLOR", "never"),
        ("CC", "gcc"),
        ("HOME", "/cargo"),
        ("LANG", "C"),
        ("LC_ALL", "C"),
        ("PATH", "/rust/bin:/usr/bin:/bin"),
        ("TMPDIR", "/target/tmp"),
        ("TZ", "UTC"),
        (linker, "gcc"),
    ];
    let mut env: BTreeMap<&'static str, String> =
        fixed.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    env.insert("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    env.insert("SOURCE_DATE_EPOCH", BUILD_TIME.to_string());
    env
}

/// The crates as a directory source, unpacked once for each set of them.
fn vendor(order: &Order<'_>, store: &Store, cache: &Path) -> Result<PathBuf, BuildError> {
    let (vendor, complete) = (cache.join("vendor"), cache.join("vendor.complete"));
    if !complete.exists() {
        if vendor.exists() {
            fs::remove_dir_all(&vendor).map_err(BuildError::io("removing", &vendor))?;
        }
        fs::create_dir_all(&vendor).map_err(BuildError::io("making", &vendor))?;
        unpack_crates(order.locked, store, &vendor)?;
        File::create(&complete).map_err(BuildError::io("making", &complete))?;
    }
    Ok(vendor)
}

/// The directories of this name at most three levels below `root`.
fn directories_called(root: &Path, name: &str) -> Result<Vec<PathBuf>, BuildError> {
    let mut found = Vec::new();
    let mut level = vec![root.to_owned()];
    for _ in 0..3 {
        let mut below = Vec::new();
        for dir in level {
            for entry in fs::read_dir(&dir).map_err(BuildError::io("listing", &dir))? {
                let entry = entry.map_err(BuildError::io("listing", &dir))?;
                let kind = entry.file_type().map_err(BuildError::io("looking at", &entry.path()))?;
                if kind.is_dir() && entry.file_name() == name {
                    found.push(entry.path());
                } else if kind.is_dir() {
                    below.push(entry.path());
                }
            }
        }
        level = below;
    }
    Ok(found)
}

/// Copies the binary into a file without name, because the next build writes over it.
fn spool(binary: &Path, dir: &Path) -> Result<Content, BuildError> {
    let mut source = File::open(binary).map_err(BuildError::io("opening the binary", binary))?;
    let mut file = tempfile::tempfile_in(dir).map_err(BuildError::io("making a file in", dir))?;
    let len = io::copy(&mut source, &mut file).map_err(BuildError::io("copying the binary", binary))?;
    file.rewind().map_err(BuildError::io("rewinding the copy of", binary))?;
    Ok(Content::Slice { file: Arc::new(file), offset: 0, len })
}
