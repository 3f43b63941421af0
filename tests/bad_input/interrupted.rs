//! kill -9 in the middle, then the same command again.

use super::{
    archive::Site,
    assert_says,
    fixture::{Project, fail_with, gapimage, said, succeed},
    package::{self, Package},
    server::Behaviour,
};
use gap_format::sign::journal_path;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

fn sign(project: &Project, artifact: &Path) -> Command {
    let mut command = gapimage();
    command.arg("sign").arg(artifact).arg("--key").arg(&project.keys.key);
    command
}

fn small() -> (Project, PathBuf, Vec<u8>, Vec<u8>) {
    let project = Project::new(&[("weights", &[3; 200_000])]);
    let unsigned = fs::read(project.build("unsigned.gap")).unwrap();
    let signed = fs::read(project.signed("signed.gap")).unwrap();
    let artifact = project.path().join("x.gap");
    (project, artifact, unsigned, signed)
}

/// The journal that signing leaves when it is killed: what the envelope's region held before.
fn journal(unsigned: &[u8]) -> (Vec<u8>, usize) {
    let mut archive = tar::Archive::new(unsigned);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let envelope = entries.find(|entry| entry.path().unwrap().ends_with("release.dsse.json")).unwrap();
    let at = envelope.raw_file_position() as usize;
    let mut journal = b"gapimage-sign-2\n".to_vec();
    journal.extend((at as u64).to_le_bytes());
    journal.extend(gap_format::Digest::of(&unsigned[..at]).as_bytes());
    journal.extend(&unsigned[at..at + 65_536]);
    let sum = gap_format::Digest::of(&journal);
    journal.extend(sum.as_bytes());
    (journal, at)
}

#[test]
fn a_signing_that_was_interrupted_at_any_step_is_undone_and_done_by_the_same_command() {
    let (project, artifact, unsigned, signed) = small();
    let (journal, at) = journal(&unsigned);
    let half = journal.len() / 2;
    let mut torn = signed.clone();
    torn[at + 4096..at + 65_536].copy_from_slice(&unsigned[at + 4096..at + 65_536]);
    torn[at + 200] = 0;
    let states: [(&[u8], Option<&[u8]>); 5] = [
        (&unsigned, Some(&[])),
        (&unsigned, Some(&journal[..half])),
        (&unsigned, Some(&journal)),
        (&torn, Some(&journal)),
        (&signed, Some(&journal)),
    ];
    for (number, (bytes, left)) in states.into_iter().enumerate() {
        fs::write(&artifact, bytes).unwrap();
        fs::write(journal_path(&artifact), left.unwrap()).unwrap();
        let output = succeed(&mut sign(&project, &artifact));
        assert_says(&said(&output), &["undone"]);
        assert!(fs::read(&artifact).unwrap() == signed, "state {number}");
        assert!(!journal_path(&artifact).exists(), "state {number}");
    }
}

#[test]
fn the_journal_of_an_artifact_that_is_gone_does_not_touch_the_one_that_was_built_in_its_place() {
    let (project, artifact, unsigned, _) = small();
    let (journal, _) = journal(&unsigned);
    fs::write(project.path().join("site/weights"), [4; 200_000]).unwrap();
    fs::write(journal_path(&artifact), &journal).unwrap();
    let other = fs::read(project.build("other.gap")).unwrap();
    fs::write(&artifact, &other).unwrap();
    assert_says(&fail_with(1, &mut sign(&project, &artifact)), &["journal", "does not fit"]);
    assert!(fs::read(&artifact).unwrap() == other, "it was written to");
    // Building takes the journal away with what it was about.
    fs::remove_file(&artifact).unwrap();
    assert!(fs::read(project.build("x.gap")).unwrap() == other);
    assert!(!journal_path(&artifact).exists());
    succeed(&mut sign(&project, &artifact));
}

/// A limit on the length of files makes the write fail in the middle of the envelope.
#[test]
fn a_signing_that_cannot_write_to_the_end_is_undone_and_done_by_the_same_command() {
    let (project, artifact, unsigned, signed) = small();
    fs::write(&artifact, &unsigned).unwrap();
    let limit = (journal(&unsigned).1 + 65_536) / 1024 - 2;
    let text = "trap '' XFSZ; ulimit -f $1; exec $gapimage sign x.gap --key keys/release.key";
    let mut limited = Command::new("bash");
    limited.args(["-c", text, "-", &limit.to_string()]).env("gapimage", env!("CARGO_BIN_EXE_gapimage"));
    let said = fail_with(1, limited.current_dir(project.path()));
    assert_says(&said, &["cannot write", "x.gap", "File too large"]);
    succeed(&mut sign(&project, &artifact));
    assert!(fs::read(&artifact).unwrap() == signed);
    assert!(!journal_path(&artifact).exists());
}

#[test]
fn a_signing_that_is_killed_at_any_time_is_done_by_the_same_command() {
    let (project, artifact, unsigned, signed) = small();
    for wait_ms in [0, 2, 4, 6, 8, 10, 12, 15, 20, 30] {
        fs::write(&artifact, &unsigned).unwrap();
        let mut child = sign(&project, &artifact).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(wait_ms));
        // It may be done already; then there is nothing to kill, and nothing may be wrong either.
        let _ = child.kill();
        child.wait().unwrap();
        succeed(&mut sign(&project, &artifact));
        assert!(fs::read(&artifact).unwrap() == signed, "after {wait_ms} ms");
        assert!(!journal_path(&artifact).exists(), "after {wait_ms} ms");
    }
}

#[test]
fn a_download_that_is_killed_is_continued_by_the_same_command() {
    let site = Site::asking_for("\"hello\"");
    let noise: Vec<u8> = (0..400_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let hello = Package::new("hello", "", &package::deb("hello", &[("./f", tar::EntryType::Regular, "", &noise)]));
    site.publish(&[hello]);
    site.server.misbehave("pool/hello.deb", Behaviour::Stall(1_000_000));
    let mut child = site.command("lock").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !site.server.requests().iter().any(|request| request == "/pool/hello.deb") {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        sleep(Duration::from_millis(10));
    }
    sleep(Duration::from_millis(500));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!site.project.path().join("recipe.lock").exists());
    site.server.misbehave("pool/hello.deb", Behaviour::Good);
    succeed(&mut site.command("lock"));
    let requests = site.server.requests();
    let last = requests.iter().rfind(|request| request.starts_with("/pool/hello.deb")).unwrap();
    assert!(last.starts_with("/pool/hello.deb@"), "it was not continued: {requests:?}");
    succeed(site.command("build").args(["-o", "x.gap", "--offline"]));
}
