//! What an interrupted build left in the store and its user may not remove.

use super::Request;
use crate::{layer::sandbox::Sandbox, store::StoreError};
use std::fs;

/// Removes what killed builds left, as the sandbox in which it was made: there its user has the rights over all ids. What
/// stays even so is told of, and is no reason not to build.
pub(super) fn clear(request: &Request<'_>) -> Result<(), StoreError> {
    let Request { store, program, note, .. } = *request;
    for remains in store.remains()? {
        let path = remains.path();
        let emptied = Sandbox::new(program, store.session_dir()).empty(path).map_err(|error| error.to_string());
        if let Err(why) = emptied.and_then(|()| fs::remove_dir(path).map_err(|error| error.to_string())) {
            note(&format!("`{}`, which an interrupted build left, cannot be removed: {why}", path.display()));
        }
    }
    Ok(())
}
