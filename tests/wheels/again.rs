//! Wheels that parts were made of before.

use crate::{
    fixture::{Project, fail_with, letters, store, succeed},
    have_uv,
    index::{Form, Index},
    wheel::{members, packed},
    with_index,
};
use sha2::Digest as _;
use std::{fs, os::unix::fs::FileExt, path::PathBuf, process::Command};

/// The wheel of this text; its `RECORD` vouches for `recorded`.
fn archive(recorded: &str, text: &str) -> Vec<u8> {
    let mut files = members("again", "1.0", "py3-none-any", &[], &[("again.py", recorded)]);
    files[0].1 = text.to_owned();
    packed(&files)
}

/// Another text whose archive has the same length, and that archive.
fn disguised(text: &str, len: usize) -> Vec<u8> {
    let others = ('a'..='z').map(|letter| archive(text, &text.replacen('q', &letter.to_string(), 1)));
    let same = |other: &Vec<u8>| other.len() == len && *other != archive(text, text);
    others.into_iter().find(same).unwrap()
}

fn source_of(wheel: &[u8]) -> PathBuf {
    let digest = hex::encode(sha2::Sha256::digest(wheel));
    store().join("sources/sha256").join(&digest[..2]).join(digest)
}

/// A recipe of this wheel and more keys.
fn write(project: &Project, more: &str) {
    project.recipe(&format!(
        "[image.main]\nlayers = [\"base\", \"python\"]\n\
         [layer.base]\ndebian = {{ suite = \"trixie\", packages = [\"base-files\", \"python3\"] }}\n\
         [layer.python]\nwheels = {{ requirements = [\"again\"], bytecode = false{more} }}\n"
    ));
}

fn build(index: &Index, project: &Project) -> Command {
    let mut command = with_index(index, project);
    command.arg("build").arg(project.path().join("recipe.toml")).arg("-o").arg(project.path().join("a.gap"));
    command
}

/// Text that no other test, and no other run, has.
fn text(index: &Index) -> String {
    format!("PORT = {:?}\nSTARTED = {:?}\nLETTER = 'q'\n", index.url(), std::time::SystemTime::now())
}

#[test]
fn what_a_part_came_to_is_remembered_without_its_bytes_and_wheels_damaged_since_are_noticed_and_named() {
    have_uv();
    let index = Index::start(Form::Html);
    let text = text(&index);
    let wheel = archive(&text, &text);
    index.offer("again-1.0-py3-none-any.whl", wheel.clone());
    let project = Project::new(&[]);
    write(&project, "");
    let out = project.path().join("a.gap");
    let build = || build(&index, &project);
    succeed(&mut build());
    let first = fs::read(&out).unwrap();
    fs::remove_file(&out).unwrap();
    succeed(&mut build());
    assert!(fs::read(&out).unwrap() == first);
    fs::remove_file(&out).unwrap();

    let source = source_of(&wheel);
    fs::remove_file(&source).unwrap();
    fs::write(&source, disguised(&text, wheel.len())).unwrap();
    let said = fail_with(1, &mut build());
    assert!(said.contains("layer `python/small` was damaged in the store"), "{said}");
    assert!(!out.exists());
    let said = fail_with(1, &mut build());
    assert!(said.contains("`again.py` has another digest or length than RECORD says"), "{said}");
    fs::write(&source, &wheel).unwrap();
    succeed(&mut build());
    assert!(fs::read(&out).unwrap() == first);
}

#[test]
fn a_wheel_is_unpacked_once_and_what_is_kept_of_it_is_compared_each_time() {
    have_uv();
    let index = Index::start(Form::Html);
    let text = format!("{}TEXT = '{}'\n", text(&index), letters(2 << 20));
    let wheel = archive(&text, &text);
    index.offer("again-1.0-py3-none-any.whl", wheel.clone());
    let project = Project::new(&[]);
    write(&project, "");
    let out = project.path().join("a.gap");
    succeed(&mut build(&index, &project));
    let first = fs::read(&out).unwrap();
    fs::remove_file(&out).unwrap();

    // The member's packed bytes are of no use any more.
    let source = source_of(&wheel);
    let mut useless = wheel.clone();
    useless[1000..2000].fill(0);
    fs::remove_file(&source).unwrap();
    fs::write(&source, &useless).unwrap();
    succeed(&mut build(&index, &project));
    assert!(fs::read(&out).unwrap() == first);

    let kept = store().join("caches/unpacked").join(source.file_name().unwrap()).join("files");
    let damage = || fs::File::options().write(true).open(&kept).unwrap().write_all_at(b"!", 1 << 20).unwrap();
    fs::remove_file(&out).unwrap();
    damage();
    let said = fail_with(1, &mut build(&index, &project));
    assert!(said.contains("layer `python/small` was damaged in the store"), "{said}");
    assert!(!out.exists() && !kept.exists());
    fs::write(&source, &wheel).unwrap();
    succeed(&mut build(&index, &project));
    assert!(fs::read(&out).unwrap() == first);

    // In a layer that was never made, each file is compared with `RECORD`.
    damage();
    write(&project, ", to = \"/opt/again\"");
    let said = fail_with(1, &mut build(&index, &project));
    assert!(said.contains("`again.py`, which was unpacked before, was damaged in the store"), "{said}");
    succeed(&mut build(&index, &project));
}
