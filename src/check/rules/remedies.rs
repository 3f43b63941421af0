//! Changes to a job that does not fit into memory, and those among them that make it fit.

use super::gpu_memory::Place;
use crate::recipe::{
    Adapter, Capability, Engine, Gpu, Job, Method, Optimizer, Precision, Serving, Sharding, Trainer, Training, Work,
};

/// Most changes that are suggested.
const SUGGESTIONS: usize = 4;
/// Shortest sequence that is suggested, in tokens.
const SHORTEST: u64 = 256;

/// Changes that fit by the same formulas, the least intrusive first: of each kind the first that does.
pub(super) fn suggestions<'f>(place: &Place<'f>) -> Vec<(String, Place<'f>)> {
    let kinds = match &place.job.work {
        Work::Train(training) => training_changes(place, training),
        Work::Serve(serving) => serving_changes(place, serving),
        Work::Other => Vec::new(),
    };
    kinds
        .into_iter()
        .filter_map(|kind| kind.into_iter().find(|(_, changed)| changed.fits()))
        .take(SUGGESTIONS)
        .collect()
}

type Changes<'f> = Vec<(String, Place<'f>)>;

fn training_changes<'f>(place: &Place<'f>, training: &Training) -> Vec<Changes<'f>> {
    let with = |changed: Training| Place { job: with_work(place, Work::Train(changed)), ..place.clone() };
    let own = training.trainer == Trainer::GapTrain;
    let checkpointed = Training { checkpointing: true, ..training.clone() };
    let said = if training.checkpointing { "" } else { "`checkpointing = true`, " };
    let least =
        Training { batch: 1, accumulate: training.accumulate.saturating_mul(training.batch), ..checkpointed.clone() };
    let said_least = format!("{said}`batch = 1`");
    let mut kinds: Vec<Changes<'f>> = Vec::new();
    if !training.checkpointing {
        kinds.push(vec![("`checkpointing = true`".to_owned(), with(checkpointed.clone()))]);
    }
    let smaller = halves(training.batch).into_iter().map(|batch| {
        let accumulate = training.accumulate.saturating_mul(training.batch.div_ceil(batch));
        let what = format!("{said}`batch = {batch}`, `accumulate = {accumulate}`");
        (what, with(Training { batch, accumulate, ..checkpointed.clone() }))
    });
    kinds.push(smaller.collect());
    if let Some(precision) = narrower(training, place.target.gpu.as_ref()) {
        let what = format!("{said_least}, `precision = \"{}\"`", precision.name());
        kinds.push(vec![(what, with(Training { precision, ..least.clone() }))]);
    }
    let shares = matches!(training.sharding, Sharding::Zero3 | Sharding::Fsdp);
    if place.gpus() > 1 && !shares && !own {
        let what = format!("{said}`sharding = \"fsdp\"` with its configuration");
        kinds.push(vec![(what, with(Training { sharding: Sharding::Fsdp, ..checkpointed.clone() }))]);
    }
    if training.method == Method::Full && training.optimizer == Optimizer::AdamW && !own && place.target.gpu.is_some() {
        let what = format!("{said_least}, `optimizer = \"adamw-8bit\"`");
        kinds.push(vec![(what, with(Training { optimizer: Optimizer::AdamW8bit, ..least.clone() }))]);
    }
    let adapter = Adapter { rank: 16, alpha: None, targets: Vec::new() };
    if training.method == Method::Full {
        let what = format!("{said_least}, `method = \"lora\"`");
        kinds.push(vec![(what, with(Training { method: Method::Lora(adapter.clone()), ..least.clone() }))]);
    }
    if !matches!(training.method, Method::Qlora(_)) && (own || place.target.gpu.is_some()) {
        let adapter = match &training.method {
            Method::Lora(own) => own.clone(),
            Method::Full | Method::Qlora(_) => adapter,
        };
        let what = format!("{said_least}, `method = \"qlora\"`");
        kinds.push(vec![(what, with(Training { method: Method::Qlora(adapter), ..least.clone() }))]);
    }
    let shorter = halves(training.length).into_iter().filter(|&length| length >= SHORTEST);
    let shorter = shorter
        .map(|length| (format!("{said_least}, `length = {length}`"), with(Training { length, ..least.clone() })));
    kinds.push(shorter.collect());
    if !own {
        let shared = Training { sharding: Sharding::Fsdp, ..checkpointed.clone() };
        let more = more_gpus(&with(shared));
        kinds.push(more.map(|(what, changed)| (format!("{what} with {said}`sharding = \"fsdp\"`"), changed)).collect());
    }
    kinds.push(larger_gpus(&with(checkpointed)).map(|(what, changed)| (format!("{said}{what}"), changed)).collect());
    kinds
}

