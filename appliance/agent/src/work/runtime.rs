//! Runs a job in a container: mounts what it needs, lays out what it sees, and follows what it tells.

use super::{
    Shared,
    catalog::{Catalog, ImageError},
    devices::{self, LIBRARY_PATH},
    files,
    left::{Left, has_begun},
    news::Follower,
    order::{DataOrder, ModelOrder, Order, inside},
    relay::Relay,
    serving::Serving,
    site::SiteRules,
    sockets,
    stirred::Stirred,
    storage::{Storage, make, own, publish},
    submit::{Made, result_of},
    terminals::Terminals,
};
use crate::{console, gpus};
use gap_contract::Output;
use gap_jobs::{
    CannotStart, Control, Job, JobId, Kind, News, Runtime, Started,
    container::{BindMount, BundleError, Cgroup, Confinement, Container, Spare, Spawned, cgroup, keeper, terminal},
    dispatcher::now,
    log::{Log, Stream},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
    task::spawn_blocking,
};

/// Where running jobs have their bundles and sockets, in memory.
const RUN: &str = "/run/gap/jobs";
/// The directory of its socket among what a job has there.
const SOCKETS: &str = "sockets";
/// How long a terminal waits for somebody before its job is ended.
const VISIT: Duration = Duration::from_secs(60);
/// Users of jobs: this and the job's number below [`USERS`].
const FIRST_USER: u32 = 100_000;
/// How many there are before the first one comes again.
const USERS: i64 = 60_000;
/// Variables of every job. Images and requests come after these, the places of the job before everything. No image knows the
/// number of a job's user by a name, which libraries look for here first.
const VARIABLES: [(&str, &str); 6] = [
    ("HF_DATASETS_OFFLINE", "1"),
    ("HF_HUB_OFFLINE", "1"),
    ("LOGNAME", "job"),
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("TRANSFORMERS_OFFLINE", "1"),
    ("USER", "job"),
];
/// Variables by which programs find a place for what they keep, and the places in the job's cache.
const CACHES: [(&str, &str); 7] = [
    ("HF_HOME", "huggingface"),
    ("HOME", "home"),
    ("MPLCONFIGDIR", "matplotlib"),
    ("TORCHINDUCTOR_CACHE_DIR", "torchinductor"),
    ("TORCH_HOME", "torch"),
    ("TRITON_CACHE_DIR", "triton"),
    ("XDG_CACHE_HOME", "xdg"),
];

/// Containers on this machine.
pub struct Containers {
    storage: Storage,
    catalog: Catalog,
    serving: Arc<Serving>,
    site: Arc<SiteRules>,
    terminals: Arc<Terminals>,
    stirred: Arc<Stirred>,
    gpus: Arc<gpus::Board>,
    spare: Spare,
    handle: Handle,
    /// Held while what an ended job left in its cache is deleted.
    cleaning: Arc<Semaphore>,
}

/// A job that runs.
struct Running {
    container: Container,
    /// Whether somebody works in it: a shell does not listen to `SIGTERM`, and has nothing to put away.
    has_terminal: bool,
    follower: Mutex<Follower>,
    /// Where it is noted that it was told to end.
    job: JobId,
    serving: Arc<Serving>,
}

impl Containers {
    /// Containers that find their data on this volume. Made inside of the agent's runtime, which relays for them.
    pub fn new(storage: Storage, catalog: Catalog, shared: Shared) -> Self {
        let Shared { serving, site, terminals, stirred, gpus } = shared;
        let (spare, handle, cleaning) = (Spare::default(), Handle::current(), Arc::new(Semaphore::new(1)));
        Self { storage, catalog, serving, site, terminals, stirred, gpus, spare, handle, cleaning }
    }

