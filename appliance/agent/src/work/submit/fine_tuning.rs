//! OpenAI's `POST /v1/fine_tuning/jobs`.

use super::{SubmitError, Wishes, command, offline, overlap};
use crate::{
    console,
    work::{
        Work, files,
        order::{Asked, DataOrder, Order, inside},
    },
};
use gap_contract::{JobSpec, Method};
use gap_handover::declared::DeclaredKind;
use gap_jobs::{Job, JobId, Kind, Level, News, dispatcher::now, identifier};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use tokio::task::spawn_blocking;

/// What OpenAI's learning rate multiplier multiplies: the contract's usual rate.
const LEARNING_RATE: f64 = 1e-4;
/// Longest suffix of a model's name, in characters; OpenAI's.
const MAX_SUFFIX: usize = 64;
/// Most pairs of metadata, and their longest parts; OpenAI's.
const MAX_METADATA: (usize, usize, usize) = (16, 64, 512);
/// Random digits at the end of a model's name.
const MODEL_DIGITS: usize = 8;
/// Fields of `job.json` that the appliance fills in itself.
const OWN: [&str; 6] = ["model", "adapter", "training_file", "validation_file", "output", "metadata"];

/// A fine-tuning job to create.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateFineTuning {
    /// A model of the release, or one that was fine-tuned here.
    pub model: String,
    /// An uploaded file, or `dataset:NAME` for a data set of the release.
    pub training_file: String,
    /// The same for the examples that are only measured on.
    #[serde(default)]
    pub validation_file: Option<String>,
    /// `n_epochs`, `batch_size`, `learning_rate_multiplier`: numbers or `auto`.
    #[serde(default)]
    pub hyperparameters: Option<Map<String, Value>>,
    /// `{"type": "supervised" | "dpo", …: {"hyperparameters": …}}`.
    #[serde(default)]
    pub method: Option<Value>,
    /// Part of the new model's name: letters, digits and hyphens.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[A-Za-z0-9-]{1,64}$"))]
    pub suffix: Option<String>,
    /// Everything random follows from it.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Free words.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 16, "propertyNames" = {"maxLength": 64}, "additionalProperties" = {"type": "string", "maxLength": 512}))]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Services elsewhere; there are none here, so it must be empty.
    #[serde(default)]
    #[schemars(length(max = 0))]
    pub integrations: Option<Vec<Value>>,
    /// What OpenAI's fields cannot say.
    #[serde(default)]
    pub appliance: Option<Vendor>,
}

/// What OpenAI's fields cannot say of a fine-tuning job.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Vendor {
    /// The declared job to run, by its name in the recipe; the first for this model when absent.
    pub job: Option<String>,
    /// Fields of `job.json` (docs/jobs.md): `lora`, `lr_scheduler_type`, `max_steps`, …
    pub parameters: Map<String, Value>,
    /// GPUs.
    pub gpus: Option<u32>,
    /// Memory of each of them, in bytes.
    pub gpu_memory: Option<u64>,
    /// Memory of the machine, in bytes; 16 MiB at least.
    #[schemars(range(min = 16_777_216))]
    pub memory: Option<u64>,
    /// -100 to 100; higher ones start first.
    #[schemars(range(min = -100, max = 100))]
    pub priority: Option<i32>,
    /// Attempts in all; 3 when absent.
    pub attempts: Option<u32>,
    /// Longest time that it may run, in seconds.
    pub time_limit_seconds: Option<u64>,
    /// Jobs that must have succeeded before.
    pub needs: Vec<String>,
}

impl From<&Vendor> for Wishes {
    fn from(vendor: &Vendor) -> Self {
        Self {
            gpus: vendor.gpus,
            gpu_memory: vendor.gpu_memory,
            memory: vendor.memory,
            priority: vendor.priority,
            attempts: vendor.attempts,
            time_limit_seconds: vendor.time_limit_seconds,
            needs: vendor.needs.clone(),
        }
    }
}

