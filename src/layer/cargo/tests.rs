use super::*;
use crate::{layer::tree::TreePath, source::cargo, store::Store};
use std::{cell::RefCell, fs, process::Command};

fn order_for(workspace: &Path) -> (CargoLayer, LockedCargo) {
    let layer = CargoLayer {
        workspace: workspace.to_owned(),
        package: "app".to_owned(),
        bin: "app".to_owned(),
        to: TreePath::new("usr/bin/app").unwrap(),
        static_link: false,
        features: Vec::new(),
        build_root: "tools".to_owned(),
    };
    let toolchain = Toolchain::of_host(workspace).unwrap();
    (layer, LockedCargo { sources: Digest::of(b"sources"), toolchain, crates: Vec::new() })
}

fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let manifest = "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    fs::create_dir(dir.path().join("src")).unwrap();
    fs::write(dir.path().join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.path().join("src/main.rs"), "fn main() { println!(\"{}\", file!()); }\n").unwrap();
    fs::write(dir.path().join("Cargo.lock"), "version = 4\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n")
        .unwrap();
    dir
}

/// A directory that has everything a build root needs, all of it empty.
fn hollow_root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for missing in missing(Arch::X86_64, |_| false) {
        let path = dir.path().join(&missing.path[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    dir
}

/// Notes what would be run; writes what a compiler would have made.
#[derive(Default)]
struct Pretence {
    commands: RefCell<Vec<String>>,
    fails: bool,
}

impl Runner for Pretence {
    fn run(&self, step: &Step<'_>) -> io::Result<Finished> {
        self.commands.borrow_mut().push(step.command.join(" "));
        let target = step.binds.iter().find(|bind| bind.target == "/target").unwrap();
        let dir = target.source.join("x86_64-unknown-linux-gnu/release");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("app"), "binary")?;
        Ok(Finished { success: !self.fails, output: "error: it does not compile".to_owned() })
    }
}

#[test]
fn a_build_is_frozen_and_gives_one_file() {
    let (workspace, root, store_dir) = (workspace(), hollow_root(), tempfile::tempdir().unwrap());
    let store = Store::open(store_dir.path()).unwrap();
    let (layer, _) = order_for(workspace.path());
    let locked = cargo::resolve(&layer, Arch::X86_64.rust_target(), &store, true).unwrap();
    let root_key = LayerKey::from(Digest::of(b"root"));
    let order = Order { layer: &layer, locked: &locked, arch: Arch::X86_64, root_key: &root_key };
    let runner = Pretence::default();
    let tree = build(&order, &|path| path.under(root.path()).exists(), &store, &runner, || ()).unwrap();
    assert_eq!(
        *runner.commands.borrow(),
        [
            "cargo update --workspace --offline",
            "cargo build --frozen --release --target x86_64-unknown-linux-gnu --package app --bin app"
        ]
    );
    let Some(crate::layer::tree::Node::File { meta, content }) = tree.get(&layer.to) else { panic!("no file") };
    assert_eq!((meta.mode, meta.mtime, content.read().unwrap().as_slice()), (0o755, 0, &b"binary"[..]));

    let failing = Pretence { fails: true, ..Pretence::default() };
    let error = build(&order, &|path| path.under(root.path()).exists(), &store, &failing, || ()).unwrap_err();
    assert!(
        error.to_string().ends_with("`cargo update` failed while building `app`:\nerror: it does not compile")
            || error.to_string().contains("it does not compile"),
        "{error}"
    );

    fs::write(workspace.path().join("src/main.rs"), "fn main() {}\n").unwrap();
    let error = build(&order, &|path| path.under(root.path()).exists(), &store, &runner, || ()).unwrap_err();
    assert!(matches!(error, BuildError::Changed { .. }), "{error}");
}

#[test]
fn what_the_build_root_lacks_is_said_with_the_package_that_has_it() {
    let (workspace, root, store_dir) = (workspace(), hollow_root(), tempfile::tempdir().unwrap());
    let store = Store::open(store_dir.path()).unwrap();
    fs::remove_file(root.path().join("usr/bin/gcc")).unwrap();
    let (layer, mut locked) = order_for(workspace.path());
    let root_key = LayerKey::from(Digest::of(b"root"));
    let order = Order { layer: &layer, locked: &locked, arch: Arch::X86_64, root_key: &root_key };
    let error =
        build(&order, &|path| path.under(root.path()).exists(), &store, &Pretence::default(), || ()).unwrap_err();
    assert_eq!(error.to_string(), "the build root `tools` has no `/usr/bin/gcc`; add `gcc` to its `packages`");

    fs::write(root.path().join("usr/bin/gcc"), "").unwrap();
    locked.toolchain.commit = "other".to_owned();
    let order = Order { layer: &layer, locked: &locked, arch: Arch::X86_64, root_key: &root_key };
    let error =
        build(&order, &|path| path.under(root.path()).exists(), &store, &Pretence::default(), || ()).unwrap_err();
    assert!(matches!(error, BuildError::Toolchain { .. }), "{error}");
}

#[test]
fn everything_that_makes_the_binary_is_in_the_key() {
    let workspace = workspace();
    let (layer, locked) = order_for(workspace.path());
    let root_key = LayerKey::from(Digest::of(b"root"));
    let key = |layer: &CargoLayer, locked: &LockedCargo, root: &LayerKey| {
        Order { layer, locked, arch: Arch::X86_64, root_key: root }.key()
    };
    let before = key(&layer, &locked, &root_key);
    let elsewhere = CargoLayer { workspace: "/elsewhere".into(), build_root: "other".to_owned(), ..layer.clone() };
    assert_eq!(key(&elsewhere, &locked, &root_key), before, "neither the directory nor a name counts");
    let row = cargo::LockedCrate {
        name: "a".to_owned(),
        version: "1.0.0".to_owned(),
        sha256: Digest::of(b"a"),
        size: 1,
        license: None,
        used: true,
    };
    let toolchain = Toolchain { rustc: "0".to_owned(), ..locked.toolchain.clone() };
    for other in [
        key(&CargoLayer { static_link: true, ..layer.clone() }, &locked, &root_key),
        key(&CargoLayer { features: vec!["x".to_owned()], ..layer.clone() }, &locked, &root_key),
        key(&CargoLayer { to: TreePath::new("app").unwrap(), ..layer.clone() }, &locked, &root_key),
        key(&layer, &LockedCargo { sources: Digest::of(b"x"), ..locked.clone() }, &root_key),
        key(&layer, &LockedCargo { toolchain, ..locked.clone() }, &root_key),
        key(&layer, &LockedCargo { crates: vec![row], ..locked.clone() }, &root_key),
        key(&layer, &locked, &LayerKey::from(Digest::of(b"other root"))),
    ] {
        assert_ne!(other, before);
    }
}

/// Runs steps in namespaces made by `unshare`, as root.
struct Unshared {
    root: PathBuf,
}

impl Runner for Unshared {
    fn run(&self, step: &Step<'_>) -> io::Result<Finished> {
        let mut script = String::from(
            "set -e; R=\"$1\"; shift; mount -t overlay o -o lowerdir=\"$R\",upperdir=$W/up,workdir=$W/work $W/root\n",
        );
        for bind in step.binds {
            let flags = if bind.writable { "" } else { "mount -o remount,bind,ro $T;" };
            script += &format!(
                "T=$W/root{}; mkdir -p $T 2>/dev/null || :; mount --bind {} $T; {flags}\n",
                bind.target,
                bind.source.display()
            );
        }
        script += "mount -t proc p $W/root/proc; mount --bind /dev $W/root/dev; exec env -i";
        for (name, value) in &step.env {
            script += &format!(" {name}='{value}'");
        }
        script += &format!(" /usr/bin/unshare --root=$W/root --wd={} \"$@\"", step.dir);
        let work = tempfile::tempdir()?;
        for dir in ["up", "work", "root"] {
            fs::create_dir(work.path().join(dir))?;
        }
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--net", "--fork", "sh", "-c", &script, "sh"])
            .arg(&self.root)
            .args(&step.command);
        let output = command.env("W", work.path()).output()?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok(Finished { success: output.status.success(), output: text })
    }
}

/// `BUILD_ROOT`: an unpacked Debian tree with gcc and libc6-dev. `WORKSPACE`, `PACKAGE`, `BIN`: what to build.
/// `OUT`: where the binary goes.
#[test]
#[ignore = "compiles for minutes; needs root and an unpacked build root"]
fn a_real_binary() {
    let var = |name: &str| std::env::var(name).unwrap();
    let store_dir = std::env::var_os("STORE").map(PathBuf::from).unwrap();
    let store = Store::open(&store_dir).unwrap();
    let layer = CargoLayer {
        workspace: var("WORKSPACE").into(),
        package: var("PACKAGE"),
        bin: var("BIN"),
        static_link: std::env::var_os("STATIC").is_some(),
        ..order_for(Path::new(".")).0
    };
    let locked = cargo::resolve(&layer, Arch::X86_64.rust_target(), &store, false).unwrap();
    println!("{} crates, {} used", locked.crates.len(), locked.crates.iter().filter(|row| row.used).count());
    let root_key = LayerKey::from(Digest::of(b"root"));
    let order = Order { layer: &layer, locked: &locked, arch: Arch::X86_64, root_key: &root_key };
    println!("key {:?}", order.key());
    let runner = Unshared { root: var("BUILD_ROOT").into() };
    let exists = |path: &TreePath| path.under(&runner.root).symlink_metadata().is_ok();
    let tree = build(&order, &exists, &store, &runner, || ()).unwrap();
    let Some(crate::layer::tree::Node::File { content, .. }) = tree.get(&layer.to) else { panic!("no file") };
    let bytes = content.read().unwrap();
    println!("{} bytes, {}", bytes.len(), Digest::of(&bytes));
    fs::write(var("OUT"), bytes).unwrap();
}
