//! Plans with a lock, with an old one and without any.

use super::{
    keys::Key,
    packages::{Package, Project, publish},
    server::Server,
};
use serde_json::Value;
use std::fs;

const PACKAGES: [Package; 3] =
    [Package::new("app", "1", "Depends: lib\n"), Package::new("lib", "1", ""), Package::new("tool", "1", "")];

fn plan(project: &Project, more: &[&str]) -> Value {
    let arguments = [&["plan", "recipe.toml", "--json"], more].concat();
    serde_json::from_slice(&project.succeed(&arguments).stdout).unwrap()
}

#[test]
fn a_plan_resolves_what_is_not_locked_and_writes_nothing() {
    let (server, key) = (Server::start(), Key::new(1));
    publish(&server, &key, &PACKAGES);
    let project = Project::new(&key);
    project.recipe(&server.url, &[("base", "\"lib\""), ("top", "\"app\"")]);

    let planned = plan(&project, &[]);
    assert_eq!((&planned["lock"]["state"], &planned["complete"]), (&"missing".into(), &true.into()));
    for layer in planned["layers"].as_array().unwrap() {
        assert_eq!((&layer["lock"], &layer["state"]), (&"resolved".into(), &"build".into()), "{layer}");
        assert!(layer["fetch"].as_u64().unwrap() > 1000, "{layer}");
    }
    assert!(!project.path("recipe.lock").exists());
    assert!(!server.requests().iter().any(|path| path.starts_with("/pool")), "no package is fetched for a plan");
    let text = String::from_utf8(project.succeed(&["plan", "recipe.toml"]).stdout).unwrap();
    assert!(text.contains("is not there yet") && text.contains("run `gapimage lock recipe.toml`"), "{text}");

    project.succeed(&["lock", "recipe.toml"]);
    let before = fs::read(project.path("recipe.lock")).unwrap();
    let locked = plan(&project, &["--offline"]);
    assert_eq!((&locked["lock"]["state"], &locked["fetch"]), (&"current".into(), &0.into()));
    assert_eq!(locked["layers"][0]["key"], planned["layers"][0]["key"], "the plan was of what was locked then");
    assert!(locked["layers"].as_array().unwrap().iter().all(|layer| layer["lock"] == "locked"));

    project.recipe(&server.url, &[("base", "\"lib\""), ("top", "\"app\", \"tool\"")]);
    let stale = plan(&project, &[]);
    assert_eq!(stale["lock"]["state"], "stale");
    assert_eq!(stale["lock"]["changes"][0], "layer `top` asks for something else");
    let marks: Vec<&Value> = stale["layers"].as_array().unwrap().iter().map(|layer| &layer["lock"]).collect();
    assert_eq!(marks, ["locked", "resolved"]);
    assert_eq!(fs::read(project.path("recipe.lock")).unwrap(), before);
}

#[test]
fn without_a_connection_a_plan_says_what_is_open() {
    let (server, key) = (Server::start(), Key::new(1));
    publish(&server, &key, &PACKAGES);
    let project = Project::new(&key);
    project.recipe(&server.url, &[("base", "\"lib\"")]);
    project.succeed(&["lock", "recipe.toml"]);
    project.recipe(&server.url, &[("base", "\"lib\""), ("top", "\"app\"")]);
    let requests = server.requests().len();
    let planned = plan(&project, &["--offline"]);
    assert_eq!(planned["complete"], false);
    assert_eq!((&planned["layers"][0]["lock"], &planned["layers"][1]["lock"]), (&"locked".into(), &"open".into()));
    assert_eq!(planned["layers"][1]["fetch"], Value::Null);
    let text = String::from_utf8(project.succeed(&["plan", "recipe.toml", "--offline"]).stdout).unwrap();
    assert!(text.contains("top") && text.contains("not locked"), "{text}");
    assert_eq!(server.requests().len(), requests);
}
