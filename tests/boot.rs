//! The quickstart appliance boots: from disks of both kinds, from a file on a file system, and not when tampered with.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::{fail_with, gapimage, quickstart, stdout, succeed};
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// Emulated machines share two cores; one at a time keeps their deadlines honest.
static MACHINE: Mutex<()> = Mutex::new(());

fn boot(artifact: &Path) -> Command {
    let mut command = gapimage();
    command.arg("boot").arg(artifact).arg("--check");
    command
}

fn system(command: &mut Command) -> serde_json::Value {
    serde_json::from_slice(&succeed(command).stdout).unwrap()
}

#[track_caller]
fn copy_of(artifact: &Path, name: &str) -> PathBuf {
    let copy = fixture::cache().join(name);
    succeed(Command::new("cp").arg("--reflink=auto").arg(artifact).arg(&copy));
    copy
}

#[test]
fn it_boots_from_a_disk_with_512_byte_sectors_and_says_who_signed_it() {
    let appliance = quickstart();
    let _machine = MACHINE.lock();
    let system = system(boot(&appliance.artifact).arg("--trust").arg(&appliance.keys.trust));
    assert_eq!(system["release"]["name"], "quickstart");
    assert_eq!(system["release"]["signers"].as_array().unwrap().len(), 1, "{system}");
    assert_eq!(system["trust"]["rollback_protection"], "none");
    assert!(system["layers"].as_array().unwrap().len() >= 3, "{system}");
}

#[test]
fn it_boots_from_a_disk_with_4096_byte_sectors() {
    let appliance = quickstart();
    let _machine = MACHINE.lock();
    let system = system(boot(&appliance.artifact).args(["--block-size", "4096"]));
    assert_eq!(system["release"]["name"], "quickstart");
}

#[test]
fn a_flipped_byte_in_a_layer_is_a_read_error_inside_and_the_agent_reports_it() {
    let appliance = quickstart();
    let inspected: serde_json::Value =
        serde_json::from_str(&stdout(&succeed(gapimage().arg("inspect").arg(&appliance.artifact).arg("--json"))))
            .unwrap();
    let image = inspected["images"].as_array().unwrap().iter().find(|image| image["name"] == "os").unwrap();
    let kernel = image["layers"].as_array().unwrap().iter().find(|layer| layer["name"] == "kernel").unwrap();
    // Near the end of the kernel layer lie modules that no boot needs.
    let offset = kernel["offset"].as_u64().unwrap() + kernel["size"].as_u64().unwrap() - 400_000;
    let damaged = copy_of(&appliance.artifact, "damaged.gap");
    let file = fs::OpenOptions::new().read(true).write(true).open(&damaged).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();

    fail_with(3, gapimage().arg("verify").arg(&damaged).arg("--trust").arg(&appliance.keys.trust));
    let _machine = MACHINE.lock();
    let system = system(boot(&damaged).arg("--wait-for-scrub"));
    let layers = system["layers"].as_array().unwrap();
    let kernel = layers.iter().find(|layer| layer["name"] == "kernel").unwrap();
    assert_eq!(kernel["state"], "damaged", "{system}");
    assert!(layers.iter().filter(|layer| layer["name"] != "kernel").all(|layer| layer["state"] == "verified"));
    fs::remove_file(damaged).unwrap();
}

#[test]
fn an_appliance_signed_by_nobody_whom_it_trusts_does_not_start() {
    let appliance = quickstart();
    let stranger = tempfile::TempDir::new().unwrap();
    let keys = fixture::keygen(&stranger.path().join("keys"));
    // Built to trust the one key, signed by another: the initrd carries the appliance's own trust root.
    let artifact = fixture::cache().join("stranger.gap");
    let _ = fs::remove_file(&artifact);
    succeed(
        gapimage()
            .args(["build", "recipes/quickstart.toml", "-o"])
            .arg(&artifact)
            .arg("--trust")
            .arg(&appliance.keys.trust)
            .current_dir(fixture::repository()),
    );
    succeed(gapimage().arg("sign").arg(&artifact).arg("--key").arg(&keys.key));
    let _machine = MACHINE.lock();
    let said = fail_with(3, &mut boot(&artifact));
    assert!(said.contains("not trusted"), "{said}");
    fs::remove_file(artifact).unwrap();
}

#[test]
fn ovmf_and_partition_tools_accept_the_disk_and_the_boot_image() {
    let appliance = quickstart();
    let verified = stdout(&succeed(Command::new("/sbin/sgdisk").arg("-v").arg(&appliance.artifact)));
    assert!(verified.contains("No problems found"), "{verified}");
    for sector in ["512", "4096"] {
        let listed = stdout(&succeed(Command::new("/sbin/fdisk").args(["-b", sector, "-l"]).arg(&appliance.artifact)));
        assert!(listed.contains("EFI System"), "{listed}");
    }
    let dir = tempfile::TempDir::new().unwrap();
    let inspected: serde_json::Value =
        serde_json::from_str(&stdout(&succeed(gapimage().arg("inspect").arg(&appliance.artifact).arg("--json"))))
            .unwrap();
    let esp = dir.path().join("esp");
    let member = &inspected["esp"];
    let mut bytes = vec![0; member["size"].as_u64().unwrap() as usize];
    fs::File::open(&appliance.artifact).unwrap().read_exact_at(&mut bytes, member["offset"].as_u64().unwrap()).unwrap();
    fs::write(&esp, bytes).unwrap();
    succeed(Command::new("/sbin/fsck.vfat").arg("-n").arg(&esp));
    succeed(Command::new("mcopy").arg("-i").arg(&esp).arg("::/EFI/BOOT/BOOTX64.EFI").arg(dir.path().join("uki.efi")));
    let sections = stdout(&succeed(fixture::in_trixie(&[dir.path()], "ukify").args(["inspect", "/mnt/0/uki.efi"])));
    for section in [".linux", ".initrd", ".cmdline", ".osrel", ".sbat"] {
        assert!(sections.contains(section), "{sections}");
    }
}

