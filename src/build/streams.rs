//! Layers that need not be built before they are laid down, because they can be read from their sources where those lie.

use super::{BuildError, Problem, Request, layers};
use crate::{
    layer::{tar::TarPlan, tree::Tree},
    lock::Inputs,
    parallel::try_map,
    plan::{LARGE, Plan, PlannedLayer, State},
    recipe::LayerKind,
};
use std::{num::NonZeroUsize, thread::available_parallelism};

/// Finds the large parts that are unpacked straight from wheels into the artifact: nothing of them is written twice, and the
/// wheels make them again as fast as a copy could be read. Their sources must be in the store.
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
        if tar.size() < LARGE {
            continue;
        }
        if let State::Missing { why } = &planned.state {
            planned.size = tar.size();
            planned.tree = Some(tree);
            planned.state = State::Streamed { tar: Box::new(tar), why: why.clone() };
        }
    }
    Ok(())
}

/// Whether a part is missing, large, and made of nothing but the contents of wheels.
fn can_be_streamed(planned: &PlannedLayer<'_>) -> bool {
    let is_missing = matches!(planned.state, State::Missing { .. }) && planned.size >= LARGE;
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
