//! The tests of a recipe, tried on what was built, before it is packed.

use super::{BuildError, Problem, Request, layers::stack_of};
use crate::{
    layer::tree::Tree,
    plan::Plan,
    progress::{Stage, Work},
    recipe::{Image, Test},
    store::{KeyBuilder, StoreError},
    trial::{Bench, Trial, missing_libraries},
};
use gap_format::Digest;
use std::{collections::BTreeMap, io};

/// Raised when the same trial is run in another way.
const FORMAT: u64 = 1;

/// A test that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// The image that it ran in.
    pub image: String,
    /// Layers of models and data sets that the image found besides its own.
    pub with: Vec<String>,
    /// What was tried.
    pub trial: Trial,
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
    let mut passed = Passed { image: test.image.clone(), with: test.with.clone(), trial, earlier: true };
    let key = key(&passed.trial, plan, &parts);
    let mark = request.store.cache_dir("trials", &key)?.join("passed");
    if mark.exists() {
        return Ok(passed);
    }
    passed.earlier = false;
    let text = format!("test `{}` in image `{}`", test.name, test.image);
    (request.begin)(&Work::whole(Stage::Test, &text));
    let tree = stack_of(request, plan, &parts).map_err(failed)?;
    let bench = Bench { program: request.program, spool: request.store.session_dir() };
    passed.trial.run(&tree, bench, &|_| ()).map_err(|error| failed(error.into()))?;
    if !passed.trial.imports.is_empty() {
        note_missing_libraries(request, test, &tree).map_err(|error| failed(error.into()))?;
    }
    std::fs::write(&mark, b"").map_err(StoreError::io("writing", &mark))?;
    Ok(passed)
}

/// Imports may work and something that is only loaded later still be missing.
fn note_missing_libraries(request: &Request<'_>, test: &Test, tree: &Tree) -> io::Result<()> {
    for missing in missing_libraries(tree)? {
        let others = if missing.others > 0 { format!(" and {} more", missing.others) } else { String::new() };
        let (name, by) = (missing.name.escape_debug(), missing.needed_by);
        (request.note)(&format!("test `{}`: {by}{others} asks for {name}, which is nowhere in the image", test.name));
    }
    Ok(())
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
