//! Files, jobs, models and tokens through the real server. A made-up runtime stands in for containers: a job ends when
//! the test says so.

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
    site::{Rtc, Time, WrongClock},
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

    fn start_with(time: Time, is_brief: bool) -> Self {
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
        let site = Arc::new(SiteRules {
            clock: Arc::new(clock::Board::new(&time, machine.system.report.clock)),
            endpoints: machine.system.site.endpoints.clone(),
            audit: Arc::clone(&machine.audit),
        });
        let complain = Box::new(|complaint| panic!("{complaint}"));
        let shared = Shared { serving, site, terminals: Arc::default(), stirred: Arc::default() };
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_reaches_endpoints_that_recipe_and_site_agree_on_and_is_refused_otherwise() {
    let appliance = Appliance::start();
    let create = |job: &str, address: &str| {
        appliance.post("/v1/appliance/jobs", json!({"kind": "run", "job": job, "env": {"TRACKING": address}}))
    };
    let granted = create("track", "http://127.0.0.1:5000/api").await;
    assert_eq!(granted.status, 200, "{granted:?}");
    for (job, address, word) in [
        ("stray", "none", "does not name"),
        ("track", "http://127.0.0.1:5001/", "no network"),
        ("track", "http://192.0.2.20:5000/", "no network"),
        ("measure", "http://127.0.0.1:5000/api", "no network"),
    ] {
        let refused = create(job, address).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.body["error"]["message"].as_str().unwrap().contains(word), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_opened_by_an_admin_for_a_while_and_recorded() {
    let appliance = Appliance::start();
    let create = |more: Value| {
        let mut body = json!({"image": "train", "command": ["/bin/measure"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        appliance.post("/v1/appliance/debug", body)
    };
    for (more, param) in [
        (json!({"time_limit_seconds": 3601}), "time_limit_seconds"),
        (json!({"command": []}), "command"),
        (json!({"command": ["x", ""]}), "command"),
        (json!({"term": "a b"}), "term"),
        (json!({"memory": 1}), "memory"),
        (json!({"image": "none"}), "image"),
        (json!({"image": "tiny"}), "image"),
    ] {
        let refused = create(more.clone()).await;
        assert_eq!((refused.status, &refused.body["error"]["param"]), (400, &json!(param)), "{more}: {refused:?}");
    }
    let job = create(json!({"time_limit_seconds": 60})).await;
    assert_eq!((job.status, &job.body["time_limit_seconds"]), (200, &json!(60)), "{job:?}");
    let id = job.body["id"].as_str().unwrap();
    let list = appliance.post("/v1/appliance/debug", json!(["train"])).await;
    assert_eq!(list.status, 400, "a list is no object, though its parts come in the order of the fields: {list:?}");
    let terminal = appliance.get(&format!("/v1/appliance/jobs/{id}/terminal")).await;
    assert_eq!((terminal.status, &terminal.body["error"]["param"]), (400, &json!("Upgrade")), "{terminal:?}");
    let audit = appliance.get("/v1/appliance/audit").await.body.to_string();
    assert!(audit.contains(&format!("terminal {id} in the image train for 60 s")), "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_followed_from_before_its_job_starts_until_it_ends_or_so_many_lines_came() {
    let appliance = Appliance::start();
    let job = appliance.post("/v1/appliance/jobs", json!({"kind": "run", "job": "measure"})).await.body;
    let id = job["id"].as_str().unwrap();
    let path = format!("/v1/appliance/jobs/{id}/log?after=0&follow=true");
    let mut log = Log::open(&appliance.work.storage.log(id)).unwrap();
    let print = async {
        for text in ["one", "two", "three"] {
            tokio::time::sleep(Duration::from_millis(50)).await;
            log.append(Stream::Out, text.as_bytes(), 7).unwrap();
            appliance.work.stirred.notify_waiters();
        }
    };
    let limited = format!("{path}&limit=2");
    let (two, ()) = tokio::join!(appliance.get(&limited), print);
    assert_eq!(two.text.matches("\"text\":").count(), 2, "the job runs, and no more than two lines come: {two:?}");
    let (all, ()) = tokio::join!(appliance.get(&path), appliance.end(id, End::Exit(0)));
    assert!(all.text.contains("\"three\"") && all.head.contains("application/jsonl"), "{all:?}");

    let create = async |needs: &[&str]| {
        let created =
            appliance.post("/v1/appliance/jobs", json!({"kind": "run", "job": "measure", "needs": needs})).await;
        created.body["id"].as_str().unwrap().to_owned()
    };
    let first = create(&[]).await;
    let waits = create(&[&first]).await;
    let path = format!("/v1/appliance/jobs/{waits}/log?after=0&follow=true");
    let go_on = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        appliance.end(&first, End::Exit(0)).await;
        Log::open(&appliance.work.storage.log(&waits)).unwrap().append(Stream::Out, b"at last", 7).unwrap();
        appliance.end(&waits, End::Exit(0)).await;
    };
    let (followed, ()) = tokio::join!(appliance.get(&path), go_on);
    assert!(followed.text.contains("at last"), "who follows a job that waits sees what it prints: {followed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_self_test_runs_the_agents_own_program_in_its_own_image() {
    let appliance = Appliance::start();
    let job = appliance.post("/v1/appliance/selftest", json!({"memory": 1 << 20, "disk": 5})).await;
    assert_eq!((job.status, &job.body["image"]), (200, &json!("train")), "{job:?}");
    assert_eq!(job.body["command"], json!(["/usr/bin/gapd", "self-test", "1048576", "5", "/run/job/output"]));
    let refused = appliance.post("/v1/appliance/selftest", json!({"memory": 1_u64 << 50})).await;
    assert_eq!(refused.status, 400, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_wrong_clock_no_job_is_taken_where_the_site_wants_that() {
    let time = |wrong_clock| Time { rtc: Rtc::Untrusted, servers: Vec::new(), wrong_clock };
    for (policy, status) in [(WrongClock::RefuseJobs, 503), (WrongClock::Wait, 200), (WrongClock::Continue, 200)] {
        let appliance = Appliance::start_with(time(policy), false);
        let answer = appliance.post("/v1/appliance/jobs", json!({"kind": "run", "job": "measure"})).await;
        assert_eq!(answer.status, status, "{policy:?}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_becomes_a_model_and_the_model_is_talked_to() {
    let appliance = Appliance::start();
    let file = appliance.good_file().await;
    let request = json!({
        "model": "tiny",
        "training_file": file,
        "suffix": "mine",
        "hyperparameters": {"n_epochs": 2},
        "appliance": {"parameters": {"max_length": 32}},
    });
    let created = appliance.post("/v1/fine_tuning/jobs", request).await;
    assert_eq!(created.status, 200, "{created:?}");
    assert_eq!((&created.body["object"], &created.body["model"]), (&json!("fine_tuning.job"), &json!("tiny")));
    assert_eq!(created.body["appliance"]["parameters"]["lora"]["r"], 4);
    let id = created.body["id"].as_str().unwrap();
    let path = format!("/v1/fine_tuning/jobs/{id}");
    appliance.wait(&path, "/status", json!("running")).await;

    let output = appliance.work.storage.output(id);
    for directory in ["adapter", "checkpoints/step-00000002"] {
        fs::create_dir_all(output.join(directory)).unwrap();
    }
    fs::write(output.join("adapter/adapter_model.safetensors"), "weights").unwrap();
    let row = json!({"step": 2, "epoch": 1.0, "train_loss": 0.5, "learning_rate": 0.1, "grad_norm": 1.0, "tokens": 4,
        "trained_tokens": 8, "tokens_per_second": 1.0, "memory": 1});
    fs::write(output.join("metrics.jsonl"), format!("{row}\n")).unwrap();
    let checkpoints = appliance.get(&format!("{path}/checkpoints")).await.body;
    assert_eq!(
        (&checkpoints["data"][0]["step_number"], &checkpoints["data"][0]["metrics"]["train_loss"]),
        (&json!(2), &json!(0.5))
    );
    appliance.end(id, End::Exit(0)).await;
    let done = appliance.wait(&path, "/status", json!("succeeded")).await;
    let model = done["fine_tuned_model"].as_str().unwrap();
    assert!(model.starts_with("ft:tiny:mine:"), "{model}");
    assert_eq!(done["trained_tokens"], 8);
    let events = appliance.get(&format!("{path}/events")).await.body;
    assert_eq!(events["data"][0]["message"], "succeeded", "the last comes first");
    let models = appliance.get("/v1/models").await.body;
    let names: Vec<&str> = models["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["tiny", model]);
    assert_eq!(appliance.get(&format!("/v1/models/{model}")).await.body["parent"], "tiny");

    let chat = json!({"model": model, "messages": [{"role": "user", "content": "2+2?"}]});
    let early = appliance.post("/v1/chat/completions", chat.clone()).await;
    assert_eq!((early.status, &early.body["error"]["code"]), (503, &json!("not_ready")));
    let server = appliance.post("/v1/appliance/jobs", json!({"kind": "serve", "model": model})).await;
    assert_eq!((server.status, &server.body["name"]), (200, &json!(model)), "{server:?}");
    let words: Vec<&str> = server.body["command"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert!(words.contains(&format!("{model}=tiny:/run/job/adapter").as_str()), "{words:?}");
    let job = server.body["id"].as_str().unwrap();
    appliance.wait(&format!("/v1/appliance/jobs/{job}"), "/state", json!("running")).await;
    appliance.answer(job).await;
    let answer = appliance.post("/v1/chat/completions", chat.clone()).await;
    assert_eq!((answer.status, &answer.body), (200, &chat), "the answer is the server's own");
    appliance.post(&format!("/v1/appliance/jobs/{job}/cancel"), json!({})).await;
    appliance.wait(&format!("/v1/appliance/jobs/{job}"), "/state", json!("cancelled")).await;
    assert_eq!(appliance.post("/v1/chat/completions", chat).await.status, 503);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_of_the_queue_and_of_nothing_that_is_not_there() {
    let early = Machine::start(Limits::default()).get("/metrics", Some(TOKEN)).await;
    assert_eq!(early.status, 200);
    assert!(early.text.contains("gapimage_jobs_ready 0") && !early.text.contains("gapimage_jobs{"), "{}", early.text);
    let appliance = Appliance::start();
    let created = appliance.post("/v1/appliance/jobs", json!({"kind": "run", "job": "measure"})).await;
    let path = format!("/v1/appliance/jobs/{}", created.body["id"].as_str().unwrap());
    appliance.wait(&path, "/state", json!("running")).await;
    let answer = appliance.get("/metrics").await;
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    for line in [
        r#"gapimage_jobs{state="running"} 1"#,
        r#"gapimage_jobs{state="failed"} 0"#,
        r#"gapimage_release_info{name="quickstart",version="1.0",serial="3"} 1"#,
        r#"gapimage_gpus{health="degraded"} 1"#,
        "gapimage_jobs_ready 1",
    ] {
        assert!(answer.text.lines().any(|other| other == line), "{line}: {}", answer.text);
    }
    // A GPU is plugged in, and there is no library that could tell of it.
    assert!(!answer.text.contains("DCGM_"), "{}", answer.text);
    assert_eq!(appliance.machine.get("/metrics", None).await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_trains_on_what_was_not_found_good() {
    let appliance = Appliance::start();
    let bad = appliance.upload("no json\n").await.body;
    let id = bad["id"].as_str().unwrap();
    let checked = appliance.wait(&format!("/v1/files/{id}"), "/status", json!("error")).await;
    assert!(!checked["status_details"].as_str().unwrap().is_empty());
    for (file, part) in
        [(id, "not found good"), ("file-000000000000000000000000", "upload it first"), ("dataset:x", "no data set")]
    {
        let answer = appliance.post("/v1/fine_tuning/jobs", json!({"model": "tiny", "training_file": file})).await;
        assert_eq!((answer.status, &answer.body["error"]["param"]), (400, &json!("training_file")), "{answer:?}");
        assert!(answer.body["error"]["message"].as_str().unwrap().contains(part), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_parts_are_not_all_there_is_refused_at_once() {
    let appliance = Appliance::start();
    let file = appliance.good_file().await;
    let tune = |more: Value| {
        let mut request = json!({"model": "tiny", "training_file": file});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    for (request, status, param) in [
        (tune(json!({"model": "Qwen/Qwen2.5-7B-Instruct"})), 404, Value::Null),
        (tune(json!({"model": "https://hub/x"})), 404, Value::Null),
        (tune(json!({"appliance": {"job": "none"}})), 400, json!("job")),
        (tune(json!({"appliance": {"parameters": {"dtype": "s3://x/y"}}})), 400, json!("appliance.parameters")),
        (tune(json!({"appliance": {"memory": 1_u64 << 50}})), 400, Value::Null),
        (tune(json!({"appliance": {"gpus": 1}})), 400, Value::Null),
        (tune(json!({"appliance": {"needs": ["ftjob-000000000000000000000000"]}})), 400, json!("needs")),
        (tune(json!({"hyperparameters": {"n_epochs": -1}})), 400, json!("n_epochs")),
        (tune(json!({"surprise": 1})), 400, Value::Null),
    ] {
        let answer = appliance.post("/v1/fine_tuning/jobs", request.clone()).await;
        assert_eq!((answer.status, &answer.body["error"]["param"]), (status, &param), "{request}: {answer:?}");
    }
    for (request, param) in [
        (json!({"kind": "run", "job": "measure", "env": {"X": "https://x"}}), "env"),
        (json!({"kind": "run", "job": "other"}), "job"),
        (json!({"kind": "run", "job": "measure", "priority": 1000}), "priority"),
    ] {
        let answer = appliance.post("/v1/appliance/jobs", request.clone()).await;
        assert_eq!((answer.status, &answer.body["error"]["param"]), (400, &json!(param)), "{request}: {answer:?}");
    }
    assert_eq!(appliance.get("/v1/appliance/jobs").await.body["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_paused_resumed_and_cancelled() {
    let appliance = Appliance::start();
    let created = appliance.post("/v1/appliance/jobs", json!({"kind": "run", "job": "measure"})).await;
    let path = format!("/v1/appliance/jobs/{}", created.body["id"].as_str().unwrap());
    appliance.wait(&path, "/state", json!("running")).await;
    assert_eq!(appliance.post(&format!("{path}/pause"), json!({})).await.status, 200);
    appliance.wait(&path, "/state", json!("paused")).await;
    assert_eq!(appliance.post(&format!("{path}/resume"), json!({})).await.body["state"], "queued");
    let again = appliance.wait(&path, "/state", json!("running")).await;
    assert_eq!(again["starts"], 2);
    assert_eq!(appliance.post(&format!("{path}/cancel"), json!({})).await.status, 200);
    appliance.wait(&path, "/state", json!("cancelled")).await;
    let late = appliance.post(&format!("{path}/resume"), json!({})).await;
    assert_eq!((late.status, &late.body["error"]["code"]), (409, &json!("conflict")));
    let none = appliance.post("/v1/appliance/jobs/job-000000000000000000000000/pause", json!({})).await;
    assert_eq!((none.status, &none.body["error"]["code"]), (404, &json!("not_found")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_say_who_may_what_and_changes_are_recorded() {
    let appliance = Appliance::start();
    let mut tokens = BTreeMap::new();
    for role in ["viewer", "operator", "admin"] {
        let made = appliance.post("/v1/appliance/tokens", json!({"name": format!("my {role}"), "role": role})).await;
        assert_eq!(made.status, 200, "{made:?}");
        tokens.insert(
            role,
            (made.body["id"].as_str().unwrap().to_owned(), made.body["token"].as_str().unwrap().to_owned()),
        );
    }
    let status = async |method: &str, path: &str, role: &str| {
        appliance.machine.ask(method, path, Some(&tokens[role].1)).await.status
    };
    for role in ["viewer", "operator", "admin"] {
        assert_eq!(status("GET", "/v1/models", role).await, 200);
        assert_eq!(status("GET", "/v1/appliance/audit", role).await, if role == "admin" { 200 } else { 403 });
        let cancel = "/v1/fine_tuning/jobs/ftjob-000000000000000000000000/cancel";
        assert_eq!(status("POST", cancel, role).await, if role == "viewer" { 403 } else { 404 });
    }
    let revoked =
        appliance.machine.ask("DELETE", &format!("/v1/appliance/tokens/{}", tokens["viewer"].0), Some(TOKEN)).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    assert_eq!(status("GET", "/v1/models", "viewer").await, 401);
    let listed = appliance.get("/v1/appliance/tokens").await.body;
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    assert!(listed["data"][0].get("token").is_none(), "a token is shown once");
    let audit = appliance.get("/v1/appliance/audit?limit=100").await.body;
    let told: Vec<String> = audit["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| {
            format!("{} {}", record["entry"]["who"].as_str().unwrap(), record["entry"]["outcome"].as_str().unwrap())
        })
        .collect();
    assert!(
        told.contains(&"my operator refused 404".to_owned()) && told.contains(&"site asked".to_owned()),
        "{told:?}"
    );
    assert!(!audit.to_string().contains(&tokens["operator"].1), "no token is recorded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_comes_in_parts() {
    let appliance = Appliance::start();
    let (head, tail) = EXAMPLES.split_at(20);
    let begin = json!({"filename": "x.jsonl", "purpose": "fine-tune", "bytes": EXAMPLES.len(), "mime_type": "application/jsonl"});
    let upload = appliance.post("/v1/uploads", begin).await.body;
    let path = format!("/v1/uploads/{}", upload["id"].as_str().unwrap());
    let mut parts = Vec::new();
    for part in [head, tail] {
        let body =
            format!("--b\r\nContent-Disposition: form-data; name=\"data\"; filename=\"p\"\r\n\r\n{part}\r\n--b--\r\n");
        let kind = "multipart/form-data; boundary=b";
        let answer = appliance.machine.send_body(&format!("{path}/parts"), TOKEN, kind, body.as_bytes()).await;
        assert_eq!(answer.body["object"], "upload.part", "{answer:?}");
        parts.push(answer.body["id"].clone());
    }
    let early = appliance.post(&format!("{path}/complete"), json!({"part_ids": [parts[0]]})).await;
    assert_eq!((early.status, &early.body["error"]["param"]), (400, &json!("bytes")));
    let done = appliance.post(&format!("{path}/complete"), json!({"part_ids": parts})).await.body;
    let file = done["file"]["id"].as_str().unwrap();
    appliance.wait(&format!("/v1/files/{file}"), "/status", json!("processed")).await;
    let content = appliance.machine.get(&format!("/v1/appliance/files/{file}/report"), Some(TOKEN)).await;
    assert_eq!(content.body["examples"]["kept"], 2, "{content:?}");
    assert_eq!(appliance.post(&format!("{path}/cancel"), json!({})).await.status, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_left_is_listed_and_taken_and_nothing_else_is() {
    let appliance = Appliance::start();
    let created = appliance.post("/v1/appliance/jobs", json!({"kind": "eval", "job": "measure"})).await.body;
    let id = created["id"].as_str().unwrap();
    let path = format!("/v1/appliance/jobs/{id}");
    appliance.wait(&path, "/state", json!("running")).await;
    let output = appliance.work.storage.output(id);
    fs::create_dir_all(output.join("deep")).unwrap();
    fs::write(output.join("deep/result.json"), "{\"score\":1}").unwrap();
    std::os::unix::fs::symlink(appliance.work.storage.database(), output.join("database")).unwrap();
    let mut log = gap_jobs::log::Log::open(&appliance.work.storage.log(id)).unwrap();
    log.append(gap_jobs::log::Stream::Out, b"hello", 5).unwrap();
    let listed = appliance.get(&format!("{path}/outputs")).await.body;
    assert_eq!(listed["data"], json!([{"path": "deep/result.json", "bytes": 11}]));
    assert_eq!(appliance.get(&format!("{path}/outputs/deep/result.json")).await.body, json!({"score": 1}));
    for bad in ["database", "../../../jobs.db", "%2e%2e/%2e%2e/%2e%2e/jobs.db", "deep"] {
        assert_eq!(appliance.get(&format!("{path}/outputs/{bad}")).await.status, 404, "{bad}");
    }
    let lines = appliance.get(&format!("{path}/log")).await.body;
    assert_eq!(lines["lines"], json!([{"at": 5, "stream": "stdout", "text": "hello"}]));
    assert_eq!(appliance.get(&format!("{path}/log?search=nothing")).await.body["lines"], json!([]));
    appliance.end(id, End::Exit(0)).await;
    appliance.wait(&path, "/state", json!("succeeded")).await;
}
