//! What a good artifact gives: to a verifier, to a booting machine, to a signer, and to tools of others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod fixture;

use fixture::{Artifact, check, policy, release, signing_key, trust, unsigned, verify_both};
use gap_format::{
    Digest, Release, Slice,
    dsse::EnvelopeError,
    sign::{SignError, journal_path, recover, sign_in_place},
    statement::Kind,
    verify::{Extent, account, verify, verify_stream},
};
use std::{
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

#[test]
fn good_artifacts_are_trusted_from_a_file_and_a_pipe() {
    for artifact in [Artifact::appliance(), Artifact::archive()] {
        let accounted = verify_both(&artifact.bytes).unwrap();
        assert_eq!(accounted.release.statement(), &artifact.statement);
        let names: Vec<_> = accounted.release.signers().iter().map(|signer| signer.name.as_str()).collect();
        assert_eq!(names.len(), 2);
        assert!(names.contains(&"key-1") && names.contains(&"key-2"));
    }
}

#[test]
fn the_full_check_hashes_covered_blobs_twice() {
    let artifact = Artifact::archive();
    let extent = Extent::File(artifact.bytes.len() as u64);
    let hashed = |full| {
        let (done, total) = (AtomicU64::new(0), AtomicU64::new(0));
        let progress = |bytes, all| {
            done.fetch_add(bytes, Ordering::Relaxed);
            total.store(all, Ordering::Relaxed);
        };
        let check = gap_format::verify::Check { progress: &progress, ..check(2, full) };
        verify(&artifact.bytes, extent, &trust(), &policy(), &check).unwrap();
        assert_eq!(done.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
        done.store(0, Ordering::Relaxed);
        verify_stream(&mut artifact.bytes.as_slice(), &trust(), &policy(), &check).unwrap();
        assert_eq!(done.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
        total.into_inner()
    };
    assert_eq!(hashed(true) - hashed(false), 7 * 4096);
}

#[test]
fn a_booting_machine_finds_its_mounts() {
    let artifact = Artifact::appliance();
    let mut disk = vec![0xEE; 4096];
    disk.extend(&artifact.bytes);
    let medium = Slice::new(&disk, 4096, artifact.bytes.len() as u64);
    let release = Release::open(&medium, &trust(), &policy()).unwrap();
    assert_eq!(release.index().by_name("os").map(|os| os.size), Some(19));
    let set = release.mount_set(&medium, &artifact.mount).unwrap();
    assert_eq!(set.layers.len(), 1);
    for mount in set.layers.iter().chain([&set.metadata]) {
        let data = &artifact.bytes[mount.offset as usize..(mount.offset + mount.size) as usize];
        assert_eq!(Digest::of(data), mount.digest);
        let root = gap_format::verity::verify_root(&data.to_vec(), mount.size, 1, &|_| ()).unwrap();
        assert_eq!(root, mount.root);
        let tree = &artifact.bytes[mount.tree_offset as usize..(mount.tree_offset + mount.tree_size) as usize];
        assert_eq!(Digest::of(&tree[..4096]), mount.root);
    }
    let os = release.index().by_name("os").unwrap().digest;
    assert!(release.mount_set(&medium, &os).unwrap_err().to_string().contains("is refused"));
    assert!(release.read_blob(&medium, &artifact.mount, 10).unwrap_err().to_string().contains("10 are allowed"));
    assert!(release.read_blob(&medium, &Digest::of(b"none"), 10).is_err());
}

#[test]
fn a_blob_that_changed_since_the_head_was_read_is_refused() {
    let mut artifact = Artifact::archive();
    let release = Release::open(&artifact.bytes, &trust(), &policy()).unwrap();
    artifact.bytes[artifact.blob_offsets[0] as usize] ^= 1;
    let error = release.read_blob(&artifact.bytes, &artifact.mount, 1 << 20).unwrap_err();
    assert!(error.to_string().contains("damaged or altered"));
}

#[test]
fn two_makers_of_the_same_artifact_get_the_same_bytes() {
    assert_eq!(Artifact::appliance().bytes, Artifact::appliance().bytes);
}

#[test]
fn signing_in_place_adds_a_signature_and_leaves_no_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gap");
    let unsigned = unsigned(true, &release(Kind::Appliance));
    std::fs::write(&path, &unsigned.bytes).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let extent = Extent::File(unsigned.bytes.len() as u64);
    let shown = account(&file, extent, &check(2, true)).unwrap().release;
    assert!(shown.claimed_signers().is_empty());
    for seed in [1, 2] {
        sign_in_place(&path, &shown, &signing_key(seed)).unwrap();
    }
    assert_eq!(std::fs::read(&path).unwrap(), Artifact::appliance().bytes);
    let again = sign_in_place(&path, &shown, &signing_key(1)).unwrap_err();
    assert!(matches!(again, SignError::Envelope(EnvelopeError::AlreadySigned(_))));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn nothing_is_signed_but_what_was_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gap");
    std::fs::write(&path, Artifact::archive().bytes).unwrap();
    let shown = Release::inspect(&std::fs::File::open(&path).unwrap()).unwrap();
    let other = unsigned(true, &release(Kind::Appliance)).bytes;
    std::fs::write(&path, &other).unwrap();
    assert!(matches!(sign_in_place(&path, &shown, &signing_key(3)), Err(SignError::Changed(_))));
    assert_eq!(std::fs::read(&path).unwrap(), other);
}

/// A journal as signing writes it.
fn journal_of(artifact: &Artifact) -> Vec<u8> {
    let at = artifact.find("release.dsse.json");
    let mut journal = b"gapimage-sign-2\n".to_vec();
    journal.extend((at as u64).to_le_bytes());
    journal.extend(Digest::of(&artifact.bytes[..at]).as_bytes());
    journal.extend(artifact.region());
    journal.extend(Digest::of(&journal).as_bytes());
    journal
}

#[test]
fn a_crash_while_signing_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gap");
    let before = Artifact::archive();
    std::fs::write(&path, &before.bytes).unwrap();
    // An envelope that was written half.
    let at = before.find("release.dsse.json");
    let journal = journal_of(&before);
    let mut torn = before.bytes.clone();
    torn[at + 100..at + 200].fill(b'#');
    for complete in [true, false] {
        let len = if complete { journal.len() } else { journal.len() - 1 };
        std::fs::write(journal_path(&path), &journal[..len]).unwrap();
        std::fs::write(&path, if complete { &torn } else { &before.bytes }).unwrap();
        assert!(recover(&path).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), before.bytes, "complete journal: {complete}");
        assert!(!journal_path(&path).exists());
    }
    assert!(!recover(&path).unwrap());
}

