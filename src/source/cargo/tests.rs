use super::*;
use crate::{layer::tree::TreePath, recipe::Workspace};
use flate2::{Compression, write::GzEncoder};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A workspace: `app` needs `part`; `other` and, for its tests, `probe` are none of its business.
fn workspace(dir: &Path) {
    let manifest = |name: &str, rest: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n{rest}")
    };
    let app = "[dependencies]\npart = { path = \"../part\" }\n[dev-dependencies]\nprobe = { path = \"../probe\" }\n\
               [target.'cfg(unix)'.dev-dependencies]\nprobe = { path = \"../probe\" }\n";
    let files = [
        ("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"*\"]\nexclude = [\"target\"]\n".to_owned()),
        ("app/Cargo.toml", manifest("app", app)),
        ("app/src/main.rs", "fn main() { println!(\"{}\", part::text()); }\n".to_owned()),
        ("app/src/data/table.txt", "1".to_owned()),
        ("app/tests/works.rs", "fn test() {}\n".to_owned()),
        ("app/README.md", "app\n".to_owned()),
        ("app/api.json", "{}\n".to_owned()),
        ("app/.cache/x", "x".to_owned()),
        ("app/target/x", "x".to_owned()),
        ("part/Cargo.toml", manifest("part", "")),
        ("part/build.rs", "fn main() {}\n".to_owned()),
        ("part/src/lib.rs", "pub fn text() -> &'static str { \"x\" }\n".to_owned()),
        ("probe/Cargo.toml", manifest("probe", "")),
        ("probe/src/lib.rs", String::new()),
        ("other/Cargo.toml", manifest("other", "")),
        ("other/src/lib.rs", String::new()),
    ];
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut cargo = cargo(&checkout(dir)).unwrap();
    let made =
        cargo.args(["generate-lockfile", "--offline", "--manifest-path"]).arg(dir.join("Cargo.toml")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A workspace that is a directory, of which nothing is unpacked anywhere.
fn checkout(dir: &Path) -> Checkout {
    Checkout::of(&Workspace::Directory(dir.to_owned()), Path::new("/nonexistent")).unwrap()
}

fn layer(workspace: &Path) -> CargoLayer {
    CargoLayer {
        workspace: Workspace::Directory(workspace.to_owned()),
        package: "app".to_owned(),
        bin: "app".to_owned(),
        to: TreePath::new("usr/bin/app").unwrap(),
        static_link: false,
        features: Vec::new(),
        build_root: "toolchain".to_owned(),
    }
}

fn stage(workspace: &Path) -> Result<(Digest, Vec<PathBuf>), CargoError> {
    let dest = tempfile::tempdir().unwrap();
    let staged = Staged::stage(&layer(workspace), &checkout(workspace), dest.path())?;
    let mut files = Vec::new();
    let mut open = vec![staged.root().to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => files.push(path.strip_prefix(staged.root()).unwrap().to_owned()),
            }
        }
    }
    files.sort();
    Ok((*staged.digest(), files))
}

#[test]
fn only_what_the_binary_needs_is_staged() {
    let dir = tempfile::tempdir().unwrap();
    workspace(dir.path());
    let (_, files) = stage(dir.path()).unwrap();
    let expected = [
        "Cargo.lock",
        "Cargo.toml",
        "app/Cargo.toml",
        "app/README.md",
        "app/api.json",
        "app/src/data/table.txt",
        "app/src/main.rs",
        "part/Cargo.toml",
        "part/build.rs",
        "part/src/lib.rs",
    ];
    assert_eq!(files, expected.map(PathBuf::from));
}

