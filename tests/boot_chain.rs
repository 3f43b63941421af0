//! The boot image against tools that others wrote, on a real kernel.
//!
//! `GAPIMAGE_DEBIAN_ROOT` names the root of a Debian system with the packages linux-image-amd64,
//! systemd-boot-efi, systemd-ukify and kmod, such as mmdebstrap makes it. The tests are ignored
//! unless asked for, because they need that root, the rights to chroot into it, and QEMU.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests may fail this way"
)]

use gapimage::{
    boot::{
        cmdline::command_line,
        console::Stop,
        depmod::ModuleTables,
        esp::EspPlan,
        initramfs::Initramfs,
        modules::{BootModules, Kernel},
        qemu::{Accelerator, Attach, Machine, Options},
        uki::Uki,
    },
    layer::tree::{Content, Meta, Node, Tree, TreePath},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Cursor,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const STUB: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";
const OS_RELEASE: &str = "ID=gapimage\n";

fn root() -> PathBuf {
    env::var_os("GAPIMAGE_DEBIAN_ROOT").expect("GAPIMAGE_DEBIAN_ROOT names a Debian root").into()
}

/// The regular files below `usr/lib/modules` and `boot`, except the tables that depmod made.
fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut directories = vec![root.join("usr/lib/modules"), root.join("boot")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file()
                && !["modules.dep", "modules.alias", "modules.softdep"].iter().any(|name| path.ends_with(name))
            {
                let len = entry.metadata().unwrap().len();
                let name = TreePath::new(path.strip_prefix(root).unwrap().as_os_str().as_bytes()).unwrap();
                tree.insert(
                    name,
                    Node::File { meta: Meta::default(), content: Content::Path { path: path.into(), len } },
                );
            }
        }
    }
    tree
}

/// Everything up to the boot image, with `init` as first process.
struct Chain {
    kernel: Kernel,
    tables: ModuleTables,
    vmlinuz: Vec<u8>,
    initrd: Vec<u8>,
    cmdline: String,
    uki: Vec<u8>,
}

impl Chain {
    fn build(root: &Path, init: &[u8]) -> Self {
        let tree = tree(root);
        let kernel = Kernel::find(&tree, None).unwrap();
        let tables = ModuleTables::generate(&tree, &kernel).unwrap();
        let modules = BootModules::take(&tree, &kernel, &tables).unwrap();
        let initrd = Initramfs { init, trust: b"", build_time: 1_700_000_000, modules: &modules }.build().unwrap();
        let vmlinuz = kernel.read_image(&tree).unwrap();
        let cmdline = command_line("chain", 1, &gap_format::Digest::of(b"no image"));
        let stub = fs::read(root.join(STUB)).unwrap();
        let (os_release, uname) = (OS_RELEASE, kernel.release.as_str());
        let uki = Uki { stub: &stub, os_release, cmdline: &cmdline, uname, kernel: &vmlinuz, initrd: &initrd };
        let uki = uki.build().unwrap();
        Self { kernel, tables, vmlinuz, initrd, cmdline, uki }
    }
}

fn dependencies(table: &str) -> BTreeMap<&str, Vec<&str>> {
    table
        .lines()
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, all)| (name, all.split_whitespace().collect()))
        .collect()
}

#[test]
#[ignore = "needs GAPIMAGE_DEBIAN_ROOT"]
fn the_module_tables_are_those_of_depmod() {
    let root = root();
    let chain = Chain::build(&root, b"");
    let theirs = |name: &str| fs::read_to_string(chain.kernel.modules.under(&root).join(name)).unwrap();
    assert!(chain.tables.alias == theirs("modules.alias"));
    assert!(chain.tables.softdep == theirs("modules.softdep"));
    let dep = theirs("modules.dep");
    let (ours, theirs) = (dependencies(&chain.tables.dep), dependencies(&dep));
    assert!(ours.keys().eq(theirs.keys()));
    for (module, needed) in &ours {
        let set = |needed: &Vec<&str>| needed.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(set(needed), set(&theirs[module]), "{module}");
        let mut loaded = BTreeSet::new();
        for name in needed.iter().rev() {
            assert!(ours[name].iter().all(|before| loaded.contains(before)), "{module}: {name} is loaded too early");
            loaded.insert(*name);
        }
    }
}