#[test]
fn a_journal_that_points_elsewhere_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gap");
    let artifact = Artifact::archive();
    std::fs::write(&path, &artifact.bytes).unwrap();
    let mut journal = b"gapimage-sign-2\n".to_vec();
    journal.extend(512_u64.to_le_bytes());
    journal.extend(Digest::of(&artifact.bytes[..512]).as_bytes());
    journal.extend([0; 65_536]);
    journal.extend(Digest::of(&journal).as_bytes());
    std::fs::write(journal_path(&path), &journal).unwrap();
    let shown = Release::inspect(&std::fs::File::open(&path).unwrap()).unwrap();
    assert!(matches!(sign_in_place(&path, &shown, &signing_key(3)), Err(SignError::ForeignJournal(_))));
    assert_eq!(std::fs::read(&path).unwrap(), artifact.bytes);
}

#[test]
fn the_journal_of_another_artifact_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gap");
    let present = Artifact::archive();
    let refused = |journal: &[u8], bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(journal_path(&path), journal).unwrap();
        assert!(matches!(recover(&path), Err(SignError::ForeignJournal(_))));
        assert!(std::fs::read(&path).unwrap() == bytes, "it was written to");
    };
    // The same head up to the envelope, and another statement in it.
    let mut later = release(Kind::Appliance);
    later.serial += 1;
    let later = unsigned(false, &later);
    let at = present.find("release.dsse.json");
    assert!(later.bytes[..at] == present.bytes[..at], "only the statement differs");
    assert_ne!(later.statement, present.statement);
    refused(&journal_of(&later), &present.bytes);
    refused(&journal_of(&unsigned(true, &release(Kind::Appliance))), &present.bytes);
    // Something in front of the envelope has changed, so that what lies there is no longer what was signed.
    let mut changed = present.bytes.clone();
    let index = present.find("index.json");
    changed[index] ^= 1;
    refused(&journal_of(&present), &changed);
    let mut old = journal_of(&present);
    old[..16].copy_from_slice(b"gapimage-sign-1\n");
    refused(&old, &present.bytes);
}

/// Runs a tool and gives its output; `None` where the tool is not installed.
fn tool(name: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(name).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

#[test]
fn tar_readers_of_others_list_the_same_members() {
    let folder = tempfile::tempdir().unwrap();
    for artifact in [Artifact::appliance(), Artifact::archive()] {
        let path = folder.path().join("x.gap");
        std::fs::write(&path, &artifact.bytes).unwrap();
        let path = path.to_str().unwrap();
        let accounted = verify_both(&artifact.bytes).unwrap();
        let mut expected: Vec<_> = accounted.release.layout().members.iter().map(|it| it.path.clone()).collect();
        let head = accounted.release.layout().head_count();
        expected.splice(head..head, ["release.dsse.json".into(), "layout.json".into()]);
        let python = "import sys, tarfile\nfor name in tarfile.open(sys.argv[1]).getnames(): print(name)";
        let readers =
            [("tar", vec!["-tf", path]), ("bsdtar", vec!["-tf", path]), ("python3", vec!["-c", python, path])];
        for (name, arguments) in readers {
            let Some(text) = tool(name, &arguments) else { continue };
            let listed: Vec<_> = text.lines().filter(|line| !line.starts_with(".pad/")).collect();
            assert_eq!(listed, expected, "{name}");
        }
    }
}

#[test]
fn partition_tools_of_others_accept_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gap");
    std::fs::write(&path, Artifact::appliance().bytes).unwrap();
    if let Some(text) = tool("sgdisk", &["-v", path.to_str().unwrap()]) {
        assert!(text.contains("No problems found"), "{text}");
    }
    for sector in ["512", "4096"] {
        if let Some(text) = tool("fdisk", &["-l", "-b", sector, path.to_str().unwrap()]) {
            assert!(text.contains("EFI System") && text.contains("gpt"), "{text}");
        }
    }
}