    fn prepare(&self, job: &Job, order: &Order) -> Result<(Confinement, PathBuf), CannotStart> {
        let settings = self.catalog.images.settings(&order.image).map_err(of_image)?;
        let user = FIRST_USER.saturating_add(u32::try_from(job.sequence.rem_euclid(USERS)).unwrap_or(0));
        let id = job.id.as_str();
        let directory = Path::new(RUN).join(id);
        let laid = self.lay_out(job, order, user, &directory);
        let job_file = laid.map_err(|error| passing(format!("laying out what it works with: {error}")))?;
        let mut command = order.command.clone();
        // Without the word a trainer refuses what lies there, and with it begins anew where no checkpoint does. One that has left
        // nothing may not know the word.
        if job.kind == Kind::Train && job.starts > 1 && has_begun(&self.storage.output(id)) {
            command.push("--resume".to_owned());
        }
        let slots = job.placement.as_ref().map(|placement| placement.slots.as_slice()).unwrap_or_default();
        let brought = devices::of(Path::new("/"), slots).map_err(|error| passing(error.to_string()))?;
        let mut binds = self.binds(job, order, job_file, &directory)?;
        binds.extend(brought.binds);
        let mut given = brought.env;
        given.extend(Relay::variables(&order.endpoints));
        let memory = job.placement.as_ref().map_or(job.demand.memory, |placement| placement.memory);
        let confinement = Confinement {
            id: id.to_owned(),
            root: self.catalog.images.mounted(&order.image).map_err(of_image)?,
            command,
            env: variables(&settings.env, &order.env, given),
            directory: if settings.directory.is_empty() { "/".into() } else { settings.directory.into() },
            user,
            hostname: "job".to_owned(),
            binds,
            devices: brought.nodes,
            memory,
            shared_memory: memory / 2,
        };
        Ok((confinement, directory))
    }

    /// Makes the job's directories. Returns its `job.json`, where it has one.
    fn lay_out(&self, job: &Job, order: &Order, user: u32, directory: &Path) -> io::Result<Option<PathBuf>> {
        self.storage.make_job(job.id.as_str(), user)?;
        for (_, name) in CACHES {
            let place = self.storage.cache(job.id.as_str()).join(name);
            make(&place, 0o755)?;
            own(&place, user)?;
        }
        make(directory, 0o755)?;
        sockets::make(&directory.join(SOCKETS), user)?;
        let Some(spec) = &order.job else { return Ok(None) };
        let path = directory.join("job.json");
        fs::write(&path, serde_json::to_vec_pretty(spec)?)?;
        Ok(Some(path))
    }

    /// The two ends of a terminal for a job that a person works in. It has one once: after a crash of the agent nobody would
    /// come to it.
    fn terminal(&self, job: &Job, order: &Order) -> Result<Option<(OwnedFd, OwnedFd)>, CannotStart> {
        match (order.has_terminal, job.starts) {
            (false, _) => Ok(None),
            (true, ..=1) => {
                terminal::open().map(Some).map_err(|error| permanent(format!("opening its terminal: {error}")))
            }
            (true, _) => Err(permanent("a terminal is not opened a second time".to_owned())),
        }
    }

    /// Has a terminal wait for somebody, for a while.
    fn offer(&self, job: &Job, ours: OwnedFd, running: &Arc<Running>) {
        self.terminals.offer(&job.id, ours);
        let (terminals, id, running) = (Arc::clone(&self.terminals), job.id.clone(), Arc::clone(running));
        self.handle.spawn(async move {
            tokio::time::sleep(VISIT).await;
            if terminals.take(&id).is_some() {
                running.kill();
            }
        });
    }

    fn binds(
        &self,
        job: &Job,
        order: &Order,
        job_file: Option<PathBuf>,
        directory: &Path,
    ) -> Result<Vec<BindMount>, CannotStart> {
        let id = job.id.as_str();
        let show = |from: PathBuf, to: &str| BindMount { from, to: to.into(), is_writable: false };
        let give = |from: PathBuf, to: &str| BindMount { from, to: to.into(), is_writable: true };
        let mut binds = vec![
            give(self.storage.output(id), inside::OUTPUT),
            give(self.storage.cache(id), inside::CACHE),
            give(directory.join(SOCKETS), inside::SOCKETS),
        ];
        binds.extend(job_file.map(|path| show(path, inside::JOB)));
        if let Some(model) = &order.model {
            let (base, trained) = self.model(model)?;
            binds.push(show(base, inside::MODEL));
            binds.extend(trained.map(|path| show(path, inside::ADAPTER)));
        }
        for (data, to) in [(&order.training, inside::TRAINING), (&order.validation, inside::VALIDATION)] {
            if let Some(data) = data {
                binds.push(show(self.examples(data)?, to));
            }
        }
        for dataset in &order.datasets {
            let place = self.catalog.place(dataset).map_err(of_image)?;
            binds.push(show(place, &format!("{}/{}", inside::DATA, dataset.name)));
        }
        Ok(binds)
    }

