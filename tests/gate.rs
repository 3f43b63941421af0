//! The officer at the gate: what `verify` lets pass and what it refuses, through the command line.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::{Project, fail_with, gapimage, in_trixie, keygen, stdout, succeed};
use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
};

fn project() -> Project {
    Project::new(&[("weights", &[3; 200_000]), ("readme", b"text")])
}

fn verify(artifact: &Path, trust: &Path) -> Command {
    let mut command = gapimage();
    command.arg("verify").arg(artifact).arg("--trust").arg(trust);
    command
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], offset).unwrap();
}

#[test]
fn a_signed_artifact_passes_from_a_file_and_from_a_pipe() {
    let project = project();
    let artifact = project.signed("a.gap");
    succeed(&mut verify(&artifact, &project.keys.trust));
    succeed(verify(&artifact, &project.keys.trust).arg("--full"));
    succeed(verify(Path::new("-"), &project.keys.trust).stdin(Stdio::from(File::open(&artifact).unwrap())));
    let mut cat = Command::new("cat").arg(&artifact).stdout(Stdio::piped()).spawn().unwrap();
    let pipe = cat.stdout.take().unwrap();
    let json = stdout(&succeed(verify(Path::new("-"), &project.keys.trust).arg("--json").stdin(pipe)));
    assert!(cat.wait().unwrap().success());
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["trusted"], true, "{json}");
    assert_eq!(report["serial"], 3, "{json}");
}

#[test]
fn an_unsigned_artifact_and_an_unknown_key_are_refused() {
    let project = project();
    let artifact = project.build("a.gap");
    fail_with(3, &mut verify(&artifact, &project.keys.trust));
    succeed(gapimage().arg("sign").arg(&artifact).arg("--key").arg(&project.keys.key));
    let other = keygen(&project.path().join("other"));
    fail_with(3, &mut verify(&artifact, &other.trust));
    succeed(gapimage().arg("sign").arg(&artifact).arg("--key").arg(&other.key));
    let said = fail_with(3, &mut verify(&artifact, &project.keys.trust));
    assert!(said.contains("key"), "{said}");
}

#[test]
fn flipped_bytes_are_refused_wherever_they_are() {
    let project = project();
    let artifact = project.signed("a.gap");
    let len = fs::metadata(&artifact).unwrap().len();
    // The format's own tests flip every single byte; this walks the whole path of the command.
    for step in 0..60 {
        let offset = (len - 1) * step / 59;
        flip(&artifact, offset);
        fail_with(3, &mut verify(&artifact, &project.keys.trust));
        fail_with(3, verify(Path::new("-"), &project.keys.trust).stdin(Stdio::from(File::open(&artifact).unwrap())));
        flip(&artifact, offset);
    }
    succeed(&mut verify(&artifact, &project.keys.trust));
}

#[test]
fn a_shortened_or_lengthened_artifact_is_refused() {
    let project = project();
    let artifact = project.signed("a.gap");
    let len = fs::metadata(&artifact).unwrap().len();
    let mut file = OpenOptions::new().append(true).open(&artifact).unwrap();
    file.write_all(&[0; 512]).unwrap();
    fail_with(3, &mut verify(&artifact, &project.keys.trust));
    file.set_len(len - 512).unwrap();
    fail_with(3, &mut verify(&artifact, &project.keys.trust));
    fail_with(3, verify(Path::new("-"), &project.keys.trust).stdin(Stdio::from(File::open(&artifact).unwrap())));
}

#[test]
fn an_older_serial_is_refused() {
    let project = project();
    let artifact = project.signed("a.gap");
    succeed(verify(&artifact, &project.keys.trust).args(["--min-serial", "3"]));
    let said = fail_with(3, verify(&artifact, &project.keys.trust).args(["--min-serial", "4"]));
    assert!(said.contains('3') && said.contains('4'), "{said}");
}