/// Makes a disk as an administrator would: an ESP with the boot image, and a file system that holds the artifact, made
/// by `fill` (the file system's image is `$1.fs`, of `$size` MiB; what it is to hold lies in `$1.d`).
fn carrier(appliance: &fixture::Appliance, disk: &Path, fill: &str) {
    let inspected: serde_json::Value =
        serde_json::from_str(&stdout(&succeed(gapimage().arg("inspect").arg(&appliance.artifact).arg("--json"))))
            .unwrap();
    let esp = &inspected["esp"];
    let script = format!(
        r#"
        set -e; rm -rf "$1" "$1".fs "$1".esp "$1".d
        dd if="$2" of="$1".esp bs=4096 skip=$(($3 / 4096)) count=$(($4 / 4096)) status=none
        mkdir -p "$1".d; ln -f "$2" "$1".d/appliance.gap 2>/dev/null || cp "$2" "$1".d/appliance.gap
        size=$(( $(stat -c %s "$2") / 1048576 * 11 / 10 + 400 ))
        truncate -s ${{size}}M "$1".fs
        {fill}
        esp=$(( ($4 + 1048575) / 1048576 ))
        truncate -s $(( size + esp + 3 ))M "$1"
        sgdisk -n 1:1M:+${{esp}}M -t 1:ef00 -n 2:0:+${{size}}M "$1" >/dev/null
        dd if="$1".esp of="$1" bs=1M seek=1 conv=notrunc status=none
        dd if="$1".fs of="$1" bs=1M seek=$(( esp + 1 )) conv=notrunc,sparse status=none
        rm -rf "$1".fs "$1".esp "$1".d"#
    );
    succeed(
        Command::new("bash")
            .args(["-c", &script, "-"])
            .arg(disk)
            .arg(&appliance.artifact)
            .arg(esp["offset"].to_string())
            .arg(esp["size"].to_string())
            .env("PATH", format!("{}:/sbin:/usr/sbin", std::env::var("PATH").unwrap())),
    );
}

#[track_caller]
fn boots_from_a_file_on(name: &str, fill: &str) {
    let appliance = quickstart();
    let disk = fixture::cache().join(format!("{name}.img"));
    carrier(appliance, &disk, fill);
    let _machine = MACHINE.lock();
    let system = system(&mut boot(&disk));
    assert_eq!(system["medium"]["file"], "/dev/vda2:/appliance.gap", "{system}");
    fs::remove_file(disk).unwrap();
}

#[test]
fn it_boots_from_a_file_on_ext4() {
    boots_from_a_file_on("ext4", r#"mke2fs -q -t ext4 -d "$1".d "$1".fs"#);
}

/// What sticks are sold with.
#[test]
#[ignore = "one more boot, in `make test-all`"]
fn it_boots_from_a_file_on_exfat() {
    let fill = r#"
        device=$(losetup -f --show "$1".fs); mkdir -p "$1".mnt
        trap 'umount "$1".mnt 2>/dev/null || true; losetup -d $device; rmdir "$1".mnt' EXIT
        mkfs.exfat "$device" >/dev/null
        mount.exfat-fuse "$device" "$1".mnt
        cp "$1".d/appliance.gap "$1".mnt/
        umount "$1".mnt; sync "$device""#;
    boots_from_a_file_on("exfat", fill);
}

#[test]
#[ignore = "one more boot, in `make test-all`"]
fn it_boots_from_a_file_on_xfs() {
    let fill = r#"
        device=$(losetup -f --show "$1".fs); mkdir -p "$1".mnt
        trap 'umount "$1".mnt 2>/dev/null || true; losetup -d $device; rmdir "$1".mnt' EXIT
        mkfs.xfs -q "$device"; mount -t xfs "$device" "$1".mnt
        cp "$1".d/appliance.gap "$1".mnt/
        umount "$1".mnt; sync "$device""#;
    boots_from_a_file_on("xfs", fill);
}

#[test]
#[ignore = "one more boot, in `make test-all`"]
fn it_boots_from_a_sata_disk() {
    let appliance = quickstart();
    let _machine = MACHINE.lock();
    let system = system(boot(&appliance.artifact).args(["--attach", "sata"]));
    assert_eq!(system["medium"]["device"], "/dev/sda", "{system}");
}

#[test]
#[ignore = "three more boots, in `make test-all`"]
fn it_boots_from_nvme_and_from_sticks_of_both_kinds() {
    let appliance = quickstart();
    let _machine = MACHINE.lock();
    for (bus, size, device) in
        [("nvme", "512", "/dev/nvme0n1"), ("usb", "512", "/dev/sda"), ("usb", "4096", "/dev/sda")]
    {
        let system = system(boot(&appliance.artifact).args(["--attach", bus, "--block-size", size]));
        assert_eq!(system["medium"]["device"], device, "{system}");
    }
}
