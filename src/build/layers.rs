//! Making the layers that are missing, and fetching what they are made of.

use super::{BuildError, Problem, Request, streams};
use crate::{
    layer::{
        dataset::dataset_tree,
        files::files_tree,
        stack::Stack,
        tar::{TarPlan, read_index},
        tree::Tree,
    },
    lock::Inputs,
    parallel::try_map,
    plan::{Plan, PlannedLayer, State, Wanted},
    progress::{Stage, Work},
    recipe::{DatasetLayer, DatasetSource, LayerKind},
    source::{cargo, dataset, debian::fetch::fetch_packages, http::Client, wheels},
    store::{Downloads, Record, StoreError},
};
use gap_format::{Digest, Slice, verity::TreeBuilder, write_at::Discard};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    num::NonZeroUsize,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

/// Parts of one layer that are built side by side. Each uses all cores for what it can; more at once keep the cores busy
/// while others wait for the disk.
const PARTS_AT_ONCE: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Fetches what the store lacks, or says what is missing when nothing may be fetched.
///
/// # Errors
/// [`BuildError::Offline`], or [`BuildError::Layer`] for what cannot be fetched.
pub fn fetch(request: &Request<'_>, plan: &Plan<'_>) -> Result<(), BuildError> {
    let Some(client) = request.client else {
        return match plan.fetch().len() {
            0 => Ok(()),
            count => Err(BuildError::Offline { count, bytes: plan.to_fetch() }),
        };
    };
    // The parts of one layer are fetched together.
    for parts in plan.layers.chunk_by(|a, b| a.place == b.place) {
        let Some(planned) = parts.first() else { continue };
        let wanted: BTreeSet<Digest> = parts.iter().flat_map(|part| &part.fetch).map(|wanted| wanted.sha256).collect();
        if !wanted.is_empty() {
            let name = &planned.place.layer.name;
            let sizes: BTreeSet<Wanted> = parts.iter().flat_map(|part| &part.fetch).copied().collect();
            let text = format!("fetching {} files", wanted.len());
            let bytes = sizes.iter().map(|wanted| wanted.size).sum();
            if let Some(kind) = downloads_of(&planned.place.layer.kind) {
                let waiting =
                    || (request.begin)(&Work::on(Stage::Wait, name, "another build is fetching such files; waiting"));
                request.store.wait_for_downloads(kind, waiting)?;
            }
            (request.begin)(&Work::on(Stage::Fetch, name, &text).about(bytes));
            fetch_layer(request, client, planned, &wanted)
                .map_err(|source| BuildError::Layer { layer: name.clone(), source })?;
        }
    }
    Ok(())
}

/// What kind of downloads a layer's sources are.
fn downloads_of(kind: &LayerKind) -> Option<Downloads> {
    match kind {
        LayerKind::Debian(_) => Some(Downloads::Packages),
        LayerKind::Wheels(_) => Some(Downloads::Wheels),
        LayerKind::Model(_) => Some(Downloads::Hub),
        LayerKind::Dataset(layer) => match layer.source {
            DatasetSource::Hub { .. } => Some(Downloads::Hub),
            DatasetSource::Url { .. } => Some(Downloads::Addresses),
            DatasetSource::Path(_) => None,
        },
        LayerKind::Cargo(_) | LayerKind::Files(_) | LayerKind::Run(_) => None,
    }
}

