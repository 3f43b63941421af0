//! The OCI documents as the tools of others read them: `umoci unpack` makes the same tree, `skopeo` knows the rest.
//!
//! Unpacking needs root; without it, or without the tools, the tests say that they did nothing.

use crate::{
    entry::{Entries, Entry, assert_same, meant},
    kernel::{run, seen},
    layers::Image,
    sample,
};
use gap_format::Digest;
use gapimage::{
    image::oci::{self, Annotations, CoveredBlob, ImageDocuments, ImageInfo, MountedLayer, RunSettings},
    layer::tree::Tree,
};
use std::{fs, path::Path, process::Command};
use tempfile::TempDir;

fn missing(tool: &str) -> bool {
    let missing = Command::new(tool).arg("--version").output().is_err();
    if missing {
        eprintln!("skipped: {tool} is not installed");
    }
    missing
}

fn info() -> ImageInfo {
    ImageInfo {
        name: "os".into(),
        version: "1.0".into(),
        created: 1_735_689_600,
        architecture: "x86_64".into(),
        run: RunSettings {
            entrypoint: vec!["/init".into()],
            env: vec!["A=b".into()],
            labels: [("of".into(), "sample".into())].into(),
            ..RunSettings::default()
        },
        ..ImageInfo::default()
    }
}

/// An OCI image layout in a folder: the image, and beside it the artifact that mounts it.
fn layout(image: &Image) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
    let put = |data: &[u8]| -> Digest {
        let digest = Digest::of(data);
        fs::write(folder.path().join("blobs/sha256").join(digest.to_hex()), data).unwrap();
        digest
    };
    let covered = |data: &Vec<u8>| CoveredBlob {
        digest: put(data),
        tree: put(b"tree"),
        ..CoveredBlob::of_size(data.len() as u64, b"tree".len() as u64)
    };
    let layer = |(number, data)| MountedLayer { name: format!("layer{number}"), blob: covered(data) };
    let layers: Vec<_> = image.layers.iter().enumerate().map(layer).collect();
    let documents = ImageDocuments::new(&info(), &covered(&image.blob), &layers).unwrap();
    for document in [&documents.config, &documents.manifest, &documents.mount] {
        put(&document.bytes);
    }
    put(oci::EMPTY_CONFIG);
    let index = oci::index(&documents.index_entries(), &Annotations::new());
    fs::write(folder.path().join("index.json"), index).unwrap();
    fs::write(folder.path().join("oci-layout"), oci::layout()).unwrap();
    folder
}

/// What any file system to unpack on can show: directories count links in their own way, and the root's time is that
/// of the unpacking. Attributes without a value are lost on Go's tar, to which an empty PAX record means "none".
fn storable(entries: Entries) -> Entries {
    let directory = |entry: &Entry| entry.mode & 0o170_000 == 0o040_000;
    entries
        .into_iter()
        .map(|(path, mut entry)| {
            entry.xattrs.retain(|_, value| !value.is_empty());
            let links = if directory(&entry) { 0 } else { entry.links };
            let mtime = if path.is_empty() { 0 } else { entry.mtime };
            (path, Entry { links, mtime, ..entry })
        })
        .collect()
}

/// The sample without what has attributes of several kilobytes, for which not every file system has room, and with
/// all parents described, because the time of others is that of the unpacking.
fn unpackable() -> [Tree; 2] {
    sample::trees().map(|tree| {
        let mut tree: Tree = tree.into_iter().filter(|(path, _)| !path.name().starts_with(b"heavy")).collect();
        let paths: Vec<_> = tree.iter().map(|(path, _)| path.clone()).collect();
        for path in paths {
            let mut above = path.parent();
            while let Some(parent) = above.filter(|parent| tree.get(parent).is_none()) {
                above = parent.parent();
                tree.insert(parent, sample::directory(0o755));
            }
        }
        tree
    })
}

#[test]
fn umoci_unpacks_the_tree_that_was_meant() {
    if missing("umoci") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: unpacking with owners and devices needs root");
        return;
    }
    let image = Image::new(&unpackable());
    let layout = layout(&image);
    let bundle = layout.path().join("bundle");
    run(Command::new("umoci").args(["unpack", "--image"]).arg(format!("{}:os", layout.path().display())).arg(&bundle));
    let unpacked = seen(&bundle.join("rootfs"));
    assert_same("unpacked", &storable(unpacked), &storable(meant(&image.tree, &image.layers)));
}

#[test]
fn skopeo_reads_configuration_and_layers() {
    if missing("skopeo") {
        return;
    }
    let image = Image::new(&unpackable());
    let layout = layout(&image);
    let inspect = |extra: &[&str]| -> serde_json::Value {
        let name = format!("oci:{}:os", layout.path().display());
        serde_json::from_str(&run(Command::new("skopeo").arg("inspect").args(extra).arg(name))).unwrap()
    };
    let seen = inspect(&[]);
    assert_eq!(seen["Architecture"], "amd64");
    assert_eq!(seen["Created"], "2025-01-01T00:00:00Z");
    assert_eq!(seen["Labels"]["of"], "sample");
    assert_eq!(seen["Layers"][1], Digest::of(&image.layers[1]).to_string());
    assert_eq!(inspect(&["--config"])["config"]["Entrypoint"][0], "/init");
    copied_to_an_archive(layout.path());
}

/// A copy checks every blob against its digest and the layers against the configuration.
fn copied_to_an_archive(layout: &Path) {
    let archive = layout.join("archive.tar");
    run(Command::new("skopeo").args(["--insecure-policy", "copy", "--quiet"]).args([
        format!("oci:{}:os", layout.display()),
        format!("docker-archive:{}:{}", archive.display(), oci::repo_tag("os", "1.0")),
    ]));
    assert!(fs::metadata(archive).unwrap().len() > 0);
}
