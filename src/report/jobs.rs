//! The jobs, models and data sets that the appliance is told of.

use crate::recipe::{Image, ImageKind, Job, Method, Recipe, Serving, Training, Work};
use gap_handover::declared::{Acceptance, Comparison, Criterion, Declared, DeclaredJob, DeclaredKind, Place, VERSION};
use serde_json::{Map, Value, json};

/// The document as it goes into the artifact.
pub fn document(recipe: &Recipe) -> Vec<u8> {
    let declared = Declared {
        version: VERSION,
        jobs: recipe.jobs.iter().map(|job| declared(job, recipe)).collect(),
        models: places(recipe, ImageKind::Model, "/models"),
        datasets: places(recipe, ImageKind::Dataset, "/data"),
        acceptance: recipe.acceptance.as_ref().map(acceptance),
    };
    // Maps of texts and numbers: there is nothing in it that JSON does not take.
    serde_json::to_vec(&declared).unwrap_or_default()
}

/// What stands for itself as an image of its own name.
fn places(recipe: &Recipe, wanted: ImageKind, above: &str) -> Vec<Place> {
    let place = |image: &Image| Place {
        name: image.name.clone(),
        image: image.name.clone(),
        path: format!("{above}/{}", image.name),
    };
    recipe.images.iter().filter(|image| image.kind == wanted).map(place).collect()
}

/// What the appliance holds a model to before it is promoted.
fn acceptance(acceptance: &crate::recipe::Acceptance) -> Acceptance {
    let criterion = |criterion: &crate::recipe::Criterion| {
        let comparison = Comparison::ALL.into_iter().find(|comparison| comparison.sign() == criterion.comparison)?;
        Some(Criterion { metric: criterion.metric.clone(), comparison, bound: criterion.bound.parse().ok()? })
    };
    // The recipe was read: each of its criteria has one of the four signs, and a number.
    let criteria = acceptance.criteria.iter().filter_map(criterion).collect();
    Acceptance { test_set: acceptance.test_set.clone(), criteria }
}

fn declared(job: &Job, recipe: &Recipe) -> DeclaredJob {
    let all = recipe.target.as_ref().filter(|target| target.gpu.is_some()).map_or(0, |target| target.count);
    let mut declared = DeclaredJob {
        name: job.name.clone(),
        kind: DeclaredKind::Run,
        image: job.image.clone(),
        run: job.run.clone(),
        engine: None,
        gpus: job.gpus.unwrap_or(all),
        model: None,
        datasets: Vec::new(),
        parameters: Map::new(),
        length: None,
        concurrency: None,
        endpoints: job.endpoints.clone(),
    };
    match &job.work {
        Work::Train(training) => train(&mut declared, training),
        Work::Serve(serving) => serve(&mut declared, serving),
        Work::Other => {}
    }
    declared
}

fn train(declared: &mut DeclaredJob, training: &Training) {
    declared.kind = DeclaredKind::Train;
    declared.engine = Some(training.trainer.name().to_owned());
    declared.model = Some(training.model.clone());
    declared.datasets.clone_from(&training.datasets);
    let mut put = |name: &str, value: Value| drop(declared.parameters.insert(name.to_owned(), value));
    // In the order of the alphabet, which is that of the document whatever keeps the map.
    put("batch_size", training.batch.into());
    put("gradient_accumulation_steps", training.accumulate.into());
    put("gradient_checkpointing", training.checkpointing.into());
    if let Some(rate) = &training.learning_rate {
        put("learning_rate", rate.clone().into());
    }
    match &training.method {
        Method::Full => {}
        Method::Lora(adapter) | Method::Qlora(adapter) => {
            let mut lora = serde_json::Map::new();
            if let Some(alpha) = adapter.alpha {
                lora.insert("alpha".to_owned(), json!(alpha));
            }
            lora.insert("r".to_owned(), json!(adapter.rank));
            if !adapter.targets.is_empty() {
                lora.insert("target_modules".to_owned(), json!(adapter.targets));
            }
            put("lora", lora.into());
        }
    }
    put("max_length", training.length.into());
    if let Some(epochs) = training.epochs {
        put("n_epochs", epochs.into());
    }
    if matches!(training.method, Method::Qlora(_)) {
        put("quantization", "nf4".into());
    }
}

fn serve(declared: &mut DeclaredJob, serving: &Serving) {
    declared.kind = DeclaredKind::Serve;
    declared.engine = Some(serving.engine.name().to_owned());
    declared.model = Some(serving.model.clone());
    declared.length = Some(serving.length);
    declared.concurrency = Some(serving.concurrency);
}