/// Fetches what is `wanted` of one layer's sources, by its kind.
fn fetch_layer(
    request: &Request<'_>,
    client: &Client,
    planned: &PlannedLayer<'_>,
    wanted: &BTreeSet<Digest>,
) -> Result<(), Problem> {
    match (&planned.place.layer.kind, &planned.locked.inputs) {
        (LayerKind::Debian(layer), Inputs::Debian(rows)) => {
            let mirrors: Vec<String> = layer.mirror.iter().cloned().collect();
            let packages = rows.packages.iter().filter(|package| wanted.contains(&package.sha256));
            Ok(fetch_packages(packages, &mirrors, client, request.store, request.progress)?)
        }
        (LayerKind::Wheels(layer), Inputs::Wheels(rows)) => {
            let files = rows.files().filter(|file| wanted.contains(&file.sha256));
            Ok(wheels::fetch(files, layer, client, request.store, request.progress)?)
        }
        (LayerKind::Model(layer), Inputs::Model(rows)) => super::models::fetch(request, client, layer, rows, wanted),
        (LayerKind::Dataset(layer), Inputs::Dataset(rows)) => {
            Ok(dataset::fetch(&layer.source, rows, client, request.store, request.progress)?)
        }
        _ => Ok(()),
    }
}

/// Builds every layer that is missing, in order, the parts of one layer side by side; gives their names and why they were
/// built. Where an artifact `follows`, large parts that can go straight into it are only laid out.
///
/// # Errors
/// [`BuildError::Layer`] for the first that cannot be built.
pub fn build_missing(
    request: &Request<'_>,
    plan: &mut Plan<'_>,
    follows: bool,
) -> Result<Vec<(String, String)>, BuildError> {
    let mut built = Vec::new();
    for layer in layers_of(plan) {
        let compiled = streams::compile(request, plan, layer.clone(), follows)?;
        let view: &Plan<'_> = plan;
        let below = Below { compiled, ..Below::new(request, view) };
        let parts = view.layers.get(layer).unwrap_or_default();
        let made = try_map(parts, PARTS_AT_ONCE, |part| part.size, |part| build_part(request, view, part, &below))?;
        built.extend(made.into_iter().flatten());
    }
    Ok(built)
}

/// The numbers of the parts of each layer.
fn layers_of(plan: &Plan<'_>) -> Vec<Range<usize>> {
    let mut end = 0;
    let lengths = plan.layers.chunk_by(|a, b| a.place == b.place).map(<[_]>::len);
    lengths
        .map(|length| {
            end += length;
            end - length..end
        })
        .collect()
}

/// Builds one part if it is missing; gives its name and why it was built.
fn build_part(
    request: &Request<'_>,
    plan: &Plan<'_>,
    planned: &PlannedLayer<'_>,
    below: &Below<'_>,
) -> Result<Option<(String, String)>, BuildError> {
    let name = planned.name();
    match &planned.state {
        State::Missing { why } => {
            // Another build may have the same layer in hand; what it made is then found below.
            let waiting = || (request.begin)(&Work::on(Stage::Wait, &name, "another build is making it; waiting"));
            let _turn = request.store.build_lock(planned.key.digest(), waiting)?;
            if request.store.layer(&planned.key)?.is_none() {
                (request.begin)(&Work::on(Stage::Build, &name, &format!("building ({why})")));
                let tree = make(request, plan, planned, below)
                    .map_err(|source| BuildError::Layer { layer: name.clone(), source })?;
                keep(request, planned, &tree)?;
            }
            planned.ingredients.remember(request.store, &planned.identity)?;
            Ok(Some((name, why.clone())))
        }
        State::Streamed { why, .. } => Ok(Some((name, why.clone()))),
        State::Cached | State::Unseen => Ok(None),
    }
}

/// What the parts of a layer stand on: put together once for all of them, when the first asks.
pub struct Below<'a> {
    request: &'a Request<'a>,
    plan: &'a Plan<'a>,
    stacked: Mutex<Option<Arc<Tree>>>,
    /// Parts whose bytecode was compiled together, by name.
    compiled: BTreeMap<String, Tree>,
}

impl<'a> Below<'a> {
    /// What lies below a layer of `plan`.
    pub fn new(request: &'a Request<'a>, plan: &'a Plan<'a>) -> Self {
        Self { request, plan, stacked: Mutex::default(), compiled: BTreeMap::new() }
    }