#[test]
fn the_identity_of_sources_is_their_content_and_nothing_else() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    workspace(one.path());
    workspace(two.path());
    let (before, _) = stage(one.path()).unwrap();
    assert_eq!(stage(two.path()).unwrap().0, before, "another directory");
    fs::write(two.path().join("other/src/lib.rs"), "pub fn other() {}").unwrap();
    fs::write(two.path().join("app/tests/works.rs"), "#[test] fn works() {}").unwrap();
    assert_eq!(stage(two.path()).unwrap().0, before, "another package, a test");
    fs::write(two.path().join("part/src/lib.rs"), "pub fn text() -> &'static str { \"y\" }\n").unwrap();
    assert_ne!(stage(two.path()).unwrap().0, before, "a dependency");
}

#[test]
fn the_staged_workspace_resolves_without_what_was_left_out() {
    let (dir, store_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    workspace(dir.path());
    let store = Store::open(store_dir.path()).unwrap();
    let locked = resolve(&layer(dir.path()), "x86_64-unknown-linux-gnu", &store, true).unwrap();
    assert_eq!(locked.crates, []);
    assert_eq!(locked.toolchain, Toolchain::of_host(&checkout(dir.path())).unwrap());
}

#[test]
fn what_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    workspace(dir.path());
    let dest = tempfile::tempdir().unwrap();
    let mut wrong = layer(dir.path());
    wrong.bin = "ap".to_owned();
    let error = Staged::stage(&wrong, &checkout(dir.path()), dest.path()).unwrap_err();
    assert_eq!(error.to_string(), "the package `app` has no binary `ap`; it has app");
    wrong.package = "ap".to_owned();
    let error = Staged::stage(&wrong, &checkout(dir.path()), dest.path()).unwrap_err();
    assert!(matches!(error, CargoError::NoPackage { .. }), "{error}");
    let nowhere = checkout(&dir.path().join("nothing"));
    assert!(Staged::stage(&layer(dir.path()), &nowhere, dest.path()).is_err());
}

#[test]
fn nothing_that_a_workspace_names_is_run_when_it_is_looked_at() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, store_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Cargo looks above the workspace too; in there it would be taken for a member.
    let within = dir.path().join("workspace");
    workspace(&within);
    let (evil, trace) = (dir.path().join("evil"), dir.path().join("it-was-run"));
    fs::write(&evil, format!("#!/bin/sh\ntouch {}\nexec \"$@\"\n", trace.display())).unwrap();
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(dir.path().join(".cargo")).unwrap();
    let settings = format!("[build]\nrustc-wrapper = '{0}'\nrustc = '{0}'\n", evil.display());
    fs::write(dir.path().join(".cargo/config.toml"), settings).unwrap();
    let store = Store::open(store_dir.path()).unwrap();
    resolve(&layer(&within), "x86_64-unknown-linux-gnu", &store, true).unwrap();
    assert!(!trace.exists());
}

#[test]
fn a_toolchain_is_asked_for_by_its_name() {
    let channel = |text: &str| manifest::channel(text, Path::new("rust-toolchain.toml"));
    assert_eq!(channel("[toolchain]\nchannel = \"1.95.0\"\n").unwrap().as_deref(), Some("1.95.0"));
    assert_eq!(channel("nightly-2026-01-01\n").unwrap().as_deref(), Some("nightly-2026-01-01"));
    assert_eq!(channel("[toolchain]\nprofile = \"minimal\"\n").unwrap(), None);
    for bad in ["[toolchain]\npath = \"/tmp/evil\"\n", "[toolchain]\nchannel = \"../evil\"\n", "/tmp/evil", "+x", "-x"]
    {
        assert!(matches!(channel(bad), Err(CargoError::Manifest { .. })), "{bad}");
    }
}

#[test]
fn a_link_out_of_the_workspace_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    workspace(dir.path());
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join("app/src/secret.rs")).unwrap();
    let error = stage(dir.path()).unwrap_err();
    assert!(matches!(error, CargoError::Source { .. }), "{error}");
}

