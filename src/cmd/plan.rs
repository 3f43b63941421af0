//! `gapimage plan`.

use super::{
    Failure, Outcome, PlanArgs,
    build::output_for,
    failure::failed,
    lock::{load, load_recipe, open_store, refuse_unresolved, renew},
    terminal::{Terminal, human_bytes, line},
};
use crate::{
    lock::{Change, Lock, LockError, Purpose, Renewed},
    plan::{Plan, PlannedLayer, State, space::Space},
    recipe::Recipe,
    source::http::{Client, Settings},
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// How the lock that was found answers the recipe.
struct Standing {
    path: PathBuf,
    /// `current`, `stale` or `missing`.
    state: &'static str,
    changes: Vec<Change>,
    /// What was resolved for this plan only.
    resolved: Vec<String>,
}

/// Plans, and prints the plan. What the lock lacks is resolved for the plan only; without a connection it is left open.
pub fn run(args: &PlanArgs) -> Outcome {
    let recipe = load_recipe(&args.recipe)?;
    let store = open_store(&args.store)?;
    let path = Lock::path_for(&args.recipe);
    let old = load(&path)?;
    let client = (!args.offline).then(|| Client::new(Settings::default()));
    let terminal = Terminal::new(args.json);
    let renewed = renew(&recipe, old.as_ref(), &store, Purpose::Plan, client.as_ref(), &terminal)?;
    drop(terminal);
    let mut plan = Plan::as_far_as_locked(&recipe, &renewed.lock, &store).map_err(failed("planning"))?;
    plan.look(&store).map_err(failed("planning"))?;
    let output = output_for(&recipe, args.output.as_deref());
    let spaces = plan.space(&store, &output).map_err(failed("planning"))?;
    let standing = Standing::of(path, old.as_ref(), &recipe, &renewed)?;
    if args.json {
        line(format_args!("{}", report(&plan, &spaces, &standing)))?;
    } else {
        print_text(&plan, &spaces, &standing, &args.recipe)?;
    }
    refuse_unresolved(&renewed)
}

impl Standing {
    fn of(path: PathBuf, old: Option<&Lock>, recipe: &Recipe, renewed: &Renewed) -> Result<Self, Failure> {
        let (state, changes) = match old.map(|old| old.check(recipe)) {
            None => ("missing", Vec::new()),
            Some(Ok(())) => ("current", Vec::new()),
            Some(Err(LockError::Stale { changes, .. })) => ("stale", changes),
            Some(Err(error)) => return Err(failed("reading the lock")(error)),
        };
        Ok(Self { path, state, changes, resolved: renewed.resolved.clone() })
    }

    /// Whether a layer is `locked`, or was `resolved` for this plan only.
    fn of_layer(&self, layer: &PlannedLayer<'_>) -> &'static str {
        if self.resolved.contains(&layer.place.layer.name) { "resolved" } else { "locked" }
    }
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

fn print_text(plan: &Plan<'_>, spaces: &[Space], standing: &Standing, recipe: &Path) -> Outcome {
    let row = |name: &str, kind: &str, lock: &str, state: &str, fetch: &str, size: &str, why: &str| {
        let text = format!("{name:<16} {kind:<8} {lock:<8} {state:<8} {fetch:>12} {size:>12}  {why}");
        line(format_args!("{}", text.trim_end()))
    };
    row("layer", "kind", "lock", "state", "fetch", "size", "why")?;
    for layer in &plan.layers {
        let (state, why) = status(layer);
        let (fetch, size) = (human_bytes(fetch_size(layer)), human_bytes(layer.size));
        let kind = layer.place.layer.kind.name();
        row(&layer.name(), kind, standing.of_layer(layer), state, &fetch, &size, why)?;
    }
    for place in &plan.unlocked {
        row(&place.layer.name, place.layer.kind.name(), "open", "unknown", "?", "?", "not locked")?;
    }
    let least = if plan.unlocked.is_empty() { "" } else { ", and what the open layers take" };
    line(format_args!(""))?;
    line(format_args!("to fetch     {}{least}", human_bytes(plan.to_fetch())))?;
    line(format_args!("artifact     at most {}{least}", human_bytes(plan.artifact_size())))?;
    for space in spaces {
        let path = space.path.display();
        line(format_args!(
            "disk         {path}: {} needed{least}, {} free",
            human_bytes(space.needed),
            human_bytes(space.free)
        ))?;
    }
    print_standing(standing, plan, recipe)
}

fn print_standing(standing: &Standing, plan: &Plan<'_>, recipe: &Path) -> Outcome {
    let (lock, recipe) = (standing.path.display(), recipe.display());
    match standing.state {
        "missing" => line(format_args!("lock         {lock} is not there yet")),
        "stale" => {
            line(format_args!("lock         {lock} does not answer the recipe: {}", Change::list(&standing.changes)))
        }
        _ => line(format_args!("lock         {lock}")),
    }?;
    if !plan.unlocked.is_empty() {
        line(format_args!(
            "open         what is not locked cannot be planned without a connection; run `gapimage lock {recipe}`"
        ))?;
    } else if standing.state != "current" {
        line(format_args!("resolved     for this plan only; run `gapimage lock {recipe}` to keep it, or build"))?;
    }
    Ok(())
}

fn report(plan: &Plan<'_>, spaces: &[Space], standing: &Standing) -> Value {
    let planned = plan.layers.iter().map(|layer| {
        let (state, why) = status(layer);
        json!({
            "name": layer.name(),
            "kind": layer.place.layer.kind.name(),
            "below": layer.place.below,
            "lock": standing.of_layer(layer),
            "state": state,
            "why": why,
            "key": layer.key.to_hex(),
            "fetch": fetch_size(layer),
            "size": layer.size,
        })
    });
    let open = plan.unlocked.iter().map(|place| {
        json!({
            "name": place.layer.name,
            "kind": place.layer.kind.name(),
            "below": place.below,
            "lock": "open",
            "state": "unknown",
            "why": "not locked",
            "key": null,
            "fetch": null,
            "size": null,
        })
    });
    json!({
        "lock": {
            "path": standing.path,
            "state": standing.state,
            "changes": standing.changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
        "complete": plan.unlocked.is_empty(),
        "layers": planned.chain(open).collect::<Vec<_>>(),
        "fetch": plan.to_fetch(),
        "artifact": plan.artifact_size(),
        "disks": spaces,
    })
}