#[test]
fn bytes_behind_the_artifact_are_allowed_on_a_block_device_only_and_reported() {
    let project = project();
    let artifact = project.signed("a.gap");
    let disk = project.path().join("disk");
    fs::copy(&artifact, &disk).unwrap();
    let mut file = OpenOptions::new().write(true).open(&disk).unwrap();
    let len = file.seek(SeekFrom::End(0)).unwrap();
    file.set_len(len.next_multiple_of(1 << 20) + (1 << 20)).unwrap();
    fail_with(3, &mut verify(&disk, &project.keys.trust));
    let device = stdout(&succeed(Command::new("losetup").args(["-f", "--show", "-r"]).arg(&disk)));
    let output = verify(Path::new(device.trim()), &project.keys.trust).output().unwrap();
    succeed(Command::new("losetup").arg("-d").arg(device.trim()));
    assert!(output.status.success(), "{}", fixture::said(&output));
    assert!(fixture::said(&output).contains("behind"), "{}", fixture::said(&output));
}

#[test]
fn a_missing_file_or_trust_is_no_verdict_and_odd_words_are_usage() {
    let project = project();
    let artifact = project.signed("a.gap");
    fail_with(1, &mut verify(&project.path().join("absent.gap"), &project.keys.trust));
    fail_with(1, &mut verify(&artifact, &project.path().join("absent.toml")));
    fail_with(2, gapimage().arg("verify").arg(&artifact));
}

#[test]
fn openssl_alone_and_cosign_check_the_signature() {
    let project = project();
    let artifact = project.signed("a.gap");
    let script = r#"
        set -e; cd "$1"; openssl pkey -in "$3" -pubout -out release.pub
        tar -xf "$2" index.json release.dsse.json
        jq -r .payload release.dsse.json | base64 -d > payload
        { printf 'DSSEv1 28 application/vnd.in-toto+json %s ' "$(stat -c %s payload)"; cat payload; } > pae
        jq -r '.signatures[0].sig' release.dsse.json | base64 -d > sig
        openssl pkeyutl -verify -rawin -pubin -inkey release.pub -in pae -sigfile sig
        jq -r .predicateType payload > type"#;
    succeed(Command::new("bash").args(["-c", script, "-"]).arg(project.path()).arg(&artifact).arg(&project.keys.key));
    let kind = fs::read_to_string(project.path().join("type")).unwrap();
    let cosign = |index: &str| {
        let mut command = in_trixie(&[project.path()], "cosign");
        command
            .args(["verify-blob-attestation", "--key", "/mnt/0/release.pub", "--signature", "/mnt/0/release.dsse.json"])
            .args(["--type", kind.trim(), "--insecure-ignore-tlog=true", index]);
        command
    };
    succeed(&mut cosign("/mnt/0/index.json"));
    let refused = cosign("/mnt/0/payload").output().unwrap();
    assert!(!refused.status.success(), "cosign accepted another file");
}

#[test]
fn signing_checks_everything_first_and_a_second_key_adds_a_signature() {
    let project = project();
    let artifact = project.build("a.gap");
    let len = fs::metadata(&artifact).unwrap().len();
    flip(&artifact, len - 200_000);
    fail_with(3, gapimage().arg("sign").arg(&artifact).arg("--key").arg(&project.keys.key));
    flip(&artifact, len - 200_000);
    let other = keygen(&project.path().join("other"));
    for key in [&project.keys.key, &other.key, &project.keys.key] {
        succeed(gapimage().arg("sign").arg(&artifact).arg("--key").arg(key));
    }
    let json = stdout(&succeed(gapimage().arg("inspect").arg(&artifact).arg("--json")));
    let inspected: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(inspected["signatures"].as_array().unwrap().len(), 2, "{json}");
}

