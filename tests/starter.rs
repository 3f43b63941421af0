//! From an empty directory to a booted appliance, with nothing but the program.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::{gapimage, succeed};
use std::fs;

#[test]
fn the_starter_boots_as_it_stands() {
    let dir = tempfile::TempDir::new().unwrap();
    let project = dir.path().join("a new project");
    fs::create_dir(&project).unwrap();
    let run = |arguments: &[&str]| succeed(gapimage().args(arguments).current_dir(&project));
    run(&["init"]);
    run(&["keygen", "keys"]);
    run(&["build", "recipe.toml"]);
    run(&["sign", "example-0.1.0.gap", "--key", "keys/release.key"]);
    run(&["verify", "example-0.1.0.gap", "--trust", "keys/trust.toml"]);
    let output = run(&["boot", "example-0.1.0.gap", "--trust", "keys/trust.toml", "--check"]);
    let system: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(system["release"]["name"], "example", "{system}");
    assert_eq!(system["layers"].as_array().unwrap().len(), 4 + 1, "four layers and the file system's own: {system}");
}
