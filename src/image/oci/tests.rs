//! The documents as bytes, and that their lengths do not depend on digests.

use super::*;

fn info() -> ImageInfo {
    ImageInfo {
        name: "os".into(),
        version: "1.4.0".into(),
        created: 1_735_689_600,
        architecture: "x86_64".into(),
        licenses: Some("Apache-2.0".into()),
        run: RunSettings {
            user: "1000".into(),
            env: vec!["PATH=/usr/bin".into(), "A=\"q\"".into()],
            cmd: vec!["sh".into()],
            labels: [("b".into(), "2".into()), ("a".into(), "1".into())].into(),
            ..RunSettings::default()
        },
        ..ImageInfo::default()
    }
}

fn covered(seed: u8) -> CoveredBlob {
    let digest = |n: u8| Digest::from_bytes([seed.wrapping_add(n); 32]);
    CoveredBlob { digest: digest(1), size: 8192, root: digest(2), tree: digest(3), tree_size: 4096 }
}

/// Every document of a release whose digests derive from `seed`.
fn documents(seed: u8) -> Vec<Vec<u8>> {
    let layer = |name: &str, seed| MountedLayer { name: name.into(), blob: covered(seed) };
    let layers = [layer("base", seed), layer("agent", seed.wrapping_add(10))];
    let image = ImageDocuments::new(&info(), &covered(seed), &layers).unwrap();
    let part = BootPart { media_type: media_type::ESP, title: "esp".into(), digest: covered(seed).tree, size: 7 };
    let boot = boot_manifest(&[part], &image.mount.descriptor().digest);
    let boot_entry = Descriptor::of(media_type::MANIFEST, &boot).of_type(media_type::BOOT);
    let listed: Vec<_> = image.index_entries().into_iter().chain([boot_entry]).collect();
    let index = index(&listed, &Annotations::new());
    let docker = docker_manifest(&[image.docker_image()]).unwrap();
    vec![image.config.bytes, image.manifest.bytes, image.mount.bytes, boot, index, docker]
}

#[test]
fn lengths_do_not_depend_on_digests() {
    let (one, other) = (documents(0), documents(0xf3));
    assert!(one.iter().zip(&other).all(|(a, b)| a.len() == b.len() && a != b));
}

#[test]
fn space_is_reserved_before_any_digest_is_known() {
    let documents = |blob: CoveredBlob| {
        let layer = MountedLayer { name: "base".into(), blob: blob.clone() };
        let made = ImageDocuments::new(&info(), &blob, &[layer]).unwrap();
        [made.config.bytes.len(), made.manifest.bytes.len(), made.mount.bytes.len()]
    };
    assert_eq!(documents(CoveredBlob::of_size(8192, 4096)), documents(covered(77)));
}

#[test]
fn docker_finds_configuration_and_layers_by_path() {
    let list: serde_json::Value = serde_json::from_slice(&documents(1)[5]).unwrap();
    assert_eq!(list[0]["RepoTags"][0], "os:1.4.0");
    assert_eq!(list[0]["Config"], format!("blobs/sha256/{}", Digest::of(&documents(1)[0]).to_hex()));
    assert_eq!(list[0]["Layers"][1], format!("blobs/sha256/{}", covered(11).digest.to_hex()));
}

#[test]
fn the_configuration_is_canonical() {
    let expected = concat!(
        r#"{"created":"2025-01-01T00:00:00Z","architecture":"amd64","os":"linux","#,
        r#""config":{"User":"1000","Env":["PATH=/usr/bin","A=\"q\""],"Cmd":["sh"],"Labels":{"a":"1","b":"2"}},"#,
        r#""rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]},"#,
        r#""history":[{"created":"2025-01-01T00:00:00Z","created_by":"layer base"}]}"#
    );
    let one = [LayerBlob { name: "base".into(), digest: PLACEHOLDER, size: 8192 }];
    assert_eq!(String::from_utf8(config(&info(), &one).unwrap()).unwrap(), expected);
}

#[test]
fn the_image_manifest_names_layers_and_release() {
    let manifest: serde_json::Value = serde_json::from_slice(&documents(1)[1]).unwrap();
    assert_eq!(manifest["schemaVersion"], 2);
    assert_eq!(manifest["layers"][1]["annotations"][annotation::TITLE], "agent");
    assert_eq!(manifest["layers"][1]["size"], 8192);
    assert_eq!(manifest["annotations"][annotation::LICENSES], "Apache-2.0");
    assert_eq!(manifest["annotations"].as_object().unwrap().len(), 5, "nothing that is not known");
}

#[test]
fn the_mount_manifest_holds_metadata_and_a_tree_for_each_device() {
    let manifest: serde_json::Value = serde_json::from_slice(&documents(1)[2]).unwrap();
    let types: Vec<_> = manifest["layers"].as_array().unwrap().iter().map(|l| l["mediaType"].clone()).collect();
    assert_eq!(types, [media_type::EROFS, media_type::VERITY, media_type::VERITY, media_type::VERITY]);
    assert_eq!(manifest["artifactType"], media_type::MOUNT);
    assert_eq!(manifest["config"]["digest"], Digest::of(b"{}").to_string());
    assert_eq!(manifest["subject"]["mediaType"], media_type::MANIFEST);
    let tree = &manifest["layers"][1];
    assert_eq!(tree["annotations"][annotation::VERITY_DATA], manifest["layers"][0]["digest"]);
    assert_eq!(tree["annotations"][annotation::VERITY_ROOT], covered(1).root.to_string());
}

#[test]
fn names_become_what_docker_accepts() {
    for (name, version, expected) in [
        ("os", "1.4.0", "os:1.4.0"),
        ("Fine Tune_7B/train", "1.0+git~1", "fine-tune-7b/train:1.0-git-1"),
        ("registry.example/x", ".5", "registry-example/x:5"),
        ("--/..//", "", "image:latest"),
    ] {
        assert_eq!(repo_tag(name, version), expected);
    }
    assert_eq!(repo_tag("a", &"1".repeat(200)).len(), 2 + 128);
}

#[test]
fn two_images_of_one_name_are_refused() {
    let image = DockerImage { repo_tag: repo_tag("A", "1"), config: PLACEHOLDER, layers: Vec::new() };
    assert_eq!(docker_manifest(&[image.clone(), image]), Err(OciError::SameTag("a:1".into())));
}

#[test]
fn a_date_beyond_the_calendar_is_refused() {
    let info = ImageInfo { created: i64::MAX, ..info() };
    assert_eq!(config(&info, &[]), Err(OciError::Date(i64::MAX)));
}