#[test]
#[ignore = "needs GAPIMAGE_DEBIAN_ROOT and the rights to chroot"]
fn ukify_makes_the_same_image_but_for_the_checksum() {
    let root = root();
    let chain = Chain::build(&root, b"\x7fELF");
    let work = tempfile::tempdir_in(root.join("tmp")).unwrap();
    let inside = Path::new("/tmp").join(work.path().file_name().unwrap());
    for (name, content) in [("vmlinuz", &chain.vmlinuz), ("initrd", &chain.initrd), ("ours.efi", &chain.uki)] {
        fs::write(work.path().join(name), content).unwrap();
    }
    fs::write(work.path().join("os-release"), OS_RELEASE).unwrap();
    let argument = |option: &str, name: &str| format!("--{option}={}", inside.join(name).display());
    let ukify = |arguments: &[String]| {
        let output = Command::new("chroot").arg(&root).arg("ukify").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    ukify(&[
        "build".into(),
        argument("linux", "vmlinuz"),
        argument("initrd", "initrd"),
        argument("output", "theirs.efi"),
        format!("--os-release=@{}", inside.join("os-release").display()),
        format!("--cmdline={}", chain.cmdline),
        format!("--uname={}", chain.kernel.release),
        format!("--stub=/{STUB}"),
    ]);
    let theirs = fs::read(work.path().join("theirs.efi")).unwrap();
    assert_eq!(theirs.len(), chain.uki.len());
    let differing: Vec<usize> = (0..theirs.len()).filter(|&at| theirs[at] != chain.uki[at]).collect();
    let (first, last) = (differing[0], differing[differing.len() - 1]);
    assert!(last - first < 4 && theirs[first..=last].iter().all(|&byte| byte == 0), "bytes {first}..={last} differ");
    let inspected = ukify(&["inspect".into(), inside.join("ours.efi").display().to_string()]);
    assert!(inspected.contains(&chain.cmdline) && inspected.contains("uki,1,UKI,uki,1"), "{inspected}");
}

/// A first process that says that it was reached, and waits.
fn init(directory: &Path) -> Vec<u8> {
    let source = r#"fn main() {
        let lists = ["order", "alias", "depend"].map(|name| std::fs::read_to_string(format!("/gap/modules/{name}")).unwrap().lines().count());
        std::fs::write("/dev/console", format!("gap-init: failed: reached with {lists:?}\n")).unwrap();
        loop { std::thread::park() }
    }"#;
    fs::write(directory.join("init.rs"), source).unwrap();
    let arguments =
        ["--edition=2024", "-O", "-Ctarget-feature=+crt-static", "-Cstrip=symbols", "init.rs", "-o", "init"];
    assert!(Command::new("rustc").args(arguments).current_dir(directory).status().unwrap().success());
    fs::read(directory.join("init")).unwrap()
}

/// Lays the partition on a disk whose table has blocks of 512 bytes.
fn disk(path: &Path, esp: &[u8]) {
    const START: u64 = 1 << 20;
    let file = fs::File::create(path).unwrap();
    file.set_len(START + esp.len() as u64 + START).unwrap();
    let partition = format!("1:{}:+{}K", START / 512, esp.len() / 1024);
    let status =
        Command::new("/usr/sbin/sgdisk").args(["-n", &partition, "-t", "1:ef00"]).arg(path).output().unwrap().status;
    assert!(status.success());
    file.write_all_at(esp, START).unwrap();
}

#[test]
#[ignore = "needs GAPIMAGE_DEBIAN_ROOT and QEMU"]
fn firmware_starts_the_image_from_a_virtual_disk_nvme_and_a_stick() {
    let directory = tempfile::tempdir().unwrap();
    let chain = Chain::build(&root(), &init(directory.path()));
    let plan = EspPlan::new(chain.uki.len() as u64).unwrap();
    let mut esp = Cursor::new(vec![0; plan.size() as usize]);
    plan.write(&mut esp, &chain.uki, 7).unwrap();
    let path = directory.path().join("disk");
    disk(&path, esp.get_ref());
    let before = gap_format::Digest::of(&fs::read(&path).unwrap());
    for attach in [Attach::Virtio, Attach::Nvme, Attach::Usb] {
        let options = Options { attach, ..Options::new(&path, Accelerator::detect().unwrap()) };
        let mut machine = Machine::start(&options).unwrap();
        let stop = machine.wait_for(Duration::from_secs(120), Stop::of_line).unwrap();
        assert!(matches!(&stop, Stop::Failed(said) if said.starts_with("reached with [")), "{stop:?}");
        machine.powerdown(Duration::ZERO).unwrap();
    }
    assert_eq!(gap_format::Digest::of(&fs::read(&path).unwrap()), before, "the disk was not written");
}
