//! From a request to a job in the queue: everything that it needs must be there, or it is refused at once.

mod command;
mod debug;
mod estimate;
mod fine_tuning;
mod launch;
mod offline;
mod overlap;
mod run;
mod self_test;

pub use debug::CreateDebug;
pub use fine_tuning::{CreateFineTuning, Vendor, compare};
pub use run::{CreateJob, SubmittedKind};
pub use self_test::CreateSelfTest;

use super::{
    Work,
    catalog::{ImageError, size_of},
    files::{FilesError, Purpose, Status},
    left::Left,
    order::{DataOrder, ModelOrder, Order},
    storage::Storage,
};
use estimate::Takes;
use gap_contract::Output;
use gap_handover::{
    declared::{DeclaredJob, DeclaredKind},
    site::EndpointName,
};
use gap_jobs::{
    Demand, Job, JobId, Kind, NewJob, QueueError, Retry, State, dispatcher::now, placement::Impossible, queue::Filter,
};
use serde_json::Value;
use std::{collections::BTreeMap, num::NonZeroU16, path::Path, time::Duration};

/// Prefix by which a request names a data set of the release where a file is expected.
pub const DATASET: &str = "dataset:";
/// Largest and smallest priority.
const PRIORITIES: std::ops::RangeInclusive<i32> = -100..=100;

/// Why a job is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// A field says something that cannot be.
    #[error("{message}")]
    Field {
        /// The field.
        param: String,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// There is no such model.
    #[error("there is no model `{0}`")]
    NoModel(String),
    /// The release declares nothing that could do it.
    #[error("{0}")]
    NotDeclared(String),
    /// The clock is not known to be right, and the site wants no jobs then.
    #[error("the clock of this machine is not known to be right, and its site configuration wants no jobs until it is")]
    Clock,
    /// What it needs cannot be mounted.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// This machine is too small for it.
    #[error("this job can never run on this machine: {0}")]
    Impossible(#[from] Impossible),
    /// The files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl SubmitError {
    fn field(param: &str, message: impl ToString) -> Self {
        Self::Field { param: param.to_owned(), message: message.to_string() }
    }
}

/// What a training job made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// An adapter for the model that it was trained on.
    Adapter,
    /// A model that needs no other.
    Model,
}

/// What a request may say of how a job is queued and placed.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// GPUs.
    pub gpus: Option<u32>,
    /// Memory of each of them, in bytes.
    pub gpu_memory: Option<u64>,
    /// Memory of the machine, in bytes.
    pub memory: Option<u64>,
    /// Higher ones start first.
    pub priority: Option<i32>,
    /// Attempts in all.
    pub attempts: Option<u32>,
    /// Longest time that it may run, in seconds.
    pub time_limit_seconds: Option<u64>,
    /// Jobs that must have succeeded before.
    pub needs: Vec<String>,
}

impl Work {
    /// The model of this name: one of the release, one that a job made, or what a stable name stands for.
    pub(super) fn model(&self, name: &str) -> Result<ModelOrder, SubmitError> {
        let name = &self.resolve(name);
        if let Some(base) = self.catalog.declared.model(name) {
            return Ok(ModelOrder { name: name.to_owned(), base: base.clone(), trained: None, whole: None });
        }
        let job = self.trained(name)?.ok_or_else(|| SubmitError::NoModel(name.to_owned()))?;
        let order: Order = serde_json::from_str(&job.request).map_err(|_| SubmitError::NoModel(name.to_owned()))?;
        let from = order.model.ok_or_else(|| SubmitError::NoModel(name.to_owned()))?;
        let whole = match self.result_of(job.id.as_str()) {
            Some(Made::Model) => Some(job.id.clone()),
            // An adapter goes onto what it was trained on.
            Some(Made::Adapter) | None => from.whole,
        };
        Ok(ModelOrder { name: name.to_owned(), base: from.base, trained: Some(job.id), whole })
    }

    /// The name of the model that a stable name stands for; any other name as it is.
    pub fn resolve(&self, name: &str) -> String {
        // A release may bring a model of a name that was given before.
        let is_of_release = self.catalog.declared.model(name).is_some();
        let target = if is_of_release { None } else { self.promotions.target(name) };
        target.unwrap_or_else(|| name.to_owned())
    }

    /// The job that made the model of this name.
    pub fn trained(&self, name: &str) -> Result<Option<Job>, QueueError> {
        let filter = Filter {
            kinds: vec![Kind::Train],
            states: vec![State::Succeeded],
            name: Some(name.to_owned()),
            limit: 1,
            ..Filter::default()
        };
        Ok(self.queue().jobs(&filter)?.pop())
    }

