//! Locking again through the command line while the archive moves on.

use super::{
    keys::Key,
    packages::{Package, Project, publish},
    server::Server,
};

const OLD: [Package; 4] = [
    Package::new("app", "1", "Depends: lib\n"),
    Package::new("lib", "1", ""),
    Package::new("tool", "1", "Depends: lib\n"),
    Package::new("gone", "1", ""),
];
const NEW: [Package; 6] = [
    Package::new("app", "1", "Depends: lib\n"),
    Package::new("app", "2", "Depends: lib\n"),
    Package::new("lib", "1", ""),
    Package::new("lib", "2", ""),
    Package::new("tool", "2", "Depends: lib\n"),
    Package::new("gone", "2", ""),
];

#[test]
fn adding_a_package_moves_no_other_and_an_update_moves_all() {
    let (server, key) = (Server::start(), Key::new(1));
    let project = Project::new(&key);
    publish(&server, &key, &OLD);
    project.recipe(&server.url, &[("base", "\"lib\""), ("top", "\"app\", \"gone\"")]);
    project.succeed(&["lock", "recipe.toml"]);
    assert_eq!(project.locked("top"), ["app 1", "gone 1"]);

    publish(&server, &key, &NEW);
    // What is below is asked for something else, so what stands on it is resolved again as well.
    project.recipe(&server.url, &[("base", "\"lib\", \"tool\""), ("top", "\"app\", \"gone\"")]);
    project.succeed(&["lock", "recipe.toml"]);
    assert_eq!(project.locked("base"), ["lib 1", "tool 2"], "a new package is taken in its newest version");
    assert_eq!(project.locked("top"), ["app 1", "gone 2"], "a version that is no longer offered is replaced");

    // A layer that comes to stand elsewhere keeps its versions too.
    project.recipe(&server.url, &[("other", "\"app\"")]);
    project.succeed(&["lock", "recipe.toml"]);
    assert_eq!(project.locked("other"), ["app 1", "lib 1"]);

    project.succeed(&["lock", "recipe.toml", "--update"]);
    assert_eq!(project.locked("other"), ["app 2", "lib 2"]);
}