    /// The directory of the base, and that of the adapter. A whole model that a job made takes the place of the base.
    fn model(&self, model: &ModelOrder) -> Result<(PathBuf, Option<PathBuf>), CannotStart> {
        let model = &told_apart(&self.storage, model);
        let left_by = |job: &JobId, name: PathBuf| {
            let output = self.storage.output(job.as_str());
            let left = Left::open(&output).map_err(|error| passing(format!("looking for {}: {error}", model.name)))?;
            if !left.has_directory(&name) {
                let (model, what) = (&model.name, name.display());
                return Err(permanent(format!("the model {model} is gone: the job {job} has no {what} in its output")));
            }
            let result = output.join(name);
            match publish(&result) {
                Ok(()) => Ok(result),
                Err(error) => Err(passing(format!("making the model {} readable: {error}", model.name))),
            }
        };
        let names = Output::new("");
        let base = match &model.whole {
            Some(job) => left_by(job, names.model())?,
            None => self.catalog.place(&model.base).map_err(of_image)?,
        };
        let adapter = model.adapter().map(|job| left_by(job, names.adapter())).transpose()?;
        Ok((base, adapter))
    }

    fn examples(&self, data: &DataOrder) -> Result<PathBuf, CannotStart> {
        let path = match data {
            DataOrder::File(id) => files::examples(&self.storage, id),
            DataOrder::Release { dataset, file } => self.catalog.place(dataset).map_err(of_image)?.join(file),
        };
        if path.is_file() { Ok(path) } else { Err(permanent(format!("the examples are gone: {}", data_name(data)))) }
    }
}