/// The appliance's program `package`, in a checkout of gapimage or out of gapimage itself.
fn program(package: &str, bin: &str, workspace: Workspace) -> (CargoLayer, Checkout, TempDir) {
    let scratch = TempDir::new().unwrap();
    let checkout = Checkout::of(&workspace, scratch.path()).unwrap();
    let (package, bin) = (package.to_owned(), bin.to_owned());
    (CargoLayer { workspace, package, bin, ..layer(Path::new("")) }, checkout, scratch)
}

#[test]
fn the_builtin_workspace_is_staged_as_the_checkout_that_it_was_made_from() {
    let repository = Workspace::Directory(env!("CARGO_MANIFEST_DIR").into());
    let programs =
        [("gap-init", "gap-init"), ("gap-agent", "gapd"), ("gap-train", "gap-train"), ("gap-serve", "gap-serve")];
    for (package, bin) in programs {
        let [builtin, checkout] = [Workspace::Builtin, repository.clone()].map(|workspace| {
            let (layer, checkout, _scratch) = program(package, bin, workspace);
            let dest = tempfile::tempdir().unwrap();
            let staged = Staged::stage(&layer, &checkout, dest.path()).unwrap();
            let text = |name: &String| fs::read_to_string(dest.path().join(name)).unwrap();
            let files: Vec<_> = staged.files().iter().map(|name| (name.clone(), text(name))).collect();
            (*staged.digest(), files, Toolchain::of_host(&checkout).unwrap())
        });
        for (ours, theirs) in builtin.1.iter().zip(&checkout.1) {
            assert!(ours == theirs, "{package}: {}\n{}\n{}", ours.0, ours.1, theirs.1);
        }
        assert!(builtin.1.len() > 20, "{package}");
        assert_eq!((builtin.0, builtin.2), (checkout.0, checkout.2), "{package}");
    }
}

#[test]
fn the_builtin_workspace_resolves_to_the_crates_of_the_checkout() {
    let repository = Workspace::Directory(env!("CARGO_MANIFEST_DIR").into());
    let [builtin, checkout] = [Workspace::Builtin, repository].map(|workspace| {
        let (layer, checkout, _scratch) = program("gap-init", "gap-init", workspace);
        let dest = tempfile::tempdir().unwrap();
        let staged = Staged::stage(&layer, &checkout, dest.path()).unwrap();
        metadata::resolved_graph(&layer, &checkout, &staged, "x86_64-unknown-linux-gnu", false).unwrap();
        crates::pinned(&staged.root().join("Cargo.lock")).unwrap()
    });
    assert!(builtin.len() > 10);
    assert_eq!(builtin, checkout);
}

#[test]
fn the_builtin_workspace_is_unpacked_anew_and_taken_away_again() {
    let scratch = tempfile::tempdir().unwrap();
    let checkout = Checkout::of(&Workspace::Builtin, scratch.path()).unwrap();
    let toolchain = fs::read_to_string(checkout.dir().join("rust-toolchain.toml")).unwrap();
    assert!(toolchain.contains("channel") && !toolchain.contains("clippy"), "{toolchain}");
    let unknown = CargoLayer { package: "gap".to_owned(), workspace: Workspace::Builtin, ..layer(Path::new("")) };
    let dest = tempfile::tempdir().unwrap();
    let error = Staged::stage(&unknown, &checkout, dest.path()).unwrap_err().to_string();
    assert!(error.starts_with("the workspace `builtin` has no package `gap`; it has gap-agent,"), "{error}");
    drop(checkout);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    assert!(Checkout::of(&Workspace::Builtin, Path::new("/nonexistent")).is_err());
}

