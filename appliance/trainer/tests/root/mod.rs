//! A Debian root in which Python programs run, and what they leave behind.

use crate::tiny;
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Where what takes long to make is kept.
pub fn cache() -> PathBuf {
    std::env::var_os("GAPIMAGE_TEST_CACHE").map_or_else(|| repository().join(".cache"), PathBuf::from)
}

/// A Debian root with PyTorch, TRL and PEFT, in which each test has a directory of its own.
pub struct Root {
    root: PathBuf,
    name: &'static str,
    _one_at_a_time: MutexGuard<'static, ()>,
}

impl Root {
    pub fn new(name: &'static str) -> Self {
        static MADE: OnceLock<PathBuf> = OnceLock::new();
        // Python programs that all want every core are run one after the other.
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let root = MADE.get_or_init(|| {
            let root = cache().join("torch");
            let made = Command::new(repository().join("tests/trl.sh")).arg(&root).status().unwrap();
            assert!(made.success());
            root
        });
        let own = Self { root: root.clone(), name, _one_at_a_time: turn };
        let _ = fs::remove_dir_all(own.dir());
        fs::create_dir_all(own.dir()).unwrap();
        let drivers = repository().join("appliance/drivers");
        assert!(Command::new("cp").arg("-r").arg(drivers).arg(own.dir()).status().unwrap().success());
        own
    }

    /// The directory, from outside.
    pub fn dir(&self) -> PathBuf {
        self.root.join("work").join(self.name)
    }

    /// A Python program in a network that has nothing but loopback.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        let inside = "ip link set lo up; mount -t proc proc \"$0/proc\"; exec chroot \"$0\" env -C \"/work/$1\" \
                      PYTHONPATH=/opt/trl LC_ALL=C.UTF-8 USE_LIBUV=0 python3 \"${@:2}\"";
        command.args(["--net", "--mount", "bash", "-c", inside]).arg(&self.root).args([self.name, program]);
        command.args(arguments);
        command
    }

    pub fn python(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program, arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program}: {said}\n{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A Python program given as text.
    pub fn script(&self, program: &str) -> Value {
        fs::write(self.dir().join("script.py"), program).unwrap();
        let printed = self.python("script.py", &[]);
        serde_json::from_str(printed.lines().last().unwrap()).unwrap()
    }

    pub fn job(&self, name: &str, more: Value) {
        let mut job = json!({"model": "tiny/model", "training_file": "tiny/train.jsonl", "output": format!("out-{name}"),
            "max_steps": 6, "batch_size": 4, "learning_rate": 0.01, "lora": {"r": 4}});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        tiny::write(&self.dir().join(format!("{name}.json")), &job);
    }

    pub fn output(&self, name: &str) -> Outcome {
        Outcome(self.dir().join(format!("out-{name}")))
    }
}

/// What an engine left behind.
pub struct Outcome(pub PathBuf);

impl Outcome {
    pub fn rows(&self, name: &str) -> Vec<Value> {
        let file = fs::read_to_string(self.0.join(name)).unwrap();
        file.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn steps(&self) -> Vec<u64> {
        self.rows("metrics.jsonl").iter().map(|row| row["step"].as_u64().unwrap()).collect()
    }

    pub fn last_event(&self) -> String {
        self.rows("events.jsonl").last().unwrap()["type"].as_str().unwrap().to_owned()
    }

    /// Everything is as the contract's schemas and types have it.
    pub fn check(&self) {
        let schema = |name: &str| {
            let path = repository().join("appliance/contract/schema").join(name);
            let schema: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            jsonschema::validator_for(&schema).unwrap()
        };
        for (file, name) in [("metrics.jsonl", "metrics.schema.json"), ("events.jsonl", "event.schema.json")] {
            for row in self.rows(file) {
                let schema = schema(name);
                assert!(schema.is_valid(&row), "{file}: {row}: {:?}", schema.iter_errors(&row).next());
            }
        }
        for (file, name) in [("job.json", "job.schema.json"), ("lineage.json", "lineage.schema.json")] {
            let json: Value = serde_json::from_slice(&fs::read(self.0.join(file)).unwrap()).unwrap();
            let schema = schema(name);
            assert!(schema.is_valid(&json), "{file}: {:?}", schema.iter_errors(&json).next());
        }
        let job = fs::read(self.0.join("job.json")).unwrap();
        let typed = gap_contract::JobSpec::parse(&job).unwrap();
        let defaults: Value = serde_json::to_value(&typed).unwrap();
        assert_eq!(defaults, serde_json::from_slice::<Value>(&job).unwrap(), "the defaults are the contract's");
        let lineage = fs::read(self.0.join("lineage.json")).unwrap();
        let lineage: gap_contract::Lineage = serde_json::from_slice(&lineage).unwrap();
        for (path, digest) in &lineage.result {
            assert_eq!(*digest, gap_train::digest::of_file(&self.0.join(path)).unwrap());
        }
    }
}

/// One with a tiny model and data in it.
pub fn made(name: &'static str) -> Root {
    let root = Root::new(name);
    root.python("drivers/tests/make_model.py", &["tiny"]);
    root
}

/// Waits until a run has made some steps.
pub fn wait_for_steps(output: &Outcome, child: &mut Child, steps: usize) {
    let deadline = Instant::now() + Duration::from_secs(300);
    let path = output.0.join("metrics.jsonl");
    while !path.exists() || BufReader::new(fs::File::open(&path).unwrap()).lines().count() < steps {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "no steps are made");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Sends a signal to a program.
pub fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
}
