//! Knowing that an artifact is there already, without looking at more than its head.

use super::BuildError;
use crate::{
    check::gather::configs,
    lock::Inputs,
    plan::Plan,
    source::model::LockedModel,
    store::{KeyBuilder, Store, StoreError},
};
use gap_format::{Digest, release::Release, statement::Statement};
use std::{fs::File, io, path::Path};

/// Raised when the same inputs give another artifact.
const FORMAT: u64 = 3;
/// Where the store keeps remembered statements.
const NOTES: &str = "releases";
/// Longest statement that is remembered, in bytes.
const MAX_LEN: u64 = gap_format::statement::MAX_LEN as u64;

/// The key of the whole release: everything that determines its bytes.
pub fn key(plan: &Plan<'_>, trust: &[u8]) -> Digest {
    let recipe = plan.recipe;
    let mut key = KeyBuilder::new("release", FORMAT);
    key.text("appliance", &format!("{:?}", (&recipe.appliance.name, &recipe.appliance.version)));
    key.list("serial", [recipe.appliance.serial.to_le_bytes(), recipe.appliance.rollback_to.to_le_bytes()]);
    key.text("expires", &format!("{:?}", recipe.appliance.expires)).text("arch", recipe.appliance.arch.name());
    key.digest("recipe", &recipe.digest).text("definitions", &format!("{:?}", recipe.definitions));
    key.text("boot", &format!("{:?}", recipe.boot)).text("source date", &plan.lock.source_date().to_string());
    key.digest("trust", &Digest::of(trust)).text("builder", env!("CARGO_PKG_VERSION"));
    for layer in &plan.layers {
        key.list("layer", [layer.name(), layer.key.to_hex()]);
        // Documents tell more of the lock than layers are made of. Rows of files are found out by the build itself.
        match &layer.locked.inputs {
            Inputs::Files(_) => {}
            Inputs::Model(LockedModel::Directory(model)) => drop(key.list("licences", &model.licenses)),
            rows => drop(key.text("rows", &format!("{rows:?}"))),
        }
    }
    // The checklist goes by them, and no layer holds them.
    for config in configs(recipe) {
        key.text("configuration", &format!("{config:?}"));
    }
    key.text("archives", &format!("{:?}", plan.lock.archives));
    for (image, layers) in recipe.images.iter().zip(&plan.images) {
        key.text("image", &format!("{image:?} {layers:?}"));
    }
    key.finish()
}

/// The statement of the artifact at `output`, if that is what a build of this key would make; who signed it meanwhile does
/// not matter. Only the head is looked at: whether every byte is right is for `verify` to say.
///
/// # Errors
/// [`BuildError`] if the store or the output cannot be read.
pub fn check(store: &Store, key: &Digest, output: &Path) -> Result<Option<Statement>, BuildError> {
    let Some(remembered) = store.recall(NOTES, key, MAX_LEN) else { return Ok(None) };
    let failed = |source| BuildError::Output { path: output.to_owned(), source };
    let file = match File::open(output) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let len = file.metadata().map_err(failed)?.len();
    let Ok(release) = Release::inspect(&file) else { return Ok(None) };
    let same = release.head().envelope().payload() == remembered && release.statement().length == len;
    Ok(same.then(|| release.statement().clone()))
}

/// Remembers what a build of this key made.
///
/// # Errors
/// [`StoreError`] if the store cannot be written.
pub fn remember(store: &Store, key: &Digest, statement: &Statement) -> Result<(), StoreError> {
    let bytes = statement.encode().map_err(|error| StoreError::Input(io::Error::other(error)))?;
    store.remember(NOTES, key, &bytes)
}
