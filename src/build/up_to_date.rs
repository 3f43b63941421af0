//! Knowing that an artifact is there already, without looking at more than its head.

use super::BuildError;
use crate::{
    plan::Plan,
    store::{KeyBuilder, Store, StoreError},
};
use gap_format::{Digest, release::Release, statement::Statement};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Raised when the same inputs give another artifact.
const FORMAT: u64 = 1;
/// Longest statement that is remembered, in bytes.
const MAX_LEN: u64 = gap_format::statement::MAX_LEN as u64;

/// The key of the whole release: everything that determines its bytes.
pub fn key(plan: &Plan<'_>, trust: &[u8]) -> Digest {
    let recipe = plan.recipe;
    let mut key = KeyBuilder::new("release", FORMAT);
    key.text("appliance", &format!("{:?}", (&recipe.appliance.name, &recipe.appliance.version)));
    key.list("serial", [recipe.appliance.serial.to_le_bytes(), recipe.appliance.rollback_to.to_le_bytes()]);
    key.text("expires", &format!("{:?}", recipe.appliance.expires)).text("arch", recipe.appliance.arch.name());
    key.text("boot", &format!("{:?}", recipe.boot)).text("source date", &plan.lock.source_date().to_string());
    key.digest("trust", &Digest::of(trust)).text("builder", env!("CARGO_PKG_VERSION"));
    for layer in &plan.layers {
        key.list("layer", [layer.name(), layer.key.to_hex()]);
    }
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
    let path = store.cache_dir("releases", key)?.join("statement.json");
    let remembered = match fs::metadata(&path) {
        Ok(metadata) if metadata.len() <= MAX_LEN => fs::read(&path).map_err(StoreError::io("reading", &path))?,
        _ => return Ok(None),
    };
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
    let path = store.cache_dir("releases", key)?.join("statement.json");
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(store.session_dir())?;
        file.write_all(&statement.encode().map_err(io::Error::other)?)?;
        file.persist(&path).map_err(|error| error.error)
    };
    write().map(drop).map_err(StoreError::io("writing", &path))
}
