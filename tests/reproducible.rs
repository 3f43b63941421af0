//! Same inputs, same bytes; and no network once everything is fetched.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::{Project, fail_with, gapimage, quickstart, succeed};
use std::{fs, path::Path, process::Command};

const DEBIAN: &str = "[image.main]\nlayers = [\"base\", \"files\"]\n\
    [layer.base]\ndebian = { suite = \"trixie\", packages = [\"base-files\", \"libc6\", \"tzdata\", \"busybox\"] }\n\
    [layer.files]\nfiles = [{ path = \"site\", to = \"/srv\" }]\n";

fn same_bytes(a: &Path, b: &Path) {
    let status = Command::new("cmp").arg(a).arg(b).status().unwrap();
    assert!(status.success(), "{} and {} differ", a.display(), b.display());
}

#[test]
fn directory_umask_time_zone_locale_clock_user_and_cores_do_not_matter() {
    let project = Project::new(&[("one", b"1"), ("sub/two", &[2; 9000])]);
    project.recipe(DEBIAN);
    succeed(gapimage().arg("lock").arg(project.path().join("recipe.toml")));
    let first = project.build("first.gap");

    let elsewhere = tempfile::TempDir::new().unwrap();
    let copy = elsewhere.path().join("another directory");
    succeed(Command::new("cp").args(["-r", "--no-preserve=timestamps"]).arg(project.path()).arg(&copy));
    let fresh_store = elsewhere.path().join("store");
    // The sources are shared, what is built from them is not.
    fs::create_dir_all(&fresh_store).unwrap();
    succeed(Command::new("cp").arg("-r").arg(fixture::store().join("sources")).arg(&fresh_store));
    let script = format!(
        "umask 077; export TZ=Pacific/Kiritimati LC_ALL=tr_TR.UTF-8 HOME=/nonexistent; \
         exec taskset -c 0 faketime '2031-02-03 04:05:06' '{}' build recipe.toml -o second.gap --offline --store '{}'",
        env!("CARGO_BIN_EXE_gapimage"),
        fresh_store.display(),
    );
    succeed(Command::new("bash").args(["-c", &script]).current_dir(&copy));
    same_bytes(&first, &copy.join("second.gap"));
}

#[test]
#[ignore = "compiles the appliance once more, which takes minutes; make test-all runs it"]
fn the_appliance_is_the_same_when_built_again_from_an_empty_store() {
    let appliance = quickstart();
    let elsewhere = tempfile::TempDir::new().unwrap();
    let store = elsewhere.path().join("store");
    fs::create_dir_all(&store).unwrap();
    succeed(Command::new("cp").arg("-r").arg(fixture::store().join("sources")).arg(&store));
    let again = elsewhere.path().join("again.gap");
    // In a network namespace with nothing in it: whatever called out would fail.
    succeed(
        Command::new("unshare")
            .args(["-n", env!("CARGO_BIN_EXE_gapimage"), "build", "recipes/quickstart.toml", "--offline", "-o"])
            .arg(&again)
            .arg("--trust")
            .arg(&appliance.keys.trust)
            .arg("--store")
            .arg(&store)
            .current_dir(fixture::repository()),
    );
    succeed(gapimage().arg("sign").arg(&again).arg("--key").arg(&appliance.keys.key));
    same_bytes(&appliance.artifact, &again);
}

#[test]
fn offline_refuses_what_was_never_fetched() {
    let project = Project::new(&[("one", b"1")]);
    project.recipe(DEBIAN);
    succeed(gapimage().arg("lock").arg(project.path().join("recipe.toml")));
    let empty = project.path().join("empty-store");
    let said = fail_with(
        1,
        gapimage()
            .args(["build", "--offline"])
            .arg(project.path().join("recipe.toml"))
            .arg("-o")
            .arg(project.path().join("x.gap"))
            .arg("--store")
            .arg(&empty),
    );
    assert!(said.contains("offline"), "{said}");
    assert!(!project.path().join("x.gap").exists());
}

#[test]
fn a_build_that_was_killed_is_done_again_by_the_same_command() {
    let big = vec![9; 24 << 20];
    let project = Project::new(&[("big", &big)]);
    let reference = project.build("reference.gap");
    for wait_ms in [5, 20, 60, 120] {
        let store = project.path().join(format!("store-{wait_ms}"));
        let out = project.path().join("killed.gap");
        let mut command = gapimage();
        command.arg("build").arg(project.path().join("recipe.toml")).arg("-o").arg(&out).arg("--store").arg(&store);
        let mut child = command.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait_ms));
        // It may have finished already; then there is nothing to kill, and nothing may be wrong either.
        let _ = child.kill();
        child.wait().unwrap();
        succeed(&mut command);
        same_bytes(&reference, &out);
        fs::remove_file(&out).unwrap();
    }
}

#[test]
fn a_full_disk_is_said_before_or_while_building_and_leaves_nothing_behind() {
    let big = vec![9; 24 << 20];
    let project = Project::new(&[("big", &big)]);
    let script = format!(
        "set -e; mkdir small; mount -t tmpfs -o size=8m none small; set +e; \
         '{}' build recipe.toml -o small/x.gap --store store; code=$?; ls -A small; exit $code",
        env!("CARGO_BIN_EXE_gapimage")
    );
    let said = fail_with(1, Command::new("unshare").args(["-m", "bash", "-c", &script]).current_dir(project.path()));
    assert!(said.contains("space"), "{said}");
    assert!(!said.contains("x.gap\n"), "{said}");
}