    /// Examples: a file that was found good, or a data set of the release.
    fn data(&self, param: &str, name: &str, release_file: &str) -> Result<DataOrder, SubmitError> {
        if let Some(dataset) = name.strip_prefix(DATASET) {
            let none = || SubmitError::field(param, format!("the release has no data set `{dataset}`"));
            let dataset = self.catalog.declared.dataset(dataset).ok_or_else(none)?;
            if !self.catalog.place(dataset)?.join(release_file).is_file() {
                let message = format!("the data set `{}` has no {release_file}", dataset.name);
                return Err(SubmitError::field(param, message));
            }
            return Ok(DataOrder::Release { dataset: dataset.clone(), file: release_file.to_owned() });
        }
        let row = match self.files.get(name) {
            Err(FilesError::None(name)) => {
                return Err(SubmitError::field(param, format!("there is no file `{name}`: upload it first")));
            }
            row => row?,
        };
        match (row.status, row.purpose) {
            (Status::Processed, Purpose::FineTune | Purpose::Evals) => Ok(DataOrder::File(row.id)),
            (Status::Uploaded, _) => {
                Err(SubmitError::field(param, format!("the file `{name}` is still being checked: try again soon")))
            }
            (Status::Error, _) => {
                let why = row.details.unwrap_or_default();
                Err(SubmitError::field(param, format!("the file `{name}` was not found good: {why}")))
            }
            (_, Purpose::UserData) => {
                let message = format!("the file `{name}` was not uploaded for training (purpose `fine-tune`)");
                Err(SubmitError::field(param, message))
            }
        }
    }

    /// The declared job of this kind: the one of this name, or the first for this base model, or the first for any.
    fn declared(&self, kind: DeclaredKind, name: Option<&str>, base: Option<&str>) -> Result<DeclaredJob, SubmitError> {
        let jobs = || self.catalog.declared.jobs.iter().filter(|job| job.kind == kind);
        let found = match name {
            Some(name) => jobs().find(|job| job.name == name),
            None => jobs().find(|job| job.model.as_deref() == base).or_else(|| jobs().next()),
        };
        found.cloned().ok_or_else(|| {
            let names: Vec<&str> = jobs().map(|job| job.name.as_str()).collect();
            let (what, list) = (kind_of(kind).name(), names.join("`, `"));
            SubmitError::NotDeclared(match (name, names.is_empty()) {
                (Some(name), false) => format!("the release declares no {what} job `{name}`; it has `{list}`"),
                _ => format!("the release declares no {what} job: its recipe needs a [job.NAME] for that"),
            })
        })
    }

    /// How many GPUs it gets: as many as was asked for, else as the recipe says and there are.
    fn gpus(&self, declared: &DeclaredJob, asked: Option<u32>) -> Result<u32, SubmitError> {
        let most = if launch::is_for_one_gpu(declared) { 1 } else { u32::MAX };
        match asked {
            Some(gpus) if gpus > most => Err(SubmitError::field("gpus", "gap-train trains on one GPU: ask for 1 or 0")),
            Some(gpus) => Ok(gpus),
            // A release for GPUs runs without where there are none.
            None => Ok(declared.gpus.min(most).min(u32::try_from(self.machine.slots.len()).unwrap_or(u32::MAX))),
        }
    }

    /// What it needs of the machine besides so many GPUs: what was asked for, else what the model suggests.
    fn demand(&self, order: &Order, declared: &DeclaredJob, wishes: &Wishes, gpus: u32) -> Result<Demand, SubmitError> {
        let weights = match &order.model {
            Some(ModelOrder { whole: Some(job), .. }) => {
                Some(size_of(&Output::new(self.storage.output(job.as_str())).model()).unwrap_or(0))
            }
            Some(model) => Some(size_of(&self.catalog.place(&model.base)?).unwrap_or(0)),
            None => None,
        };
        let largest = self.machine.slots.iter().map(|slot| slot.memory).max().unwrap_or(0);
        // The request may have changed what the recipe says of the training.
        let parameters = order.job.as_ref().and_then(Value::as_object).unwrap_or(&declared.parameters);
        let takes = Takes { kind: declared.kind, parameters, weights };
        // An estimate never asks for more than there is.
        let memory = wishes.memory.unwrap_or_else(|| takes.memory().min(self.machine.memory));
        let gpu_memory = wishes.gpu_memory.unwrap_or_else(|| takes.gpu_memory(gpus).min(largest));
        self.possible(Demand { gpus, gpu_memory, memory })
    }

