//! Programs run in images: layers that they make, tests of a recipe, `gapimage run`; never with a network, and the same
//! bytes each time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::{Project, fail_with, gapimage, said, stdout, succeed};
use std::{
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

/// A recipe whose image has a shell; `more` are further sections.
fn project(more: &str) -> Project {
    let project = Project::new(&[("script", b"#!/usr/bin/busybox sh\necho from the script\n")]);
    project.recipe(&format!(
        "[image.app]\nlayers = [\"shell\", \"script\", \"made\"]\n\
         [layer.shell]\ndebian = {{ suite = \"trixie\", packages = [\"busybox-static\"], dependencies = false }}\n\
         [layer.script]\nfiles = [{{ path = \"site/script\", to = \"/opt/script\", mode = 0o755 }}]\n{more}"
    ));
    project
}

fn made(script: &str) -> String {
    format!(
        "[layer.made]\nrun = {{ on = [\"shell\", \"script\"], command = [\"busybox\", \"sh\", \"-ec\", '''{script}'''], \
         output = \"/out\", to = \"/opt/made\" }}\n"
    )
}

const GOOD: &str = "mkdir /out/deep; /opt/script > /out/deep/file; busybox chown 7:7 /out/deep/file; echo leak > /leak";

fn build(project: &Project) -> Command {
    let mut command = gapimage();
    command.args(["build", "-o"]).arg(project.path().join("a.gap")).arg(project.path().join("recipe.toml"));
    command
}

#[test]
fn a_program_makes_a_layer_of_its_output_alone() {
    let project = project(&made(GOOD));
    let artifact = project.signed("a.gap");
    let files = stdout(&succeed(gapimage().arg("inspect").arg(&artifact).args(["--files", "app"])));
    let line = files.lines().find(|line| line.contains("/opt/made/deep/file")).unwrap();
    assert!(!files.contains("leak"), "{files}");
    assert!(!files.lines().any(|line| line.ends_with(" /out")), "{files}");
    assert!(line.contains("0:0") || line.contains("root") || line.contains(" 0 "), "{line}");
    let image = format!("{}:app", artifact.display());
    let printed = succeed(gapimage().args(["run", &image, "--", "busybox", "cat", "/opt/made/deep/file"]));
    assert_eq!(stdout(&printed), "from the script\n");
}

#[test]
fn a_model_that_a_program_makes_is_an_image_and_is_looked_into_once_it_is_there() {
    // A model that no run of this test made before: stores outlive it.
    let name = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let model = format!(
        "[model.small.run]\non = [\"shell\"]\noutput = \"/out\"\n\
         command = [\"busybox\", \"sh\", \"-ec\", \"echo '{{}}' > /out/config.json; echo {name} > /out/name\"]\n\
         [image.serve]\nlayers = [\"shell\"]\nmodels = [\"small\"]\n"
    );
    let project = project(&(made(GOOD) + &model));
    let recipe = project.path().join("recipe.toml");
    let check = || {
        let output = gapimage().arg("check").arg(&recipe).output().unwrap();
        stdout(&output)
    };
    succeed(gapimage().arg("lock").arg(&recipe));
    let before = check();
    assert!(before.contains("a program makes it, and has not yet"), "{before}");
    let artifact = project.signed("a.gap");
    let after = check();
    assert!(!after.contains("has not yet") && after.contains("model small"), "{after}");
    for image in ["small", "serve"] {
        let files = stdout(&succeed(gapimage().arg("inspect").arg(&artifact).args(["--files", image])));
        assert!(files.contains("/models/small/config.json"), "{image}: {files}");
    }
}

#[test]
fn a_program_that_leaves_other_bytes_each_time_is_refused_with_the_file() {
    let project = project(&made("busybox head -c 20 /dev/urandom > /out/random; echo same > /out/same"));
    let said = fail_with(1, &mut build(&project));
    assert!(said.contains("/opt/made/random") && said.contains("does not leave the same bytes"), "{said}");
    assert!(!project.path().join("a.gap").exists());
    let once = made("busybox head -c 20 /dev/urandom > /out/random").replace("to = ", "twice = false, to = ");
    succeed(&mut build(&self::project(&once)));
}

#[test]
fn a_program_has_no_network_and_fails_with_what_it_printed() {
    let project = project(&made("busybox ip addr; busybox wget -T 5 http://192.0.2.1/ -O /out/page"));
    let said = fail_with(1, &mut build(&project));
    assert!(said.contains("layer `made`") && said.contains("unreachable"), "{said}");
    assert!(!said.contains("inet "), "no interface has an address: {said}");
}

#[test]
fn the_tests_of_a_recipe_run_offline_on_a_read_only_root_and_are_remembered() {
    let test = "[[test]]\nname = \"script\"\nimage = \"app\"\nenv = { EXTRA = \"given\" }\n\
                command = [\"busybox\", \"sh\", \"-ec\", '''/opt/script; echo $HF_HUB_OFFLINE $EXTRA; touch /tmp/x; ! touch /x''']\n\
                expect = [\"from the script\", \"1 given\"]\n";
    let project = project(&(made(GOOD) + test));
    let recipe = project.path().join("recipe.toml");
    let first = stdout(&succeed(gapimage().arg("test").arg(&recipe)));
    assert!(first.contains("passed ") && first.contains("script in app"), "{first}");
    let again = stdout(&succeed(gapimage().args(["test", "--json"]).arg(&recipe)));
    assert!(again.contains("\"earlier\":true"), "{again}");
    let built = said(&succeed(&mut build(&project)));
    assert!(built.contains("script in app: passed before"), "{built}");
}

#[test]
fn a_release_carries_the_tests_that_it_passed_and_they_are_tried_again_where_it_arrived() {
    let test = "[[test]]\nname = \"script\"\nimage = \"app\"\nenv = { EXTRA = \"given\" }\n\
                command = [\"busybox\", \"sh\", \"-ec\", \"/opt/script; echo $EXTRA; ! touch /x\"]\nexpect = [\"from the script\"]\n\
                [[test]]\nname = \"where\"\nimage = \"app\"\ncommand = [\"busybox\", \"sh\", \"-c\", \"cat /proc/mounts\"]\n";
    let project = project(&(made(GOOD) + test));
    let artifact = project.signed("a.gap");
    let document = stdout(&succeed(gapimage().arg("inspect").arg(&artifact).args(["--document", "tests"])));
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let first = &document["tests"][0];
    assert_eq!(
        (&first["name"], &first["image"], &first["result"]),
        (&"script".into(), &"app".into(), &"passed".into())
    );
    assert_eq!((&first["env"]["EXTRA"], &first["time_limit"]), (&"given".into(), &600.into()));
    let summary = stdout(&succeed(gapimage().arg("inspect").arg(&artifact)));
    assert!(summary.contains("tests          2 passed"), "{summary}");
    let tried = stdout(&succeed(gapimage().arg("test").arg(&artifact).arg("--trust").arg(&project.keys.trust)));
    assert!(tried.contains("passed         script in app") && tried.contains("passed         where in app"), "{tried}");
    // The same bytes come of another store, where the tests are tried anew.
    let other = project.path().join("b.gap");
    let mut command = gapimage();
    command.arg("build").arg(project.path().join("recipe.toml")).arg("-o").arg(&other);
    command.arg("--store").arg(project.path().join("store"));
    succeed(&mut command);
    succeed(gapimage().arg("sign").arg(&other).arg("--key").arg(&project.keys.key));
    assert!(std::fs::read(&artifact).unwrap() == std::fs::read(&other).unwrap());
}

#[test]
fn a_test_that_fails_where_the_artifact_arrived_is_found_wanting_and_commands_no_terminal() {
    // What a program can see of the machine that it runs on is how much of it it gets.
    let test = "[[test]]\nname = \"first\"\nimage = \"app\"\n\
                command = [\"busybox\", \"sh\", \"-c\", \"printf 'a\\\\033[2Jb'; test $(busybox cut -d' ' -f19 /proc/self/stat) -lt 19\"]\n\
                [[test]]\nname = \"fine\"\nimage = \"app\"\ncommand = [\"busybox\", \"true\"]\n";
    let project = project(&(made(GOOD) + test));
    let artifact = project.build("a.gap");
    let mut last = Command::new("nice");
    last.args(["-n", "19", env!("CARGO_BIN_EXE_gapimage"), "test"]).arg(&artifact);
    let said = fail_with(4, &mut last);
    assert!(said.contains("failed         first in app") && said.contains("passed         fine in app"), "{said}");
    assert!(said.contains("\\u{1b}[2J") && !said.contains('\u{1b}'), "{said}");
    assert!(said.contains("1 of 2 tests fail"), "{said}");
}

#[test]
fn an_artifact_without_tests_and_a_recipe_that_should_be_verified_are_told_apart() {
    let project = project(&made(GOOD));
    let artifact = project.build("a.gap");
    assert_eq!(stdout(&succeed(gapimage().arg("test").arg(&artifact))), "the artifact records no tests\n");
    let recipe = project.path().join("recipe.toml");
    let said = fail_with(2, gapimage().arg("test").arg(&recipe).arg("--trust").arg(&project.keys.trust));
    assert!(said.contains("a recipe is not verified"), "{said}");
    fail_with(1, gapimage().arg("test").arg(project.path().join("absent.gap")));
    fail_with(3, gapimage().arg("test").arg(&artifact).arg("--trust").arg(&project.keys.trust));
}

#[test]
fn a_test_that_fails_stops_the_build() {
    for (test, why) in [
        ("command = [\"busybox\", \"false\"]", "ended with exit status: 1"),
        ("command = [\"busybox\", \"echo\", \"no\"]\nexpect = [\"yes\"]", "did not print `yes`"),
        ("command = [\"busybox\", \"sleep\", \"60\"]\ntime_limit = 1", "time limit"),
    ] {
        let project = project(&format!("{}[[test]]\nname = \"bad\"\nimage = \"app\"\n{test}\n", made(GOOD)));
        let said = fail_with(1, &mut build(&project));
        assert!(said.contains("test `bad`") && said.contains(why), "{said}");
        assert!(!project.path().join("a.gap").exists());
    }
}

#[test]
fn mistakes_in_tests_and_programs_are_named_with_their_line() {
    let good = made(GOOD);
    for (from, to, expected) in [
        (
            "on = [\"shell\", \"script\"]",
            "on = [\"shell\", \"made\"]",
            "the layer `made` is built in itself: made → made",
        ),
        ("output = \"/out\"", "output = \"out\"", "`output = \"out\"` is not absolute"),
        ("output = \"/out\"", "outptu = \"/out\"", "did you mean `output`?"),
    ] {
        assert_eq!(good.matches(from).count(), 1);
        let said =
            fail_with(1, gapimage().arg("plan").arg(project(&good.replace(from, to)).path().join("recipe.toml")));
        assert!(said.contains(expected), "{said}");
    }
    let test = format!("{good}[[test]]\nname = \"t\"\nimage = \"ap\"\ncommand = [\"true\"]\n");
    let said = fail_with(1, gapimage().arg("plan").arg(project(&test).path().join("recipe.toml")));
    assert!(said.contains("there is no image `ap`") && said.contains("did you mean `app`?"), "{said}");
}