fn crate_file(entries: &[(&str, &[u8], tar::EntryType)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, content, kind) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        if kind.is_symlink() {
            header.set_link_name("/etc").unwrap();
        }
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn unpack(entries: &[(&str, &[u8], tar::EntryType)]) -> Result<tempfile::TempDir, CargoError> {
    let (dest, store_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(store_dir.path()).unwrap();
    let stored = store.insert_source(None, u64::MAX, crate_file(entries).as_slice()).unwrap();
    let row = LockedCrate {
        name: "a".to_owned(),
        version: "1.0.0".to_owned(),
        sha256: stored.digest,
        size: stored.size,
        license: None,
        used: true,
    };
    let toolchain = Toolchain { rustc: "1".to_owned(), commit: "c".to_owned(), host: "h".to_owned() };
    let locked = LockedCargo { version: None, license: None, sources: Digest::of(b""), toolchain, crates: vec![row] };
    unpack_crates(&locked, &store, dest.path())?;
    Ok(dest)
}

#[test]
fn a_crate_unpacks_into_its_own_directory_only() {
    use tar::EntryType::{Char, Regular, Symlink};
    let dest = unpack(&[("a-1.0.0/src/lib.rs", b"x", Regular)]).unwrap();
    assert_eq!(fs::read(dest.path().join("a-1.0.0/src/lib.rs")).unwrap(), b"x");
    assert!(dest.path().join("a-1.0.0/.cargo-checksum.json").is_file());
    for (path, kind) in [
        ("../a", Regular),
        ("/a-1.0.0/x", Regular),
        ("a-1.0.0/../../x", Regular),
        ("b-1.0.0/x", Regular),
        ("a-1.0.0/x", Symlink),
        ("a-1.0.0/x", Char),
    ] {
        let error = unpack(&[(path, b"", kind)]).unwrap_err();
        assert!(matches!(error, CargoError::BadCrate { .. }), "{path}: {error}");
    }
    assert!(unpack(&[("a-1.0.0/x", b"", Regular), ("a-1.0.0/x", b"", Regular)]).is_err(), "twice the same file");
}

#[test]
fn a_crate_that_is_a_bomb_is_refused() {
    use tar::EntryType::Regular;
    let zeros = vec![0; 1 << 20];
    let file = crate_file(&[("a-1.0.0/x", &zeros, Regular), ("a-1.0.0/y", &zeros, Regular)]);
    assert!(file.len() < 50_000, "it is small as it lies there");
    let row = LockedCrate {
        name: "a".to_owned(),
        version: "1.0.0".to_owned(),
        sha256: Digest::of(&file),
        size: file.len() as u64,
        license: None,
        used: true,
    };
    let unpack = |limit| {
        let dest = tempfile::tempdir().unwrap();
        crates::unpack(&row, file.as_slice(), dest.path(), limit)
    };
    unpack(3 << 20).unwrap();
    let error = unpack(1 << 20).unwrap_err().to_string();
    assert!(error.ends_with("`a-1.0.0/x` makes it unpack to more than 1048576 bytes"), "{error}");
    let error = unpack(2 << 20).unwrap_err().to_string();
    assert!(error.contains("`a-1.0.0/y`"), "{error}");
}

#[test]
fn a_crate_whose_headers_unpack_to_more_than_any_real_ones_is_refused() {
    use tar::EntryType::{GNULongName, Regular};
    let error = unpack(&[("a-1.0.0/n", &[b'n'; 2 << 20], GNULongName), ("a-1.0.0/x", b"", Regular)]).unwrap_err();
    assert!(error.to_string().contains("headers are larger"), "{error}");
}

#[test]
fn crates_from_elsewhere_than_a_registry_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Cargo.lock");
    let row = |source: &str, rest: &str| {
        let text =
            format!("version = 4\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"{source}\"\n{rest}");
        fs::write(&path, text).unwrap();
        crates::pinned(&path)
    };
    let checksum = format!("checksum = \"{}\"\n", Digest::of(b"a").to_hex());
    assert_eq!(row("registry+https://registry.invalid/index", &checksum).unwrap().len(), 1);
    let error = row("git+https://git.invalid/a?rev=1#1", "").unwrap_err();
    assert!(error.to_string().contains("comes from git+https://git.invalid/a;"), "{error}");
    assert!(row("registry+https://registry.invalid/index", "").is_err(), "no checksum");
}
