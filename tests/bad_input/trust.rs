//! Signatures by keys that are unknown, revoked, over, too few, or meant for something else; and releases that are old.

use super::{
    assert_says,
    fixture::{Keys, Project, fail_with, gapimage, keygen, succeed},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

struct Gate {
    project: Project,
    artifact: PathBuf,
}

impl Gate {
    fn new() -> Self {
        let project = Project::new(&[("readme", b"text")]);
        let artifact = project.signed("a.gap");
        Self { project, artifact }
    }

    /// The trust file after this change.
    fn trust(&self, change: impl Fn(String) -> String) -> PathBuf {
        let text = fs::read_to_string(&self.project.keys.trust).unwrap();
        let changed = change(text.clone());
        assert_ne!(changed, text);
        let path = self.project.path().join("changed.toml");
        fs::write(&path, changed).unwrap();
        path
    }

    fn verify(&self, trust: &Path) -> Command {
        let mut command = gapimage();
        command.arg("verify").arg(&self.artifact).arg("--trust").arg(trust);
        command
    }

    /// The release is not trusted by this trust file.
    #[track_caller]
    fn refused(&self, trust: &Path, all: &[&str]) {
        assert_says(&fail_with(3, &mut self.verify(trust)), all);
        // The virtual machine is not even started.
        let boot = fail_with(3, gapimage().args(["boot", "--check"]).arg(&self.artifact).arg("--trust").arg(trust));
        assert_says(&boot, all);
    }
}

fn other_keys(gate: &Gate) -> Keys {
    keygen(&gate.project.path().join("other"))
}

/// The `[[key]]` of a trust file, under another name.
fn key_entry(trust: &Path) -> String {
    let text = fs::read_to_string(trust).unwrap();
    let start = text.find("[[key]]").unwrap();
    let end = text.find("# How many").unwrap();
    text[start..end].replace("name = \"release\"", "name = \"second\"")
}

#[test]
fn an_unknown_key_is_refused_alone_and_beside_a_good_one() {
    let gate = Gate::new();
    let other = other_keys(&gate);
    gate.refused(&other.trust, &["the trust file does not know"]);
    succeed(gapimage().arg("sign").arg(&gate.artifact).arg("--key").arg(&other.key));
    gate.refused(&gate.project.keys.trust, &["the trust file does not know"]);
}

#[test]
fn a_revoked_key_is_refused() {
    let gate = Gate::new();
    let trust = gate.trust(|text| text.replace("# revoked", "revoked"));
    gate.refused(&trust, &["signature is by release", "revokes that key"]);
}

#[test]
fn a_key_that_is_over_or_not_valid_yet_is_refused() {
    let gate = Gate::new();
    let over = gate.trust(|text| text.replace("# not_after = 2028", "not_after = 2020"));
    gate.refused(&over, &["release", "2020-01-01"]);
    let early = gate.trust(|text| text.replace("# not_before = 2026", "not_before = 2199"));
    gate.refused(&early, &["release", "2199-01-01"]);
}

#[test]
fn too_few_keys_are_refused() {
    let gate = Gate::new();
    let other = other_keys(&gate);
    let trust = gate.trust(|text| {
        let both = text.replace("# How many", &format!("{}# How many", key_entry(&other.trust)));
        both.replace("[role.appliance]\nthreshold = 1", "[role.appliance]\nthreshold = 2")
    });
    gate.refused(&trust, &["2", "1"]);
    succeed(gapimage().arg("sign").arg(&gate.artifact).arg("--key").arg(&other.key));
    succeed(&mut gate.verify(&trust));
}

#[test]
fn a_key_for_data_does_not_release_an_appliance() {
    let gate = Gate::new();
    let other = other_keys(&gate);
    // Another key has the role, so that the trust file as a whole is sound.
    let trust = gate.trust(|text| {
        let all = "roles = [\"root\", \"appliance\", \"data\", \"sources\", \"export\"]";
        assert!(text.contains(all), "{text}");
        let data_only = text.replace(all, "roles = [\"data\"]");
        data_only.replace("# How many", &format!("{}# How many", key_entry(&other.trust)))
    });
    gate.refused(&trust, &["release", "role", "appliance"]);
}

#[test]
fn a_release_that_is_over_is_refused() {
    let gate = Gate::new();
    let recipe = gate.project.path().join("recipe.toml");
    let text = fs::read_to_string(&recipe).unwrap();
    fs::write(&recipe, text.replace("serial = 3", "serial = 3\nexpires = 2020-01-01T00:00:00Z")).unwrap();
    let late = Gate { artifact: gate.project.signed("late.gap"), project: gate.project };
    late.refused(&late.project.keys.trust, &["2020-01-01"]);
}

#[test]
fn an_old_serial_is_refused() {
    let gate = Gate::new();
    let said = fail_with(3, gate.verify(&gate.project.keys.trust).args(["--min-serial", "4"]));
    assert_says(&said, &["serial 3", "4"]);
}

#[test]
fn a_trust_file_with_a_mistake_is_no_verdict() {
    let gate = Gate::new();
    let trust = gate.trust(|text| text.replace("counter = 1", "countr = 1"));
    assert_says(&fail_with(1, &mut gate.verify(&trust)), &["changed.toml", "line 3", "countr"]);
    let trust = gate.trust(|text| text.replace("threshold = 1", "threshold = 2"));
    assert_says(&fail_with(1, &mut gate.verify(&trust)), &["threshold 2"]);
}
