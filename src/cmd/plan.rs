//! `gapimage plan`.

use super::{
    Outcome, PlanArgs,
    build::output_for,
    failure::{Failure, failed},
    lock::{load, load_recipe, open_store},
    terminal::human_bytes,
};
use crate::{
    lock::Lock,
    plan::{Plan, PlannedLayer, State, space::Space},
};

/// Plans, and prints the plan.
pub fn run(args: &PlanArgs) -> Outcome {
    let recipe = load_recipe(&args.recipe)?;
    let store = open_store(&args.store)?;
    let path = Lock::path_for(&args.recipe);
    let lock = load(&path)?.ok_or_else(|| {
        let message = format!("there is no lock `{}`", path.display());
        Failure::could_not_run(message, "run `gapimage lock` first: a plan is made of digests, not of names")
    })?;
    lock.check(&recipe).map_err(failed("planning"))?;
    let mut plan = Plan::new(&recipe, &lock).map_err(failed("planning"))?;
    plan.look(&store).map_err(failed("planning"))?;
    let output = output_for(&recipe, args.output.as_deref());
    let spaces = plan.space(&store, &output).map_err(failed("planning"))?;
    if args.json {
        print_json(&plan, &spaces)
    } else {
        print_text(&plan, &spaces)
    }
    Ok(())
}

/// `cached`, or why not.
fn status<'l>(layer: &'l PlannedLayer<'_>) -> (&'static str, &'l str) {
    match &layer.state {
        State::Cached => ("cached", ""),
        State::Missing { why } => ("build", why),
        State::Streamed { why, .. } => ("stream", why),
        State::Unseen => ("unknown", ""),
    }
}

fn fetch_size(layer: &PlannedLayer<'_>) -> u64 {
    layer.fetch.iter().map(|wanted| wanted.size).sum()
}

fn print_text(plan: &Plan<'_>, spaces: &[Space]) {
    println!("{:<16} {:<8} {:<8} {:>12} {:>12}  why", "layer", "kind", "state", "fetch", "size");
    for layer in &plan.layers {
        let (state, why) = status(layer);
        let of = &layer.place.layer;
        println!(
            "{:<16} {:<8} {:<8} {:>12} {:>12}  {why}",
            layer.name(),
            of.kind.name(),
            state,
            human_bytes(fetch_size(layer)),
            human_bytes(layer.size)
        );
    }
    println!();
    println!("to fetch     {}", human_bytes(plan.to_fetch()));
    println!("artifact     at most {}", human_bytes(plan.artifact_size()));
    for space in spaces {
        let path = space.path.display();
        println!("disk         {path}: {} needed, {} free", human_bytes(space.needed), human_bytes(space.free));
    }
}

fn print_json(plan: &Plan<'_>, spaces: &[Space]) {
    let layers = plan.layers.iter().map(|layer| {
        let (state, why) = status(layer);
        serde_json::json!({
            "name": layer.name(),
            "kind": layer.place.layer.kind.name(),
            "below": layer.place.below,
            "state": state,
            "why": why,
            "key": layer.key.to_hex(),
            "fetch": fetch_size(layer),
            "size": layer.size,
        })
    });
    let report = serde_json::json!({
        "layers": layers.collect::<Vec<_>>(),
        "fetch": plan.to_fetch(),
        "artifact": plan.artifact_size(),
        "disks": spaces,
    });
    println!("{report}");
}
