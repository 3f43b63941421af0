//! Artifacts that somebody altered on the way: `verify` refuses each with exit code 3, from a file and from a pipe, and
//! `sign` puts no name under one.

use super::{
    assert_says,
    fixture::{Project, fail_with, gapimage},
};
use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

/// Length of the region that holds the envelope.
const REGION: usize = 65_536;

/// A signed artifact and its bytes.
struct Signed {
    project: Project,
    bytes: Vec<u8>,
}

impl Signed {
    fn new() -> Self {
        let project = Project::new(&[("weights", &[3; 200_000]), ("readme", b"text")]);
        let bytes = fs::read(project.signed("good.gap")).unwrap();
        Self { project, bytes }
    }

    /// Offsets of the headers of all members, with their names.
    fn members(&self) -> Vec<(String, usize)> {
        let mut archive = tar::Archive::new(self.bytes.as_slice());
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries
            .map(|entry| (entry.path().unwrap().display().to_string(), entry.raw_header_position() as usize))
            .collect()
    }

    fn find(&self, name: &str) -> usize {
        self.members().iter().find(|(member, _)| member == name).unwrap().1
    }

    /// Neither the officer nor the signer accepts these bytes.
    #[track_caller]
    fn refused(&self, bytes: &[u8], all: &[&str]) {
        let said = self.unverified(bytes, all);
        let path = self.project.path().join("altered.gap");
        let signing = fail_with(3, gapimage().arg("sign").arg(&path).arg("--key").arg(&self.project.keys.key));
        assert_says(&signing, &["nothing was signed"]);
        assert!(fs::read(&path).unwrap() == bytes, "signing changed it: {said}");
    }

    /// The officer does not accept these bytes.
    #[track_caller]
    fn unverified(&self, bytes: &[u8], all: &[&str]) -> String {
        let path = self.project.path().join("altered.gap");
        fs::write(&path, bytes).unwrap();
        let said = fail_with(3, &mut verify(&path, &self.project.keys.trust));
        assert_says(&said, all);
        assert!(!said.contains('\u{7}'), "what the artifact says is escaped");
        fail_with(3, verify(Path::new("-"), &self.project.keys.trust).stdin(Stdio::from(File::open(&path).unwrap())));
        let json = verify(&path, &self.project.keys.trust).arg("--json").output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(report["trusted"], false, "{report}");
        said
    }
}

fn verify(artifact: &Path, trust: &Path) -> Command {
    let mut command = gapimage();
    command.arg("verify").arg(artifact).arg("--trust").arg(trust);
    command
}

#[test]
fn a_truncated_or_extended_artifact_is_refused() {
    let good = Signed::new();
    for keep in [0, 100, 512, 70_000, good.bytes.len() / 2, good.bytes.len() - 1] {
        good.refused(&good.bytes[..keep], &["altered.gap"]);
    }
    for more in [&[0_u8][..], &[0; 512], b"\x07evil"] {
        good.refused(&[&good.bytes, more].concat(), &["something follows the artifact"]);
    }
}

#[test]
fn members_that_are_swapped_doubled_or_added_are_refused() {
    let good = Signed::new();
    let blobs: Vec<usize> =
        good.members().into_iter().filter(|(name, _)| name.starts_with("blobs/")).map(|(_, at)| at).collect();
    let (one, two) = (blobs[0], blobs[1]);

    let mut swapped = good.bytes.clone();
    swapped[one..one + 512].copy_from_slice(&good.bytes[two..two + 512]);
    swapped[two..two + 512].copy_from_slice(&good.bytes[one..one + 512]);
    good.refused(&swapped, &["the tar header of blobs/sha256/", "differs at offset"]);

    let mut doubled = good.bytes.clone();
    doubled.splice(one..one, good.bytes[one..two].iter().copied());
    good.refused(&doubled, &["altered.gap"]);

    let header = gap_format::tar_header::encode("extra", 512, None).unwrap();
    let mut added = good.bytes.clone();
    added.splice(one..one, header.into_iter().chain([7; 512]));
    good.refused(&added, &["altered.gap"]);

    // Tar readers stop at the end of the archive, so this one would be seen by nobody but somebody who knows of it.
    let end = good.bytes.len() - 1024;
    let mut hidden = good.bytes.clone();
    hidden[end..end + 512].copy_from_slice(&header);
    good.refused(&hidden, &["the end of the archive differs", &format!("offset {end} ")]);
}

#[test]
fn padding_that_holds_something_is_refused() {
    let good = Signed::new();
    let index = good.find("oci-layout");
    let data = index + 512;
    let end_of_text = data + good.bytes[data..data + 512].iter().position(|&byte| byte == 0).unwrap();
    let mut padded = good.bytes.clone();
    padded[end_of_text] = b'x';
    good.refused(&padded, &["oci-layout", &format!("offset {end_of_text} ")]);
}

#[test]
fn an_envelope_that_is_not_canonical_is_refused() {
    let good = Signed::new();
    let at = good.find("release.dsse.json") + 512;
    let text = String::from_utf8(good.bytes[at..at + REGION].to_vec()).unwrap().trim_end().to_owned();
    let (payload, rest) = text[1..text.len() - 1].split_once(",\"payloadType\"").unwrap();
    for envelope in [
        text.replacen('{', "{\"extra\":\"\\u0007\",", 1),
        format!("{{\"payloadType\"{rest},{payload}}}"),
        format!("{text}\u{7}trailing text"),
        format!(" {text}"),
        text.replacen("{\"keyid\"", "{\"more\":1,\"keyid\"", 1),
    ] {
        let mut region = envelope.into_bytes();
        region.resize(REGION, b' ');
        let mut altered = good.bytes.clone();
        altered[at..at + REGION].copy_from_slice(&region);
        good.refused(&altered, &["the envelope release.dsse.json at offset"]);
    }
}

#[test]
fn a_second_signature_of_random_bytes_is_refused() {
    let good = Signed::new();
    let at = good.find("release.dsse.json") + 512;
    let text = String::from_utf8(good.bytes[at..at + REGION].to_vec()).unwrap().trim_end().to_owned();
    let signature = &text[text.find("{\"keyid\"").unwrap()..text.len() - 2];
    let key_at = signature.find("\":\"").unwrap() + 3;
    // The largest key id there is keeps the order of the list right.
    let random = [&signature[..key_at], &"ff".repeat(32), &signature[key_at + 64..]].concat();
    let mut region = text.replace(signature, &format!("{signature},{random}")).into_bytes();
    region.resize(REGION, b' ');
    let mut altered = good.bytes.clone();
    altered[at..at + REGION].copy_from_slice(&region);
    good.unverified(&altered, &["the trust file does not know"]);
}

#[test]
fn the_same_version_and_serial_with_other_content_is_another_release() {
    let good = Signed::new();
    fs::write(good.project.path().join("site/readme"), "other").unwrap();
    let other = good.project.build("other.gap");
    let mut altered = good.bytes.clone();
    let (at, other) = (good.find("release.dsse.json") + 512, fs::read(other).unwrap());
    altered[at..at + REGION].copy_from_slice(&other[at..at + REGION]);
    good.unverified(&altered, &["altered.gap"]);
    // The old signature does not fit the new content either.
    let mut altered = other;
    altered[at..at + REGION].copy_from_slice(&good.bytes[at..at + REGION]);
    good.refused(&altered, &["altered.gap"]);
}

#[test]
fn what_is_no_artifact_could_neither_be_verified_nor_signed() {
    let good = Signed::new();
    for bytes in [&b""[..], b"hello", &[0; 100_000]] {
        good.refused(bytes, &["altered.gap"]);
    }
}
