//! Who ends the program leaves nothing in the directory for temporary files: no image, and no key of a site.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use gapimage::{
    interruption,
    layer::{
        sandbox::{Bind, Job, Sandbox, SandboxError, Scratch, Step, Writes},
        tree::{Meta, Node, Tree, TreePath},
    },
};
use rustix::process::{Pid, Signal, getpid, kill_process};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

#[test]
fn a_machine_that_is_ended_leaves_no_files() {
    let directory = tempfile::tempdir().unwrap();
    let [disk, site, temporary] = ["disk", "site.toml", "tmp"].map(|name| directory.path().join(name));
    fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    fs::write(&site, "hostname = 'rack4'\n").unwrap();
    fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gapimage"));
    command.arg("boot").arg(&disk).arg("--site").arg(&site).env("TMPDIR", &temporary);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The rest of it is kept open, so that nothing breaks where the program says something at the end.
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("end with Ctrl-C") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended before it began");
    }
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 1);
    // As Ctrl-C, which whoever runs the tests may have wanted ignored.
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let left: Vec<_> = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_program_in_an_image_is_ended_and_what_it_was_given_is_put_away() {
    let mut root = Tree::new();
    for raw in ["", "usr"] {
        root.insert(TreePath::new(raw).unwrap(), Node::Directory { meta: Meta::root_owned(0o755, 5), opaque: false });
    }
    for name in ["bin", "lib", "lib64"] {
        let link = Node::Symlink { meta: Meta::root_owned(0o777, 5), target: format!("usr/{name}").into_bytes() };
        root.insert(TreePath::new(name).unwrap(), link);
    }
    let spool = tempfile::tempdir().unwrap();
    let job = Job {
        root: &root,
        scratch: Scratch::Memory(64 << 20),
        binds: vec![Bind { host: "/usr".into(), inside: "/usr".into() }],
        steps: vec![Step::new(["sh", "-ec", "echo begun; exec sleep 3600"])],
        source_date: 1_700_000_000,
        time_limit: Duration::from_secs(3600),
        writes: Writes::Anywhere,
    };
    interruption::heed().unwrap();
    let hear = |printed: &[u8]| {
        if printed.starts_with(b"begun") {
            kill_process(getpid(), Signal::TERM).unwrap();
        }
    };
    let sandbox = Sandbox::new(Path::new(env!("CARGO_BIN_EXE_gapimage")), spool.path());
    let ended = sandbox.run_heard(&job, &hear);
    assert!(matches!(ended, Err(SandboxError::Interrupted)), "{:?}", ended.err());
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
}
