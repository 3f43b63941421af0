//! Runs a job in a container: mounts what it needs, lays out what it sees, and follows what it tells.

use super::{
    Shared,
    catalog::{Catalog, ImageError},
    devices, files,
    left::Left,
    news::Follower,
    order::{DataOrder, ModelOrder, Order, inside},
    relay::Relay,
    serving::Serving,
    site::SiteRules,
    stirred::Stirred,
    storage::{Storage, make, own, publish},
    terminals::Terminals,
};
use crate::{console, gpus};
use gap_contract::Output;
use gap_jobs::{
    CannotStart, Control, Job, Kind, News, Runtime, Started,
    container::{BindMount, Cgroup, Confinement, Container, Spare, Spawned, cgroup, keeper, terminal},
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
use tokio::{runtime::Handle, sync::Notify};

/// Where running jobs have their bundles and sockets, in memory.
const RUN: &str = "/run/gap/jobs";
/// How long a terminal waits for somebody before its job is ended.
const VISIT: Duration = Duration::from_secs(60);
/// Users of jobs: this and the job's number below [`USERS`].
const FIRST_USER: u32 = 100_000;
/// How many there are before the first one comes again.
const USERS: i64 = 60_000;
/// Variables of every job. Images and requests come after these, the places of the job before everything.
const VARIABLES: [(&str, &str); 4] = [
    ("HF_DATASETS_OFFLINE", "1"),
    ("HF_HUB_OFFLINE", "1"),
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("TRANSFORMERS_OFFLINE", "1"),
];
/// Variables by which programs find a place for what they keep, and the places in the job's cache.
const CACHES: [(&str, &str); 6] = [
    ("HF_HOME", "huggingface"),
    ("HOME", "home"),
    ("MPLCONFIGDIR", "matplotlib"),
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
}

/// A job that runs.
struct Running {
    container: Container,
    /// Whether somebody works in it: a shell does not listen to `SIGTERM`, and has nothing to put away.
    has_terminal: bool,
    follower: Mutex<Follower>,
}

impl Containers {
    /// Containers that find their data on this volume. Made inside of the agent's runtime, which relays for them.
    pub fn new(storage: Storage, catalog: Catalog, shared: Shared) -> Self {
        let Shared { serving, site, terminals, stirred, gpus } = shared;
        let (spare, handle) = (Spare::default(), Handle::current());
        Self { storage, catalog, serving, site, terminals, stirred, gpus, spare, handle }
    }

    fn prepare(&self, job: &Job, order: &Order) -> Result<(Confinement, PathBuf), CannotStart> {
        let settings = self.catalog.images.settings(&order.image).map_err(of_image)?;
        let user = FIRST_USER.saturating_add(u32::try_from(job.sequence.rem_euclid(USERS)).unwrap_or(0));
        let id = job.id.as_str();
        let directory = Path::new(RUN).join(id);
        let laid = self.lay_out(job, order, user, &directory);
        let job_file = laid.map_err(|error| passing(format!("laying out what it works with: {error}")))?;
        let mut command = order.command.clone();
        if job.kind == Kind::Train && self.can_resume(id) {
            command.push("--resume".to_owned());
        }
        let slots = job.placement.as_ref().map(|placement| placement.slots.as_slice()).unwrap_or_default();
        let brought = devices::of(Path::new("/"), slots).map_err(|error| passing(error.to_string()))?;
        let mut binds = self.binds(job, order, job_file, &directory)?;
        binds.extend(brought.binds);
        let mut asked = order.env.clone();
        asked.extend(brought.env);
        asked.extend(Relay::variables(&order.endpoints));
        let memory = job.placement.as_ref().map_or(job.demand.memory, |placement| placement.memory);
        let confinement = Confinement {
            id: id.to_owned(),
            root: self.catalog.images.mounted(&order.image).map_err(of_image)?,
            command,
            env: variables(&settings.env, &asked),
            directory: if settings.directory.is_empty() { "/".into() } else { settings.directory.into() },
            user,
            hostname: "job".to_owned(),
            binds,
            devices: brought.nodes,
            memory,
            shared_memory: memory / 2,
            cpu_percent: None,
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
        let sockets = directory.join("sockets");
        drop(fs::remove_dir_all(&sockets));
        make(&sockets, 0o755)?;
        own(&sockets, user)?;
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

    fn can_resume(&self, id: &str) -> bool {
        let left = Left::open(&self.storage.output(id));
        let found = left.and_then(|left| left.entries(&Output::new("").checkpoints(), 1));
        found.is_ok_and(|entries| !entries.is_empty())
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
            give(directory.join("sockets"), inside::SOCKETS),
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
        let base = self.catalog.place(&model.base).map_err(of_image)?;
        let Some(job) = &model.trained else { return Ok((base, None)) };
        let output = Output::new(self.storage.output(job.as_str()));
        let published = |result: PathBuf| match publish(&result) {
            Ok(()) => Ok(result),
            Err(error) => Err(passing(format!("making the model {} readable: {error}", model.name))),
        };
        let left = Left::open(output.dir()).map_err(|error| passing(format!("looking for {}: {error}", model.name)))?;
        let names = Output::new("");
        if left.has_directory(&names.adapter()) {
            return Ok((base, Some(published(output.adapter())?)));
        }
        if left.has_directory(&names.model()) {
            return Ok((published(output.model())?, None));
        }
        Err(permanent(format!("the model {} is gone: the job {job} has left none", model.name)))
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
        confinement.bundle(&directory).map_err(|error| permanent(error.to_string()))?;
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
        let running = Arc::new(Running { container, has_terminal: order.has_terminal, follower: Mutex::new(follower) });
        if job.kind == Kind::Serve {
            self.serving.started(&job.id, directory.join("sockets/http.sock"));
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
        drop(fs::remove_dir_all(RUN));
    }

    fn ended(&self, job: &Job) {
        self.serving.ended(&job.id);
        drop(self.terminals.take(&job.id));
        drop(fs::remove_dir_all(Path::new(RUN).join(job.id.as_str())));
        if job.state.is_final() {
            let (storage, id) = (self.storage.clone(), job.id.clone());
            // A cache may be millions of files; others are waiting for this thread.
            self.handle.spawn_blocking(move || drop(storage.delete_cache(id.as_str())));
        }
        self.stirred.ended(&job.id);
    }
}

impl Control for Running {
    fn stop(&self) {
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

/// The environment: the usual, the image's, the request's, and last what keeps programs inside of their places.
fn variables(image: &[String], asked: &BTreeMap<String, String>) -> Vec<String> {
    let mut variables: BTreeMap<String, String> =
        VARIABLES.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    let of_image = image.iter().filter_map(|variable| variable.split_once('='));
    variables.extend(of_image.map(|(name, value)| (name.to_owned(), value.to_owned())));
    variables.extend(asked.clone());
    for (name, place) in CACHES {
        variables.insert(name.to_owned(), format!("{}/{place}", inside::CACHE));
    }
    variables.insert("TMPDIR".into(), "/tmp".into());
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
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

    #[test]
    fn a_request_may_set_variables_but_not_where_things_are_kept() {
        let asked = BTreeMap::from([("HOME".to_owned(), "/x".to_owned()), ("MINE".to_owned(), "1".to_owned())]);
        let variables = variables(&["PATH=/image".into(), "LANG=C.UTF-8".into()], &asked);
        for expected in ["PATH=/image", "LANG=C.UTF-8", "MINE=1", "HOME=/run/job/cache/home", "HF_HUB_OFFLINE=1"] {
            assert!(variables.iter().any(|variable| variable == expected), "{expected}: {variables:?}");
        }
    }
}
