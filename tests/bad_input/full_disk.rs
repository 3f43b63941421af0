//! Disks that fill up in the middle. Each test has a small file system to itself, in a mount namespace of its own.

use super::{
    archive::Site,
    assert_says,
    fixture::{Project, succeed},
    package::{self, Package},
};
use std::{fs, path::Path, process::Command};

/// Runs a script in a mount namespace, with `$gapimage` as the command under test.
fn script(dir: &Path, text: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-m", "bash", "-c", text]).current_dir(dir).env("gapimage", env!("CARGO_BIN_EXE_gapimage"));
    command.env_remove("GAPIMAGE_STORE");
    command
}

#[test]
fn a_download_that_fills_the_disk_is_said_and_the_same_command_goes_on_once_there_is_space() {
    let site = Site::asking_for("\"hello\"");
    let noise: Vec<u8> = (0..600_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let hello = Package::new("hello", "", &package::deb("hello", &[("./f", tar::EntryType::Regular, "", &noise)]));
    site.publish(&[hello]);
    let text = "mkdir store; mount -t tmpfs -o size=1m none store
        $gapimage lock recipe.toml --store store; echo first $?; ls
        mount -o remount,size=64m store
        $gapimage lock recipe.toml --store store; echo second $?; ls";
    let output = succeed(&mut script(site.project.path(), text));
    let said = super::fixture::said(&output);
    let (first, second) = said.split_once("first 1").unwrap_or_else(|| panic!("{said}"));
    assert_says(&said, &["space"]);
    assert!(!first.contains("recipe.lock\n"), "{said}");
    assert!(second.contains("second 0") && second.contains("recipe.lock"), "{said}");
}

/// Small files take an inode each, so a file system with few of them is full at any step of a build that one likes,
/// however much space the build sees beforehand.
#[test]
fn a_disk_that_is_full_at_any_step_of_a_build_leaves_nothing_half_written() {
    let project = Project::new(&[("one", b"1"), ("two", &[2; 300_000])]);
    let reference = project.build("reference.gap");
    let text = "mkdir small; mount -t tmpfs -o size=512m,nr_inodes=$1 none small
        for again in 1 2; do
          $gapimage build recipe.toml -o small/x.gap --store small/store; code=$?
          echo \"code $code\"; find small -name '*.partial' | sed 's/^/partial: /'
          if [ $code = 0 ]; then cmp small/x.gap reference.gap && echo same; break; fi
          [ ! -e small/x.gap ] || cmp small/x.gap reference.gap || echo half
          mount -o remount,nr_inodes=0 small
        done; rm -f recipe.lock";
    let mut refused = 0;
    for inodes in 2..30 {
        let output = succeed(script(project.path(), text).arg("-").arg(inodes.to_string()));
        let said = super::fixture::said(&output);
        assert!(said.contains("same") && !said.contains("half") && !said.contains("partial: "), "{inodes}: {said}");
        if said.contains("code 1") {
            assert_says(&said, &["space"]);
            refused += 1;
        }
        fs::remove_dir(project.path().join("small")).unwrap();
    }
    assert!(refused > 3, "the file systems were too large for this test: {refused}");
    assert!(reference.exists());
}

#[test]
fn a_full_disk_leaves_an_artifact_as_it_was_before_signing() {
    let project = Project::new(&[("one", b"1")]);
    project.build("unsigned.gap");
    let text = "set -e; mkdir small; mount -t tmpfs -o size=4m none small; cp unsigned.gap small/x.gap
        dd if=/dev/zero of=small/filler bs=4k 2>/dev/null || true; truncate -s -32k small/filler
        set +e; $gapimage sign small/x.gap --key keys/release.key; echo code $?
        cmp small/x.gap unsigned.gap && echo untouched; ls small
        rm small/filler; $gapimage sign small/x.gap --key keys/release.key && echo signed
        $gapimage verify small/x.gap --trust keys/trust.toml && ls small | wc -l";
    let output = succeed(&mut script(project.path(), text));
    let said = super::fixture::said(&output);
    assert_says(&said, &["code 1", "space", "untouched", "signed"]);
    assert!(!said.contains("journal\n"), "half a journal was left: {said}");
    assert!(said.contains("\n1\n"), "{said}");
}

#[test]
fn a_lock_that_does_not_fit_leaves_the_old_one() {
    let project = Project::new(&[("one", b"1")]);
    project.build("x.gap");
    fs::write(project.path().join("site/one"), "2").unwrap();
    let text = "mkdir small; mount -t tmpfs -o size=1m none small; cp -r recipe.toml recipe.lock site keys small
        cp small/recipe.lock before; dd if=/dev/zero of=small/filler bs=4k 2>/dev/null
        $gapimage lock small/recipe.toml --store store; echo code $?
        cmp small/recipe.lock before && echo untouched; ls -A small | sed 's/^/there: /'";
    let said = super::fixture::said(&succeed(&mut script(project.path(), text)));
    assert_says(&said, &["code 1", "space", "untouched"]);
    assert!(!said.contains("there: .tmp"), "{said}");
}

#[test]
fn an_artifact_longer_than_a_file_may_be_is_told_from_a_full_disk() {
    let project = Project::new(&[("one", &[2; 900_000])]);
    let text = "trap '' XFSZ; ulimit -f 500; $gapimage build recipe.toml -o x.gap --store store; echo code $?; ls -A";
    let said = super::fixture::said(&succeed(&mut script(project.path(), text)));
    assert_says(&said, &["code 1", "FAT32"]);
    assert!(!said.contains("x.gap\n") && !said.contains("partial"), "{said}");
}