impl Runtime for Containers {
    fn start(&self, job: &Job) -> Result<Started, CannotStart> {
        let order: Order = serde_json::from_str(&job.request)
            .map_err(|error| permanent(format!("its order is not understood: {error}")))?;
        let id = job.id.as_str();
        let terminal = self.terminal(job, &order)?;
        let (confinement, directory) = self.prepare(job, &order)?;
        confinement.bundle(&directory).map_err(|error| match error {
            BundleError::Write { .. } => passing(error.to_string()),
            BundleError::Spec(_) => permanent(error.to_string()),
        })?;
        let log = Log::open(&self.storage.log(id)).map_err(|error| passing(format!("opening its log: {error}")))?;
        let relay = Relay::open(&self.handle, id, &directory, &order.endpoints, &self.site).map_err(passing)?;
        let (ours, theirs) = terminal.unzip();
        let spawned = self.spare.spawn(id, &directory, &relay.ports(), theirs);
        let Spawned { container, mut child, printed } = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                relay.close();
                return Err(passing(format!("starting its keeper: {error}")));
            }
        };
        let log = Arc::new(Mutex::new(log));
        let take = |stream, source: Box<dyn io::Read + Send>| drain(&log, stream, source, self.stirred.of(&job.id));
        let draining = printed.map(|(out, err)| [take(Stream::Out, Box::new(out)), take(Stream::Err, Box::new(err))]);
        let follower = Follower::new(self.storage.output(id), self.storage.told(id));
        let running = Arc::new(Running {
            container,
            has_terminal: order.has_terminal,
            follower: Mutex::new(follower),
            job: job.id.clone(),
            serving: Arc::clone(&self.serving),
        });
        if job.kind == Kind::Serve {
            self.serving.started(&job.id, directory.join(SOCKETS).join("http.sock"));
        }
        if let Some(ours) = ours {
            self.offer(job, ours, &running);
        }
        let (waiting, storage) = (Arc::clone(&running), self.storage.clone());
        let wait = Box::new(move || {
            let end = waiting.container.wait(&mut child);
            relay.close();
            for thread in draining.into_iter().flatten().flatten() {
                drop(thread.join());
            }
            // Before its end is kept: whoever finds that, after a power cut too, finds its last lines and its results.
            if let Err(error) = storage.sync() {
                console::say(format_args!("what a job left may not all be on the disk: {error}"));
            }
            end
        });
        Ok(Started { control: running, wait })
    }

    fn is_ready(&self) -> bool {
        !self.site.clock.holds_jobs()
    }

    fn failed_slots(&self) -> BTreeSet<String> {
        self.gpus.failed_slots()
    }

    fn idle(&self) {
        // Without one the next job starts its own.
        drop(self.spare.refill());
    }

    fn sweep(&self) {
        if let Err(error) = cgroup::bound_processes() {
            console::say(format_args!("the processes of all jobs together have no bound: {error}"));
        }
        for cgroup in Cgroup::all() {
            drop(cgroup.remove());
        }
        if let Err(error) = keeper::wait_for_all() {
            console::say(format_args!("a container of the last agent is still being cleaned up: {error}"));
        }
        for directory in fs::read_dir(RUN).into_iter().flatten().flatten() {
            remove_run(&directory.path());
        }
    }

    fn ended(&self, job: &Job) {
        self.serving.ended(&job.id);
        drop(self.terminals.take(&job.id));
        remove_run(&Path::new(RUN).join(job.id.as_str()));
        if job.state.is_final() {
            let (storage, id) = (self.storage.clone(), job.id.clone());
            let turn = Arc::clone(&self.cleaning);
            // A cache may be millions of files; others are waiting for this thread, and for those that may block.
            self.handle.spawn(async move {
                let Ok(_turn) = turn.acquire().await else { return };
                drop(spawn_blocking(move || storage.delete_cache(id.as_str())).await);
            });
        }
        self.stirred.ended(&job.id);
    }
}

impl Control for Running {
    fn stop(&self) {
        self.serving.leaving(&self.job);
        if self.has_terminal {
            self.container.kill();
        } else {
            self.container.stop();
        }
    }

    fn kill(&self) {
        self.container.kill();
    }

    fn news(&self) -> Vec<News> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner).news()
    }

    fn kept(&self) {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner).keep();
    }
}

/// Takes in what a program prints. Without a thread for it the program would stop at a full pipe; it then has none.
fn drain(
    log: &Arc<Mutex<Log>>,
    stream: Stream,
    source: Box<dyn io::Read + Send>,
    stirred: Arc<Notify>,
) -> Option<thread::JoinHandle<()>> {
    let log = Arc::clone(log);
    let drain = move || drop(Log::drain(&log, stream, source, now, || stirred.notify_waiters()));
    thread::Builder::new().name("job log".into()).stack_size(128 << 10).spawn(drain).ok()
}

