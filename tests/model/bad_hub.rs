//! Hubs that are down, cut off, answer with pages, move on or lead astray, at the command line: each is named for what it is,
//! nothing is made, and the next run goes on.

use crate::{
    build::{build, command, project},
    fixture::{fail_with, succeed},
    hub::{Behaviour, Hub},
    sample,
};
use std::fs;

const MODEL: &str = "[image.main]\nlayers = [\"files\"]\nmodels = [\"tiny\"]\n\
    [layer.files]\nfiles = [{ path = \"site\", to = \"/srv\" }]\n[model.tiny]\nhub = \"org/tiny\"\n";

#[test]
fn every_way_in_which_a_hub_fails_while_locking_is_named_and_the_next_try_works() {
    for (behaviour, expected) in [
        (Behaviour::Fail(503), "503"),
        (Behaviour::Page, "a web page came instead"),
        (Behaviour::LieSmall, "came with git id"),
    ] {
        let (project, hub) = project(MODEL, &sample::files());
        hub.behave(Some(behaviour.clone()));
        let said = fail_with(1, &mut command(&project, &hub, "lock"));
        assert!(said.contains("unresolved") && said.contains("model/tiny") && said.contains(expected), "{said}");
        hub.behave(None);
        succeed(&mut command(&project, &hub, "lock"));
    }
}

#[test]
fn every_way_in_which_a_hub_fails_while_fetching_is_named_and_the_next_try_works() {
    for (behaviour, expected) in [
        (Behaviour::Fail(503), "503"),
        (Behaviour::Page, "a web page came instead"),
        (Behaviour::Cut(10), "model-0000"),
        (Behaviour::Lie, "do not trust this hub"),
        (Behaviour::Circle, "redirect"),
        (Behaviour::Gone, "gapimage lock --update"),
    ] {
        let (project, hub) = project(MODEL, &sample::files());
        succeed(&mut command(&project, &hub, "lock"));
        hub.behave(Some(behaviour.clone()));
        let said = fail_with(1, &mut build(&project, &hub));
        assert!(said.contains("layer `model/tiny`") && said.contains(expected), "{behaviour:?}: {said}");
        assert!(!project.path().join("a.gap").exists());
        hub.behave(None);
        succeed(&mut build(&project, &hub));
    }
}

#[test]
fn a_hub_that_is_not_there_is_named_and_so_is_the_way_to_say_where_it_is() {
    let (project, hub) = project(MODEL, &sample::files());
    let mut command = command(&project, &hub, "lock");
    // Nobody listens on this port of the loopback device.
    let said = fail_with(1, command.env("HF_ENDPOINT", "http://127.0.0.1:9"));
    assert!(said.contains("unresolved") && said.contains("127.0.0.1:9"), "{said}");
    let said = fail_with(1, command.env("HF_ENDPOINT", "hub.example"));
    assert!(said.contains("HF_ENDPOINT names the hub `hub.example`"), "{said}");
}

#[test]
fn a_revision_that_moves_on_changes_nothing_until_the_lock_is_updated() {
    let (project, hub) = project(MODEL, &sample::files());
    succeed(&mut command(&project, &hub, "lock"));
    let locked = fs::read_to_string(project.path().join("recipe.lock")).unwrap();
    let other = sample::files_with(&[], &[("generation_config.json", br#"{"temperature":1}"#.to_vec())]);
    sample::put(&hub, "org/tiny", &other);
    succeed(&mut build(&project, &hub));
    assert_eq!(fs::read_to_string(project.path().join("recipe.lock")).unwrap(), locked);
    succeed(command(&project, &hub, "lock").arg("--update"));
    assert_ne!(fs::read_to_string(project.path().join("recipe.lock")).unwrap(), locked);
    let said = fail_with(1, &mut {
        let recipe = MODEL.replace("hub = \"org/tiny\"", "hub = \"org/tiny\"\nrevision = \"v9\"");
        project.recipe(&recipe);
        command(&project, &hub, "lock")
    });
    assert!(said.contains("has no revision `v9`"), "{said}");
}

/// Weights whose header says this, with so many bytes behind it.
fn weights(header: &str, bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + bytes, 0);
    file
}

#[test]
fn weights_that_overlap_overrun_or_lie_about_their_shapes_are_refused() {
    let tensor = |name: &str, shape: &str, from: usize, to: usize| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let header = |tensors: &[String]| format!("{{{}}}", tensors.join(","));
    let overlap = weights(&header(&[tensor("a", "[2]", 0, 8), tensor("b", "[2]", 4, 12)]), 12);
    let overrun = weights(&header(&[tensor("a", "[2]", 0, 8), tensor("b", "[2]", 8, 16)]), 12);
    let lie = weights(&header(&[tensor("a", "[3]", 0, 8)]), 8);
    let hole = weights(&header(&[tensor("a", "[2]", 0, 8), tensor("b", "[2]", 12, 20)]), 20);
    let endless = {
        let mut file = u64::MAX.to_le_bytes().to_vec();
        file.extend_from_slice(b"{}");
        file
    };
    for (what, file) in
        [("overlap", overlap), ("overrun", overrun), ("lie", lie), ("hole", hole), ("endless header", endless)]
    {
        let files = sample::files_with(&[], &[("model-00001-of-00002.safetensors", file)]);
        let (project, hub): (_, Hub) = project(MODEL, &files);
        let said = fail_with(1, &mut build(&project, &hub));
        assert!(said.contains("model-00001-of-00002.safetensors") && said.contains("damaged or lie"), "{what}: {said}");
        assert!(!project.path().join("a.gap").exists());
    }
}
