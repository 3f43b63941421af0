//! The sandbox as its callers see it: what programs find in it, and what comes back.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use gapimage::layer::{
    sandbox::{Bind, Job, Outcome, Sandbox, SandboxError, Scratch, Step, Writes},
    tree::{Content, Device, Meta, Node, Tree, TreePath},
};
use std::{path::Path, time::Duration};

const DATE: i64 = 1_700_000_000;

fn path(raw: &str) -> TreePath {
    TreePath::new(raw).unwrap()
}

fn directory() -> Node {
    Node::Directory { meta: Meta::root_owned(0o755, 5), opaque: false }
}

fn file(text: &str) -> Node {
    Node::File { meta: Meta { uid: 7, ..Meta::root_owned(0o644, 5) }, content: Content::bytes(text.as_bytes()) }
}

/// A root that borrows the host's `/usr`.
fn root() -> Tree {
    let mut tree = Tree::new();
    for raw in ["", "usr", "data", "data/sub"] {
        tree.insert(path(raw), directory());
    }
    for name in ["bin", "lib", "lib64"] {
        let target = format!("usr/{name}").into_bytes();
        tree.insert(path(name), Node::Symlink { meta: Meta::root_owned(0o777, 5), target });
    }
    for raw in ["data/changed", "data/gone", "data/kept", "data/sub/gone", "data/moved"] {
        tree.insert(path(raw), file(raw));
    }
    tree.insert(path("data/linked"), Node::HardLink { target: path("data/kept") });
    let device = Device { major: 1, minor: 3 };
    tree.insert(path("data/null"), Node::CharDevice { meta: Meta::root_owned(0o666, 5), device });
    tree
}

fn run_in(scratch: Scratch, script: &str, limit: Duration) -> Result<Outcome, SandboxError> {
    let spool = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::new(Path::new(env!("CARGO_BIN_EXE_gapimage")), spool.path());
    let job = Job {
        root: &root(),
        scratch,
        binds: vec![Bind { host: "/usr".into(), inside: "/usr".into() }],
        steps: vec![Step::new(["sh", "-ec", script]).with("GIVEN", "value")],
        source_date: DATE,
        time_limit: limit,
        writes: Writes::Anywhere,
    };
    let result = sandbox.run(&job);
    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0, "the spool is left clean");
    result
}

fn run(script: &str) -> Result<Outcome, SandboxError> {
    run_in(Scratch::Memory(64 << 20), script, Duration::from_secs(60))
}

/// Runs a script that must succeed and returns what it printed.
fn printed(script: &str) -> String {
    String::from_utf8(run(script).unwrap().output).unwrap()
}

const CHANGES: &str = "cd /data; echo new > new; chmod 600 changed; chown 12:34 changed; rm gone; rm -r sub; \
    mkdir dir; ln new dir/hard; ln -s nowhere dir/soft; mv moved dir/; mkfifo dir/fifo; touch -d @99 dir/old; \
    echo x > /tmp/x; echo x > /run/x; setfattr() { :; }; cat kept > /dev/null";

fn assert_changes(changes: &Tree) {
    let described: Vec<String> = changes
        .iter()
        .map(|(path, node)| match node {
            Node::HardLink { target } => format!("{path} = {target}"),
            Node::Whiteout => format!("{path} gone"),
            Node::File { meta, content } => {
                let text = String::from_utf8(content.read().unwrap()).unwrap();
                format!("{path} {:o} {}:{} {} {}", meta.mode, meta.uid, meta.gid, meta.mtime - DATE, text.trim())
            }
            node => format!("{path} {:o} {}", node.meta().unwrap().mode, node.meta().unwrap().mtime - DATE),
        })
        .collect();
    let old = 5 - DATE;
    assert_eq!(
        described,
        [
            "/data 755 0".to_owned(),
            format!("/data/changed 600 12:34 {old} data/changed"),
            "/data/dir 755 0".to_owned(),
            "/data/dir/fifo 644 0".to_owned(),
            "/data/dir/hard 644 0:0 0 new".to_owned(),
            format!("/data/dir/moved 644 7:0 {old} data/moved"),
            format!("/data/dir/old 644 0:0 {} ", 99 - DATE),
            "/data/dir/soft 777 0".to_owned(),
            "/data/gone gone".to_owned(),
            "/data/moved gone".to_owned(),
            "/data/new = /data/dir/hard".to_owned(),
            "/data/sub gone".to_owned(),
        ]
    );
}

#[test]
fn what_programs_change_comes_back() {
    assert_changes(&run(CHANGES).unwrap().changes);
}

