//! The program itself, started over a made-up machine's files.

use crate::{machine, release::Booted};
use gap_format::Digest;
use gap_handover::{
    boot_report::TRUST_PATH,
    control::{EXIT_FAILED, EXIT_NOT_TRUSTED},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The agent with few files that it may open at first, as the kernel begins.
fn program(booted: &Booted) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_gapd")]);
    command.arg("--root").arg(booted.directory.path()).args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
    command
}

/// Runs to the end; returns exit status and what was said.
fn refusal(booted: &Booted) -> (Option<i32>, String) {
    let mut child = program(booted).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(child.kill());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// A running agent, and what it said until it served.
pub struct Running {
    child: Child,
    pub address: std::net::SocketAddr,
    pub fingerprint: String,
    code: Option<String>,
    said: Vec<String>,
}

impl Running {
    /// An agent that shows a code, because its site names no token.
    fn start(booted: &Booted) -> Self {
        Self::start_until(booted, "NOT CLAIMED")
    }

    /// One that runs when it has said this.
    pub fn start_until(booted: &Booted, last: &str) -> Self {
        let mut child = program(booted).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        let (mut place, mut code) = (None, None);
        // The check of the layers takes no time for such small ones; jobs are refused beside it.
        let has_said = |said: &[String], words: &str| said.iter().any(|line| line.contains(words));
        let is_up = |said: &[String]| has_said(said, "layers are read") && has_said(said, last);
        while !is_up(&said) {
            let line = lines.next().unwrap().unwrap();
            if let Some(rest) = line.strip_prefix("gapd: API on https://") {
                place = rest.split_once(", certificate SHA-256 ").map(|(a, b)| (a.to_owned(), b.to_owned()));
            }
            code = line
                .strip_prefix("gapd: NOT CLAIMED: ")
                .and_then(|rest| rest.rsplit(' ').next())
                .map(str::to_owned)
                .or(code);
            said.push(line);
        }
        let (address, fingerprint) = place.unwrap();
        Self { child, address: address.parse().unwrap(), fingerprint, code, said }
    }

    /// Memory of its own in bytes: without the pages of the program, of which as many are there as the system read ahead.
    pub fn memory(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// How many files it may open.
    fn open_files(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn terminated(&mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }

    /// The first admin's token.
    async fn claimed(&self) -> String {
        let body = json!({"code": self.code.as_deref().unwrap()});
        let path = "/v1/appliance/claim";
        let answer = machine::post_by_fingerprint(self.address, &self.fingerprint, path, "", &body).await;
        answer.body["token"].as_str().unwrap().to_owned()
    }

    /// Asks over TLS, trusting the certificate whose fingerprint the console showed.
    pub async fn ask(&self, method: &str, path: &str, token: &str) -> machine::Answer {
        machine::ask_by_fingerprint(self.address, &self.fingerprint, method, path, token).await
    }
}

impl Drop for Running {
    /// A test that fails leaves nothing running behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_agent_verifies_serves_and_stops() {
    let booted = Booted::new();
    let mut agent = Running::start(&booted);
    assert_eq!(agent.said[0], "gapd: release example 1.0 (serial 5) verified again, signed by officer");
    let token = agent.claimed().await;
    let system = agent.ask("GET", "/v1/system", &token).await.body;
    assert_eq!(system["release"]["signers"][0]["name"], "officer");
    assert_eq!(system["release"]["signers"][0]["key"], json!(booted.report.release.signers[0]));
    assert_eq!((&system["status"], &system["layers"][1]["state"]), (&json!("ok"), &json!("verified")));
    let stages: Vec<_> = system["stages"].as_array().unwrap().iter().map(|stage| stage["name"].clone()).collect();
    assert_eq!(stages, ["agent started", "release verified again", "API healthy"]);
    assert_eq!(agent.ask("GET", "/v1/system", "wrong").await.status, 401);
    // Each huge page, of which some systems give as many as they can, counts 2 MiB.
    assert!(agent.memory() < 16 << 20, "{} bytes", agent.memory());
    assert!(agent.open_files() > 256, "it may open {} files", agent.open_files());
    assert_eq!(agent.terminated(), Some(0));

    // Without a data volume nothing outlives the agent: who was admin is none any more, and there is another code.
    let mut again = Running::start(&booted);
    assert!(again.code.is_some() && again.code != agent.code);
    // Its certificate does: it lies in the machine's memory.
    assert_eq!(again.fingerprint, agent.fingerprint);
    assert_eq!(again.ask("GET", "/v1/system", &token).await.status, 401);
    assert_eq!(again.terminated(), Some(0));
}

#[tokio::test]
async fn the_site_decides_on_name_and_token() {
    let booted = Booted::new();
    booted.write_site(&format!("hostname = 'rack4'\n[api]\ntoken_sha256 = '{}'", Digest::of(b"my own").to_hex()));
    let mut agent = Running::start_until(&booted, "NO JOBS ARE TAKEN");
    assert_eq!(agent.code, None);
    let system = agent.ask("GET", "/v1/system", "my own").await.body;
    assert_eq!((&system["hostname"], &system["network"]["mode"]), (&json!("rack4"), &json!("none")));
    assert_eq!(agent.terminated(), Some(0));
}

#[tokio::test]
async fn a_site_configuration_that_is_not_valid_counts_as_none() {
    let booted = Booted::new();
    booted.write_site("hostname = 'rack4'\ntrust = 'mine'");
    let mut agent = Running::start(&booted);
    assert!(agent.said[0].contains("unknown field `trust`") && agent.said[0].ends_with("without a site configuration"));
    let system = agent.ask("GET", "/v1/system", &agent.claimed().await).await.body;
    assert_eq!(system["hostname"], "appliance");
    assert_eq!(agent.terminated(), Some(0));
}

#[tokio::test]
async fn a_power_off_ends_an_agent_that_does_not_own_the_machine() {
    let booted = Booted::new();
    let mut agent = Running::start(&booted);
    let token = agent.claimed().await;
    assert_eq!(agent.ask("POST", "/v1/system/poweroff", &token).await.status, 202);
    let deadline = Instant::now() + Duration::from_secs(10);
    let status = loop {
        match agent.child.try_wait().unwrap() {
            None if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(10)).await,
            status => break status,
        }
    };
    assert_eq!(status.unwrap().code(), Some(0));
}

#[test]
fn a_medium_that_changed_is_not_served() {
    // A tar header of the head, the envelope, the layout, and the manifest that says what is mounted.
    for pattern in [&b"index.json\0"[..], b"\"payload\"", b"\"verity\"", b"vnd.gapimage.mount.v1"] {
        let booted = Booted::new();
        booted.flip("/dev/vda", pattern);
        let (status, said) = refusal(&booted);
        assert_eq!(status, Some(i32::from(EXIT_NOT_TRUSTED)), "{}: {said}", String::from_utf8_lossy(pattern));
        assert!(said.starts_with("gapd: not trusted: the release on the medium is refused: "), "{said}");
    }
}

#[test]
fn a_report_that_says_something_else_is_not_served() {
    type Change = fn(&mut Booted);
    let changes: [(&str, Change); 7] = [
        ("the serial", |booted| booted.report.release.serial = 6),
        ("the version", |booted| booted.report.release.version = "2".into()),
        ("index.json", |booted| booted.report.release.index = Digest::of(b"x")),
        ("the expiry", |booted| booted.report.release.expires = Some(1)),
        ("the signers", |booted| booted.report.release.signers.clear()),
        ("the number of layers", |booted| drop(booted.report.layers.pop())),
        ("the verity root", |booted| booted.report.layers[1].verity_root = Digest::of(b"x")),
    ];
    for (what, change) in changes {
        let mut booted = Booted::new();
        change(&mut booted);
        booted.write_report();
        let (status, said) = refusal(&booted);
        assert_eq!(status, Some(i32::from(EXIT_NOT_TRUSTED)), "{said}");
        assert!(said.starts_with("gapd: not trusted: the boot report and") && said.contains(what), "{said}");
    }
}

#[test]
fn another_trust_root_or_image_is_not_served() {
    let booted = Booted::new();
    booted.flip(TRUST_PATH, b"officer");
    let (status, said) = refusal(&booted);
    assert_eq!(status, Some(i32::from(EXIT_NOT_TRUSTED)), "{said}");
    let booted = Booted::new();
    fs::write(booted.root.at("/proc/cmdline"), "quiet\n").unwrap();
    assert_eq!(refusal(&booted).0, Some(i32::from(EXIT_NOT_TRUSTED)));
}

#[test]
fn what_may_come_back_is_not_fatal() {
    let booted = Booted::new();
    fs::remove_file(booted.root.at("/dev/vda")).unwrap();
    let (status, said) = refusal(&booted);
    assert_eq!(status, Some(i32::from(EXIT_FAILED)), "{said}");
    assert!(said.starts_with("gapd: failed: reading the release again from /dev/vda: "), "{said}");
}
