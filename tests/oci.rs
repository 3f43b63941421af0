//! An artifact is an OCI archive: tools that others wrote read it, and see the same trees.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::{Project, fail_with, gapimage, in_trixie, said, stdout, succeed};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

fn project() -> Project {
    let big = vec![0x5a; 3 << 20];
    let project = Project::new(&[
        ("small.txt", b"hello"),
        ("empty", b""),
        ("page", &[7; 4096]),
        ("odd", &[8; 10_001]),
        ("deep/er/and/deeper/file", b"down here"),
        ("big.bin", &big),
    ]);
    let site = project.path().join("site");
    std::os::unix::fs::symlink("small.txt", site.join("link")).unwrap();
    fs::set_permissions(site.join("page"), fs::Permissions::from_mode(0o755)).unwrap();
    project.recipe(
        "[image.main]\nlayers = [\"files\", \"more\"]\n[image.second]\nlayers = [\"more\"]\n\
         [layer.files]\nfiles = [{ path = \"site\", to = \"/srv\" }]\n\
         [layer.more]\nfiles = [{ path = \"site/odd\", to = \"/srv/added\" }]\n",
    );
    project
}

#[test]
fn every_tar_reader_lists_the_same_members() {
    let project = project();
    let artifact = project.signed("a.gap");
    let gnu = stdout(&succeed(Command::new("tar").arg("-tf").arg(&artifact)));
    let bsd = stdout(&succeed(Command::new("bsdtar").arg("-tf").arg(&artifact)));
    let python = stdout(&succeed(
        Command::new("python3")
            .args(["-c", "import sys,tarfile\nfor m in tarfile.open(sys.argv[1]): print(m.name)"])
            .arg(&artifact),
    ));
    assert_eq!(gnu, bsd);
    assert_eq!(gnu, python);
    assert!(gnu.lines().any(|name| name == "index.json"), "{gnu}");
}

#[test]
fn skopeo_and_umoci_take_each_image_and_yield_the_tree_of_the_recipe() {
    let project = project();
    let artifact = project.signed("a.gap");
    for image in ["main", "second"] {
        succeed(Command::new("skopeo").arg("inspect").arg(format!("oci-archive:{}:{image}", artifact.display())));
        let layout = project.path().join(format!("layout-{image}"));
        succeed(
            Command::new("skopeo")
                .arg("copy")
                .arg(format!("oci-archive:{}:{image}", artifact.display()))
                .arg(format!("oci:{}:{image}", layout.display())),
        );
        let bundle = project.path().join(format!("bundle-{image}"));
        succeed(
            Command::new("umoci")
                .arg("unpack")
                .arg("--image")
                .arg(format!("{}:{image}", layout.display()))
                .arg(&bundle),
        );
        let root = bundle.join("rootfs");
        assert_eq!(fs::read(root.join("srv/added")).unwrap(), [8; 10_001]);
        if image == "main" {
            assert_same_tree(&project.path().join("site"), &root.join("srv"), &["added"]);
        }
    }
}

#[test]
fn podman_loads_all_images_at_once() {
    let project = project();
    let artifact = project.signed("a.gap");
    let storage = project.path().join("storage");
    let run = project.path().join("run");
    let podman = || {
        let mut command = Command::new("podman");
        command.arg("--root").arg(&storage).arg("--runroot").arg(&run).args(["--storage-driver", "vfs"]);
        command
    };
    succeed(podman().arg("load").arg("-i").arg(&artifact));
    let images = stdout(&succeed(podman().args(["images", "--format", "{{.Repository}}:{{.Tag}}"])));
    assert_eq!(images.lines().count(), 2, "{images}");
}

