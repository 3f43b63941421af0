//! Wheels that are not what they say, at the command line: each is named, and nothing is made of it.

use crate::{
    fixture::fail_with,
    index::{Form, Index},
    lock, project,
    wheel::{members, packed, tagged},
    with_index,
};

/// What a build says of a wheel with these files.
fn refused(name: &str, change: impl Fn(&mut Vec<(String, String)>)) -> String {
    let mut files = members(name, "1.0", "py3-none-any", &[], &[("module.py", "x = 1\n")]);
    change(&mut files);
    let index = Index::start(Form::Html);
    index.offer(&format!("{name}-1.0-py3-none-any.whl"), packed(&files));
    let project = project(&format!("[\"{name}\"]"), ", bytecode = false");
    let mut command = with_index(&index, &project);
    crate::have_uv();
    command.arg("build").arg(project.path().join("recipe.toml")).arg("-o").arg(project.path().join("a.gap"));
    let said = fail_with(1, &mut command);
    assert!(said.contains(&format!("{name}-1.0-py3-none-any.whl")), "{said}");
    assert!(!project.path().join("a.gap").exists());
    said
}

#[test]
fn a_wheel_that_was_changed_after_it_was_made_is_refused() {
    let said = refused("otherbytes", |files| files[0].1 = "x = 2\n".to_owned());
    assert!(said.contains("`module.py` has another digest or length than RECORD says"), "{said}");
    let said = refused("onemore", |files| files.insert(0, ("hidden.py".to_owned(), String::new())));
    assert!(said.contains("`hidden.py` is not in RECORD"), "{said}");
    let said = refused("oneless", |files| drop(files.remove(0)));
    assert!(said.contains("`module.py` is in RECORD and not in the wheel"), "{said}");
}

#[test]
fn a_wheel_for_another_platform_is_refused_whether_its_name_or_only_itself_says_so() {
    let said = refused("disguised", |files| {
        let wheel = files.iter_mut().find(|(path, _)| path.ends_with("/WHEEL")).unwrap();
        let honest = wheel.1.clone();
        wheel.1 = honest.replace("py3-none-any", "cp313-cp313-win_amd64");
        let digest = |text: &str| {
            use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
            use sha2::Digest as _;
            format!("sha256={},{}", BASE64_URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(text)), text.len())
        };
        let (before, after) = (digest(&honest), digest(&wheel.1));
        let record = files.last_mut().unwrap();
        record.1 = record.1.replace(&before, &after);
    });
    assert!(said.contains("it says that it is for cp313-cp313-win_amd64"), "{said}");
    let index = Index::start(Form::Html);
    let (file, bytes) = tagged("elsewhere", "1.0", "cp313-cp313-win_amd64", &[], &[("elsewhere.py", "")]);
    index.offer(&file, bytes);
    let said = fail_with(1, &mut lock(&index, &project("[\"elsewhere\"]", "")));
    assert!(said.contains("elsewhere") && said.contains("manylinux"), "{said}");
}
