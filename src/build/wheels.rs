//! Python packages: wheels from the store, installed with the Python of the layers below.

use super::{Problem, Request};
use crate::{
    layer::{
        sandbox::{Sandbox, Scratch},
        tree::Tree,
        wheels::{self, Compiler, Scheme},
    },
    plan::wheels::{Kind, kinds},
    recipe::WheelsLayer,
    source::wheels::LockedWheels,
};

/// Builds the part of this name on the tree of the layers below, which is made when it is needed.
pub fn build(
    request: &Request<'_>,
    layer: &WheelsLayer,
    rows: &LockedWheels,
    part: Option<&str>,
    lower: impl FnOnce() -> Result<Tree, Problem>,
) -> Result<Tree, Problem> {
    let kind = kinds(layer, rows).into_iter().find(|kind| Some(kind.name().as_str()) == part);
    let target = rows.target(request.recipe.appliance.arch);
    let scheme = Scheme::new(rows.python, layer.to.as_ref())?;
    let bundle = match kind.ok_or("its parts changed since they were planned")? {
        Kind::Environment => return Ok(wheels::environment(&target, &scheme)?),
        Kind::Index => return Ok(wheels::wheelhouse_index(&rows.wheels)?),
        Kind::Wheelhouse(bundle) => return Ok(wheels::wheelhouse(&bundle.wheels, request.store)?),
        Kind::Installed(bundle) => bundle,
    };
    if !layer.bytecode {
        return Ok(wheels::install(&bundle.wheels, &target, &scheme, request.store, None)?);
    }
    let session = request.store.session_dir();
    let directory = tempfile::tempdir_in(session)?;
    let compiler = Compiler {
        lower: &lower()?,
        sandbox: &Sandbox::new(request.program, session),
        scratch: &|bytes| Scratch::for_size(bytes, directory.path()),
    };
    Ok(wheels::install(&bundle.wheels, &target, &scheme, request.store, Some(&compiler))?)
}
