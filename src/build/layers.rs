//! Making the layers that are missing, and fetching what they are made of.

use super::{BuildError, Problem, Request};
use crate::{
    boot::{depmod::ModuleTables, modules::Kernel},
    layer::{
        files::FILES_DATE,
        stack::Stack,
        tar::{TarPlan, read_index},
        tree::{Content, Meta, Node, Tree, TreePath},
    },
    lock::Inputs,
    plan::{Plan, PlannedLayer, State},
    recipe::{DebianLayer, LayerKind},
    source::{
        cargo,
        debian::{
            LockedPackage,
            deb::{self, Deb, Limits},
            fetch::fetch_packages,
            spool::Spool,
        },
    },
    store::{Record, StoreError},
};
use gap_format::{verity::TreeBuilder, write_at::Discard};
use std::{
    io::{self, Write},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    thread::available_parallelism,
};

/// Fetches what the store lacks, or says what is missing when nothing may be fetched.
///
/// # Errors
/// [`BuildError::Offline`], or [`BuildError::Layer`] for what cannot be fetched.
pub fn fetch(request: &Request<'_>, plan: &Plan<'_>) -> Result<(), BuildError> {
    let Some(client) = request.client else {
        let count = plan.layers.iter().map(|layer| layer.fetch.len()).sum();
        return match count {
            0 => Ok(()),
            count => Err(BuildError::Offline { count, bytes: plan.to_fetch() }),
        };
    };
    for layer in &plan.layers {
        let name = &layer.place.layer.name;
        let failed = |source: Problem| BuildError::Layer { layer: name.clone(), source };
        if let LayerKind::Debian(kind) = &layer.place.layer.kind
            && !layer.fetch.is_empty()
        {
            (request.step)(&format!("layer `{name}`: fetching {} packages", layer.fetch.len()));
            let mirrors: Vec<String> = kind.mirror.iter().cloned().collect();
            let packages = layer.fetch.iter().copied();
            fetch_packages(packages, &mirrors, client, request.store, request.progress)
                .map_err(|error| failed(error.into()))?;
        }
    }
    Ok(())
}

/// Builds every layer that is missing, in order; gives their names and why they were built.
///
/// # Errors
/// [`BuildError::Layer`] for the first that cannot be built.
pub fn build_missing(request: &Request<'_>, plan: &Plan<'_>) -> Result<Vec<(String, String)>, BuildError> {
    let mut built = Vec::new();
    for planned in &plan.layers {
        let name = planned.place.layer.name.clone();
        match &planned.state {
            State::Missing { why } => {
                // Another build may have the same layer in hand; what it made is then found below.
                let waiting = || (request.step)(&format!("layer `{name}`: another build is making it; waiting"));
                let _turn = request.store.build_lock(planned.key.digest(), waiting)?;
                if request.store.layer(&planned.key)?.is_none() {
                    (request.step)(&format!("layer `{name}`: building ({why})"));
                    let tree = make(request, plan, planned)
                        .map_err(|source| BuildError::Layer { layer: name.clone(), source })?;
                    keep(request, planned, &tree)?;
                }
                planned.ingredients.remember(request.store, &planned.identity())?;
                built.push((name, why.clone()));
            }
            State::Streamed { why, .. } => built.push((name, why.clone())),
            State::Cached | State::Unseen(_) => {}
        }
    }
    Ok(built)
}

fn make(request: &Request<'_>, plan: &Plan<'_>, planned: &PlannedLayer<'_>) -> Result<Tree, Problem> {
    match (&planned.place.layer.kind, &planned.locked.inputs) {
        (LayerKind::Debian(layer), Inputs::Debian(rows)) => debian(request, plan, planned, layer, &rows.packages),
        (LayerKind::Cargo(layer), Inputs::Cargo(rows)) => {
            cargo::fetch(layer, rows, request.store, request.client.is_none())?;
            let root = planned.build_root.ok_or("its build root is not in the plan")?;
            let root_key = plan.layers.get(root).map(|layer| layer.key).ok_or("its build root is not in the plan")?;
            super::binary::build(request, layer, rows, &stack_of(request, plan, &[root])?, &root_key)
        }
        _ => Err("its rows in the lock are of another kind; run `gapimage lock`".into()),
    }
}

