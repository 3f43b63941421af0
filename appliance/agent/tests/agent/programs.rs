//! A machine whose jobs are the appliance's own programs, started without containers: `gap-train` and `gap-serve` of the
//! same build, with the places of `/run/job` in a directory.

use crate::machine::Machine;
use gap_agent::{
    server::Limits,
    work::{
        Shared, Work,
        catalog::{Catalog, ImageError, Images, RunSettings},
        files,
        order::{DataOrder, Order, inside},
        serving::Serving,
        site::SiteRules,
        storage::{Storage, Volume},
    },
};
use gap_contract::Output;
use gap_handover::declared::{Acceptance, Comparison, Criterion, Declared, DeclaredJob, DeclaredKind, Place, VERSION};
use gap_jobs::{CannotStart, Control, Database, End, Job, JobId, Kind, News, Runtime, Started};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::{fs::symlink, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

/// What the tiny model is trained on, and measured on.
pub const LESSONS: &str = include_str!("../../../../recipes/appliance/site.jsonl");
/// What the job `measure` runs.
const EVALUATION: &str = r#"{
    "model": "/run/job/model", "data": "/run/job/training.jsonl", "output": "/run/job/output", "max_new_tokens": 4,
    "limit": 4, "candidates": {"base": {}, "new": {"adapter": "/run/job/adapter", "or_whole": true}},
    "metrics": {"perplexity": true}
}"#;

/// The machine.
pub struct Real {
    pub machine: Machine,
    pub directory: tempfile::TempDir,
    probing: tokio::task::JoinHandle<()>,
}

impl Drop for Real {
    fn drop(&mut self) {
        self.probing.abort();
    }
}

/// A program of the appliance, which a build of the whole workspace made.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.is_file(), "{} is missing: cargo build --workspace --bins", path.display());
    path
}

