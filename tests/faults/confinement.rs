//! Jobs that try to get out of their containers.

use crate::{
    MACHINE,
    machine::{OVER, Site},
};
use gapctl::client::ClientError;
use serde_json::json;
use std::{
    io::{Read, Write},
    process::Child,
    time::{Duration, Instant},
};

#[test]
#[ignore = "boots a machine, in `make test-all`"]
fn a_job_sees_itself_and_finds_every_way_out_shut() {
    let _machine = MACHINE.lock();
    let site = Site::new(2048);
    let machine = site.switch_on();

    let hello = site.run("hello", json!({}));
    let ended = site.wait(&hello, OVER);
    let said = site.log(&hello);
    assert_eq!(ended["state"], "succeeded", "{ended}\n{said}");
    for line in
        ["hello", "lo", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    let processes =
        said.lines().skip_while(|line| !line.starts_with("PID")).skip(1).take_while(|line| !line.starts_with("CapInh"));
    assert_eq!(processes.count(), 3, "the first, the shell and ps: {said}");
    let outputs = site.client.get(&format!("/v1/appliance/jobs/{hello}/outputs")).unwrap();
    assert_eq!(outputs["data"][0]["path"], "result", "{outputs}");

    let escape = site.run("escape", json!({}));
    let ended = site.wait(&escape, OVER);
    let said = site.log(&escape);
    assert_eq!(ended["state"], "succeeded", "{ended}\n{said}");
    assert!(said.ends_with("done\n") && !said.contains("OPEN"), "{said}");
    site.still_works();
    drop(machine);
}

#[test]
#[ignore = "boots a machine, in `make test-all`"]
fn what_is_not_declared_or_names_a_network_is_not_taken() {
    let _machine = MACHINE.lock();
    let site = Site::new(2048);
    let machine = site.switch_on();
    for body in [
        json!({"kind": "run", "job": "none"}),
        json!({"kind": "run", "job": "hello", "env": {"FROM": "https://example.org/x"}}),
        json!({"kind": "run", "job": "hello", "memory": 1_u64 << 50}),
        json!({"kind": "run", "job": "hello", "gpus": 1}),
        json!({"kind": "run", "job": "hello", "needs": ["job-0"]}),
        json!({"kind": "serve", "model": "none"}),
    ] {
        let refused = site.client.post("/v1/appliance/jobs", &body).unwrap_err();
        assert!(matches!(refused, ClientError::Refused { status: 400..=499, .. }), "{body}: {refused:?}");
    }
    assert_eq!(site.client.get("/v1/appliance/jobs").unwrap()["data"], json!([]));
    drop(machine);
}

/// What a terminal shows until it holds this text.
fn shown_until(terminal: &mut Child, text: &str) -> String {
    let (mut all, mut byte) = (Vec::new(), [0]);
    let until = Instant::now() + Duration::from_secs(60);
    while !String::from_utf8_lossy(&all).contains(text) {
        assert!(Instant::now() < until, "{text}: {}", String::from_utf8_lossy(&all));
        match terminal.stdout.as_mut().unwrap().read(&mut byte).unwrap() {
            0 => panic!("it ended without {text}: {}", String::from_utf8_lossy(&all)),
            _ => all.push(byte[0]),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn type_in(terminal: &mut Child, text: &str) {
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    let message = [&[0], &length[..], text.as_bytes()].concat();
    terminal.stdin.as_mut().unwrap().write_all(&message).unwrap();
}

#[test]
#[ignore = "boots a machine, in `make test-all`"]
fn a_terminal_is_confined_like_any_job_and_an_endpoint_is_all_that_is_reached() {
    let _machine = MACHINE.lock();
    let site = Site::new(2048);
    let machine = site.switch_on();

    let reach = site.run("reach", json!({}));
    let ended = site.wait(&reach, OVER);
    let said = site.log(&reach);
    assert_eq!(ended["state"], "succeeded", "{ended}\n{said}");
    for line in [
        "at 127.0.0.1:5000",
        "the port of the endpoint is open",
        "the port beside it is shut",
        "its own address is not reached",
        "lo",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }

    let shell = json!({"image": "tools", "command": ["/usr/bin/busybox", "sh"], "time_limit_seconds": 300});
    let debug = site.client.post("/v1/appliance/debug", &shell).unwrap()["id"].as_str().unwrap().to_owned();
    site.wait(&debug, &["running"]);
    let mut terminal = site.terminal(&debug);
    shown_until(&mut terminal, "101 Switching Protocols");
    type_in(
        &mut terminal,
        "b=/usr/bin/busybox; $b grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; $b ls /sys/class/net\n",
    );
    type_in(&mut terminal, "$b ping -c 1 -W 2 10.0.2.2 || echo 'no '\"way\"; test -t 0 && echo 'a '\"terminal\"\n");
    let said = shown_until(&mut terminal, "a terminal");
    for text in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "no way"] {
        assert!(said.contains(text), "{text}: {said}");
    }
    // Ctrl-C ends what runs in the shell, and not the shell.
    type_in(&mut terminal, "$b sleep 1000; echo 'after '\"it\"\n");
    std::thread::sleep(Duration::from_secs(3));
    type_in(&mut terminal, "\u{3}");
    type_in(&mut terminal, "echo 'still '\"here\"\n");
    shown_until(&mut terminal, "still here");
    type_in(&mut terminal, "exit\n");
    let mut rest = Vec::new();
    terminal.stdout.as_mut().unwrap().read_to_end(&mut rest).unwrap();
    terminal.wait().unwrap();
    site.wait(&debug, OVER);

    let audit = site.client.get("/v1/appliance/audit?limit=1000").unwrap().to_string();
    for text in
        ["endpoint tracking at 10.0.2.99:5000", "1 connections, ", "in the image tools for 300 s", "bytes typed"]
    {
        // The endpoint is not there, so that nothing is connected to it.
        assert_eq!(audit.contains(text), text != "1 connections, ", "{text}: {audit}");
    }

    let system = site.client.get("/v1/system").unwrap();
    assert_eq!(
        (&system["clock"]["status"], &system["site"]["endpoints"]["tracking"]),
        (&json!("right"), &json!("10.0.2.99:5000"))
    );
    site.still_works();
    drop(machine);
}
