//! From a recipe with a model to an artifact, through the command line.

use crate::{
    fixture::{Project, fail_with, gapimage, said, stdout, succeed},
    hub::{Behaviour, Hub},
    sample,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const REPO: &str = "org/tiny";
const MODEL: &str = "[image.main]\nlayers = [\"files\"]\nmodels = [\"tiny\"]\n\
    [layer.files]\nfiles = [{ path = \"site\", to = \"/srv\" }]\n[model.tiny]\nhub = \"org/tiny\"\n";

/// A project with this recipe, and the hub that it is built from.
pub fn project(body: &str, files: &[(&'static str, Vec<u8>)]) -> (Project, Hub) {
    let project = Project::new(&[("note", b"hello")]);
    project.recipe(body);
    let hub = Hub::start();
    sample::put(&hub, REPO, files);
    (project, hub)
}

/// The command in this project, with its own store and nobody's token.
pub fn command(project: &Project, hub: &Hub, verb: &str) -> Command {
    let mut command = gapimage();
    command.arg(verb).arg(project.path().join("recipe.toml"));
    command.env("HF_ENDPOINT", &hub.url).env("HF_HOME", project.path().join("none")).env_remove("HF_TOKEN");
    command.env_remove("HF_TOKEN_PATH").env_remove("GAPIMAGE_HF_TOKEN_FOR");
    command.env("GAPIMAGE_STORE", project.path().join("store"));
    command
}

pub fn build(project: &Project, hub: &Hub) -> Command {
    let mut command = command(project, hub, "build");
    command.arg("-o").arg(project.path().join("a.gap"));
    command
}

/// Unpacks an image of an artifact with a tool that others wrote.
pub fn unpack(artifact: &Path, image: &str, into: &Path) -> PathBuf {
    let layout = into.join(format!("layout-{image}"));
    succeed(
        Command::new("skopeo")
            .arg("copy")
            .arg(format!("oci-archive:{}:{image}", artifact.display()))
            .arg(format!("oci:{}:x", layout.display())),
    );
    let bundle = into.join(format!("bundle-{image}"));
    let image = format!("{}:x", layout.display());
    succeed(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle));
    bundle.join("rootfs")
}

#[test]
fn a_model_is_a_directory_and_a_cache_in_its_own_image_and_in_those_that_name_it() {
    let (project, hub) = project(MODEL, &sample::files());
    succeed(&mut build(&project, &hub));
    let commit = fs::read_to_string(project.path().join("recipe.lock")).unwrap();
    let commit =
        commit.lines().find_map(|line| line.strip_prefix("commit = \"")).unwrap().trim_end_matches('"').to_owned();
    for image in ["tiny", "main"] {
        let root = unpack(&project.path().join("a.gap"), image, project.path());
        for (path, data) in sample::files().into_iter().filter(|(path, _)| *path != ".gitattributes") {
            let cached = root.join("models/hub/models--org--tiny/snapshots").join(&commit).join(path);
            for file in [root.join("models/tiny").join(path), cached] {
                assert!(fs::symlink_metadata(&file).unwrap().is_file());
                assert_eq!(fs::read(&file).unwrap(), data, "{}", file.display());
            }
        }
        assert_eq!(fs::read_to_string(root.join("models/hub/models--org--tiny/refs/main")).unwrap(), commit);
        assert_eq!(root.join("srv/note").exists(), image == "main");
    }
}

#[test]
fn only_the_layer_of_a_shard_that_changed_is_made_again() {
    let (project, hub) = project(MODEL, &sample::files());
    succeed(&mut build(&project, &hub));
    let plan = |project: &Project| -> serde_json::Value {
        serde_json::from_str(&stdout(&succeed(command(project, &hub, "plan").arg("--json")))).unwrap()
    };
    assert_eq!(plan(&project)["layers"].as_array().unwrap().len(), 4, "files, small files, two shards");
    let mut weights = sample::files()[4].1.clone();
    *weights.last_mut().unwrap() ^= 1;
    sample::put(&hub, REPO, &sample::files_with(&[], &[("model-00001-of-00002.safetensors", weights)]));
    succeed(command(&project, &hub, "lock").arg("--update"));
    let fetch =
        plan(&project)["layers"].as_array().unwrap().iter().map(|layer| layer["fetch"].clone()).collect::<Vec<_>>();
    assert_eq!(fetch.iter().filter(|fetch| fetch.as_u64().is_some_and(|bytes| bytes > 0)).count(), 1, "{fetch:?}");
}

#[test]
fn a_build_needs_no_hub_once_everything_was_fetched_and_gives_the_same_bytes() {
    let (project, hub) = project(MODEL, &sample::files());
    succeed(&mut build(&project, &hub));
    let first = fs::read(project.path().join("a.gap")).unwrap();
    fs::remove_file(project.path().join("a.gap")).unwrap();
    hub.behave(Some(Behaviour::Fail(500)));
    succeed(build(&project, &hub).arg("--offline"));
    assert!(first == fs::read(project.path().join("a.gap")).unwrap());
    let lock = fs::read_to_string(project.path().join("recipe.lock")).unwrap();
    assert!(!lock.contains("127.0.0.1") && !lock.contains("http"), "{lock}");
}

#[test]
fn a_release_does_not_depend_on_which_sources_the_store_still_has() {
    let (project, hub) = project(MODEL, &sample::files());
    succeed(&mut build(&project, &hub));
    let first = fs::read(project.path().join("a.gap")).unwrap();
    fs::remove_file(project.path().join("a.gap")).unwrap();
    for forgotten in ["sources", "caches"] {
        fs::remove_dir_all(project.path().join("store").join(forgotten)).unwrap();
    }
    hub.behave(Some(Behaviour::Fail(500)));
    succeed(build(&project, &hub).arg("--offline"));
    assert!(first == fs::read(project.path().join("a.gap")).unwrap());
}

#[test]
fn an_interrupted_build_goes_on() {
    let (project, hub) = project(MODEL, &sample::files());
    succeed(&mut command(&project, &hub, "lock"));
    // So little that an attempt counts as none.
    hub.behave(Some(Behaviour::Cut(10)));
    fail_with(1, &mut build(&project, &hub));
    assert!(!project.path().join("a.gap").exists());
    hub.behave(None);
    succeed(&mut build(&project, &hub));
    assert!(hub.downloads().iter().any(|asked| asked.contains('@')), "{:?}", hub.downloads());
}

#[test]
fn what_cannot_be_resolved_is_unresolved_and_nothing_is_built_from_it() {
    let (project, hub) = project(MODEL, &sample::files());
    hub.behave(Some(Behaviour::Fail(500)));
    for verb in ["lock", "build"] {
        let said = fail_with(1, &mut command(&project, &hub, verb));
        assert!(said.contains("unresolved") && said.contains("model/tiny"), "{said}");
    }
    let lock = fs::read_to_string(project.path().join("recipe.lock")).unwrap();
    assert!(lock.contains("name = \"files\"") && !lock.contains("tiny"), "{lock}");
    hub.behave(None);
    succeed(&mut build(&project, &hub));
    let again = succeed(&mut build(&project, &hub));
    assert!(stdout(&again).starts_with("up to date"), "{}", said(&again));
    // An update that fails leaves the rows that are there.
    let lock = fs::read_to_string(project.path().join("recipe.lock")).unwrap();
    hub.behave(Some(Behaviour::Page));
    fail_with(1, command(&project, &hub, "lock").arg("--update"));
    assert_eq!(fs::read_to_string(project.path().join("recipe.lock")).unwrap(), lock);
}

#[test]
fn a_token_is_in_nothing_that_is_written_or_said() {
    const SECRET: &str = "hf_averysecrettoken";
    let (project, hub) = project(MODEL, &sample::files());
    hub.gate(REPO, SECRET);
    let said_without = fail_with(1, &mut build(&project, &hub));
    assert!(said_without.contains("HF_TOKEN"), "{said_without}");
    let output = succeed(build(&project, &hub).env("HF_TOKEN", SECRET));
    assert!(!said(&output).contains(SECRET));
    assert_eq!(hub.leaked_tokens(), [""; 0]);
    let found = Command::new("grep").args(["-rlF", SECRET]).arg(project.path()).output().unwrap();
    assert_eq!(stdout(&found), "");
}

/// Has a recipe name a hub that wants a token, which only the user may send there.
pub fn keeps_the_token_from_a_hub_that_only_the_recipe_names(project: &Project, hub: &Hub, recipe: &str) {
    const SECRET: &str = "hf_averysecrettoken";
    project.recipe(&format!("{recipe}endpoint = \"{}\"\n", hub.url));
    // Nobody listens on this port of the loopback device.
    for own in [None, Some("http://127.0.0.1:9")] {
        let mut command = command(project, hub, "lock");
        command.env_remove("HF_ENDPOINT").envs(own.map(|url| ("HF_ENDPOINT", url))).env("HF_TOKEN", SECRET);
        let refused = fail_with(1, &mut command);
        assert!(refused.contains(&format!("set GAPIMAGE_HF_TOKEN_FOR={}", hub.url)), "{refused}");
        assert!(!hub.tokens().is_empty() && hub.tokens().iter().all(Option::is_none), "{own:?}");
        assert!(!refused.contains(SECRET));
        hub.forget();
    }
    let mut build = build(project, hub);
    succeed(build.env_remove("HF_ENDPOINT").env("HF_TOKEN", SECRET).env("GAPIMAGE_HF_TOKEN_FOR", &hub.url));
    assert!(hub.tokens().iter().all(Option::is_some));
    assert_eq!(hub.leaked_tokens(), [""; 0]);
}

#[test]
fn the_token_goes_to_no_hub_that_only_the_recipe_names() {
    let (project, hub) = project(MODEL, &sample::files());
    hub.gate(REPO, "hf_averysecrettoken");
    keeps_the_token_from_a_hub_that_only_the_recipe_names(&project, &hub, MODEL);
}

/// What a build of these files says when it refuses them.
#[track_caller]
fn refused(without: &[&str], with: &[(&'static str, Vec<u8>)]) -> String {
    let (project, hub) = project(MODEL, &sample::files_with(without, with));
    let said = fail_with(1, &mut build(&project, &hub));
    assert!(!project.path().join("a.gap").exists());
    said
}

#[test]
fn models_that_lack_something_or_lie_are_refused_with_the_reason() {
    assert!(refused(&["tokenizer.json"], &[]).contains("there is no tokenizer"));
    assert!(refused(&["model-00002-of-00002.safetensors"], &[]).contains("names the shard"));
    let overlap = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    let mut lying = (overlap.len() as u64).to_le_bytes().to_vec();
    lying.extend(overlap);
    lying.extend([0; 12]);
    let said = refused(&[], &[("model-00001-of-00002.safetensors", lying)]);
    assert!(said.contains("damaged or lies"), "{said}");
    let said =
        refused(&[], &[("config.json", sample::CONFIG.replace("\"vocab_size\":32", "\"vocab_size\":64").into_bytes())]);
    assert!(said.contains("config.json asks for [64, 8]"), "{said}");
}

#[test]
fn a_pickle_is_refused_unless_allowed_and_one_that_runs_code_always() {
    let shards =
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"];
    let harmless = b"\x80\x02ccollections\nOrderedDict\n)R.".to_vec();
    let evil = b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.".to_vec();
    assert!(refused(&shards, &[("pytorch_model.bin", harmless.clone())]).contains("collections.OrderedDict"));
    let allowing = format!("{MODEL}allow_pickle = true\n");
    let (project_, hub) = project(&allowing, &sample::files_with(&shards, &[("pytorch_model.bin", harmless)]));
    succeed(&mut build(&project_, &hub));
    let (project_, hub) = project(&allowing, &sample::files_with(&shards, &[("pytorch_model.bin", evil)]));
    let said = fail_with(1, &mut build(&project_, &hub));
    assert!(said.contains("runs code") && said.contains("posix.system"), "{said}");
}

#[test]
fn a_directory_is_a_model_too_and_its_layers_are_locked() {
    let project = Project::new(&[]);
    let dir = project.path().join("weights");
    fs::create_dir(&dir).unwrap();
    for (path, data) in sample::files() {
        fs::write(dir.join(path), data).unwrap();
    }
    project.recipe("[model.tiny]\npath = \"weights\"\nname = \"org/own\"\n");
    let hub = Hub::start();
    succeed(&mut build(&project, &hub));
    assert_eq!(hub.requests(), [""; 0]);
    let root = unpack(&project.path().join("a.gap"), "tiny", project.path());
    let commit = fs::read_to_string(root.join("models/hub/models--org--own/refs/main")).unwrap();
    assert!(root.join("models/hub/models--org--own/snapshots").join(commit).join("config.json").exists());
    let lock = fs::read_to_string(project.path().join("recipe.lock")).unwrap();
    assert!(
        lock.contains("apache-2.0") && lock.matches("[[layer.inputs.model.directory.part]]").count() == 3,
        "{lock}"
    );
    let again = succeed(&mut build(&project, &hub));
    assert!(stdout(&again).starts_with("up to date"), "{}", said(&again));
    // Locking and building agree on what the directory makes.
    succeed(&mut command(&project, &hub, "lock"));
    assert_eq!(fs::read_to_string(project.path().join("recipe.lock")).unwrap(), lock);
}

#[test]
fn podman_takes_the_image_of_a_model() {
    let (project, hub) = project(MODEL, &sample::files());
    succeed(&mut build(&project, &hub));
    let root = project.path().join("containers");
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(&root)
            .arg("--runroot")
            .arg(project.path().join("run"))
            .args(["--storage-driver", "vfs"]);
        succeed(command.args(arguments))
    };
    podman(&["load", "-i", project.path().join("a.gap").to_str().unwrap()]);
    let images = stdout(&podman(&["images", "--format", "{{.Repository}}"]));
    assert!(images.contains("tiny"), "{images}");
}
