//! A real, signed artifact, and what the boot says to it when something about it is not as it should be.

use super::*;
use ed25519_dalek::SigningKey;
use gap_format::{
    Digest, Timestamp, WriteAt,
    layout::Align,
    oci::TITLE,
    sign::sign_in_place,
    statement::Release as Claim,
    verity::{TreeBuilder, tree_len},
    writer::{ArtifactPlan, BlobDigests, BlobPlan, Contents},
};
use serde_json::{Value, json};
use std::fs::File;

/// An artifact in a file, the mount manifest of its OS image, and the key that signed it.
struct Made {
    file: tempfile::NamedTempFile,
    os: Digest,
    key: SigningKey,
}

/// A blob to be, with the blob that is its tree where there is one.
struct Content {
    bytes: Vec<u8>,
    align: Align,
    tree: Option<(usize, Digest)>,
}

fn descriptor(media_type: &str, bytes: &[u8], annotations: &Value) -> Value {
    let digest = Digest::of(bytes).to_string();
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len(), "annotations": annotations})
}

/// The tree of some data and its root.
fn tree(data: &[u8]) -> (Vec<u8>, Digest) {
    let mut tree = vec![0; usize::try_from(tree_len(data.len() as u64)).unwrap()];
    let sink = std::sync::Mutex::new(std::mem::take(&mut tree));
    let mut builder = TreeBuilder::new(data.len() as u64, &sink).unwrap();
    builder.update(data).unwrap();
    let root = builder.finish().unwrap();
    (sink.into_inner().unwrap(), root)
}

/// An appliance of one image with one layer, titled `base`.
fn make(claim: &Claim) -> Made {
    let (metadata, layer) = (vec![1; 8192], vec![2; 5 * 4096]);
    let ((metadata_tree, metadata_root), (layer_tree, layer_root)) = (tree(&metadata), tree(&layer));
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
    let none = json!({});
    let image = json!({
        "schemaVersion": 2,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config, &none),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer, &json!({TITLE: "base"}))],
    });
    let image = serde_json::to_vec(&image).unwrap();
    let annotate = |root: &Digest, data: &[u8]| json!({"org.gapimage.verity.root": root.to_string(), "org.gapimage.verity.data": Digest::of(data).to_string()});
    let verity = "application/vnd.gapimage.verity.v1";
    let mount = json!({
        "schemaVersion": 2,
        "artifactType": "application/vnd.gapimage.mount.v1",
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}", &none),
        "subject": descriptor("application/vnd.oci.image.manifest.v1+json", &image, &none),
        "layers": [
            descriptor("application/vnd.gapimage.erofs.v1", &metadata, &none),
            descriptor(verity, &metadata_tree, &annotate(&metadata_root, &metadata)),
            descriptor(verity, &layer_tree, &annotate(&layer_root, &layer)),
        ],
    });
    let mount = serde_json::to_vec(&mount).unwrap();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [
            descriptor("application/vnd.oci.image.manifest.v1+json", &image, &none),
            descriptor("application/vnd.oci.image.manifest.v1+json", &mount, &none),
        ],
    });
    let index = serde_json::to_vec(&index).unwrap();
    let os = Digest::of(&mount);
    let plain = |bytes: Vec<u8>| Content { bytes, align: Align::Tar, tree: None };
    let block = |bytes, tree| Content { bytes, align: Align::Block, tree };
    let blobs = [
        Content { bytes: vec![0; 8192], align: Align::Partition, tree: None },
        block(metadata, Some((3, metadata_root))),
        block(layer, Some((4, layer_root))),
        block(metadata_tree, None),
        block(layer_tree, None),
        plain(config),
        plain(image),
        plain(mount),
        plain(b"{}".to_vec()),
    ];
    let file = write(&index, &blobs, claim);
    let key = SigningKey::from_bytes(&[7; 32]);
    let shown = Release::inspect(file.as_file()).unwrap();
    sign_in_place(file.path(), &shown, &key).unwrap();
    Made { file, os, key }
}

fn write(index: &[u8], blobs: &[Content], claim: &Claim) -> tempfile::NamedTempFile {
    let plan_of = |blob: &Content| BlobPlan {
        size: blob.bytes.len() as u64,
        align: blob.align,
        tree: blob.tree.map(|(number, _)| number),
    };
    let plans: Vec<BlobPlan> = blobs.iter().map(plan_of).collect();
    let plan = ArtifactPlan::new(true, index.len() as u64, 2, &plans).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    for (blob, offset) in blobs.iter().zip(plan.blob_offsets()) {
        file.as_file().write_all_at(&blob.bytes, *offset).unwrap();
    }
    let digests: Vec<BlobDigests> = blobs
        .iter()
        .map(|blob| BlobDigests { digest: Digest::of(&blob.bytes), root: blob.tree.map(|(_, root)| root) })
        .collect();
    let contents = Contents { index, manifest: b"[]", blobs: &digests, release: claim };
    plan.finish(file.as_file(), &contents).unwrap();
    file
}

