//! Python packages: wheels from the store, or built from source, installed with the Python of the layers below.

use super::{Problem, Request};
use crate::{
    layer::{
        sandbox::{Sandbox, Scratch},
        tree::Tree,
        wheels::{self, Builder, Compiler, Scheme},
    },
    plan::wheels::{Kind, kinds},
    recipe::WheelsLayer,
    source::wheels::{LockedWheels, target::Target},
};
use std::sync::Arc;

/// Builds the part of this name on the tree of the layers below, which is made when it is needed, as is that of `builder`, in
/// which sources are built.
pub fn build(
    request: &Request<'_>,
    layer: &WheelsLayer,
    rows: &LockedWheels,
    part: Option<&str>,
    lower: impl FnOnce() -> Result<Arc<Tree>, Problem>,
    builder: impl FnOnce() -> Result<Arc<Tree>, Problem>,
) -> Result<Tree, Problem> {
    let kind = kinds(layer, rows).into_iter().find(|kind| Some(kind.name().as_str()) == part);
    let target = rows.target(request.recipe.appliance.arch);
    let scheme = Scheme::new(rows.python, layer.to.as_ref())?;
    let session = request.store.session_dir();
    let directory = tempfile::tempdir_in(session)?;
    let built;
    let chosen = match kind.ok_or("its parts changed since they were planned")? {
        Kind::Environment => return Ok(wheels::environment(&target, &scheme)?),
        Kind::Index => return Ok(wheels::wheelhouse_index(&rows.wheels)?),
        Kind::Wheelhouse(bundle) => return Ok(wheels::wheelhouse(&bundle.wheels, request.store)?),
        Kind::Installed(bundle) => bundle.wheels,
        Kind::Built(source) => {
            let root = builder()?;
            built = wheels::build(
                source,
                &target,
                &Builder {
                    root: &root,
                    target: Target { python: source.python, ..target },
                    sandbox: &Sandbox::new(request.program, session),
                    scratch: &|bytes| Scratch::for_size(bytes, directory.path()),
                    store: request.store,
                },
            )?;
            vec![&built]
        }
    };
    if !layer.bytecode {
        return Ok(wheels::install(&chosen, &target, &scheme, request.store, None)?);
    }
    let lower = lower()?;
    let compiler = Compiler {
        lower: &lower,
        sandbox: &Sandbox::new(request.program, session),
        scratch: &|bytes| Scratch::for_size(bytes, directory.path()),
    };
    Ok(wheels::install(&chosen, &target, &scheme, request.store, Some(&compiler))?)
}

/// Whether the part of this name is made of nothing but what wheels hold.
pub fn is_only_unpacked(layer: &WheelsLayer, rows: &LockedWheels, part: Option<&str>) -> bool {
    let is_it = |kind: &Kind<'_>| Some(kind.name().as_str()) == part;
    !layer.bytecode && kinds(layer, rows).iter().any(|kind| is_it(kind) && matches!(kind, Kind::Installed(_)))
}
