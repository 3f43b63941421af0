//! Python packages: wheels from the store, or built from source, installed with the Python of the layers below.

use super::{Problem, Request};
use crate::{
    layer::{
        sandbox::{Sandbox, Scratch},
        tree::Tree,
        wheels::{self, Builder, Bundle, Compiler, Memory, Scheme},
    },
    plan::{
        self, PlannedLayer,
        wheels::{Kind, kinds},
    },
    recipe::WheelsLayer,
    source::wheels::{LockedWheel, LockedWheels, target::Target},
    store::KeyBuilder,
};
use gap_format::Digest;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

/// Builds the part of this name on the tree of the layers below, which is made when it is needed, as is that of `builder`, in
/// which sources are built.
pub fn build(
    request: &Request<'_>,
    layer: &WheelsLayer,
    rows: &LockedWheels,
    part: Option<&str>,
    interpreter: Option<Digest>,
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
    match layer.bytecode {
        false => Ok(wheels::install(&chosen, &target, &scheme, request.store, None)?),
        true => {
            let lower = lower()?;
            let compiling = Compiling { request, rows, lower: &lower, interpreter, directory: directory.path() };
            one(compiling.install(&[chosen.as_slice()], &scheme)?)
        }
    }
}

fn one(trees: Vec<Tree>) -> Result<Tree, Problem> {
    trees.into_iter().next().ok_or_else(|| "nothing came of installing wheels".into())
}

/// Builds all parts of these names that hold wheels as they are, with bytecode that is compiled at once; gives them by name.
pub fn build_compiled(
    request: &Request<'_>,
    layer: &WheelsLayer,
    rows: &LockedWheels,
    parts: &BTreeSet<&str>,
    lower: &Tree,
    interpreter: Option<Digest>,
) -> Result<BTreeMap<String, Tree>, Problem> {
    let bundles: Vec<Bundle<'_>> = kinds(layer, rows)
        .into_iter()
        .filter_map(|kind| match kind {
            Kind::Installed(bundle) if parts.contains(bundle.name.as_str()) => Some(bundle),
            _ => None,
        })
        .collect();
    let scheme = Scheme::new(rows.python, layer.to.as_ref())?;
    let directory = tempfile::tempdir_in(request.store.session_dir())?;
    let compiling = Compiling { request, rows, lower, interpreter, directory: directory.path() };
    let lots: Vec<&[&LockedWheel]> = bundles.iter().map(|bundle| bundle.wheels.as_slice()).collect();
    let trees = compiling.install(&lots, &scheme)?;
    Ok(bundles.into_iter().map(|bundle| bundle.name).zip(trees).collect())
}

/// What compiling takes.
struct Compiling<'a> {
    request: &'a Request<'a>,
    rows: &'a LockedWheels,
    lower: &'a Tree,
    /// What the interpreter is made of, if that is known.
    interpreter: Option<Digest>,
    directory: &'a Path,
}

impl Compiling<'_> {
    fn install(&self, lots: &[&[&LockedWheel]], scheme: &Scheme) -> Result<Vec<Tree>, Problem> {
        let Self { request, lower, directory, .. } = *self;
        let compiler = Compiler {
            lower,
            sandbox: &Sandbox::new(request.program, request.store.session_dir()),
            scratch: &|bytes| Scratch::for_size(bytes, directory),
            memory: self.interpreter.map(|interpreter| Memory { store: request.store, interpreter }),
        };
        let target = self.rows.target(request.recipe.appliance.arch);
        Ok(wheels::install_all(lots, &target, scheme, request.store, Some(&compiler))?)
    }
}

/// What the interpreter that compiles is made of, as the parts' keys have it; `None` where nothing is known of it.
pub fn interpreter<'p>(below: impl Iterator<Item = &'p PlannedLayer<'p>>, rows: &LockedWheels) -> Option<Digest> {
    let below: Vec<&PlannedLayer<'_>> = below.collect();
    let packages = plan::wheels::interpreter_below(&below, rows.python);
    let mut key = KeyBuilder::new("interpreter", 1);
    key.text("python", &rows.python.to_string());
    for package in &packages {
        key.digest(&package.name, &package.sha256);
    }
    (!packages.is_empty()).then(|| key.finish())
}

/// Whether the part of this name is made of nothing but what wheels hold.
pub fn is_only_unpacked(layer: &WheelsLayer, rows: &LockedWheels, part: Option<&str>) -> bool {
    let is_it = |kind: &Kind<'_>| Some(kind.name().as_str()) == part;
    !layer.bytecode && kinds(layer, rows).iter().any(|kind| is_it(kind) && matches!(kind, Kind::Installed(_)))
}
