//! From a recipe, its lock and the store to [`Facts`].

mod built;
mod configs;
mod datasets;
mod images;
mod secrets;
mod wheels;

pub use configs::parse as parse_config;

use super::facts::{Driver, Facts, Layer};
use crate::{
    lock::{Lock, LockError},
    plan::{Plan, PlanError},
    recipe::Recipe,
    store::{Store, StoreError},
};
use std::{collections::BTreeSet, io};

/// Why the facts of a recipe cannot be gathered.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The lock does not answer what the recipe asks.
    #[error(transparent)]
    Lock(#[from] LockError),
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

/// Gathers what is known of `recipe` by its lock, and looks through layers that were not looked through before.
///
/// # Errors
/// [`GatherError`].
pub fn gather(recipe: &Recipe, lock: Option<&Lock>, store: &Store) -> Result<Facts, GatherError> {
    let images = images::images(recipe, lock);
    let from_packages = images.iter().find_map(images::driver);
    let from_target = recipe.target.as_ref().and_then(|target| target.driver.clone());
    let driver =
        from_packages.or_else(|| from_target.map(|version| Driver { version, origin: "by `[target]`".to_owned() }));
    let plan = match lock {
        None => None,
        Some(lock) => {
            lock.check(recipe)?;
            Some(Plan::new(recipe, lock)?)
        }
    };
    let layers = match &plan {
        None => unseen(recipe),
        Some(plan) => secrets::layers(plan, store)?,
    };
    let unlocked = if plan.is_none() { recipe.layers.keys().cloned().collect() } else { Vec::new() };
    Ok(Facts {
        name: recipe.appliance.name.clone(),
        version: recipe.appliance.version.clone(),
        target: recipe.target.clone(),
        driver,
        unlocked,
        images,
        tested: recipe.tests.iter().map(|test| test.image.clone()).collect(),
        models: Vec::new(),
        datasets: datasets::datasets(recipe, plan.as_ref(), store)?,
        jobs: recipe.jobs.clone(),
        steps: recipe.steps.clone(),
        configs: configs::configs(recipe),
        licenses: recipe.licenses.clone(),
        acceptance: recipe.acceptance.clone(),
        layers,
    })
}

/// The layers of all images, none of which anybody looked through.
fn unseen(recipe: &Recipe) -> Vec<Layer> {
    let names: BTreeSet<&String> = recipe.images.iter().flat_map(|image| &image.layers).collect();
    names.into_iter().map(|name| Layer { name: name.clone(), secrets: None }).collect()
}
