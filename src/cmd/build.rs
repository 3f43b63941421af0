//! `gapimage build`.

use super::{
    BuildArgs, Outcome,
    failure::{Failure, failed},
    lock::{load, load_recipe, open_store, refuse_unresolved, renew},
    terminal::{Terminal, human_bytes, line},
    verify::read_trust,
};
use crate::{
    build::{BuildError, Built, Request, build},
    lock::{Lock, Purpose},
    pack::check_output,
    recipe::Recipe,
    source::http::{Client, Settings},
    store::Store,
};
use gap_format::trust::Trust;
use std::path::{Path, PathBuf};

/// Does what is missing of lock and fetch, builds, and says what came of it.
pub fn run(args: &BuildArgs) -> Outcome {
    let recipe = load_recipe(&args.recipe)?;
    let store = open_store(&args.store)?;
    let trust = trust_for(&recipe, args.trust.as_deref())?;
    let output = output_for(&recipe, args.output.as_deref());
    check_output(&output).map_err(failed("building"))?;
    let path = Lock::path_for(&args.recipe);
    let client = (!args.offline).then(|| Client::new(Settings::default()));
    let terminal = Terminal::new(args.json);
    let lock = current_lock(&recipe, &path, &store, client.as_ref(), &terminal)?;
    let request = Request {
        recipe: &recipe,
        lock: &lock,
        store: &store,
        client: client.as_ref(),
        trust: &trust,
        output: &output,
        program: &std::env::current_exe().map_err(failed("finding the gapimage program"))?,
        begin: &|work| terminal.begin(work),
        note: &|text| terminal.note(text),
        progress: &|count| terminal.advance(count),
    };
    let building = format!("building `{}`", args.recipe.display());
    let mut built = build(&request).map_err(|error: BuildError| failed(building)(error))?;
    if let Some(new) = built.lock.take() {
        // Who changed it while the build ran knows better than the lock that the build began with.
        if load(&path)?.as_ref() == Some(&lock) {
            new.save(&path).map_err(failed("writing the lock"))?;
            built.lock = Some(new);
        } else {
            let name = path.display();
            terminal.note(&format!(
                "the lock `{name}` changed while this was built from the one before, and stays as it is"
            ));
        }
    }
    drop(terminal);
    if args.json { print_json(&built, &output) } else { print_text(&built, &output) }
}

/// The lock, renewed and saved where the recipe or local sources changed.
///
/// # Errors
/// [`Failure`] if it cannot be renewed or saved.
pub fn current_lock(
    recipe: &Recipe,
    path: &Path,
    store: &Store,
    client: Option<&Client>,
    terminal: &Terminal,
) -> Result<Lock, Failure> {
    let old = load(path)?;
    if old.is_none() && client.is_none() {
        return Err(Failure::could_not_run(
            format!("there is no lock `{}`, and --offline forbids resolving", path.display()),
            "run `gapimage lock` on the connected side, and keep the lock beside the recipe",
        ));
    }
    let renewed = renew(recipe, old.as_ref(), store, Purpose::Build, client, terminal)?;
    if old.as_ref() != Some(&renewed.lock) {
        renewed.lock.save(path).map_err(failed("writing the lock"))?;
    }
    refuse_unresolved(&renewed)?;
    Ok(renewed.lock)
}

/// The bytes of the trust file that the appliance will go by.
///
/// # Errors
/// [`Failure`] if there is none, or it is not valid.
pub fn trust_for(recipe: &Recipe, given: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let path = given.or(recipe.appliance.trust.as_deref()).ok_or_else(|| {
        Failure::usage(
            "nobody says whom the appliance will trust",
            "name a trust file with --trust, or as appliance.trust",
        )
    })?;
    let bytes = read_trust(path)?;
    Trust::parse(&bytes).map_err(failed(format!("reading the trust file `{}`", path.display())))?;
    Ok(bytes)
}

/// Where the artifact goes.
pub fn output_for(recipe: &Recipe, given: Option<&Path>) -> PathBuf {
    let name = || format!("{}-{}.gap", recipe.appliance.name, recipe.appliance.version).into();
    given.map_or_else(name, Path::to_owned)
}

fn print_text(built: &Built, output: &Path) -> Outcome {
    let statement = &built.statement;
    let verb = if built.up_to_date { "up to date" } else { "built" };
    line(format_args!("{verb:<12} {} ({})", output.display(), human_bytes(statement.length)))?;
    line(format_args!(
        "release      {} {}, serial {}",
        statement.release.name, statement.release.version, statement.release.serial
    ))?;
    line(format_args!("index        {}", statement.index))?;
    if built.lock.is_some() {
        line(format_args!("files beside the recipe changed; their rows in the lock were updated"))?;
    }
    for test in &built.tests {
        let when = if test.earlier { "passed before" } else { "passed" };
        line(format_args!("test         {} in {}: {when}", test.record.trial.name, test.record.image))?;
    }
    if let Some(checklist) = built.checklist {
        line(format_args!("checklist    {checklist}"))?;
    }
    if !built.up_to_date {
        line(format_args!("next         gapimage sign {} --key KEY", output.display()))?;
    }
    Ok(())
}

fn print_json(built: &Built, output: &Path) -> Outcome {
    let layers = built.built.iter().map(|(layer, why)| serde_json::json!({ "layer": layer, "why": why }));
    let report = serde_json::json!({
        "output": output,
        "up_to_date": built.up_to_date,
        "length": built.statement.length,
        "index": built.statement.index,
        "name": built.statement.release.name,
        "version": built.statement.release.version,
        "serial": built.statement.release.serial,
        "built": layers.collect::<Vec<_>>(),
        "lock_updated": built.lock.is_some(),
        "checklist": built.checklist,
    });
    line(format_args!("{report}"))
}
