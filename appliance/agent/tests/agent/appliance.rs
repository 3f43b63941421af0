//! The real server with a data volume and a release. A made-up runtime stands in for containers: a job ends when the test
//! says so.

use crate::machine::{Answer, Machine, TOKEN};
use gap_agent::{
    clock,
    server::Limits,
    work::{
        Shared, Work,
        catalog::{Catalog, ImageError, Images, RunSettings},
        serving::Serving,
        site::SiteRules,
        storage::{Storage, Volume},
    },
};
use gap_handover::{
    declared::{Acceptance, Comparison, Criterion, Declared, DeclaredJob, DeclaredKind, Place, VERSION},
    site::Time,
};
use gap_jobs::{
    CannotStart, Control, Database, End, Job, JobId, Kind, News, Runtime, Started,
    log::{Log, Stream},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroU16,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        mpsc::{Sender, channel},
    },
    time::{Duration, Instant},
};

pub const EXAMPLES: &str = "{\"prompt\":\"2+2?\",\"completion\":\"4\"}\n{\"prompt\":\"3+3?\",\"completion\":\"6\"}\n";

/// How long jobs take that end by themselves.
const BRIEF: Duration = Duration::from_millis(300);

/// Jobs that run, and how to end each.
#[derive(Default)]
struct Stage {
    running: Mutex<BTreeMap<JobId, Sender<End>>>,
    serving: Arc<Serving>,
    sockets: Mutex<BTreeMap<JobId, PathBuf>>,
    directory: PathBuf,
    /// Where jobs print a line, if they end by themselves.
    brief: Option<Storage>,
}