#[test]
fn programs_are_told_how_far_the_check_is() {
    let project = project();
    let artifact = project.signed("a.gap");
    let output = succeed(verify(&artifact, &project.keys.trust).args(["--full", "--json"]));
    let events = String::from_utf8(output.stderr).unwrap();
    let events: Vec<serde_json::Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let end = events.iter().find(|event| event["event"] == "end").unwrap();
    let (done, total) = (end["done"].as_u64().unwrap(), end["total"].as_u64().unwrap());
    assert_eq!(done, total, "{events:?}");
    assert!(total > 2 * 200_000, "weights are hashed twice: {events:?}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let project = project();
    let artifact = project.signed("a.gap");
    let recipe = project.path().join("recipe.toml");
    let trust = project.keys.trust.display();
    for arguments in [
        format!("verify {} --trust {trust}", artifact.display()),
        format!("plan {}", recipe.display()),
        format!("sign {} --key {}", artifact.display(), project.keys.key.display()),
        "completions bash".to_owned(),
        "verify missing.gap --trust missing.toml".to_owned(),
    ] {
        let script = r#"exec 3>&1; { "$gapimage" $1 2>&1; echo $? >&3; } | true"#;
        let mut command = Command::new("bash");
        command.args(["-c", script, "-", &arguments]).env("gapimage", env!("CARGO_BIN_EXE_gapimage"));
        command.current_dir(project.path()).env("GAPIMAGE_STORE", fixture::store());
        let code = stdout(&succeed(&mut command));
        let expected = if arguments.contains("missing") { "1" } else { "0" };
        assert_eq!(code.trim(), expected, "{arguments}");
    }
}

#[test]
fn a_trust_file_may_follow_another_if_the_root_keys_of_that_signed_it() {
    let project = project();
    let (old, key) = (&project.keys.trust, &project.keys.key);
    let other = keygen(&project.path().join("other"));
    let new = project.path().join("new.toml");
    let next = fs::read_to_string(old).unwrap().replace("counter = 1", "counter = 2");
    fs::write(&new, &next).unwrap();
    let sign = |key: &Path| {
        let mut command = gapimage();
        command.args(["trust", "sign"]).arg(&new).arg("--key").arg(key);
        command
    };
    let check = |from: &Path| {
        let mut command = gapimage();
        command.args(["trust", "check"]).arg(from).arg(&new);
        command
    };
    fail_with(1, &mut check(old));
    succeed(&mut sign(key));
    let said = stdout(&succeed(&mut check(old)));
    assert!(said.contains("counter 2, which follows 1"), "{said}");
    succeed(&mut sign(key));
    succeed(&mut check(old));
    fail_with(3, &mut check(&new));

    // What it says is another's word once it is changed, and the signatures are of other bytes.
    fs::write(&new, format!("{next}# more\n")).unwrap();
    fail_with(3, &mut check(old));
    fail_with(1, &mut sign(key));
    fs::write(&new, &next).unwrap();

    // A key that the old file does not know spoils it, beside a good one and alone.
    succeed(&mut sign(&other.key));
    fail_with(3, &mut check(old));
    let signatures = project.path().join("new.toml.dsse.json");
    fs::remove_file(&signatures).unwrap();
    succeed(&mut sign(&other.key));
    fail_with(3, &mut check(old));

    // The release is verified with the new file as with the old one, and openssl checks the signature alone.
    fs::remove_file(&signatures).unwrap();
    succeed(&mut sign(key));
    let artifact = project.signed("a.gap");
    succeed(&mut verify(&artifact, &new));
    let script = r#"
        set -e; openssl pkey -in "$2" -pubout -out public; type=application/vnd.gapimage.trust.v1+toml
        jq -r .payload "$1" | base64 -d > payload
        { printf 'DSSEv1 %s %s %s ' ${#type} $type "$(stat -c %s payload)"; cat payload; } > pae
        jq -r '.signatures[0].sig' "$1" | base64 -d > sig; cmp payload new.toml
        openssl pkeyutl -verify -rawin -pubin -inkey public -in pae -sigfile sig"#;
    succeed(Command::new("bash").args(["-c", script, "-"]).arg(&signatures).arg(key).current_dir(project.path()));
}