    /// The tree below `part`.
    fn of(&self, part: &PlannedLayer<'_>) -> Result<Arc<Tree>, Problem> {
        let mut stacked = self.stacked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = &*stacked {
            return Ok(Arc::clone(tree));
        }
        let tree = Arc::new(stack_of(self.request, self.plan, &part.below)?);
        Ok(Arc::clone(stacked.insert(tree)))
    }
}

/// Makes what a part holds; contents may still be read later.
pub fn make(
    request: &Request<'_>,
    plan: &Plan<'_>,
    planned: &PlannedLayer<'_>,
    below: &Below<'_>,
) -> Result<Tree, Problem> {
    match (&planned.place.layer.kind, &planned.locked.inputs) {
        (LayerKind::Debian(layer), Inputs::Debian(rows)) => {
            super::packages::build(request, layer, &*below.of(planned)?, &rows.packages)
        }
        (LayerKind::Cargo(layer), Inputs::Cargo(rows)) => {
            cargo::fetch(layer, rows, request.store, request.client.is_none())?;
            let root = &planned.built_on;
            super::binary::build(request, layer, rows, &stack_of(request, plan, root)?)
        }
        (LayerKind::Dataset(layer), Inputs::Dataset(rows)) => {
            let inputs = rows.inputs(layer, request.store)?;
            let name = DatasetLayer::name_of(&planned.place.layer.name);
            let model = stack_of(request, plan, &planned.built_on)?;
            Ok(dataset_tree(name, layer, rows, &inputs, &model, request.store.session_dir())?)
        }
        (LayerKind::Run(layer), Inputs::Run(_)) => {
            super::program::build(request, layer, &stack_of(request, plan, &planned.built_on)?)
        }
        (LayerKind::Files(layer), Inputs::Files(_)) => Ok(files_tree(layer)?),
        (LayerKind::Wheels(layer), Inputs::Wheels(rows)) => {
            let part = planned.part.as_deref();
            if let Some(tree) = part.and_then(|name| below.compiled.get(name)) {
                return Ok(tree.clone());
            }
            let lower = || below.of(planned);
            let interpreter = super::wheels::interpreter(plan.numbered(&planned.below), rows);
            let builder = || match layer.sdists.on.is_empty() {
                true => below.of(planned),
                false => stack_of(request, plan, &planned.built_on).map(Arc::new),
            };
            super::wheels::build(request, layer, rows, part, interpreter, lower, builder)
        }
        (LayerKind::Model(_), Inputs::Model(_)) => {
            planned.tree.clone().ok_or_else(|| "its tree is not in the plan".into())
        }
        _ => Err("its rows in the lock are of another kind; run `gapimage lock`".into()),
    }
}

/// Writes a layer into the store and notes what its key turned out to be.
fn keep(request: &Request<'_>, planned: &PlannedLayer<'_>, tree: &Tree) -> Result<(), BuildError> {
    let layer = || planned.name();
    let tar = TarPlan::new(tree).map_err(|source| BuildError::Layer { layer: layer(), source: Box::new(source) })?;
    let failed = |source: io::Error| match source.kind() {
        // A source that is not as it should be, which shows when it is read.
        io::ErrorKind::InvalidData => BuildError::Layer { layer: layer(), source: Box::new(source) },
        _ => StoreError::io("writing to the store", request.store.dir())(source).into(),
    };
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

/// What lies there once the parts of these numbers are laid over one another.
pub fn stack_of(request: &Request<'_>, plan: &Plan<'_>, numbers: &[usize]) -> Result<Tree, Problem> {
    let mut stack = Stack::default();
    for layer in plan.numbered(numbers) {
        match (request.store.layer(&layer.key)?, &layer.tree) {
            (Some(found), _) => {
                let size = found.record.size;
                let index = read_index(&Slice::new(&found.file, found.offset, size), size)?;
                stack.apply(&index.to_tree(&Arc::new(found.file), found.offset))?;
            }
            (None, Some(tree)) => stack.apply(tree)?,
            (None, None) => return Err(format!("layer `{}` below it is gone from the store", layer.name()).into()),
        }
    }
    Ok(stack.into_tree())
}