impl Work {
    /// Takes a fine-tuning job in.
    ///
    /// # Errors
    /// [`SubmitError`] when anything of it is wrong or not there.
    pub fn fine_tune(&self, request: &CreateFineTuning) -> Result<Job, SubmitError> {
        check_words(request)?;
        let vendor = request.appliance.clone().unwrap_or_default();
        let model = self.model(&request.model)?;
        let declared = self.declared(DeclaredKind::Train, vendor.job.as_deref(), Some(&model.base.name))?;
        let training = self.data("training_file", &request.training_file, "train.jsonl")?;
        let validation = request.validation_file.as_deref();
        let validation = validation.map(|name| self.data("validation_file", name, "validation.jsonl")).transpose()?;
        let continues = model.adapter().is_some();
        let job = job_file(request, &vendor, &declared.parameters, validation.is_some(), continues)?;
        let settings = self.catalog.images.settings(&declared.image)?;
        let wishes = Wishes::from(&vendor);
        let gpus = self.gpus(&declared, wishes.gpus)?;
        let makes = new_name(&model.base.name, request.suffix.as_deref());
        let order = Order {
            command: command::of(&declared, &settings, Some(&model), gpus)?,
            image: declared.image.clone(),
            env: BTreeMap::new(),
            datasets: Vec::new(),
            endpoints: self.endpoints(&declared)?,
            training: Some(training),
            validation,
            job: Some(job),
            asked: Asked {
                model: Some(request.model.clone()),
                training_file: Some(request.training_file.clone()),
                validation_file: request.validation_file.clone(),
                method: request.method.clone(),
                hyperparameters: request.hyperparameters.clone().unwrap_or_default(),
                seed: request.seed,
                metadata: request.metadata.clone().unwrap_or_default(),
                makes: Some(makes.clone()),
            },
            model: Some(model),
            declared: declared.name.clone(),
            has_terminal: false,
        };
        self.complete(&order)?;
        let demand = self.demand(&order, &declared, &wishes, gpus)?;
        self.enqueue(Kind::Train, &makes, &order, demand, &wishes)
    }

    /// Tells in an event of a job what it both trains on and measures on, where there is anything.
    fn tell_overlap(&self, id: &JobId, order: &Order) -> Result<(), SubmitError> {
        let Some(message) = self.overlap(order)? else { return Ok(()) };
        let warning = News { level: Level::Warn, message, data: None };
        Ok(self.queue().tell(id, &[warning], now())?)
    }

    /// What is to be said of examples that are trained on and measured on, where there are any.
    fn overlap(&self, order: &Order) -> Result<Option<String>, SubmitError> {
        let (Some(training), Some(validation)) = (&order.training, &order.validation) else { return Ok(None) };
        // Files that cannot be read are what the start of the job tells of.
        let found = overlap::between(&self.examples(training)?, &self.examples(validation)?).unwrap_or(None);
        let Some((both @ 1.., all)) = found else { return Ok(None) };
        Ok(Some(format!(
            "{both} of {all} examples of the validation file are in the training file too: the validation loss will look better \
             than the model is"
        )))
    }

    fn examples(&self, data: &DataOrder) -> Result<PathBuf, SubmitError> {
        Ok(match data {
            DataOrder::File(id) => files::examples(&self.storage, id),
            DataOrder::Release { dataset, file } => self.catalog.place(dataset)?.join(file),
        })
    }
}

/// Compares what a job trains on with what it measures on, in the background: the job is in the queue, and whoever submitted it
/// waits for the answer.
pub fn compare(work: Arc<Work>, job: &Job) {
    let Ok(order) = serde_json::from_str::<Order>(&job.request) else { return };
    if order.validation.is_none() {
        return;
    }
    let id = job.id.clone();
    tokio::spawn(async move {
        // It is never closed.
        let Ok(place) = Arc::clone(&work.bulk).acquire_owned().await else { return };
        let told = spawn_blocking(move || {
            let _place = place;
            let told = work.tell_overlap(&id, &order);
            told.unwrap_or_else(|error| console::say(format_args!("comparing the examples of {id}: {error}")));
        });
        drop(told.await);
    });
}

