//! From a recipe, its lock and the store to [`Facts`].

mod built;
mod configs;
mod datasets;
mod images;
mod models;
mod secrets;
mod wheels;

pub use configs::{configs, parse as parse_config};

use super::facts::{Driver, Facts};
use crate::{
    lock::{Lock, LockedLayer, request},
    plan::{Plan, PlanError},
    recipe::Recipe,
    store::{Store, StoreError},
};
use std::{collections::BTreeSet, io};

/// Why the facts of a recipe cannot be gathered.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// See [`PlanError`].
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer cannot be looked through.
    #[error("cannot look through layer `{layer}`: {source}")]
    Layer {
        /// The layer.
        layer: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Gathers what is known of `recipe` by its lock, and looks through layers that were not looked through before. What the
/// lock has no rows for, or rows for something else that the recipe asked before, is not known.
///
/// # Errors
/// [`GatherError`].
pub fn gather(recipe: &Recipe, lock: Option<&Lock>, store: &Store) -> Result<Facts, GatherError> {
    let lock = current(recipe, lock);
    of_plan(&Plan::as_far_as_locked(recipe, &lock, store)?, store)
}

/// The same by a plan that was made already.
///
/// # Errors
/// [`GatherError`].
pub fn of_plan(plan: &Plan<'_>, store: &Store) -> Result<Facts, GatherError> {
    let (recipe, lock) = (plan.recipe, plan.lock);
    let unlocked: BTreeSet<String> = plan.unlocked.iter().map(|place| place.layer.name.clone()).collect();
    let images = images::images(recipe, lock);
    let driver = images.iter().find_map(images::driver).or_else(|| {
        let version = recipe.target.as_ref()?.driver.clone()?;
        Some(Driver { version, origin: "by `[target]`".to_owned() })
    });
    Ok(Facts {
        name: recipe.appliance.name.clone(),
        version: recipe.appliance.version.clone(),
        target: recipe.target.clone(),
        driver,
        images,
        tested: recipe.tests.iter().map(|test| test.image.clone()).collect(),
        models: models::models(plan, store)?,
        datasets: datasets::datasets(recipe, plan, store)?,
        jobs: recipe.jobs.clone(),
        steps: recipe.steps.clone(),
        configs: configs::configs(recipe),
        licenses: recipe.licenses.clone(),
        acceptance: recipe.acceptance.clone(),
        layers: secrets::layers(plan, store, &unlocked)?,
        unlocked: unlocked.into_iter().collect(),
    })
}

/// The rows of the lock that answer what the recipe asks now.
fn current(recipe: &Recipe, lock: Option<&Lock>) -> Lock {
    let mut lock = lock.cloned().unwrap_or_default();
    let places = recipe.placed_layers();
    let answers = |row: &LockedLayer| {
        places.iter().any(|place| row.is_at(place) && row.request == request(place, recipe.appliance.arch))
    };
    lock.layers.retain(answers);
    lock
}
