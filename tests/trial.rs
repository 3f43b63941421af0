//! Programs run in images: layers that they make, tests of a recipe, `gapimage run`; never with a network, and the same
//! bytes each time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::{Project, fail_with, gapimage, said, stdout, succeed};
use std::process::Command;

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
