//! One build, from the locked inputs to a tree with the binary in it.

use super::{BuildError, Order, missing};
use crate::{
    layer::{
        sandbox::{Bind, Job, Sandbox, Scratch, Step, Writes},
        tree::{Content, Meta, Node, Tree, TreePath},
    },
    source::cargo::{Checkout, Staged, Toolchain, pins_exactly, sysroot, unpack_crates},
    store::Store,
};
use std::{
    collections::BTreeMap,
    fs,
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
const RENAMED: [(&str, &str); 6] = [
    ("/src", "src"),
    ("/vendor", "crates"),
    ("/cargo", "cargo"),
    ("/rust", "rust"),
    ("/build", "build"),
    ("/out", "out"),
];
/// Cargo's configuration: the crates come from `/vendor`, whatever registry they are from.
const CONFIGURATION: &str =
    "[source.crates-io]\nreplace-with = \"vendored\"\n\n[source.vendored]\ndirectory = \"/vendor\"\n";

/// Builds the binary in the build root `root`. All sources must be in the store; `scratch` holds the build root and
/// everything that is compiled.
///
/// # Errors
/// [`BuildError`].
pub fn build(
    order: &Order<'_>,
    root: &Tree,
    store: &Store,
    sandbox: &Sandbox,
    scratch: Scratch,
) -> Result<Tree, BuildError> {
    let missing = missing(order.arch, |path| root.get(path).is_some());
    if !missing.is_empty() {
        return Err(BuildError::Root { layer: order.layer.build_root.clone(), missing });
    }
    let session = store.session_dir();
    let workspace = Checkout::of(&order.layer.workspace, session)?;
    let toolchain = check_toolchain(order, &workspace)?;
    let work = tempfile::tempdir_in(session).map_err(BuildError::io("making a directory in", session))?;
    let staged = Staged::stage(order.layer, &workspace, &make(work.path().join("src"))?)?;
    if *staged.digest() != order.locked.sources {
        return Err(BuildError::Changed { package: order.layer.package.clone() });
    }
    let vendor = make(work.path().join("vendor"))?;
    unpack_crates(order.locked, store, &vendor)?;
    let job = Job {
        root: &with_sources(root, &staged)?,
        scratch,
        binds: binds(&toolchain, &vendor, work.path())?,
        steps: steps(order),
        source_date: BUILD_TIME,
        time_limit: TIME_LIMIT,
        writes: Writes::Anywhere,
    };
    let outcome = sandbox.run(&job).map_err(|source| BuildError::Failed {
        package: order.layer.package.clone(),
        bin: order.layer.bin.clone(),
        source,
    })?;
    check_crates(order, &staged, &outcome.changes)?;
    let built = path(&format!("out/{}/release/{}", order.arch.rust_target(), order.layer.bin))?;
    let Some(Node::File { content, .. }) = outcome.changes.get(&built) else {
        return Err(BuildError::NoBinary(order.layer.bin.clone()));
    };
    let node = Node::File { meta: Meta::root_owned(0o755, BUILD_TIME), content: content.clone() };
    Ok(Tree::from_iter([(order.layer.to.clone(), node)]))
}

/// The directory of the locked toolchain.
fn check_toolchain(order: &Order<'_>, workspace: &Checkout) -> Result<PathBuf, BuildError> {
    let found = Toolchain::of_host(workspace)?;
    if found != order.locked.toolchain {
        let locked = Box::new(order.locked.toolchain.clone());
        return Err(BuildError::Toolchain { locked, found: Box::new(found) });
    }
    Ok(sysroot(workspace)?)
}

/// The build root with the staged packages and Cargo's configuration in it.
fn with_sources(root: &Tree, staged: &Staged) -> Result<Tree, BuildError> {
    let mut tree = root.clone();
    for file in staged.files() {
        let host = staged.root().join(file);
        let len = fs::metadata(&host).map_err(BuildError::io("looking at", &host))?.len();
        add(&mut tree, &path(&format!("src/{file}"))?, Content::Path { path: Arc::from(host), len });
    }
    add(&mut tree, &path("cargo/config.toml")?, Content::bytes(CONFIGURATION.as_bytes()));
    Ok(tree)
}

/// Puts a file into the tree, and the directories above it.
fn add(tree: &mut Tree, place: &TreePath, content: Content) {
    let mut above = place.parent();
    while let Some(directory) = above.filter(|directory| tree.get(directory).is_none()) {
        above = directory.parent();
        tree.insert(directory, Node::Directory { meta: Meta::root_owned(0o755, BUILD_TIME), opaque: false });
    }
    tree.insert(place.clone(), Node::File { meta: Meta::root_owned(0o644, BUILD_TIME), content });
}

fn binds(toolchain: &Path, vendor: &Path, work: &Path) -> Result<Vec<Bind>, BuildError> {
    let bind = |host: &Path, inside: &str| Bind { host: host.to_owned(), inside: inside.into() };
    let mut binds = vec![bind(toolchain, "/rust"), bind(vendor, "/vendor")];
    // Where the library's sources are installed, the compiler names them in panics by their place on this host.
    if toolchain.join("lib/rustlib/src").exists() {
        binds.push(bind(&make(work.join("empty"))?, "/rust/lib/rustlib/src"));
    }
    Ok(binds)
}

/// Reduces `Cargo.lock` to the staged packages, builds from exactly that, and leaves only the binary.
fn steps(order: &Order<'_>) -> Vec<Step> {
    let layer = order.layer;
    let mut build = vec!["build", "--frozen", "--release", "--target", order.arch.rust_target()];
    build.extend(["--package", &layer.package, "--bin", &layer.bin]);
    let features = layer.features.join(",");
    if !features.is_empty() {
        build.extend(["--features", &features]);
    }
    let step = |arguments: &[&str]| Step {
        command: std::iter::once("/rust/bin/cargo").chain(arguments.iter().copied()).map(str::to_owned).collect(),
        environment: environment(order),
        directory: "/src".into(),
    };
    let clean = step(&["clean", "--offline"]).with("CARGO_TARGET_DIR", "/nothing");
    vec![step(&["update", "--workspace", "--offline"]), step(&build), clean]
}

fn environment(order: &Order<'_>) -> BTreeMap<String, String> {
    let mut flags: Vec<String> =
        RENAMED.iter().map(|(path, name)| format!("--remap-path-prefix={path}={name}")).collect();
    let linking = if order.layer.static_link { "+crt-static" } else { "-crt-static" };
    flags.push(format!("-Ctarget-feature={linking}"));
    let linker = match order.arch {
        crate::recipe::Arch::X86_64 => "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER",
    };
    let flags = flags.join("\u{1f}");
    let variables = [
        ("AR", "ar"),
        ("CARGO_BUILD_BUILD_DIR", "/build"),
        ("CARGO_ENCODED_RUSTFLAGS", &flags),
        ("CARGO_HOME", "/cargo"),
        ("CARGO_INCREMENTAL", "0"),
        ("CARGO_TARGET_DIR", "/out"),
        ("CARGO_TERM_COLOR", "never"),
        ("CC", "gcc"),
        ("HOME", "/cargo"),
        ("LANG", "C"),
        ("LC_ALL", "C"),
        ("PATH", "/rust/bin:/usr/bin:/bin"),
        ("TZ", "UTC"),
        (linker, "gcc"),
    ];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Checks that the build used the locked crates and no others.
fn check_crates(order: &Order<'_>, staged: &Staged, changes: &Tree) -> Result<(), BuildError> {
    let cargo_lock = match changes.get(&path("src/Cargo.lock")?) {
        Some(Node::File { content, .. }) => content.read(),
        _ => fs::read(staged.root().join("Cargo.lock")),
    };
    let cargo_lock = cargo_lock.map_err(BuildError::io("reading", Path::new("Cargo.lock")))?;
    Ok(pins_exactly(&cargo_lock, order.locked)?)
}

fn path(raw: &str) -> Result<TreePath, BuildError> {
    TreePath::new(raw).map_err(|source| BuildError::Path { path: raw.to_owned(), source })
}

fn make(path: PathBuf) -> Result<PathBuf, BuildError> {
    match fs::create_dir(&path) {
        Ok(()) => Ok(path),
        Err(error) => Err(BuildError::io("making", &path)(error)),
    }
}