#[test]
fn a_scratch_directory_serves_as_well_and_is_left_empty() {
    let scratch = tempfile::tempdir().unwrap();
    let in_it = || Scratch::Directory(scratch.path().to_owned());
    assert_changes(&run_in(in_it(), CHANGES, Duration::from_secs(60)).unwrap().changes);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    run_in(in_it(), "exit 3", Duration::from_secs(60)).unwrap_err();
    run_in(in_it(), "sleep 60", Duration::from_millis(500)).unwrap_err();
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn nothing_of_the_host_is_seen() {
    assert_eq!(
        printed("ls -x /; ls -x /tmp /run; ls /home 2>/dev/null || echo none").split_whitespace().collect::<Vec<_>>(),
        ["bin", "data", "dev", "lib", "lib64", "proc", "run", "tmp", "usr", "/run:", "/tmp:", "none"]
    );
    assert_eq!(
        printed("ls /dev").split_whitespace().collect::<Vec<_>>(),
        ["fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"]
    );
    // Only kernel file systems, the tmpfs ones and the bind are mounted.
    let mounts = printed("cut -d' ' -f2 /proc/mounts | sort -u");
    assert!(
        mounts.lines().all(|line| line == "/"
            || line == "/usr"
            || line.starts_with("/proc")
            || line == "/tmp"
            || line == "/run"
            || line.starts_with("/dev")),
        "{mounts}"
    );
}

#[test]
fn there_is_no_network_and_nobody_else() {
    assert_eq!(printed("tail -n +3 /proc/net/dev | cut -d: -f1").trim(), "lo");
    let processes = printed("ls /proc | grep -c '^[0-9]'");
    assert!(processes.trim().parse::<u32>().unwrap() <= 4, "{processes}");
    assert_eq!(printed("uname -n; id -u; id -g; umask"), "localhost\n0\n0\n0022\n");
}

#[test]
fn the_environment_is_fixed() {
    let environment = printed("env | grep -v ^_= | sort");
    assert_eq!(
        environment.lines().collect::<Vec<_>>(),
        [
            "GIVEN=value",
            "HOME=/root",
            "LANG=C.UTF-8",
            "LC_ALL=C.UTF-8",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PWD=/",
            "SOURCE_DATE_EPOCH=1700000000",
            "TERM=dumb",
        ]
    );
}

#[test]
fn a_bound_path_cannot_be_written() {
    let output = printed("touch /usr/x 2>&1 || echo refused");
    assert!(output.contains("Read-only file system") && output.contains("refused"), "{output}");
}

#[test]
fn a_bound_directory_may_lie_where_the_root_is_staged() {
    let shared = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::write(shared.path().join("file"), "content").unwrap();
    let spool = tempfile::tempdir().unwrap();
    let bind = |host: &Path, inside: &str| Bind { host: host.to_owned(), inside: inside.into() };
    let job = Job {
        root: &root(),
        scratch: Scratch::Memory(64 << 20),
        binds: vec![bind(Path::new("/usr"), "/usr"), bind(shared.path(), "/shared")],
        steps: vec![Step::new(["cat", "/shared/file"])],
        source_date: DATE,
        time_limit: Duration::from_secs(60),
        writes: Writes::Anywhere,
    };
    let sandbox = Sandbox::new(Path::new(env!("CARGO_BIN_EXE_gapimage")), spool.path());
    assert_eq!(sandbox.run(&job).unwrap().output, b"content");
}

#[test]
fn what_is_read_only_stays_so_whatever_a_program_tries() {
    let script = "
        try() { if \"$@\" 2>/dev/null; then echo \"$1 $2 works\"; fi; }
        try mount -o remount,rw,bind /usr
        try umount -l /usr
        try mount -t tmpfs none /data
        try touch /usr/bin/new
        try unshare --user --map-root-user true
        try unshare --mount true
        try sh -c 'cat /proc/sys/kernel/core_pattern > /proc/sys/kernel/core_pattern'
        try sh -c 'cat /proc/sys/vm/swappiness > /proc/sys/vm/swappiness'
        try sh -c 'echo h > /proc/sysrq-trigger'
        try setpriv --inh-caps +sys_admin --ambient-caps +sys_admin true
        chown 7:7 /data/kept && chroot / true && setpriv --reuid 7 --clear-groups true && echo as usual";
    assert_eq!(printed(script), "as usual\n");
}

#[test]
fn a_failure_shows_the_end_of_the_output() {
    let error = run("printf 'first\\n\\033[31mred'; exit 7").unwrap_err();
    assert!(matches!(error, SandboxError::Step { .. }));
    let message = error.to_string();
    assert!(message.contains("exit status: 7") && message.ends_with("first\n\\u{1b}[31mred"), "{message}");
    let missing = Job {
        root: &root(),
        scratch: Scratch::Memory(1 << 20),
        binds: Vec::new(),
        steps: vec![Step::new(["/no/such/program"])],
        source_date: DATE,
        time_limit: Duration::from_secs(60),
        writes: Writes::Anywhere,
    };
    let spool = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::new(Path::new(env!("CARGO_BIN_EXE_gapimage")), spool.path());
    assert!(sandbox.run(&missing).unwrap_err().to_string().contains("cannot be started"));
}

#[test]
fn the_time_limit_ends_everything() {
    let start = std::time::Instant::now();
    let error = run_in(Scratch::Memory(64 << 20), "echo begun; sleep 1234567 & sleep 1234567", Duration::from_secs(1))
        .unwrap_err();
    assert!(matches!(&error, SandboxError::TimedOut { output, .. } if output == "begun"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
    let sleeping = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == b"sleep\x001234567\0"));
    assert!(!sleeping);
}

#[test]
fn background_programs_end_with_the_last_step() {
    let outcome = run("(sleep 600; echo late > /data/late) & echo done").unwrap();
    assert_eq!(outcome.output, b"done\n");
    assert!(outcome.changes.is_empty(), "{:?}", outcome.changes);
}

/// A root with nothing but a shell, whose libraries lie where this machine has them.
fn with_shell() -> Tree {
    let mut tree = root();
    let libraries = std::process::Command::new("ldd").arg("/bin/sh").output().unwrap();
    let libraries = String::from_utf8(libraries.stdout).unwrap();
    let places = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for place in places.chain(["/bin/sh"]) {
        let real = Path::new(place).canonicalize().unwrap();
        let content = Content::Path { len: real.metadata().unwrap().len(), path: real.into() };
        let place = format!("usr/{}", place.trim_start_matches('/').trim_start_matches("usr/"));
        tree.insert(path(&place), Node::File { meta: Meta::root_owned(0o755, 7), content });
    }
    tree.insert(path("out"), directory());
    tree
}

#[test]
fn only_what_is_left_in_the_named_directory_comes_back_and_the_root_is_not_copied() {
    let tree = with_shell();
    let script = "echo made > /out/made; echo again > /out/second; echo other > /elsewhere; echo more >> /data/changed; \
        read before < /data/changed; echo $before; read gone < /elsewhere; echo $gone; \
        while read device place kind rest; do if [ $place = / ]; then echo on $kind; fi; done < /proc/mounts";
    let directory = tempfile::tempdir().unwrap();
    for scratch in [Scratch::Memory(64 << 20), Scratch::Directory(directory.path().to_owned())] {
        let spool = tempfile::tempdir().unwrap();
        let job = Job {
            root: &tree,
            scratch,
            binds: Vec::new(),
            steps: vec![Step::new(["sh", "-ec", script])],
            source_date: DATE,
            time_limit: Duration::from_secs(60),
            writes: Writes::Into(path("out")),
        };
        let sandbox = Sandbox::new(Path::new(env!("CARGO_BIN_EXE_gapimage")), spool.path());
        let outcome = sandbox.run(&job).unwrap();
        let paths: Vec<String> = outcome.changes.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(paths, ["/out/made", "/out/second"]);
        let Some(Node::File { meta, content }) = outcome.changes.get(&path("out/made")) else { panic!("no file") };
        assert_eq!((meta.mtime, content.read().unwrap().as_slice()), (DATE, &b"made\n"[..]));
        let printed = String::from_utf8(outcome.output).unwrap();
        assert!(printed.contains("\nother\n"), "{printed}");
        if Path::new("/dev/fuse").exists() {
            assert!(printed.ends_with("on overlay\n"), "{printed}");
        }
        assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0, "the spool is left clean");
        let failing = Job { steps: vec![Step::new(["sh", "-ec", "echo left > /left; exit 3"])], ..job };
        assert!(sandbox.run(&failing).unwrap_err().to_string().contains("exit status: 3"));
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the scratch directory is emptied");
}

#[test]
fn what_an_interrupted_job_left_is_emptied_whoever_it_belongs_to() {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt, chown},
    };
    let (spool, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let closed = left.path().join("work/work");
    fs::create_dir_all(closed.join("inside")).unwrap();
    chown(&closed, Some(1234), Some(1234)).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
    fs::write(left.path().join("file"), "x").unwrap();
    let sandbox = Sandbox::new(Path::new(env!("CARGO_BIN_EXE_gapimage")), spool.path());
    sandbox.empty(left.path()).unwrap();
    assert_eq!(fs::read_dir(left.path()).unwrap().count(), 0);
    // An id that is none of the sandbox's.
    let foreign = left.path().join("foreign");
    fs::create_dir_all(foreign.join("inside")).unwrap();
    chown(&foreign, Some(99_999), Some(99_999)).unwrap();
    let error = sandbox.empty(left.path()).unwrap_err();
    assert!(matches!(error, SandboxError::Broken { .. }), "{error}");
}