    /// A demand that this machine could meet.
    fn possible(&self, demand: Demand) -> Result<Demand, SubmitError> {
        if demand.memory < 16 << 20 {
            return Err(SubmitError::field("memory", "a job needs at least 16 MiB (16777216 bytes)"));
        }
        self.machine.could_hold(demand)?;
        Ok(demand)
    }

    /// The endpoints of the site that a declared job is to reach. Each of them must be named by this site.
    fn endpoints(&self, declared: &DeclaredJob) -> Result<BTreeMap<EndpointName, NonZeroU16>, SubmitError> {
        match declared.endpoints.keys().find(|name| !self.site.endpoints.contains_key(*name)) {
            None => Ok(declared.endpoints.clone()),
            Some(name) => Err(SubmitError::NotDeclared(format!(
                "the job `{}` is to reach the endpoint `{name}`, which the site configuration of this machine does not name",
                declared.name
            ))),
        }
    }

    /// Puts a job into the queue.
    fn enqueue(
        &self,
        kind: Kind,
        name: &str,
        order: &Order,
        demand: Demand,
        wishes: &Wishes,
    ) -> Result<Job, SubmitError> {
        if self.site.clock.refuses_jobs() {
            return Err(SubmitError::Clock);
        }
        let priority = wishes.priority.unwrap_or(0);
        if !PRIORITIES.contains(&priority) {
            return Err(SubmitError::field("priority", "a priority is -100 to 100"));
        }
        let needs = wishes.needs.iter().map(|id| {
            JobId::try_from(id.clone()).map_err(|error| SubmitError::field("needs", format!("`{id}`: {error}")))
        });
        let usual = if kind == Kind::Serve {
            Retry::ALWAYS
        } else {
            Retry { attempts: 3, first_delay_ms: 5_000, longest_delay_ms: 300_000 }
        };
        let new = NewJob {
            kind,
            name: name.to_owned(),
            request: serde_json::to_string(order).map_err(|error| SubmitError::field("job", error))?,
            demand,
            priority,
            retry: Retry { attempts: wishes.attempts.unwrap_or(usual.attempts), ..usual },
            time_limit: wishes.time_limit_seconds.map(Duration::from_secs),
            needs: needs.collect::<Result<_, _>>()?,
        };
        // Until it is in the queue nothing that it needs is deleted.
        let needs = self.hold_needs();
        self.still_has(order)?;
        let job = self.queue().submit(&new, now())?;
        drop(needs);
        self.dispatcher.look();
        Ok(job)
    }

    /// Mounts everything that an order names and looks whether it is there.
    fn complete(&self, order: &Order) -> Result<(), SubmitError> {
        let root = self.catalog.images.mounted(&order.image)?;
        for needed in ["dev", "proc", "run", "sys", "tmp"] {
            if !root.join(needed).is_dir() {
                let reason = format!("it has no directory /{needed}, which every container needs");
                return Err(ImageError::Mount { image: order.image.clone(), reason }.into());
            }
        }
        for dataset in &order.datasets {
            self.catalog.place(dataset)?;
        }
        if let Some(model) = &order.model {
            self.catalog.place(&model.base)?;
            if model.jobs().any(|job| self.result_of(job.as_str()).is_none()) {
                return Err(SubmitError::NoModel(model.name.clone()));
            }
        }
        command::check(&root, order)
    }

    /// Whether a job left an adapter or a whole model behind.
    pub fn result_of(&self, job: &str) -> Option<Made> {
        result_of(&self.storage, job)
    }
}

/// Whether a job left an adapter or a whole model behind on this volume.
pub(super) fn result_of(storage: &Storage, job: &str) -> Option<Made> {
    let names = Output::new("");
    let left = Left::open(&storage.output(job)).ok()?;
    let mut made = [(names.adapter(), Made::Adapter), (names.model(), Made::Model)].into_iter();
    made.find(|(name, _)| left.has_directory(name)).map(|(_, made)| made)
}

/// The queue's kind of a declared one.
pub const fn kind_of(kind: DeclaredKind) -> Kind {
    match kind {
        DeclaredKind::Train => Kind::Train,
        DeclaredKind::Serve => Kind::Serve,
        DeclaredKind::Run => Kind::Run,
    }
}

/// Whether a path that a program is given lies in the image.
fn is_in_image(root: &Path, directory: &str, path: &str) -> bool {
    let base = root.join(directory.trim_start_matches('/'));
    let relative = path.trim_start_matches("./");
    let place = if path.starts_with('/') { root.join(path.trim_start_matches('/')) } else { base.join(relative) };
    place.symlink_metadata().is_ok()
}