/// Writes a layer into the store and notes what its key turned out to be.
fn keep(request: &Request<'_>, planned: &PlannedLayer<'_>, tree: &Tree) -> Result<(), BuildError> {
    let layer = || planned.place.layer.name.clone();
    let tar = TarPlan::new(tree).map_err(|source| BuildError::Layer { layer: layer(), source: Box::new(source) })?;
    let failed = |source| StoreError::io("writing to the store", request.store.dir())(source);
    let mut blob = request.store.temp_blob()?;
    let mut treeing = Treeing { blob: &mut blob, tree: TreeBuilder::new(tar.size(), Discard).map_err(failed)? };
    tar.write(&mut treeing).map_err(failed)?;
    let verity_root = treeing.tree.finish().map_err(failed)?;
    let stored = blob.commit()?;
    let record = Record { digest: stored.digest, size: stored.size, verity_root, location: None };
    Ok(request.store.put_record(&planned.key, &record)?)
}

/// Writes and trees at once.
struct Treeing<W> {
    blob: W,
    tree: TreeBuilder<Discard>,
}

impl<W: Write> Write for Treeing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.blob.write_all(buf)?;
        self.tree.update(buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.blob.flush()
    }
}

/// What lies there once the layers of these numbers are laid over one another.
fn stack_of(request: &Request<'_>, plan: &Plan<'_>, numbers: &[usize]) -> Result<Tree, Problem> {
    let mut stack = Stack::default();
    for layer in numbers.iter().filter_map(|&number| plan.layers.get(number)) {
        let found = request.store.layer(&layer.key)?;
        let found =
            found.ok_or_else(|| format!("layer `{}` below it is gone from the store", layer.place.layer.name))?;
        let index = read_index(&found.file, found.record.size)?;
        stack.apply(&index.to_tree(&Arc::new(found.file)))?;
    }
    Ok(stack.into_tree())
}

fn debian(
    request: &Request<'_>,
    plan: &Plan<'_>,
    planned: &PlannedLayer<'_>,
    layer: &DebianLayer,
    packages: &[LockedPackage],
) -> Result<Tree, Problem> {
    let spool = Spool::new_in(request.store.session_dir())?;
    let debs = unpack(request, packages, &spool)?;
    let lower = stack_of(request, plan, &planned.below)?;
    if layer.configure {
        return super::configured::build(request, &lower, packages, debs);
    }
    let mut stack = Stack::new(&lower)?;
    for deb in &debs {
        stack.install(&deb.tree)?;
        stack.install(&status_entry(deb)?)?;
    }
    add_module_tables(&mut stack)?;
    Ok(crate::layer::stack::diff(&lower, stack.tree())?)
}

/// Unpacks in the order in which dependencies come first.
fn unpack(request: &Request<'_>, packages: &[LockedPackage], spool: &Spool) -> Result<Vec<Deb>, Problem> {
    let mut ordered: Vec<&LockedPackage> = packages.iter().collect();
    ordered.sort_by_key(|package| package.order);
    let paths: Vec<PathBuf> = ordered.iter().map(|package| request.store.source_path(&package.sha256)).collect();
    let sources: Vec<deb::Source<'_>> =
        ordered.iter().zip(&paths).map(|(package, path)| deb::Source { package, path }).collect();
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    Ok(deb::unpack_all(&sources, spool, &Limits::default(), threads)?)
}

/// What scanners look for where dpkg never ran: the control file of each package below `status.d`, as images without a
/// package manager have it.
fn status_entry(deb: &Deb) -> Result<Tree, Problem> {
    let name = deb.control.get("Package").unwrap_or_default();
    let mut tree = Tree::new();
    let directory = || Node::Directory { meta: Meta::root_owned(0o755, FILES_DATE), opaque: false };
    for path in ["var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/status.d"] {
        tree.insert(TreePath::new(path)?, directory());
    }
    let content = Content::bytes(deb.control.text().as_bytes());
    let file = Node::File { meta: Meta::root_owned(0o644, FILES_DATE), content };
    tree.insert(TreePath::new(format!("var/lib/dpkg/status.d/{name}"))?, file);
    Ok(tree)
}

/// A kernel whose scripts did not run lacks the tables by which modules are found.
fn add_module_tables(stack: &mut Stack) -> Result<(), Problem> {
    let Ok(kernel) = Kernel::find(stack.tree(), None) else { return Ok(()) };
    let tables = ModuleTables::of(stack.tree(), &kernel)?;
    let mut tree = Tree::new();
    for (name, text) in tables.files() {
        let file = Node::File { meta: Meta::root_owned(0o644, FILES_DATE), content: Content::bytes(text.as_bytes()) };
        tree.insert(kernel.file(name)?, file);
    }
    Ok(stack.apply(&tree)?)
}
