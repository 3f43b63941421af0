//! `POST /v1/appliance/jobs`: any declared job.

use super::{SubmitError, Wishes, command, kind_of, offline};
use crate::work::{
    Work,
    order::{Asked, Order},
};
use gap_handover::declared::DeclaredKind;
use gap_jobs::{Job, Kind};
use schemars::JsonSchema;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
};

/// Most variables that a request may set, and their longest value.
const MAX_ENV: (usize, usize) = (64, 4096);

/// What a job is submitted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubmittedKind {
    /// Measures; a declared job without `train` or `serve`.
    Eval,
    /// Serves a model.
    Serve,
    /// Anything that ends by itself.
    Run,
}

/// A job to create.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateJob {
    /// What it is for. Training goes by `/v1/fine_tuning/jobs`.
    pub kind: SubmittedKind,
    /// The declared job, by its name in the recipe; for serving the first for this model when absent.
    #[serde(default)]
    pub job: Option<String>,
    /// For serving: the model, by the name under which it is asked for. One of the release, or one fine-tuned here.
    #[serde(default)]
    pub model: Option<String>,
    /// An uploaded file, or `dataset:NAME`, that the job finds at `{training}`.
    #[serde(default)]
    pub file: Option<String>,
    /// Variables besides those of the image.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 64, "propertyNames" = {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}))]
    pub env: BTreeMap<String, String>,
    /// GPUs.
    #[serde(default)]
    pub gpus: Option<u32>,
    /// Memory of each of them, in bytes.
    #[serde(default)]
    pub gpu_memory: Option<u64>,
    /// Memory of the machine, in bytes; 16 MiB at least.
    #[serde(default)]
    #[schemars(range(min = 16_777_216))]
    pub memory: Option<u64>,
    /// -100 to 100; higher ones start first.
    #[serde(default)]
    #[schemars(range(min = -100, max = 100))]
    pub priority: Option<i32>,
    /// Attempts in all; without end for what serves, 3 for others when absent.
    #[serde(default)]
    pub attempts: Option<u32>,
    /// Longest time that it may run, in seconds.
    #[serde(default)]
    pub time_limit_seconds: Option<u64>,
    /// Jobs that must have succeeded before.
    #[serde(default)]
    pub needs: Vec<String>,
}

impl Work {
    /// Takes a declared job in.
    ///
    /// # Errors
    /// [`SubmitError`] when anything of it is wrong or not there.
    pub fn run(&self, request: &CreateJob) -> Result<Job, SubmitError> {
        let (declared_kind, kind) = match request.kind {
            SubmittedKind::Serve => (DeclaredKind::Serve, kind_of(DeclaredKind::Serve)),
            SubmittedKind::Run => (DeclaredKind::Run, Kind::Run),
            SubmittedKind::Eval => (DeclaredKind::Run, Kind::Eval),
        };
        let asked = request.model.as_deref().map(|name| self.model(name)).transpose()?;
        let base = asked.as_ref().map(|model| model.base.name.clone());
        let declared = self.declared(declared_kind, request.job.as_deref(), base.as_deref())?;
        check_env(&request.env, &declared.endpoints.values().copied().collect())?;
        let model = match (asked, &declared.model) {
            (Some(model), _) => Some(model),
            (None, Some(name)) => Some(self.model(name)?),
            (None, None) => None,
        };
        let file = request.file.as_deref().map(|name| self.data("file", name, "test.jsonl")).transpose()?;
        let datasets = declared.datasets.iter().map(|name| {
            let none = || SubmitError::NotDeclared(format!("the release has no data set `{name}`"));
            self.catalog.declared.dataset(name).cloned().ok_or_else(none)
        });
        let settings = self.catalog.images.settings(&declared.image)?;
        let gpus = self.gpus(&declared, request.gpus)?;
        let order = Order {
            command: command::of(&declared, &settings, model.as_ref(), gpus)?,
            image: declared.image.clone(),
            env: request.env.clone(),
            datasets: datasets.collect::<Result<_, _>>()?,
            endpoints: self.endpoints(&declared)?,
            training: file,
            validation: None,
            job: None,
            asked: Asked { model: request.model.clone(), training_file: request.file.clone(), ..Asked::default() },
            model,
            declared: declared.name.clone(),
            has_terminal: false,
        };
        self.complete(&order)?;
        let wishes = Wishes {
            gpus: request.gpus,
            gpu_memory: request.gpu_memory,
            memory: request.memory,
            priority: request.priority,
            attempts: request.attempts,
            time_limit_seconds: request.time_limit_seconds,
            needs: request.needs.clone(),
        };
        let demand = self.demand(&order, &declared, &wishes, gpus)?;
        let name = match (&order.model, kind) {
            (Some(model), Kind::Serve) => model.name.clone(),
            _ => declared.name.clone(),
        };
        self.enqueue(kind, &name, &order, demand, &wishes)
    }
}

/// `granted` are ports of the job's own loopback on which it finds endpoints of the site.
fn check_env(env: &BTreeMap<String, String>, granted: &BTreeSet<NonZeroU16>) -> Result<(), SubmitError> {
    let (most, longest) = MAX_ENV;
    let is_name = |name: &str| {
        name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let good = |(name, value): (&String, &String)| is_name(name) && value.len() <= longest && !value.contains('\0');
    if env.len() > most || !env.iter().all(good) {
        let message = format!("at most {most} variables, names of letters, digits and `_`, values of {longest} bytes");
        return Err(SubmitError::field("env", message));
    }
    match env.values().find(|value| offline::is_address(value) && !offline::is_granted(value, granted)) {
        Some(value) => Err(SubmitError::field("env", format!("`{value}` is an address, and a job has no network"))),
        None => Ok(()),
    }
}
