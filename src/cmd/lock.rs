//! `gapimage lock`.

use super::{
    LockArgs, Outcome, StoreDir,
    failure::{Failure, failed},
    terminal::{Terminal, line},
};
use crate::{
    lock::{Lock, Purpose, Renewal, Renewed},
    recipe::Recipe,
    source::http::{Client, Settings},
    store::Store,
};
use std::path::Path;

/// Locks, and says what became of each layer.
pub fn run(args: &LockArgs) -> Outcome {
    let recipe = load_recipe(&args.recipe)?;
    let store = open_store(&args.store)?;
    let path = Lock::path_for(&args.recipe);
    let old = load(&path)?;
    let old = old.filter(|_| !args.update);
    let terminal = Terminal::new(args.json);
    let client = Client::new(Settings::default());
    let renewed = renew(&recipe, old.as_ref(), &store, Purpose::Lock, Some(&client), &terminal)?;
    drop(terminal);
    // An update that fails in part would lose rows that were good.
    let keeps_old = args.update && !renewed.unresolved.is_empty() && path.exists();
    if !keeps_old {
        renewed.lock.save(&path).map_err(failed("writing the lock"))?;
    }
    if args.json {
        let unresolved: Vec<&str> = renewed.unresolved.iter().map(|(layer, _)| layer.as_str()).collect();
        let report = serde_json::json!({
            "lock": path, "kept": renewed.kept, "resolved": renewed.resolved, "unresolved": unresolved,
        });
        line(format_args!("{report}"))?;
        return refuse_unresolved(&renewed);
    }
    for layer in &renewed.kept {
        line(format_args!("kept      {layer}"))?;
    }
    for layer in &renewed.resolved {
        line(format_args!("resolved  {layer}"))?;
    }
    for (layer, _) in &renewed.unresolved {
        line(format_args!("unresolved {layer}"))?;
    }
    let became = if keeps_old { "unchanged" } else { "written" };
    line(format_args!("{became:<9} {}", path.display()))?;
    refuse_unresolved(&renewed)
}

/// Fails if something could not be resolved: nothing is built from a guess.
///
/// # Errors
/// [`Failure::CouldNotRun`] with every layer and its reason.
pub fn refuse_unresolved(renewed: &Renewed) -> Outcome {
    if renewed.unresolved.is_empty() {
        return Ok(());
    }
    let reasons: Vec<String> =
        renewed.unresolved.iter().map(|(layer, why)| format!("layer `{layer}`: {why}")).collect();
    Err(Failure::could_not_run(
        format!("unresolved: {}", reasons.join("; ")),
        "nothing is locked that was not resolved, and `gapimage build` refuses until everything is",
    ))
}

/// Reads a recipe.
///
/// # Errors
/// [`Failure::CouldNotRun`] with every mistake, its line and its mending.
pub fn load_recipe(path: &Path) -> Result<Recipe, Failure> {
    Recipe::load(path).map_err(|errors| Failure::CouldNotRun(errors.into()))
}

/// Opens the store that the command line, the environment or the home directory names.
///
/// # Errors
/// [`Failure::CouldNotRun`] if there is none.
pub fn open_store(dir: &StoreDir) -> Result<Store, Failure> {
    let dir = match &dir.store {
        Some(dir) => dir.clone(),
        None => Store::default_dir().map_err(failed("finding the store"))?,
    };
    Store::open(&dir).map_err(failed("opening the store"))
}

/// Reads the lock, if there is one.
///
/// # Errors
/// [`Failure::CouldNotRun`] if it is damaged.
pub fn load(path: &Path) -> Result<Option<Lock>, Failure> {
    Lock::load(path).map_err(failed("reading the lock"))
}

/// Resolves what is not locked yet, and what of the machine's own sources changed.
///
/// # Errors
/// [`Failure::CouldNotRun`] with the layer and the reason.
pub fn renew(
    recipe: &Recipe,
    old: Option<&Lock>,
    store: &Store,
    purpose: Purpose,
    client: Option<&Client>,
    terminal: &Terminal,
) -> Result<Renewed, Failure> {
    let renewal = Renewal {
        old,
        purpose,
        store,
        client,
        now: jiff::Timestamp::now(),
        progress: &|count| terminal.advance(count),
        begin: &|work| terminal.begin(work),
    };
    renewal.run(recipe).map_err(failed("locking the recipe"))
}
