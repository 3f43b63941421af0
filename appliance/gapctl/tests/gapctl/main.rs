//! Drives the program as a person does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on has failed")]

mod appliance;
mod burn_in;
mod hostile;

use appliance::{Appliance, CODE, TOKEN};
use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    process::{Command, Output, Stdio},
};

struct Person {
    home: tempfile::TempDir,
}

impl Person {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    /// One who has logged in.
    fn of(appliance: &Appliance) -> Self {
        let person = Self::new();
        let login = ["login", &appliance.address, "--fingerprint", &appliance.fingerprint.to_string()];
        let output = person.types(&login, TOKEN);
        assert!(output.status.success(), "{}", said(&output));
        person
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gapctl"));
        command.args(arguments).env_clear().env("HOME", self.home.path()).current_dir(self.home.path());
        command
    }

    fn does(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    fn types(&self, arguments: &[&str], text: &str) -> Output {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // One who is refused before does not read it.
        let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
        child.wait_with_output().unwrap()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn only_the_server_with_the_confirmed_certificate_gets_the_token() {
    let appliance = Appliance::start();
    let person = Person::of(&appliance);
    assert!(said(&person.does(&["system"])).contains("rack4"));

    // The same address, another machine.
    let other = Appliance::start();
    let output =
        person.does(&["--server", &other.address, "--fingerprint", &appliance.fingerprint.to_string(), "system"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("another fingerprint"), "{}", said(&output));

    // Nobody is there to compare one.
    let output = person.types(&["-a", "new", "login", &other.address], TOKEN);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains(&other.fingerprint.to_string()));

    // The remembered token is not sent to a server that it does not belong to.
    let output = person.does(&["--server", &other.address, "--fingerprint", &other.fingerprint.to_string(), "system"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("the token is wrong"));
}

#[test]
fn who_claims_an_appliance_is_logged_in_and_a_wrong_code_forgets_nothing() {
    let appliance = Appliance::start();
    let person = Person::new();
    let claim = ["claim", &appliance.address, "--fingerprint", &appliance.fingerprint.to_string(), "--name", "ada"];
    let output = person.types(&claim, "0000-0000-0000-0000\n");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("the code is not the one"), "{}", said(&output));
    let output = person.types(&claim, &format!("{CODE}\n"));
    assert!(output.status.success() && !said(&output).contains(TOKEN), "{}", said(&output));
    assert_eq!(appliance.seen.lock().unwrap().wanted[1]["name"], "ada");
    assert!(said(&person.does(&["system"])).contains("rack4"));
    let output = person.types(&claim, "0000-0000-0000-0000\n");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(person.does(&["system"]).status.success(), "the token is still known");
    let nowhere = person.command(&claim).env_remove("HOME").stdin(Stdio::null()).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert_eq!(appliance.seen.lock().unwrap().wanted.len(), 3, "a code is not used up for a token that cannot be kept");
}

#[test]
fn the_sites_authority_is_as_good_as_a_fingerprint() {
    let (appliance, stranger) = (Appliance::start(), Appliance::start());
    let person = Person::new();
    for (name, pem) in [("own.pem", &appliance.pem), ("other.pem", &stranger.pem)] {
        fs::write(person.home.path().join(name), pem).unwrap();
    }
    let code = |ca: &str, token: &str| {
        let output = person.types(&["login", &appliance.address, "--ca", ca], token);
        (output.status.code(), said(&output))
    };
    assert_eq!(code("own.pem", TOKEN).0, Some(0));
    assert_eq!(code("other.pem", TOKEN).0, Some(3));
    assert_eq!(code("missing.pem", TOKEN).0, Some(1));
    assert_eq!(code("own.pem", "wrong-token").0, Some(1));
    assert!(person.does(&["system"]).status.success(), "a failed login forgets nothing");
    assert!(person.does(&["logout"]).status.success());
    assert!(said(&person.does(&["system"])).contains("gapctl login"));
}

#[test]
fn where_the_site_wants_a_certificate_of_the_client_it_is_shown() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::from_params(&authority, &key);
    let own = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["operator".to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();

    let appliance = Appliance::start_for(Some(&pem));
    let person = Person::new();
    fs::write(person.home.path().join("own.pem"), certificate.pem()).unwrap();
    fs::write(person.home.path().join("own.key"), own.serialize_pem()).unwrap();
    let login = ["login", &appliance.address, "--fingerprint", &appliance.fingerprint.to_string()];
    let output = person.types(&login, TOKEN);
    assert_ne!(output.status.code(), Some(0), "{}", said(&output));
    let output = person.types(&[&login[..], &["--certificate", "own.pem"]].concat(), TOKEN);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let output = person.types(&[&login[..], &["--certificate", "own.pem", "--key", "own.key"]].concat(), TOKEN);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    // Both are remembered.
    let output = person.does(&["system"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn an_upload_that_broke_off_goes_on_where_it_was() {
    let appliance = Appliance::start();
    let person = Person::of(&appliance);
    let content: Vec<u8> = (0..40_u32 << 20).map(|index| (index % 251) as u8).collect();
    fs::write(person.home.path().join("x.jsonl"), &content).unwrap();
    appliance.seen.lock().unwrap().breaks_after = Some(2);
    let output = person.does(&["file", "upload", "x.jsonl"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("full"));

    appliance.seen.lock().unwrap().breaks_after = None;
    let output = person.does(&["file", "upload", "x.jsonl"]);
    assert!(output.status.success(), "{}", said(&output));
    let seen = appliance.seen.lock().unwrap();
    assert_eq!(seen.parts.len(), 3, "each part is sent once");
    assert!(seen.parts.concat() == content);
    drop(seen);

    let output = person.does(&["file", "upload", "x.jsonl", "--wait"]);
    assert_ne!(output.status.code(), Some(0));
}

#[test]
fn a_model_that_is_not_good_enough_is_promoted_only_with_a_reason() {
    let appliance = Appliance::start();
    let person = Person::of(&appliance);
    let promote = ["promote", "ft:base:x:1", "support", "--evaluation", "job-1"];
    let output = person.does(&promote);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("exact_match is 0.5"), "{}", said(&output));
    let output = person.does(&[&promote[..], &["--override", "in a hurry"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("support stands for ft:base:x:1"), "{}", said(&output));
    assert!(said(&output).contains("exact_match >= 0.9: 0.5, NOT MET"), "{}", said(&output));
    let wanted = appliance.seen.lock().unwrap().wanted[1].clone();
    assert_eq!((&wanted["evaluation"], &wanted["override_reason"]), (&"job-1".into(), &"in a hurry".into()));
    let output = said(&person.does(&["promotions", "support"]));
    assert!(output.contains("override: in a hurry") && output.contains("job-1"), "{output}");
}

#[test]
fn a_training_is_described_sent_and_followed_to_its_end() {
    let appliance = Appliance::start();
    let person = Person::of(&appliance);
    let output = person.does(&[
        "finetune", "create", "base", "file-1", "--suffix", "mine", "--epochs", "3", "--set", "lora.r=4", "--wait",
    ]);
    // The job there fails, which is said by the exit code.
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    let text = said(&output);
    let (began, ended) = (text.find("it began").unwrap(), text.find("error: no room").unwrap());
    assert!(began < ended, "{text}");
    let seen = appliance.seen.lock().unwrap();
    let wanted = &seen.wanted[0];
    assert_eq!(wanted["training_file"], "file-1");
    assert_eq!(wanted["method"]["supervised"]["hyperparameters"]["n_epochs"], 3);
    assert_eq!(wanted["appliance"]["parameters"]["lora"]["r"], 4);
}

#[test]
fn who_waits_does_not_give_up_an_appliance_that_is_started_again() {
    let appliance = Appliance::start();
    let person = Person::of(&appliance);
    let waits = |arguments: &[&str], expected: i32| {
        appliance.seen.lock().unwrap().answers_until = Some(0);
        let output = person.does(arguments);
        assert_eq!(output.status.code(), Some(expected), "{arguments:?}: {}", said(&output));
        assert!(appliance.seen.lock().unwrap().answers_until.is_none(), "{arguments:?} did not ask");
    };
    waits(&["job", "wait", "job-1"], 0);
    // The job and the file there are not good, which is what was waited for.
    waits(&["finetune", "wait", "ftjob-1"], 4);
    fs::write(person.home.path().join("x.jsonl"), "x").unwrap();
    waits(&["file", "upload", "x.jsonl", "--wait"], 4);
}

#[test]
fn a_reader_who_has_seen_enough_ends_it_quietly() {
    let appliance = Appliance::start();
    let person = Person::of(&appliance);
    for arguments in [
        &["system"][..],
        &["chat", "base", "x"],
        &["promotions"],
        &["job", "events", "job-1"],
        &["completions", "bash"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = person.command(arguments);
        let child = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        drop(command);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(141), ""), "{arguments:?}");
    }
}

#[test]
fn answers_come_as_text_and_downloads_whole() {
    let appliance = Appliance::start();
    let person = Person::of(&appliance);
    let output = person.does(&["chat", "base", "good morning"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "GOOD MORNING!\n");
    let output = person.types(&["complete", "base", "--max-tokens", "2"], "go ");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "go  on\n", "{}", said(&output));
    let output = person.does(&["embed", "base", "one", "three"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[3,0.5]\n[5,0.5]\n", "{}", said(&output));
    let output = person.does(&["file", "download", "file-1", "-o", "got"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(fs::read(person.home.path().join("got")).unwrap(), b"content\n");
    let output = person.does(&["file", "download", "file-1", "-o", "missing/got"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn programs_get_json_and_exit_codes() {
    let appliance = Appliance::start();
    let person = Person::of(&appliance);
    let output = person.does(&["--json", "health"]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"status\":\"degraded\"}\n");
    assert!(said(&output).contains("\"exit_code\":4"), "{}", said(&output));
    // What the appliance says does not reach the terminal as it is.
    assert!(!said(&person.does(&["system"])).contains('\u{1b}'));
    let output = person.does(&["request", "GET", "/healthz"]);
    assert!(output.status.success());
    assert_eq!(person.does(&["request", "GET", "healthz"]).status.code(), Some(2));
    assert_eq!(person.does(&["nonsense"]).status.code(), Some(2));
}

#[test]
fn a_bundle_for_supporters_holds_what_was_answered() {
    let appliance = Appliance::start();
    let person = Person::of(&appliance);
    let output = person.does(&["diagnose", "-o", "bundle.tar.gz"]);
    assert!(output.status.success(), "{}", said(&output));
    let file = fs::File::open(person.home.path().join("bundle.tar.gz")).unwrap();
    let mut bundle = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (entry.path().unwrap().display().to_string(), text)
    };
    let documents: BTreeMap<String, String> = bundle.entries().unwrap().map(read).collect();
    let system = &documents["diagnosis/system.json"];
    assert!(system.contains("demo") && !system.contains("rack4"), "{system}");
    assert!(documents["diagnosis/jobs.json"].contains("unanswered"), "{documents:?}");
}

#[test]
fn it_does_not_go_where_it_was_not_sent() {
    // Proxies of the environment are none of an appliance's business.
    let appliance = Appliance::start();
    let person = Person::of(&appliance);
    let mut command = person.command(&["health"]);
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:9");
    }
    assert_eq!(command.output().unwrap().status.code(), Some(4));
}

#[test]
fn a_self_test_tells_each_part_and_fails_where_one_is_bad() {
    let appliance = Appliance::start();
    let person = Person::of(&appliance);
    let output = person.does(&["selftest", "--no-training", "-o", "report.json"]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    let lines = said(&output);
    let row = |part: &str| lines.lines().find(|line| line.starts_with(part)).unwrap().to_owned();
    assert!(row("memory").contains("BAD") && row("memory").contains("word 7 is wrong"), "{lines}");
    assert!(row("disk").contains("good") && row("training").contains("not tested"), "{lines}");
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(person.home.path().join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["is_good"], &report["parts"][1]["is_good"]), (&false.into(), &true.into()));
}

#[test]
fn a_terminal_shows_what_comes_until_the_other_side_ends() {
    let appliance = Appliance::start();
    let person = Person::of(&appliance);
    let output = person.types(&["debug", "train", "--minutes", "5", "--", "sh", "-c", "x"], "hello exit\n");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "HELLO EXIT\n");
    let wanted = appliance.seen.lock().unwrap().wanted[0].clone();
    assert_eq!((&wanted["image"], &wanted["time_limit_seconds"]), (&"train".into(), &300.into()));
    assert_eq!(wanted["command"], serde_json::json!(["sh", "-c", "x"]));
    assert_eq!(person.does(&["debug", "train", "--minutes", "61"]).status.code(), Some(2));
}