/// The environment: the usual, the image's, the request's, what comes with devices and endpoints, and last what keeps programs
/// inside of their places.
fn variables(image: &[String], asked: &BTreeMap<String, String>, mut given: BTreeMap<String, String>) -> Vec<String> {
    let mut variables: BTreeMap<String, String> =
        VARIABLES.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    let of_image = image.iter().filter_map(|variable| variable.split_once('='));
    variables.extend(of_image.map(|(name, value)| (name.to_owned(), value.to_owned())));
    variables.extend(asked.clone());
    // The driver's libraries come first, and those that the image has to find stay where they are found.
    let libraries = variables.get(LIBRARY_PATH).filter(|own| !own.is_empty());
    if let (Some(driver), Some(own)) = (given.get_mut(LIBRARY_PATH), libraries) {
        *driver = format!("{driver}:{own}");
    }
    variables.extend(given);
    for (name, place) in CACHES {
        variables.insert(name.to_owned(), format!("{}/{place}", inside::CACHE));
    }
    variables.insert("TMPDIR".into(), "/tmp".into());
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// The model of an order, also of one from a time when orders did not say whether a model was trained whole.
fn told_apart(storage: &Storage, model: &ModelOrder) -> ModelOrder {
    let is_whole = |job: &JobId| result_of(storage, job.as_str()) == Some(Made::Model);
    let whole = model.whole.clone().or_else(|| model.trained.clone().filter(is_whole));
    ModelOrder { whole, ..model.clone() }
}

/// Removes what a job had in memory while it ran.
fn remove_run(directory: &Path) {
    drop(sockets::remove(&directory.join(SOCKETS)));
    drop(fs::remove_dir_all(directory));
}

fn data_name(data: &DataOrder) -> &str {
    match data {
        DataOrder::File(id) => id,
        DataOrder::Release { dataset, .. } => &dataset.name,
    }
}

const fn permanent(reason: String) -> CannotStart {
    CannotStart { reason, is_passing: false }
}

const fn passing(reason: String) -> CannotStart {
    CannotStart { reason, is_passing: true }
}

fn of_image(error: ImageError) -> CannotStart {
    permanent(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::storage::Volume;
    use serde_json::json;

    #[test]
    fn a_request_may_set_variables_but_not_where_things_are_kept() {
        let asked = BTreeMap::from([("HOME".to_owned(), "/x".to_owned()), ("MINE".to_owned(), "1".to_owned())]);
        let variables = variables(&["PATH=/image".into(), "LANG=C.UTF-8".into()], &asked, BTreeMap::new());
        for expected in
            ["PATH=/image", "LANG=C.UTF-8", "MINE=1", "HOME=/run/job/cache/home", "HF_HUB_OFFLINE=1", "USER=job"]
        {
            assert!(variables.iter().any(|variable| variable == expected), "{expected}: {variables:?}");
        }
    }

    #[test]
    fn an_order_that_does_not_say_that_its_model_was_trained_whole_is_understood() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path(), Volume::Memory { reason: "test".into() }).unwrap();
        let job = JobId::new(JobId::TRAINING);
        let base = json!({"name": "tiny", "image": "tiny", "path": "/models/tiny"});
        let old = json!({"name": "ft:tiny:x:1", "base": base, "trained": job.as_str()});
        let old: ModelOrder = serde_json::from_value(old).unwrap();
        assert_eq!(told_apart(&storage, &old), old, "it is gone");
        fs::create_dir_all(storage.output(job.as_str()).join("model")).unwrap();
        assert_eq!(told_apart(&storage, &old).whole, Some(job.clone()));
        fs::create_dir_all(storage.output(job.as_str()).join("adapter")).unwrap();
        assert_eq!(told_apart(&storage, &old).adapter(), Some(&job));
    }

    #[test]
    fn the_drivers_libraries_come_before_those_of_the_image_and_do_not_hide_them() {
        let driver = || BTreeMap::from([(LIBRARY_PATH.to_owned(), inside::DRIVER.to_owned())]);
        let asked = |own: &str| BTreeMap::from([(LIBRARY_PATH.to_owned(), own.to_owned())]);
        let found = |image: &str, asked: &BTreeMap<String, String>, given| {
            let all = variables(&[format!("LD_LIBRARY_PATH={image}")], asked, given);
            all.iter().find_map(|one| one.strip_prefix("LD_LIBRARY_PATH=").map(str::to_owned)).unwrap()
        };
        assert_eq!(found("/opt/nccl", &BTreeMap::new(), driver()), "/run/job/driver:/opt/nccl");
        assert_eq!(found("/opt/nccl", &asked("/mine"), driver()), "/run/job/driver:/mine");
        // An empty entry would be the directory that the program starts in.
        assert_eq!(found("", &BTreeMap::new(), driver()), "/run/job/driver");
        assert_eq!(found("/opt/nccl", &BTreeMap::new(), BTreeMap::new()), "/opt/nccl");
    }
}
