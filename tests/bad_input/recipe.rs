//! Recipes with mistakes.

use super::{
    assert_says,
    fixture::{Project, fail_with, gapimage},
    snapshot,
};
use std::path::Path;

const BODY: &str = "[image.main]\nlayers = [\"files\"]\n[layer.files]\nfiles = [{ path = \"site\", to = \"/srv\" }]\n";

/// Every command that reads the recipe refuses it, and touches nothing.
#[track_caller]
fn refused(body: &str, all: &[&str]) {
    let project = Project::new(&[("one", b"1"), ("ring.toml", b"use = \"ring.toml\"\n")]);
    let recipe = project.recipe(body);
    let before = snapshot(project.path());
    for command in ["lock", "plan", "build"] {
        let said = fail_with(1, gapimage().arg(command).arg(&recipe).current_dir(project.path()));
        assert_says(&said, all);
    }
    assert_eq!(snapshot(project.path()), before);
}

#[test]
fn an_unknown_key_is_shown_with_its_line_and_the_key_that_was_meant() {
    refused(
        &BODY.replace("layers =", "layer ="),
        &["recipe.toml:8:1", "unknown key `layer`", "did you mean `layers`?"],
    );
    refused(&BODY.replace("to =", "too ="), &["recipe.toml:10:27", "unknown key `too`", "did you mean `to`?"]);
}

#[test]
fn a_wrong_type_is_shown_with_its_line_and_what_to_write() {
    refused(
        &BODY.replace("[\"files\"]", "\"files\""),
        &["recipe.toml:8:10", "`layers` should be a list, but this is a string", "put it in `[ ]`"],
    );
    refused(
        &BODY.replace("\"/srv\" }", "\"/srv\", mode = \"644\" }"),
        &["recipe.toml:10:47", "`mode` should be an integer, but this is a string", "take the quotes away"],
    );
}

#[test]
fn a_missing_layer_and_a_cycle_are_shown_with_the_chain() {
    refused(
        &BODY.replace("[\"files\"]", "[\"files\", \"fils\"]"),
        &["recipe.toml:8:20", "there is no layer `fils`", "did you mean `files`?"],
    );
    let program = |root| {
        format!("[layer.app]\ncargo = {{ workspace = \"builtin\", package = \"gap-init\", build_root = \"{root}\" }}\n")
    };
    let in_itself = BODY.replace("[\"files\"]", "[\"files\", \"app\"]") + &program("app");
    refused(&in_itself, &["recipe.toml:12", "the layer `app` is built in itself: app → app"]);
    let twice = "[layer.other]\ncargo = { workspace = \"builtin\", package = \"gap-init\", build_root = \"app\" }\n";
    let in_a_ring = BODY.replace("[\"files\"]", "[\"files\", \"app\"]") + &program("other") + twice;
    refused(&in_a_ring, &["the layer `app` is built in itself: app → other → app"]);
}

#[test]
fn what_lies_beside_the_recipe_and_leads_out_is_refused() {
    use std::{fs, os::unix::fs::symlink};
    let project = Project::new(&[("one", b"1")]);
    let (recipe, link) = (project.path().join("recipe.toml"), project.path().join("site/link"));
    symlink("../../../../../etc/passwd", &link).unwrap();
    let refused = |reason: &str| {
        let before = snapshot(project.path());
        let said = fail_with(1, gapimage().arg("build").arg(&recipe).current_dir(project.path()));
        assert_says(&said, &["layer `files`", reason]);
        assert_eq!(snapshot(project.path()), before);
    };
    refused("leads out of the directory");
    fs::remove_file(&link).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(project.path().join("site/socket")).unwrap();
    let said = fail_with(1, gapimage().arg("build").arg(&recipe).current_dir(project.path()));
    assert_says(&said, &["socket is neither a file, a directory nor a symbolic link"]);
}

#[test]
fn a_definition_that_uses_itself_and_one_that_does_not_exist_are_shown() {
    let using =
        |target: &str| BODY.replace("files = [{ path = \"site\", to = \"/srv\" }]", &format!("use = \"{target}\""));
    refused(&using("builtin:debain"), &["recipe.toml:10:7", "no definition `debain`", "did you mean `debian`?"]);
    refused(&using("none.toml"), &["recipe.toml:10:7", "none.toml", "cannot be read"]);
    refused(&using("site/ring.toml"), &["ring.toml:1:7", "this definition uses itself"]);
}

/// Nothing listens where packages would come from: whatever is said was said before anything was fetched.
#[test]
fn an_output_that_no_file_can_be_built_at_is_refused_before_anything_is_done() {
    let project = Project::new(&[("one", b"1")]);
    let recipe = project.recipe(
        "[image.main]\nlayers = [\"base\"]\n[layer.base]\n\
         debian = { suite = \"trixie\", packages = [\"hello\"], mirror = \"http://127.0.0.1:9/debian\" }\n",
    );
    let pipe = project.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let [link, missing, directory] = ["link", "missing/x.gap", "x/"].map(|name| project.path().join(name));
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    for (output, what) in [
        (Path::new("/dev/null"), "is a device"),
        (link.as_path(), "is a device"),
        (project.path(), "is a directory"),
        (pipe.as_path(), "is a pipe"),
        (missing.as_path(), "no directory"),
        (directory.as_path(), "is the name of a directory"),
    ] {
        let said = fail_with(1, gapimage().arg("build").arg(&recipe).arg("-o").arg(output));
        assert_says(&said, &[what, "-o"]);
    }
    assert!(!project.path().join("recipe.lock").exists());
}