fn check_words(request: &CreateFineTuning) -> Result<(), SubmitError> {
    if request.integrations.as_ref().is_some_and(|list| !list.is_empty()) {
        return Err(SubmitError::field("integrations", "there is no network here: leave it out"));
    }
    let is_suffix = |suffix: &String| {
        !suffix.is_empty()
            && suffix.len() <= MAX_SUFFIX
            && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if request.suffix.as_ref().is_some_and(|suffix| !is_suffix(suffix)) {
        return Err(SubmitError::field("suffix", "a suffix is 1 to 64 letters, digits and hyphens"));
    }
    let (most, key, value) = MAX_METADATA;
    let pairs = request.metadata.iter().flatten();
    if pairs.clone().count() > most
        || pairs.into_iter().any(|(k, v)| k.chars().count() > key || v.chars().count() > value)
    {
        let message = format!("at most {most} pairs, keys of {key} and values of {value} characters");
        return Err(SubmitError::field("metadata", message));
    }
    Ok(())
}

/// `job.json`: what the recipe decides, then OpenAI's hyperparameters, then the vendor object; checked by the contract.
fn job_file(
    request: &CreateFineTuning,
    vendor: &Vendor,
    declared: &Map<String, Value>,
    is_measured: bool,
    continues: bool,
) -> Result<Value, SubmitError> {
    let mut job = declared.clone();
    let method = method_of(request)?;
    for (name, value) in request.hyperparameters.iter().flatten().chain(&method.hyperparameters) {
        hyperparameter(&mut job, name, value)?;
    }
    for (name, value) in &vendor.parameters {
        if OWN.contains(&name.as_str()) {
            let message = format!("`{name}` follows from the request and cannot be given here");
            return Err(SubmitError::field("appliance.parameters", message));
        }
        if name == "max_steps" {
            job.remove("n_epochs");
        }
        job.insert(name.clone(), value.clone());
    }
    if !job.contains_key("n_epochs") && !job.contains_key("max_steps") {
        job.insert("n_epochs".into(), json!(3));
    }
    if let Some(found) = offline::find(&Value::Object(job.clone())) {
        let message = format!("`{found}` names something on a network, which a job does not have");
        return Err(SubmitError::field("appliance.parameters", message));
    }
    let mut put = |name: &str, value: Value| drop(job.insert(name.to_owned(), value));
    put("model", inside::MODEL.into());
    put("training_file", inside::TRAINING.into());
    put("output", inside::OUTPUT.into());
    put("method", serde_json::to_value(method.kind).map_err(|error| SubmitError::field("method", error))?);
    put("metadata", json!(request.metadata.clone().unwrap_or_default()));
    if is_measured {
        put("validation_file", inside::VALIDATION.into());
    }
    if continues {
        put("adapter", inside::ADAPTER.into());
    }
    if let Some(seed) = request.seed {
        put("seed", seed.into());
    }
    let bytes = serde_json::to_vec(&job).map_err(|error| SubmitError::field("appliance.parameters", error))?;
    let spec = JobSpec::parse(&bytes).map_err(|error| SubmitError::field("appliance.parameters", error))?;
    let checked = spec.check().map_err(|invalid| {
        let param = invalid.0.first().map_or("hyperparameters", |fault| fault.param);
        SubmitError::field(param, invalid.to_string())
    })?;
    serde_json::to_value(checked.into_spec()).map_err(|error| SubmitError::field("appliance.parameters", error))
}

/// OpenAI's `method`, understood.
struct Chosen {
    kind: Method,
    hyperparameters: Map<String, Value>,
}

fn method_of(request: &CreateFineTuning) -> Result<Chosen, SubmitError> {
    let Some(method) = &request.method else {
        return Ok(Chosen { kind: Method::Supervised, hyperparameters: Map::new() });
    };
    let name = method.get("type").and_then(Value::as_str).unwrap_or_default();
    let kind = match name {
        "supervised" => Method::Supervised,
        "dpo" => Method::Dpo,
        _ => return Err(SubmitError::field("method.type", "the methods here are `supervised` and `dpo`")),
    };
    let hyperparameters = method.get(name).and_then(|method| method.get("hyperparameters"));
    let hyperparameters = hyperparameters.and_then(Value::as_object).cloned().unwrap_or_default();
    Ok(Chosen { kind, hyperparameters })
}

/// One of OpenAI's hyperparameters as a field of `job.json`. `auto` leaves what the recipe or the contract says.
fn hyperparameter(job: &mut Map<String, Value>, name: &str, value: &Value) -> Result<(), SubmitError> {
    let param = format!("hyperparameters.{name}");
    if value.is_null() || (value == "auto" && name != "batch_size") {
        return Ok(());
    }
    match name {
        "n_epochs" | "batch_size" | "beta" => {
            if name == "n_epochs" {
                job.remove("max_steps");
            }
            job.insert(name.to_owned(), value.clone());
        }
        "learning_rate_multiplier" => {
            let factor = value.as_f64().ok_or_else(|| SubmitError::field(&param, "it is a number or `auto`"))?;
            let rate = job.get("learning_rate").and_then(Value::as_f64).unwrap_or(LEARNING_RATE);
            job.insert("learning_rate".into(), json!(rate * factor));
        }
        _ => {
            let message = "the hyperparameters here are `n_epochs`, `batch_size`, `learning_rate_multiplier` and, for \
                           dpo, `beta`; others go into `appliance.parameters`";
            return Err(SubmitError::field(&param, message));
        }
    }
    Ok(())
}

fn new_name(base: &str, suffix: Option<&str>) -> String {
    let random = identifier::random("m");
    let digits: String = random.chars().skip(2).take(MODEL_DIGITS).collect();
    format!("ft:{base}:{}:{digits}", suffix.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(more: Value) -> CreateFineTuning {
        let mut request = json!({"model": "tiny", "training_file": "file-x"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(request).unwrap()
    }

    fn made(more: Value, declared: Value) -> Result<Value, SubmitError> {
        let request = request(more);
        check_words(&request)?;
        let vendor = request.appliance.clone().unwrap_or_default();
        job_file(&request, &vendor, declared.as_object().unwrap(), false, false)
    }

    #[test]
    fn the_request_comes_before_the_recipe_and_the_recipe_before_the_contract() {
        let declared = json!({"batch_size": 4, "lora": {"r": 4}, "max_length": 64});
        let more = json!({
            "hyperparameters": {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 2.0},
            "seed": 7,
            "appliance": {"parameters": {"max_length": 32}},
        });
        let job = made(more, declared).unwrap();
        assert_eq!(
            (&job["batch_size"], &job["lora"]["r"], &job["max_length"]),
            (&json!("auto"), &json!(4), &json!(32))
        );
        assert_eq!((&job["n_epochs"], &job["seed"], &job["learning_rate"]), (&json!(2.0), &json!(7), &json!(2e-4)));
        assert_eq!(job["training_file"], inside::TRAINING);
        assert_eq!(made(json!({}), json!({})).unwrap()["n_epochs"], json!(3.0));
    }

    #[test]
    fn dpo_is_a_method_and_others_are_not() {
        let more = json!({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.3}}}});
        let job = made(more, json!({})).unwrap();
        assert_eq!((&job["method"], &job["beta"]), (&json!("dpo"), &json!(0.3)));
        assert!(made(json!({"method": {"type": "reinforcement"}}), json!({})).is_err());
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_field() {
        for (more, param) in [
            (json!({"hyperparameters": {"n_epochs": 0}}), "n_epochs"),
            (json!({"hyperparameters": {"prompt_loss_weight": 1}}), "hyperparameters.prompt_loss_weight"),
            (json!({"appliance": {"parameters": {"model": "x/y"}}}), "appliance.parameters"),
            (json!({"appliance": {"parameters": {"unknown": 1}}}), "appliance.parameters"),
            (json!({"appliance": {"parameters": {"dtype": "https://x"}}}), "appliance.parameters"),
            (json!({"suffix": "a b"}), "suffix"),
            (json!({"integrations": [{"type": "wandb"}]}), "integrations"),
            (json!({"metadata": {"k": "v".repeat(513)}}), "metadata"),
        ] {
            match made(more.clone(), json!({})) {
                Err(SubmitError::Field { param: found, .. }) => assert_eq!(found, param, "{more}"),
                other => panic!("{more}: {other:?}"),
            }
        }
    }

    #[test]
    fn names_of_new_models_differ() {
        let name = new_name("tiny", Some("mine"));
        assert!(name.starts_with("ft:tiny:mine:") && name != new_name("tiny", Some("mine")), "{name}");
    }
}
