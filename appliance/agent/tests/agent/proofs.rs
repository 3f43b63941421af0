//! What tools of others say of the API. They come from the package index and take minutes: `cargo test -- --ignored
//! proofs::`, after `cargo build --workspace --bins`.

use crate::{
    appliance::Appliance,
    machine::{Machine, TOKEN},
    programs::Real,
};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Seek},
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Longest that a tool may take.
const LIMIT: Duration = Duration::from_secs(600);
/// Calls with which something is sent or a connection begun.
const OUTWARD: [&str; 5] = ["connect", "sendto", "sendmsg", "sendmmsg", "bind"];
/// Kinds of sockets that stay in the machine, or whose addresses are looked at.
const FAMILIES: [&str; 6] = ["AF_UNIX", "AF_LOCAL", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNSPEC"];

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Python with the clients.
fn clients() -> PathBuf {
    let cache = std::env::var_os("GAPIMAGE_TEST_CACHE").map_or_else(|| here().join("../../.cache"), PathBuf::from);
    fs::create_dir_all(&cache).unwrap();
    let directory = cache.join("clients");
    let made = Command::new(here().join("../server/tests/real/clients.sh")).arg(&directory).status().unwrap();
    assert!(made.success());
    directory
}

fn url(machine: &Machine) -> String {
    format!("https://localhost:{}", machine.address.port())
}

/// Runs a program beside what serves here. It must end well, and within [`LIMIT`].
async fn run(mut command: Command) {
    let mut said = tempfile::tempfile().unwrap();
    command.stdout(said.try_clone().unwrap()).stderr(said.try_clone().unwrap());
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    let ended = tokio::time::timeout(LIMIT, child.wait()).await;
    let mut text = Vec::new();
    said.rewind().unwrap();
    said.read_to_end(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text);
    let status = ended.unwrap_or_else(|_| panic!("not done after {} s: {text}", LIMIT.as_secs())).unwrap();
    assert!(status.success(), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python packages, and trains"]
async fn the_official_client_goes_from_a_file_to_an_answer_of_the_new_model() {
    let python = clients().join("bin/python");
    let real = Real::start();
    let certificate = real.directory.path().join("certificate.der");
    fs::write(&certificate, real.machine.system.identity.certificate()).unwrap();
    let mut command = Command::new(python);
    command.arg(here().join("tests/agent/openai_client.py")).args([url(&real.machine).as_str(), TOKEN]);
    command.arg(certificate).arg(here().join("../../recipes/appliance/site.jsonl"));
    run(command).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python packages, and takes minutes"]
async fn schemathesis_finds_nothing() {
    let schemathesis = clients().join("bin/schemathesis");
    // Jobs that go on for ever would have whoever follows their log wait for ever.
    let appliance = Appliance::start_brief();
    let url = format!("{}/openapi.json", url(&appliance.machine));
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(schemathesis);
    // Without a token, and with wrong ones, every path is tried elsewhere: here that would lock the client out.
    command.args(["run", &url, "--checks", "all", "--exclude-checks", "ignored_auth", "--max-examples", "30"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--generation-deterministic", "--tls-verify", "false"]);
    // Slower than the API's own limit, which would answer for the rest.
    command.args(["--rate-limit", "45/s", "--request-timeout", "60", "--header"]);
    command.arg(format!("Authorization: Bearer {TOKEN}")).current_dir(place.path());
    command.env("SCHEMATHESIS_HOOKS", here().join("tests/agent/schemathesis_hooks.py"));
    run(command).await;
    assert_eq!(appliance.get("/healthz").await.status, 200);
}

#[test]
#[ignore = "runs the other tests under strace, which takes minutes"]
fn the_record_of_all_sockets_shows_none_outwards() {
    let client = "proofs::the_official_client_goes_from_a_file_to_an_answer_of_the_new_model";
    // Those of the network have one of their own; programs in it would be lost to the record.
    let runs = [(100, vec!["--skip", "network::"]), (1, vec!["--exact", client, "--ignored"])];
    for (connections, arguments) in runs {
        let directory = tempfile::tempdir().unwrap();
        let record = directory.path().join("record");
        let output = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=%network", "-e", "signal=none", "-o"])
            .arg(&record)
            .arg(std::env::current_exe().unwrap())
            .args(&arguments)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
        let text = fs::read_to_string(&record).unwrap();
        let families: BTreeSet<&str> = text.lines().filter_map(family).collect();
        assert!(families.iter().all(|family| FAMILIES.contains(family)), "{families:?}");
        let reached: Vec<IpAddr> = text.lines().flat_map(reached).collect();
        assert!(reached.len() >= connections, "a record of a run has connections: {}", reached.len());
        for line in text.lines() {
            for address in self::reached(line) {
                let listens = line.contains(" bind(") && address.is_unspecified();
                assert!(address.to_canonical().is_loopback() || listens, "{line}");
            }
        }
    }
}

/// The kind of a socket that is made in this line of the record.
fn family(line: &str) -> Option<&str> {
    let (_, call) = line.split_once(" socket(")?;
    call.split([',', ')']).next()
}

/// The addresses to which something is sent, or to which a connection or socket is bound, in this line.
fn reached(line: &str) -> Vec<IpAddr> {
    let call = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
    let name = call.strip_prefix("<... ").unwrap_or(call).split(['(', ' ']).next().unwrap_or_default();
    if !OUTWARD.contains(&name) {
        return Vec::new();
    }
    let quoted = |start: &str| {
        call.split(start).skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect::<Vec<IpAddr>>()
    };
    [quoted("inet_addr(\""), quoted("inet_pton(AF_INET6, \"")].concat()
}

#[test]
fn the_record_is_read_as_strace_writes_it() {
    let v4 = r#"12 connect(5, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.1")}, 16) = 0"#;
    let v6 = r#"12 sendto(5, "x", 1, 0, {sa_family=AF_INET6, sin6_port=htons(1), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28 <unfinished ...>"#;
    let accepted =
        r#"12 accept4(9, {sa_family=AF_INET, sin_port=htons(4), sin_addr=inet_addr("127.0.0.1")}, [16], 0) = 3"#;
    assert_eq!(reached(v4), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(reached(v6), ["2001:db8::1".parse::<IpAddr>().unwrap()]);
    assert!(reached(accepted).is_empty());
    assert_eq!(family("12 socket(AF_PACKET, SOCK_RAW, 8) = 3"), Some("AF_PACKET"));
}
