//! `gapimage check` through the command line: what fails, what it says, what it never says.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::{Project, fail_with, gapimage, letters, said, stdout, succeed};
use serde_json::Value;
use std::{fs, process::Command};

fn check(project: &Project) -> Command {
    let mut command = gapimage();
    command.arg("check").arg(project.path().join("recipe.toml"));
    command
}

fn lock(project: &Project) {
    succeed(gapimage().arg("lock").arg(project.path().join("recipe.toml")));
}

/// The lines of `--json` with this status, as `rule: reason`.
fn lines(text: &str, status: &str) -> Vec<String> {
    let report: Value = serde_json::from_str(text).unwrap();
    let lines = report["lines"].as_array().unwrap().iter();
    lines
        .filter(|line| line["status"] == status)
        .map(|line| format!("{}: {}", line["rule"].as_str().unwrap(), line["reason"].as_str().unwrap()))
        .collect()
}

#[test]
fn a_recipe_in_which_nothing_fails_passes_and_says_the_same_each_time() {
    let project = Project::new(&[("motd", b"hello\n")]);
    lock(&project);
    let first = succeed(&mut check(&project));
    let text = stdout(&first);
    for heading in ["Infrastructure\n", "Software\n", "Data\n", "Models\n", "Evaluation\n"] {
        assert!(text.contains(heading), "{text}");
    }
    assert!(text.contains("layers that were looked through: 1"), "{text}");
    assert_eq!(stdout(&succeed(&mut check(&project))), text);
    let json = stdout(&succeed(check(&project).arg("--json")));
    assert!(lines(&json, "fail").is_empty() && !lines(&json, "pass").is_empty(), "{json}");
}

#[test]
fn a_token_in_a_layer_fails_by_path_and_line_and_is_not_shown() {
    let token = format!("{}{}", "hf_", letters(34));
    let text = format!("# settings\nHF_TOKEN={token}\n");
    let project = Project::new(&[("app/.env", text.as_bytes())]);
    lock(&project);
    for _ in 0..2 {
        let said = fail_with(4, check(&project).arg("--json"));
        assert!(!said.contains(&token) && said.contains("/srv/app/.env:2 looks like a Hugging Face token"), "{said}");
    }
    let output = check(&project).arg("--json").output().unwrap();
    let fails = lines(&stdout(&output), "fail");
    assert_eq!(fails, ["secrets: /srv/app/.env:2 looks like a Hugging Face token"], "{}", said(&output));
    let recipe = fs::read_to_string(project.path().join("recipe.toml")).unwrap();
    fs::write(project.path().join("recipe.toml"), format!("{recipe}[secrets]\nallow = [\"/srv/app/\"]\n")).unwrap();
    succeed(&mut check(&project));
}

#[test]
fn a_job_whose_configuration_breaks_its_training_fails_alone() {
    let project = Project::new(&[("motd", b"hello\n")]);
    fs::write(project.path().join("sft.yaml"), "load_best_model_at_end: true\neval_strategy: steps\n").unwrap();
    let recipe = fs::read_to_string(project.path().join("recipe.toml")).unwrap();
    let job = "[step.sft]\nimage = \"main\"\nrun = [\"train\"]\nconfigs = [\"sft.yaml\"]\n";
    fs::write(project.path().join("recipe.toml"), format!("{recipe}{job}")).unwrap();
    lock(&project);
    let output = check(&project).arg("--json").output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    let fails = lines(&stdout(&output), "fail");
    assert!(
        matches!(fails.as_slice(), [one] if one.starts_with("configuration: `load_best_model_at_end` without")),
        "{fails:?}"
    );
}

#[test]
fn without_a_lock_what_it_would_say_is_unresolved() {
    let project = Project::new(&[("motd", b"hello\n")]);
    let json = stdout(&succeed(check(&project).arg("--json")));
    assert!(lines(&json, "unresolved").iter().any(|line| line.contains("the lock has no rows for it")), "{json}");
}

#[test]
fn rows_for_what_the_recipe_asked_before_are_no_ground_to_judge_on() {
    let token = format!("{}{}", "hf_", letters(34));
    let project = Project::new(&[("motd", token.as_bytes())]);
    lock(&project);
    fail_with(4, &mut check(&project));
    let recipe = fs::read_to_string(project.path().join("recipe.toml")).unwrap();
    fs::write(project.path().join("recipe.toml"), recipe.replace("to = \"/srv\"", "to = \"/opt\"")).unwrap();
    let json = stdout(&succeed(check(&project).arg("--json")));
    assert!(lines(&json, "unresolved").iter().any(|line| line.contains("the lock has no rows for it")), "{json}");
}
