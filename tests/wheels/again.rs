//! Wheels that parts were made of before.

use crate::{
    fixture::{Project, fail_with, store, succeed},
    have_uv,
    index::{Form, Index},
    wheel::{members, packed},
    with_index,
};
use sha2::Digest as _;
use std::{fs, path::PathBuf, process::Command};

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

#[test]
fn what_a_part_came_to_is_remembered_without_its_bytes_and_wheels_damaged_since_are_noticed_and_named() {
    have_uv();
    let index = Index::start(Form::Html);
    // No other test, and no other run, has this wheel.
    let text = format!("PORT = {:?}\nSTARTED = {:?}\nLETTER = 'q'\n", index.url(), std::time::SystemTime::now());
    let wheel = archive(&text, &text);
    index.offer("again-1.0-py3-none-any.whl", wheel.clone());
    let project = Project::new(&[]);
    project.recipe(
        "[image.main]\nlayers = [\"base\", \"python\"]\n\
         [layer.base]\ndebian = { suite = \"trixie\", packages = [\"base-files\", \"python3\"] }\n\
         [layer.python]\nwheels = { requirements = [\"again\"], bytecode = false }\n",
    );
    let out = project.path().join("a.gap");
    let build = || -> Command {
        let mut command = with_index(&index, &project);
        command.arg("build").arg(project.path().join("recipe.toml")).arg("-o").arg(&out);
        command
    };
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
