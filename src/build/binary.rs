//! Binaries of a Cargo workspace, built in the sandbox on a layer that holds compiler and linker.

use super::{Problem, Request};
use crate::{
    layer::{
        cargo::{self, Order},
        sandbox::{Sandbox, Scratch},
        tree::Tree,
    },
    recipe::CargoLayer,
    source::cargo::LockedCargo,
};

/// Bytes that compiling an appliance's programs takes beside the build root.
const COMPILED: u64 = 3 << 30;

/// Builds the one binary of a layer on the tree of its build root.
pub fn build(request: &Request<'_>, layer: &CargoLayer, locked: &LockedCargo, root: &Tree) -> Result<Tree, Problem> {
    let session = request.store.session_dir();
    let directory = tempfile::tempdir_in(session)?;
    let scratch = Scratch::for_size(root.file_bytes() + COMPILED, directory.path());
    let order = Order { layer, locked, arch: request.recipe.appliance.arch };
    Ok(cargo::build(&order, root, request.store, &Sandbox::new(request.program, session), scratch)?)
}