impl Real {
    pub fn start() -> Self {
        let machine = Machine::start(Limits::default());
        let directory = tempfile::tempdir().unwrap();
        let images = directory.path().join("images");
        lay_out(&images);
        let storage = Storage::open(&directory.path().join("data"), Volume::Memory { reason: "test".into() }).unwrap();
        let database = Database::open(&storage.database()).unwrap();
        machine.access.attach(database.clone(), 0).unwrap();
        machine.audit.attach(&storage.audit()).unwrap();
        let serving = Arc::<Serving>::default();
        let programs = Programs {
            storage: storage.clone(),
            images: images.clone(),
            serving: Arc::clone(&serving),
            jobs: directory.path().join("jobs"),
        };
        let catalog = Catalog { declared: declared(), images: Arc::new(Plain(images)) };
        let capacity = gap_jobs::Machine { slots: Vec::new(), memory: 16 << 30, jobs: 4 };
        let complain = Box::new(|complaint| panic!("{complaint}"));
        let programs = Arc::new(programs);
        let clock = Arc::clone(&machine.system.clock);
        let site = Arc::new(SiteRules::new(clock, BTreeMap::new(), Arc::clone(&machine.audit)));
        let (serving_too, gpus) = (Arc::clone(&serving), Arc::clone(&machine.system.gpus));
        let shared = Shared { serving: serving_too, site, terminals: Arc::default(), stirred: Arc::default(), gpus };
        let work = Work::start(&database, storage, catalog, capacity, programs, shared, complain).unwrap();
        machine.work.set(Ok(Arc::new(work)));
        let probing = tokio::spawn(async move {
            loop {
                serving.probe().await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Self { machine, directory, probing }
    }
}

/// One image for jobs, one with a model of random weights, one with examples.
fn lay_out(images: &Path) {
    for name in ["dev", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(images.join("os").join(name)).unwrap();
    }
    fs::write(images.join("os/evaluation.json"), EVALUATION).unwrap();
    let data = images.join("site/data/site");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("test.jsonl"), LESSONS).unwrap();
    let model = images.join("tiny/models");
    fs::create_dir_all(&model).unwrap();
    let made = Command::new(program("gap-train"))
        .arg("init")
        .arg(model.join("tiny"))
        .args(["--hidden", "32", "--layers", "1", "--heads", "2", "--key-heads", "2", "--intermediate", "64"])
        .args(["--context", "256", "--vocab", "512", "--vocab-from"])
        .arg(data.join("test.jsonl"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn declared() -> Declared {
    let job = |name: &str, kind, engine: &str| DeclaredJob {
        name: name.into(),
        kind,
        image: "os".into(),
        run: Vec::new(),
        engine: Some(engine.into()),
        gpus: 0,
        model: Some("tiny".into()),
        datasets: Vec::new(),
        parameters: json!({"lora": {"r": 4}, "max_length": 128, "save_steps": 5}).as_object().unwrap().clone(),
        length: Some(256),
        concurrency: Some(2),
        endpoints: BTreeMap::new(),
    };
    let measure = DeclaredJob {
        run: ["gap-train", "eval", "/evaluation.json"].map(str::to_owned).to_vec(),
        ..job("measure", DeclaredKind::Run, "gap-train")
    };
    Declared {
        version: VERSION,
        jobs: vec![
            job("tune", DeclaredKind::Train, "gap-train"),
            job("chat", DeclaredKind::Serve, "gap-serve"),
            measure,
        ],
        models: vec![Place { name: "tiny".into(), image: "tiny".into(), path: "/models/tiny".into() }],
        datasets: vec![Place { name: "site".into(), image: "site".into(), path: "/data/site".into() }],
        acceptance: Some(Acceptance {
            test_set: Some("site".into()),
            criteria: vec![Criterion { metric: "perplexity".into(), comparison: Comparison::Below, bound: 1e6 }],
        }),
    }
}

/// Images that are directories.
struct Plain(PathBuf);

impl Images for Plain {
    fn mounted(&self, image: &str) -> Result<PathBuf, ImageError> {
        let path = self.0.join(image);
        if path.is_dir() { Ok(path) } else { Err(ImageError::Unknown(image.to_owned())) }
    }

    fn own(&self) -> Result<String, ImageError> {
        Ok("os".to_owned())
    }

    fn settings(&self, _: &str) -> Result<RunSettings, ImageError> {
        Ok(RunSettings::default())
    }
}

/// Programs as they are, in place of containers.
struct Programs {
    storage: Storage,
    images: PathBuf,
    serving: Arc<Serving>,
    jobs: PathBuf,
}

struct Running(Pid);

impl Control for Running {
    fn stop(&self) {
        let _ = kill_process(self.0, Signal::TERM);
    }

    fn kill(&self) {
        let _ = kill_process(self.0, Signal::KILL);
    }

    fn news(&self) -> Vec<News> {
        Vec::new()
    }
}

impl Programs {
    /// Puts what the job works with where it looks for it. Returns its command.
    fn lay_out(&self, job: &Job, order: &Order, directory: &Path) -> Vec<String> {
        let id = job.id.as_str();
        fs::create_dir_all(directory.join("sockets")).unwrap();
        fs::create_dir_all(self.storage.output(id)).unwrap();
        let own = |text: &str| text.replace(inside::ROOT, directory.to_str().unwrap());
        let show = |from: PathBuf, place: &str| symlink(from, own(place)).unwrap();
        show(self.storage.output(id), inside::OUTPUT);
        if let Some(model) = &order.model {
            let left = |job: &JobId| Output::new(self.storage.output(job.as_str()));
            let of_release = self.images.join(&model.base.image).join(model.base.path.trim_start_matches('/'));
            show(model.whole.as_ref().map_or(of_release, |job| left(job).model()), inside::MODEL);
            if let Some(job) = model.adapter() {
                show(left(job).adapter(), inside::ADAPTER);
            }
        }
        match &order.training {
            Some(DataOrder::File(file)) => show(files::examples(&self.storage, file), inside::TRAINING),
            Some(DataOrder::Release { dataset, file }) => {
                let place = self.images.join(&dataset.image).join(dataset.path.trim_start_matches('/'));
                show(place.join(file), inside::TRAINING);
            }
            None => {}
        }
        if let Some(spec) = &order.job {
            fs::write(own(inside::JOB), own(&spec.to_string())).unwrap();
        }
        let evaluation = directory.join("evaluation.json");
        fs::write(&evaluation, own(EVALUATION)).unwrap();
        let word = |word: &String| own(&word.replace("/evaluation.json", evaluation.to_str().unwrap()));
        order.command.iter().map(word).collect()
    }

    fn start_program(&self, job: &Job) -> Child {
        let order: Order = serde_json::from_str(&job.request).unwrap();
        let directory = self.jobs.join(job.id.as_str());
        let words = self.lay_out(job, &order, &directory);
        let log = File::create(directory.join("log")).unwrap();
        Command::new(program(&words[0])).args(&words[1..]).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }
}

impl Runtime for Programs {
    fn start(&self, job: &Job) -> Result<Started, CannotStart> {
        let mut child = self.start_program(job);
        if job.kind == Kind::Serve {
            self.serving.started(&job.id, self.jobs.join(job.id.as_str()).join("sockets/http.sock"));
        }
        let control = Arc::new(Running(Pid::from_child(&child)));
        let wait = Box::new(move || match child.wait() {
            Ok(status) => status.code().map_or_else(|| End::Signal(status.signal().unwrap_or(9)), End::Exit),
            Err(_) => End::Unknown,
        });
        Ok(Started { control, wait })
    }

    fn sweep(&self) {}

    fn ended(&self, job: &Job) {
        self.serving.ended(&job.id);
    }
}