fn claim() -> Claim {
    Claim {
        kind: Kind::Appliance,
        name: "demo".into(),
        version: "1.0".into(),
        serial: 7,
        rollback_to: 7,
        architecture: "amd64".into(),
        source_date: "2026-01-01T00:00:00Z".parse().unwrap(),
        expires: None,
    }
}

fn trust_file(key: &SigningKey, extra: &str) -> Vec<u8> {
    let public = gap_format::key::encode_public(&key.verifying_key());
    let roles = ["appliance", "data"];
    let tables: String = roles.map(|role| format!("[role.{role}]\nthreshold = 1\n")).concat();
    format!("version = 1\ncounter = 1\n[[key]]\nname = 'k'\npublic = '{public}'\nroles = {roles:?}\n{extra}\n{tables}")
        .into_bytes()
}

fn verified(made: &Made, extra: &str, change: impl FnOnce(&mut Wanted)) -> Result<Trusted, Stop> {
    let trust = trust_root(&trust_file(&made.key, extra)).unwrap();
    let mut wanted = Wanted { name: "demo".into(), serial: 7, os: made.os };
    change(&mut wanted);
    let file = File::open(made.file.path()).unwrap();
    let len = file.metadata().unwrap().len();
    verify(&file, len, &trust, &wanted)
}

fn refused(result: Result<Trusted, Stop>) -> String {
    match result {
        Err(Stop::NotTrusted(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_release_that_the_boot_image_names_is_taken() {
    let made = make(&claim());
    let trusted = verified(&made, "", |_| {}).unwrap();
    assert_eq!((trusted.statement.name.as_str(), trusted.statement.serial), ("demo", 7));
    assert_eq!((trusted.statement.signers.len(), trusted.signer_names.as_slice()), (1, &["k".to_owned()][..]));
    let names: Vec<&str> = trusted.os.iter().map(|blob| blob.name.as_str()).collect();
    assert_eq!(names, ["metadata", "base"]);
    let file = File::open(made.file.path()).unwrap();
    for Blob { place: blob, .. } in &trusted.os {
        let mut bytes = vec![0; usize::try_from(blob.size).unwrap()];
        file.read_exact_at(&mut bytes, blob.offset).unwrap();
        let (expected, root) = tree(&bytes);
        let mut found = vec![0; expected.len()];
        file.read_exact_at(&mut found, blob.tree_offset).unwrap();
        assert_eq!((Digest::of(&bytes), root, found), (blob.digest, blob.root, expected));
    }
}

#[test]
fn another_name_serial_or_os_image_is_refused() {
    let made = make(&claim());
    assert!(refused(verified(&made, "", |wanted| wanted.name = "other".into())).contains("named demo"));
    assert!(refused(verified(&made, "", |wanted| wanted.serial = 8)).contains("has serial 7"));
    refused(verified(&made, "", |wanted| wanted.os = Digest::of(b"other")));
}

#[test]
fn a_release_of_data_boots_nothing() {
    let made = make(&Claim { kind: Kind::Data, ..claim() });
    assert!(refused(verified(&made, "", |_| {})).contains("kind data"));
}

#[test]
fn a_stranger_and_a_revoked_key_are_refused() {
    let mut made = make(&claim());
    assert!(refused(verified(&made, "revoked = true", |_| {})).contains("revokes"));
    made.key = SigningKey::from_bytes(&[8; 32]);
    assert!(refused(verified(&made, "", |_| {})).contains("does not know"));
}

#[test]
fn time_stops_acceptance_and_not_the_boot() {
    let past: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
    let made = make(&Claim { expires: Some(past), ..claim() });
    let trusted = verified(&made, "not_after = 2026-01-02T00:00:00Z", |_| {}).unwrap();
    assert_eq!(trusted.statement.expires, Some(past.seconds()));
}

#[test]
fn a_medium_that_was_cut_off_is_refused() {
    let made = make(&claim());
    let len = made.file.as_file().metadata().unwrap().len();
    made.file.as_file().set_len(len - 512).unwrap();
    assert!(refused(verified(&made, "", |_| {})).contains("cut off"));
}

#[test]
fn one_flipped_bit_in_the_head_is_refused() {
    let made = make(&claim());
    let mut byte = [0];
    for offset in [0, 300, 600, 30_000, 40_000, 110_000] {
        made.file.as_file().read_exact_at(&mut byte, offset).unwrap();
        made.file.as_file().write_all_at(&[byte[0] ^ 1], offset).unwrap();
        refused(verified(&made, "", |_| {}));
        made.file.as_file().write_all_at(&byte, offset).unwrap();
    }
    verified(&made, "", |_| {}).unwrap();
}