#[test]
fn the_kernel_and_fsck_accept_the_metadata_and_show_the_same_tree() {
    let project = project();
    let artifact = project.signed("a.gap");
    let blobs = project.path().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    succeed(Command::new("tar").arg("-xf").arg(&artifact).arg("-C").arg(&blobs));
    let inspected: serde_json::Value =
        serde_json::from_slice(&succeed(gapimage().arg("inspect").arg(&artifact).arg("--json")).stdout).unwrap();
    let image = inspected["images"].as_array().unwrap().iter().find(|image| image["name"] == "main").unwrap();
    let blob = |digest: &serde_json::Value| {
        blobs.join("blobs/sha256").join(digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
    };
    let metadata = blob(&image["metadata"]["digest"]);
    let layers: Vec<_> = image["layers"].as_array().unwrap().iter().map(|layer| blob(&layer["digest"])).collect();

    let mut fsck = in_trixie(&[&blobs], "fsck.erofs");
    for layer in &layers {
        fsck.arg(format!("--device=/mnt/0/{}", layer.strip_prefix(&blobs).unwrap().display()));
    }
    succeed(fsck.arg(format!("/mnt/0/{}", metadata.strip_prefix(&blobs).unwrap().display())));

    let script = format!(
        "set -e; loops=; options=ro; for file in {}; do l=$(losetup -f --show -r $file); loops=\"$loops $l\"; \
         options=$options,device=$l; done; m=$(losetup -f --show -r {}); \
         trap 'umount {root} || true; losetup -d $m $loops' EXIT; mkdir -p {root}; mount -t erofs -o $options $m {root}; \
         cp -a {root} {copy}",
        layers.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" "),
        metadata.display(),
        root = project.path().join("mounted").display(),
        copy = project.path().join("copy").display(),
    );
    succeed(Command::new("unshare").args(["-m", "bash", "-c", &script]));
    assert_same_tree(&project.path().join("site"), &project.path().join("copy/srv"), &["added"]);

    for device in inspected["images"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|image| image["layers"].as_array().unwrap().iter().chain(std::iter::once(&image["metadata"])))
    {
        let root = device["verity"]["root"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        succeed(
            Command::new("/sbin/veritysetup")
                .args(["verify", "--no-superblock", "--salt=-", "--hash=sha256", "--format=1"])
                .arg(format!("--data-blocks={}", device["size"].as_u64().unwrap() / 4096))
                .arg(blob(&device["digest"]))
                .arg(blob(&device["verity"]["tree"]))
                .arg(root),
        );
    }
}

#[test]
fn inspect_lists_images_layers_and_files_and_diff_names_what_changed() {
    let project = project();
    let old = project.signed("old.gap");
    fs::write(project.path().join("site/small.txt"), "changed").unwrap();
    let new = project.signed("new.gap");
    let listed = stdout(&succeed(gapimage().arg("inspect").arg(&old).args(["--files", "main"])));
    assert!(listed.contains("/srv/deep/er/and/deeper/file"), "{listed}");
    let diff = said(&succeed(gapimage().arg("diff").arg(&old).arg(&new)));
    assert!(diff.contains("/srv/small.txt"), "{diff}");
    assert!(!diff.contains("/srv/page"), "{diff}");
    fail_with(1, gapimage().arg("diff").arg(&old).arg(project.path().join("absent.gap")));
}

/// Same names, kinds, permission bits and contents.
fn assert_same_tree(left: &Path, right: &Path, only_right: &[&str]) {
    let names = |dir: &Path| -> BTreeSet<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let mut there = names(right);
    for extra in only_right {
        there.remove(*extra);
    }
    assert_eq!(names(left), there, "{} against {}", left.display(), right.display());
    for name in names(left) {
        let (a, b) = (left.join(&name), right.join(&name));
        let (meta_a, meta_b) = (fs::symlink_metadata(&a).unwrap(), fs::symlink_metadata(&b).unwrap());
        assert_eq!(meta_a.file_type(), meta_b.file_type(), "{}", a.display());
        if meta_a.is_dir() {
            assert_same_tree(&a, &b, &[]);
        } else if meta_a.is_symlink() {
            assert_eq!(fs::read_link(&a).unwrap(), fs::read_link(&b).unwrap());
        } else {
            assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap(), "{} differs", a.display());
            assert_eq!(meta_a.mode() & 0o100, meta_b.mode() & 0o100, "{}", a.display());
        }
    }
}