fn serving_changes<'f>(place: &Place<'f>, serving: &Serving) -> Vec<Changes<'f>> {
    let with = |changed: Serving| Place { job: with_work(place, Work::Serve(changed)), ..place.clone() };
    let fewer = halves(serving.concurrency).into_iter().map(|concurrency| {
        (format!("`concurrency = {concurrency}`"), with(Serving { concurrency, ..serving.clone() }))
    });
    let shorter = halves(serving.length).into_iter().filter(|&length| length >= SHORTEST).map(|length| {
        let what = format!("`length = {length}`, `concurrency = 1`");
        (what, with(Serving { length, concurrency: 1, ..serving.clone() }))
    });
    let (fewer, shorter) = (fewer.collect(), shorter.collect());
    let divided = serving.engine != Engine::GapServe;
    let more = more_gpus(place).filter(|(_, changed)| divided && changed.divides());
    vec![fewer, shorter, more.collect(), larger_gpus(place).collect()]
}

fn with_work(place: &Place<'_>, work: Work) -> Job {
    Job { work, ..place.job.clone() }
}

/// The same in fewer bits, where the GPU knows them.
fn narrower(training: &Training, gpu: Option<&Gpu>) -> Option<Precision> {
    let gpu = gpu.filter(|_| training.precision == Precision::Fp32)?;
    Some(if gpu.capability >= Capability::new(8, 0) { Precision::Bf16 } else { Precision::Fp16 })
}

/// The same on more GPUs of each node: those that there are, or a machine with more.
fn more_gpus<'f>(place: &Place<'f>) -> impl Iterator<Item = (String, Place<'f>)> + use<'f> {
    let (gpus, place) = (place.gpus(), place.clone());
    let more = [2, 4, 8, 16].into_iter().filter(move |&more| more > gpus);
    more.filter_map(move |more| {
        place.target.gpu?;
        let mut changed = place.clone();
        changed.job.gpus = Some(more);
        let grows = more > place.target.count;
        changed.target.count = place.target.count.max(more);
        let what =
            if grows { format!("`count = {more}` of `[target]`, `gpus = {more}`") } else { format!("`gpus = {more}`") };
        Some((what, changed))
    })
}

/// The same on one of the GPUs of the table that has more memory, the smallest first.
fn larger_gpus<'f>(place: &Place<'f>) -> impl Iterator<Item = (String, Place<'f>)> + use<'f> {
    let place = place.clone();
    let mut larger: Vec<Gpu> = Gpu::all()
        .filter(|other| {
            place.target.gpu.is_some_and(|gpu| other.memory > gpu.memory && other.capability >= gpu.capability)
        })
        .collect();
    larger.sort_by_key(|gpu| (gpu.memory, !gpu.data_center));
    larger.into_iter().map(move |gpu| {
        let mut changed = place.clone();
        changed.target.gpu = Some(gpu);
        (format!("`gpu = \"{}\"`", gpu.name), changed)
    })
}

fn halves(number: u64) -> Vec<u64> {
    std::iter::successors(Some(number / 2), |half| Some(half / 2)).take_while(|half| *half > 0).collect()
}