impl Stage {
    /// What a job that runs has in one of the maps. A job is called running before its program is started.
    async fn of<T: Clone>(&self, map: &Mutex<BTreeMap<JobId, T>>, id: &str) -> T {
        let id = JobId::try_from(id.to_owned()).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(found) = map.lock().unwrap().get(&id) {
                return found.clone();
            }
            assert!(Instant::now() < until, "{id} was not started");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

struct Ended(Sender<End>);

impl Control for Ended {
    fn stop(&self) {
        let _ = self.0.send(End::Exit(3));
    }

    fn kill(&self) {
        let _ = self.0.send(End::Signal(9));
    }

    fn news(&self) -> Vec<News> {
        Vec::new()
    }
}

/// The stage as a runtime.
struct Player(Arc<Stage>);

impl Runtime for Player {
    fn start(&self, job: &Job) -> Result<Started, CannotStart> {
        let (sender, receiver) = channel();
        self.0.running.lock().unwrap().insert(job.id.clone(), sender.clone());
        if job.kind == Kind::Serve {
            let socket = self.0.directory.join(format!("{}.sock", job.id));
            self.0.sockets.lock().unwrap().insert(job.id.clone(), socket.clone());
            self.0.serving.started(&job.id, socket);
        }
        let control = Arc::new(Ended(sender));
        let Some(storage) = &self.0.brief else {
            let wait = Box::new(move || receiver.recv().unwrap_or(End::Unknown));
            return Ok(Started { control, wait });
        };
        Log::open(&storage.log(job.id.as_str())).unwrap().append(Stream::Out, b"a line", 0).unwrap();
        // A server that ended well would be started again, without end.
        let end = if job.kind == Kind::Serve { End::Exit(2) } else { End::Exit(0) };
        Ok(Started { control, wait: Box::new(move || receiver.recv_timeout(BRIEF).unwrap_or(end)) })
    }

    fn sweep(&self) {}

    fn ended(&self, job: &Job) {
        self.0.serving.ended(&job.id);
    }
}

/// Images that are directories.
struct Directories(PathBuf);

impl Images for Directories {
    fn mounted(&self, image: &str) -> Result<PathBuf, ImageError> {
        let path = self.0.join(image);
        if path.is_dir() && !image.is_empty() { Ok(path) } else { Err(ImageError::Unknown(image.to_owned())) }
    }

    fn own(&self) -> Result<String, ImageError> {
        Ok("train".to_owned())
    }

    fn settings(&self, _: &str) -> Result<RunSettings, ImageError> {
        Ok(RunSettings::default())
    }
}

fn job(name: &str, kind: DeclaredKind, engine: &str) -> DeclaredJob {
    DeclaredJob {
        name: name.into(),
        kind,
        image: "train".into(),
        run: if kind == DeclaredKind::Run { vec!["/bin/measure".into()] } else { Vec::new() },
        engine: Some(engine.into()),
        gpus: 0,
        model: (kind != DeclaredKind::Run).then(|| "tiny".into()),
        datasets: Vec::new(),
        parameters: json!({"lora": {"r": 4}}).as_object().unwrap().clone(),
        length: Some(64),
        concurrency: Some(2),
        endpoints: BTreeMap::new(),
    }
}

/// A job that is to reach an endpoint of the site.
fn reaching(name: &str, endpoint: &str) -> DeclaredJob {
    let endpoints = [(endpoint.parse().unwrap(), NonZeroU16::new(5000).unwrap())].into();
    DeclaredJob { endpoints, ..job(name, DeclaredKind::Run, "other") }
}

/// A machine with a data volume in a directory and a release with one model.
pub struct Appliance {
    pub machine: Machine,
    stage: Arc<Stage>,
    pub work: Arc<Work>,
    _directory: tempfile::TempDir,
}

impl Appliance {
    pub fn start() -> Self {
        Self::start_with(Time::default(), false)
    }

    /// One whose jobs print a line and end by themselves.
    pub fn start_brief() -> Self {
        Self::start_with(Time::default(), true)
    }

    /// One whose site wants the clock to be treated like this.
    pub fn start_with(time: Time, is_brief: bool) -> Self {
        let machine = Machine::start(Limits::default());
        let directory = tempfile::tempdir().unwrap();
        let images = directory.path().join("images");
        for name in ["dev", "proc", "run", "sys", "tmp"] {
            fs::create_dir_all(images.join("train").join(name)).unwrap();
        }
        fs::create_dir_all(images.join("tiny/models/tiny")).unwrap();
        fs::write(images.join("tiny/models/tiny/model.safetensors"), vec![0; 4096]).unwrap();
        fs::create_dir_all(images.join("tickets/data/held-out")).unwrap();
        fs::write(images.join("tickets/data/held-out/test.jsonl"), EXAMPLES).unwrap();
        let declared = Declared {
            version: VERSION,
            jobs: vec![
                job("tune", DeclaredKind::Train, "gap-train"),
                job("chat", DeclaredKind::Serve, "gap-serve"),
                job("measure", DeclaredKind::Run, "other"),
                reaching("track", "tracking"),
                reaching("stray", "elsewhere"),
            ],
            models: vec![Place { name: "tiny".into(), image: "tiny".into(), path: "/models/tiny".into() }],
            datasets: vec![Place { name: "held-out".into(), image: "tickets".into(), path: "/data/held-out".into() }],
            acceptance: Some(Acceptance {
                test_set: Some("held-out".into()),
                criteria: vec![Criterion { metric: "exact_match".into(), comparison: Comparison::AtLeast, bound: 0.9 }],
            }),
        };
        let storage = Storage::open(&directory.path().join("data"), Volume::Memory { reason: "test".into() }).unwrap();
        let database = Database::open(&storage.database()).unwrap();
        machine.access.attach(database.clone(), 0).unwrap();
        machine.audit.attach(&storage.audit()).unwrap();
        let brief = is_brief.then(|| storage.clone());
        let stage = Arc::new(Stage { directory: directory.path().to_owned(), brief, ..Stage::default() });
        let catalog = Catalog { declared, images: Arc::new(Directories(images)) };
        let capacity = gap_jobs::Machine { slots: Vec::new(), memory: 16 << 30, jobs: 4 };
        let player = Arc::new(Player(Arc::clone(&stage)));
        let serving = Arc::clone(&stage.serving);
        let clock = Arc::new(clock::Board::new(&time, machine.system.report.clock));
        let endpoints = machine.system.site.endpoints.clone();
        let site = Arc::new(SiteRules::new(clock, endpoints, Arc::clone(&machine.audit)));
        let complain = Box::new(|complaint| panic!("{complaint}"));
        let gpus = Arc::clone(&machine.system.gpus);
        let shared = Shared { serving, site, terminals: Arc::default(), stirred: Arc::default(), gpus };
        let work = Work::start(&database, storage, catalog, capacity, player, shared, complain).unwrap();
        let work = Arc::new(work);
        machine.work.set(Ok(Arc::clone(&work)));
        Self { machine, stage, work, _directory: directory }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.machine.get(path, Some(TOKEN)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.machine.post(path, TOKEN, &body).await
    }

    pub async fn upload(&self, content: &str) -> Answer {
        let body = format!(
            "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n--b\r\n\
             Content-Disposition: form-data; name=\"file\"; filename=\"x.jsonl\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n{content}\r\n--b--\r\n"
        );
        self.machine.send_body("/v1/files", TOKEN, "multipart/form-data; boundary=b", body.as_bytes()).await
    }

    /// Asks until the answer has this value at this place.
    pub async fn wait(&self, path: &str, pointer: &str, value: Value) -> Value {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.get(path).await;
            if answer.body.pointer(pointer) == Some(&value) {
                return answer.body;
            }
            assert!(Instant::now() < until, "{path}: {pointer} is not {value} in {answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A file that was found good.
    pub async fn good_file(&self) -> String {
        let answer = self.upload(EXAMPLES).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let id = answer.body["id"].as_str().unwrap().to_owned();
        self.wait(&format!("/v1/files/{id}"), "/status", json!("processed")).await;
        id
    }

    /// Where a job that serves would listen.
    pub async fn socket(&self, job: &str) -> PathBuf {
        self.stage.of(&self.stage.sockets, job).await
    }

    /// Asks all that serve how they are.
    pub async fn probe(&self) {
        self.stage.serving.probe().await;
    }

    /// How many of them answer.
    pub fn ready(&self) -> usize {
        self.stage.serving.ready()
    }

    /// Something that answers for a job that serves: what it was asked.
    pub async fn answer(&self, job: &str) {
        let listener = tokio::net::UnixListener::bind(self.socket(job).await).unwrap();
        let echo = axum::Router::new().route("/health", axum::routing::get(async || "ok")).route(
            "/v1/chat/completions",
            axum::routing::post(async |body: String| ([("content-type", "application/json")], body)),
        );
        tokio::spawn(async move { serve_unix(listener, echo).await });
        self.probe().await;
    }

    pub async fn end(&self, id: &str, end: End) {
        self.stage.of(&self.stage.running, id).await.send(end).unwrap();
    }
}

/// Serves a router on a Unix socket.
async fn serve_unix(listener: tokio::net::UnixListener, router: axum::Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}
