//! Layers that need not be built before they are laid down, because they can be read from their sources where those lie.

use super::{BuildError, Problem, Request, layers};
use crate::{
    layer::{tar::TarPlan, tree::Tree},
    lock::Inputs,
    parallel::try_map,
    plan::{LARGE, Plan, PlannedLayer, State},
    progress::{Stage, Work},
    recipe::LayerKind,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    ops::Range,
    thread::available_parallelism,
};

/// Finds the parts that are unpacked straight from wheels into the artifact: nothing of them is written twice, and the wheels
/// make them again as fast as a copy could be read. Their sources must be in the store.
///
/// # Errors
/// [`BuildError::Layer`] for the first whose wheels are not what they should be.
pub fn take_up(request: &Request<'_>, plan: &mut Plan<'_>) -> Result<(), BuildError> {
    let in_images = plan.in_images();
    let numbers = (0..plan.layers.len()).filter(|number| in_images.binary_search(number).is_ok());
    let numbers: Vec<usize> = numbers.filter(|&number| plan.layers.get(number).is_some_and(can_be_streamed)).collect();
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let view: &Plan<'_> = plan;
    let laid_out = try_map(
        &numbers,
        threads,
        |_| 0,
        |&number| {
            let Some(planned) = view.layers.get(number) else { return Ok(None) };
            let laid_out = lay_out(request, view, planned);
            laid_out.map(Some).map_err(|source| BuildError::Layer { layer: planned.name(), source })
        },
    )?;
    for (number, laid_out) in numbers.into_iter().zip(laid_out) {
        let (Some(planned), Some((tree, tar))) = (plan.layers.get_mut(number), laid_out) else { continue };
        if let State::Missing { why } = &planned.state {
            planned.size = tar.size();
            planned.tree = Some(tree);
            planned.state = State::Streamed { tar: Box::new(tar), why: why.clone() };
        }
    }
    Ok(())
}

/// Compiles the bytecode of all missing parts of a layer of wheels at once; gives those that are to be built, by name. Where
/// an artifact `follows`, the large ones are streamed into it.
///
/// # Errors
/// [`BuildError::Layer`] if a wheel is not what it should be, or compiling fails.
pub fn compile(
    request: &Request<'_>,
    plan: &mut Plan<'_>,
    parts: Range<usize>,
    follows: bool,
) -> Result<BTreeMap<String, Tree>, BuildError> {
    let in_images = if follows { plan.in_images() } else { Vec::new() };
    let failed = |layer: String, source| BuildError::Layer { layer, source };
    let Some(first) = plan.layers.get(parts.start) else { return Ok(BTreeMap::new()) };
    let name = first.place.layer.name.clone();
    let mut trees = compiled(request, plan, parts.clone()).map_err(|source| failed(name, source))?;
    for number in parts {
        let Some(planned) = plan.layers.get_mut(number) else { continue };
        let (State::Missing { why }, Some(part)) = (&planned.state, &planned.part) else { continue };
        let Some(tree) = trees.get(part).filter(|_| in_images.binary_search(&number).is_ok()) else { continue };
        let tar = TarPlan::new(tree).map_err(|source| failed(planned.name(), Box::new(source)))?;
        if tar.size() >= LARGE {
            planned.size = tar.size();
            planned.tree = trees.remove(part);
            planned.state = State::Streamed { tar: Box::new(tar), why: why.clone() };
        }
    }
    Ok(trees)
}

fn compiled(request: &Request<'_>, plan: &Plan<'_>, parts: Range<usize>) -> Result<BTreeMap<String, Tree>, Problem> {
    let parts = plan.layers.get(parts).unwrap_or_default();
    let Some(first) = parts.first() else { return Ok(BTreeMap::new()) };
    match (&first.place.layer.kind, &first.locked.inputs) {
        (LayerKind::Wheels(layer), Inputs::Wheels(rows)) if layer.bytecode => {
            let installed = super::wheels::installed(layer, rows);
            let missing = parts.iter().filter(|part| matches!(part.state, State::Missing { .. }));
            let names: BTreeSet<&str> =
                missing.filter_map(|part| part.part.as_deref()).filter(|name| installed.contains(*name)).collect();
            if names.is_empty() {
                return Ok(BTreeMap::new());
            }
            (request.begin)(&Work::on(Stage::Build, &first.place.layer.name, "compiling bytecode"));
            let lower = layers::stack_of(request, plan, &first.below)?;
            let interpreter = super::wheels::interpreter(plan.numbered(&first.below), rows);
            super::wheels::build_compiled(request, layer, rows, &names, &lower, interpreter)
        }
        _ => Ok(BTreeMap::new()),
    }
}

/// Whether a part is missing and made of nothing but the contents of wheels.
fn can_be_streamed(planned: &PlannedLayer<'_>) -> bool {
    let is_missing = matches!(planned.state, State::Missing { .. });
    match (&planned.place.layer.kind, &planned.locked.inputs) {
        (LayerKind::Wheels(layer), Inputs::Wheels(rows)) => {
            is_missing && super::wheels::is_only_unpacked(layer, rows, planned.part.as_deref())
        }
        _ => false,
    }
}

fn lay_out(request: &Request<'_>, plan: &Plan<'_>, planned: &PlannedLayer<'_>) -> Result<(Tree, TarPlan), Problem> {
    let tree = layers::make(request, plan, planned, &layers::Below::new(request, plan))?;
    let tar = TarPlan::new(&tree)?;
    Ok((tree, tar))
}
