//! Commands that are interrupted, and what programs are told of those that are not.

use super::{
    keys::Key,
    packages::{Package, Project, publish, said},
    server::{Behaviour, Server},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{fs, path::Path, process::Stdio, thread, time::Duration};

const LARGE: Package = Package { payload: 8 << 20, ..Package::new("large", "1", "") };
const FILE: &str = "pool/large_1_amd64.deb";

/// How much of a download lies in the store so far.
fn fetched(store: &Path) -> u64 {
    let caches = fs::read_dir(store.join("caches/downloads")).into_iter().flatten().flatten();
    let files = caches.flat_map(|cache| fs::read_dir(cache.path()).into_iter().flatten().flatten());
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

#[test]
fn an_interrupted_download_goes_on_where_it_was_and_leaves_nothing_else() {
    for signal in [Signal::TERM, Signal::KILL] {
        let (server, key) = (Server::start(), Key::new(1));
        publish(&server, &key, &[LARGE]);
        server.misbehave(FILE, Behaviour::Hang(5 << 20));
        let project = Project::new(&key);
        project.recipe(&server.url, &[("base", "\"large\"")]);
        let mut command = project.gapimage(&["lock", "recipe.toml"]);
        let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        while fetched(&project.path("store")) < 5 << 20 {
            thread::sleep(Duration::from_millis(20));
            assert!(child.try_wait().unwrap().is_none(), "it waits for the rest");
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(!project.path("recipe.lock").exists());

        server.misbehave(FILE, Behaviour::Good);
        project.succeed(&["lock", "recipe.toml"]);
        let asked: Vec<String> = server.requests().into_iter().filter(|path| path.starts_with("/pool")).collect();
        assert_eq!(asked.len(), 2, "{asked:?}");
        let from: u64 = asked[1].rsplit_once('@').unwrap().1.parse().unwrap();
        assert!(from >= 5 << 20, "{asked:?}");
        assert_eq!(fetched(&project.path("store")), 0, "the whole file moved into the store");
        assert_eq!(fs::read_dir(project.path("store/tmp")).unwrap().count(), 0);
        let beside: Vec<_> = fs::read_dir(project.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(beside.len(), 5, "keys, keyring, recipe, lock and store: {beside:?}");
    }
}

fn events(stderr: &[u8]) -> Vec<Value> {
    let lines = stderr.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

#[test]
fn programs_are_told_what_begins_how_large_it_is_and_when_it_has_ended() {
    let (server, key) = (Server::start(), Key::new(1));
    publish(&server, &key, &[LARGE]);
    let project = Project::new(&key);
    project.recipe(&server.url, &[("base", "\"large\"")]);
    let output = project.succeed(&["build", "recipe.toml", "-o", "a.gap", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["name"], "small");
    let events = events(&output.stderr);
    let begun: Vec<&Value> = events.iter().filter(|event| event["event"] == "begin").collect();
    let stages: Vec<&str> = begun.iter().map(|event| event["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["index", "resolve", "fetch", "build", "check", "assemble"], "{events:?}");
    let ended = events.iter().filter(|event| event["event"] == "end").count();
    assert_eq!(ended, begun.len());
    let fetch = begun[2];
    assert_eq!(fetch["layer"], "base");
    assert!(fetch["total"].as_u64().unwrap() > 8 << 20);
    let end = events.iter().find(|event| event["event"] == "end" && event["stage"] == "fetch").unwrap();
    assert_eq!((&end["done"], &end["total"]), (&fetch["total"], &fetch["total"]));

    let output = project.succeed(&["lock", "recipe.toml", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["kept"], serde_json::json!(["base"]));
}

#[test]
fn programs_are_told_of_failures_in_the_same_way() {
    let project = Project::new(&Key::new(1));
    project.recipe("http://127.0.0.1:1", &[("base", "\"app\"")]);
    let output = project.gapimage(&["lock", "recipe.toml", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let events = events(&output.stderr);
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["code"]), (&"error".into(), &1.into()), "{}", said(&output));
    assert!(last["message"].as_str().unwrap().contains("127.0.0.1:1"), "{last}");
}

#[test]
fn two_builds_of_one_store_at_once_come_to_the_same() {
    let (server, key) = (Server::start(), Key::new(1));
    publish(&server, &key, &[LARGE]);
    let project = Project::new(&key);
    project.recipe(&server.url, &[("base", "\"large\"")]);
    let outputs = ["a.gap", "b.gap"];
    let children: Vec<_> = outputs
        .iter()
        .map(|output| {
            let mut command = project.gapimage(&["build", "recipe.toml", "-o", output]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    let [a, b] = outputs.map(|output| fs::read(project.path(output)).unwrap());
    assert!(a == b && !a.is_empty());
    assert_eq!(server.requests().iter().filter(|path| **path == format!("/{FILE}")).count(), 1, "fetched once");

    // What both registered stays, however long ago it was used.
    let said = String::from_utf8(project.succeed(&["store", "gc", "--keep-days", "0"]).stdout).unwrap();
    assert!(!said.contains("sources/") && !said.contains("blobs/") && !said.contains("records/"), "{said}");
    fs::remove_file(project.path("recipe.lock")).unwrap();
    let said = String::from_utf8(project.succeed(&["store", "gc", "--keep-days", "0"]).stdout).unwrap();
    assert!(said.contains("sources/") && said.contains("blobs/") && said.contains("records/"), "{said}");
}
