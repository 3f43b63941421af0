//! A small signed artifact, and a machine's tree that was booted from it.

use ed25519_dalek::SigningKey;
use gap_agent::root::Root;
use gap_format::{
    Digest, Timestamp, WriteAt,
    key::KeyId,
    layout::Align,
    oci, sign,
    statement::{Kind, Release},
    trust, verity,
    writer::{ArtifactPlan, BlobDigests, BlobPlan, Contents},
};
use gap_handover::boot_report::{
    self, BootReport, Clock, Layer, Medium, PATH, RollbackProtection, SITE_PATH, SecureBoot, TRUST_PATH,
};
use std::{fs, sync::Mutex};

/// A made-up machine's files, as `gap-init` leaves them.
pub struct Booted {
    pub directory: tempfile::TempDir,
    pub root: Root,
    pub report: BootReport,
}

struct Blob {
    bytes: Vec<u8>,
    align: Align,
    cover: Option<(usize, Digest)>,
}

fn tree_of(data: &[u8]) -> (Digest, Vec<u8>) {
    let tree = Mutex::new(Vec::new());
    let mut builder = verity::TreeBuilder::new(data.len() as u64, &tree).unwrap();
    builder.update(data).unwrap();
    (builder.finish().unwrap(), tree.into_inner().unwrap())
}

fn descriptor(kind: &str, blob: &[u8], more: &str) -> String {
    format!(r#"{{"mediaType":"{kind}","digest":"{}","size":{}{more}}}"#, Digest::of(blob), blob.len())
}

fn tree_descriptor(tree: &[u8], root: &Digest, data: &[u8]) -> String {
    let (key_root, key_data) = (oci::VERITY_ROOT, oci::VERITY_DATA);
    let more = format!(r#","annotations":{{"{key_root}":"{root}","{key_data}":"{}"}}"#, Digest::of(data));
    descriptor(oci::VERITY_TYPE, tree, &more)
}

impl Booted {
    /// A machine that was booted from a signed release with metadata and one layer.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        for place in ["dev", "proc", "run/gap"] {
            fs::create_dir_all(root.at(place)).unwrap();
        }
        let (metadata, layer) = (vec![1; 2 * 4096], vec![2; 5 * 4096]);
        let ((metadata_root, metadata_tree), (layer_root, layer_tree)) = (tree_of(&metadata), tree_of(&layer));
        let image = br#"{"schemaVersion":2}"#.to_vec();
        let image_descriptor = descriptor("application/vnd.oci.image.manifest.v1+json", &image, "");
        let mount = format!(
            r#"{{"schemaVersion":2,"artifactType":"{}","config":{},"layers":[{},{},{}],"subject":{image_descriptor}}}"#,
            oci::MOUNT_TYPE,
            descriptor("application/vnd.oci.empty.v1+json", b"{}", ""),
            descriptor(oci::EROFS_TYPE, &metadata, ""),
            tree_descriptor(&metadata_tree, &metadata_root, &metadata),
            tree_descriptor(&layer_tree, &layer_root, &layer),
        )
        .into_bytes();
        let mount_descriptor = descriptor("application/vnd.oci.image.manifest.v1+json", &mount, "");
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{image_descriptor},{mount_descriptor}]}}"#);

        let plain = |bytes: &[u8], align| Blob { bytes: bytes.to_vec(), align, cover: None };
        let blobs = [
            plain(&[3; 8192], Align::Partition),
            plain(&mount, Align::Tar),
            plain(&image, Align::Tar),
            Blob { cover: Some((5, metadata_root)), ..plain(&metadata, Align::Block) },
            Blob { cover: Some((6, layer_root)), ..plain(&layer, Align::Block) },
            plain(&metadata_tree, Align::Block),
            plain(&layer_tree, Align::Block),
        ];
        fs::write(root.at("/dev/vda"), assemble(&index, &blobs)).unwrap();
        let key = SigningKey::from_bytes(&[1; 32]);
        let shown = gap_format::Release::inspect(&fs::File::open(root.at("/dev/vda")).unwrap()).unwrap();
        sign::sign_in_place(&root.at("/dev/vda"), &shown, &key).unwrap();
        let trust = trust::starter("officer", &key.verifying_key());

        fs::write(root.at("/dev/dm-0"), &metadata).unwrap();
        fs::write(root.at("/dev/dm-1"), &layer).unwrap();
        fs::write(root.at("/proc/cmdline"), format!("gap.name=example gap.os={} quiet\n", Digest::of(&mount))).unwrap();
        fs::write(root.at(TRUST_PATH), &trust).unwrap();
        let reported = |name: &str, data: &[u8], verity_root, device: &str| Layer {
            name: name.into(),
            digest: Digest::of(data),
            size: data.len() as u64,
            verity_root,
            device: device.into(),
        };
        let report = BootReport {
            release: boot_report::Release {
                name: "example".into(),
                version: "1.0".into(),
                serial: 5,
                index: Digest::of(index.as_bytes()),
                signers: vec![KeyId::of(&key.verifying_key()).to_string()],
                expires: None,
            },
            medium: Medium { device: "/dev/vda".into(), file: None },
            trust_fingerprint: Digest::of(trust.as_bytes()),
            secure_boot: SecureBoot::Unsupported,
            rollback_protection: RollbackProtection::None,
            clock: Clock { built: 1_700_000_000, was_behind: false },
            layers: vec![
                reported("metadata", &metadata, metadata_root, "/dev/dm-0"),
                reported("base", &layer, layer_root, "/dev/dm-1"),
            ],
            stages: Vec::new(),
        };
        let booted = Self { directory, root, report };
        booted.write_report();
        booted
    }

    /// Writes the report as it is now.
    pub fn write_report(&self) {
        fs::write(self.root.at(PATH), serde_json::to_vec(&self.report).unwrap()).unwrap();
    }

    /// Gives the machine a site configuration.
    pub fn write_site(&self, text: &str) {
        fs::write(self.root.at(SITE_PATH), text).unwrap();
    }

    /// Changes one byte of a file: the last place where `pattern` occurs.
    pub fn flip(&self, path: &str, pattern: &[u8]) {
        let path = self.root.at(path);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(pattern.len()).rposition(|window| window == pattern).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }
}

fn assemble(index: &str, blobs: &[Blob]) -> Vec<u8> {
    let plans: Vec<_> = blobs
        .iter()
        .map(|blob| BlobPlan {
            size: blob.bytes.len() as u64,
            align: blob.align,
            tree: blob.cover.map(|(tree, _)| tree),
        })
        .collect();
    let plan = ArtifactPlan::new(true, index.len() as u64, 2, &plans).unwrap();
    let file = Mutex::new(Vec::new());
    for (blob, offset) in blobs.iter().zip(plan.blob_offsets()) {
        file.write_all_at(&blob.bytes, *offset).unwrap();
    }
    let digests: Vec<_> = blobs
        .iter()
        .map(|blob| BlobDigests { digest: Digest::of(&blob.bytes), root: blob.cover.map(|(_, root)| root) })
        .collect();
    let release = Release {
        kind: Kind::Appliance,
        name: "example".into(),
        version: "1.0".into(),
        serial: 5,
        rollback_to: 4,
        architecture: "amd64".into(),
        source_date: Timestamp::from_seconds(1_767_225_600).unwrap(),
        expires: None,
    };
    let contents = Contents { index: index.as_bytes(), manifest: b"[]", blobs: &digests, release: &release };
    plan.finish(&file, &contents).unwrap();
    file.into_inner().unwrap()
}
