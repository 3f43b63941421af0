//! The tests of a recipe, tried on what was built, before it is packed.

use super::{BuildError, Problem, Request, layers::stack_of};
use crate::{
    plan::Plan,
    progress::{Stage, Work},
    recipe::{Image, Test},
    store::KeyBuilder,
    trial::{Bench, MissingLibrary, Record, Trial, Verdict, missing_libraries},
};
use gap_format::Digest;
use std::collections::BTreeMap;

/// Raised when the same trial is run in another way.
const FORMAT: u64 = 2;
/// Where the store keeps what passed trials left to know.
const NOTES: &str = "trials";
/// Longest note that is read back, in bytes.
const MAX_NOTE: u64 = 16 << 20;

/// A test that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// What the release tells of it.
    pub record: Record,
    /// Whether it passed earlier, in an image of the same layers.
    pub earlier: bool,
}

/// Tries all tests of the recipe. One that passed in an image of the same layers is not tried again.
///
/// # Errors
/// [`BuildError::Test`] for the first that fails.
pub fn run_all(request: &Request<'_>, plan: &Plan<'_>) -> Result<Vec<Passed>, BuildError> {
    let images = |test: &Test| request.recipe.images.iter().position(|image| image.name == test.image);
    let tests = request.recipe.tests.iter().filter_map(|test| Some((test, images(test)?)));
    tests.map(|(test, image)| run(request, plan, test, image)).collect()
}

fn run(request: &Request<'_>, plan: &Plan<'_>, test: &Test, number: usize) -> Result<Passed, BuildError> {
    let failed = |source: Problem| BuildError::Test { test: test.name.clone(), source };
    let layers = plan.images.get(number).into_iter().flatten().copied();
    let carried = test.with.iter().flat_map(|layer| plan.numbers_of(layer, &[]));
    let mut parts: Vec<usize> = layers.collect();
    for part in carried {
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    let trial = request.recipe.images.get(number).map(|image| trial(test, image)).unwrap_or_default();
    let with = test.with.iter().filter_map(|layer| request.recipe.layer(layer));
    let mut record = Record {
        trial,
        image: test.image.clone(),
        with: with.map(|layer| layer.short_name().to_owned()).collect(),
        result: Verdict::Passed,
        missing_libraries: Vec::new(),
    };
    let key = key(&record.trial, plan, &parts);
    if let Some(missing) = remembered(request, &key) {
        record.missing_libraries = missing;
        return Ok(Passed { record, earlier: true });
    }
    let text = format!("test `{}` in image `{}`", test.name, test.image);
    (request.begin)(&Work::whole(Stage::Test, &text));
    let tree = stack_of(request, plan, &parts).map_err(failed)?;
    let bench = Bench { program: request.program, spool: request.store.session_dir() };
    record.trial.run(&tree, bench, &|_| ()).map_err(|error| failed(error.into()))?;
    if !record.trial.imports.is_empty() {
        // Imports may work and something that is only loaded later still be missing.
        record.missing_libraries = missing_libraries(&tree).map_err(|error| failed(error.into()))?;
        record.missing_libraries.iter().for_each(|missing| tell(request, test, missing));
    }
    let note = serde_json::to_vec(&record.missing_libraries).map_err(|error| failed(error.into()))?;
    request.store.remember(NOTES, &key, &note)?;
    Ok(Passed { record, earlier: false })
}

/// What an earlier pass of the same trial left to know; `None` if there was none.
fn remembered(request: &Request<'_>, key: &Digest) -> Option<Vec<MissingLibrary>> {
    let note = request.store.recall(NOTES, key, MAX_NOTE)?;
    serde_json::from_slice(&note).ok()
}

fn tell(request: &Request<'_>, test: &Test, missing: &MissingLibrary) {
    let others = if missing.others > 0 { format!(" and {} more", missing.others) } else { String::new() };
    let (name, by) = (missing.name.escape_debug(), &missing.needed_by);
    (request.note)(&format!("test `{}`: {by}{others} asks for {name}, which is nowhere in the image", test.name));
}

/// A test with what its image says of how programs run.
fn trial(test: &Test, image: &Image) -> Trial {
    let mut env: BTreeMap<String, String> = image.config.env.clone();
    env.extend(test.env.clone());
    Trial {
        name: test.name.clone(),
        imports: test.imports.clone(),
        command: test.command.clone(),
        env,
        directory: image.config.workdir.clone().unwrap_or_default(),
        expect: test.expect.clone(),
        time_limit: test.time_limit.as_secs(),
    }
}

fn key(trial: &Trial, plan: &Plan<'_>, parts: &[usize]) -> Digest {
    let mut key = KeyBuilder::new("trial", FORMAT);
    key.text("trial", &format!("{trial:?}"));
    key.list("parts", plan.numbered(parts).map(|part| part.key.to_hex()));
    key.finish()
}
