//! The tests of a recipe, tried on what is built of it.

use super::{
    super::{
        build::{current_lock, output_for},
        lock::{load_recipe, open_store},
        terminal::{Terminal, line},
    },
    Outcome, TestArgs, failed,
};
use crate::{
    build::{BuildError, Passed, Request, test},
    lock::Lock,
    source::http::{Client, Settings},
};

/// Builds what is missing of the images, tries the tests of the recipe, and says what came of it.
pub fn run(args: &TestArgs) -> Outcome {
    let recipe = load_recipe(&args.file)?;
    let store = open_store(&args.store)?;
    let client = (!args.offline).then(|| Client::new(Settings::default()));
    let terminal = Terminal::new(args.json);
    let lock = current_lock(&recipe, &Lock::path_for(&args.file), &store, client.as_ref(), &terminal)?;
    let program = std::env::current_exe().map_err(failed("finding the gapimage program"))?;
    let request = Request {
        recipe: &recipe,
        lock: &lock,
        store: &store,
        client: client.as_ref(),
        trust: &[],
        output: &output_for(&recipe, None),
        program: &program,
        begin: &|work| terminal.begin(work),
        note: &|text| terminal.note(text),
        progress: &|count| terminal.advance(count),
    };
    let passed =
        test(&request).map_err(|error: BuildError| failed(format!("testing `{}`", args.file.display()))(error))?;
    drop(terminal);
    if args.json { print_json(&passed) } else { print_text(&passed) }
}

fn print_text(passed: &[Passed]) -> Outcome {
    if passed.is_empty() {
        line(format_args!("the recipe has no `[[test]]`"))?;
    }
    for test in passed {
        let when = if test.earlier { "passed before" } else { "passed" };
        line(format_args!("{when:<14} {} in {}", test.record.trial.name, test.record.image))?;
    }
    Ok(())
}

fn print_json(passed: &[Passed]) -> Outcome {
    let tests = passed.iter().map(|test| {
        serde_json::json!({
            "name": test.record.trial.name, "image": test.record.image, "result": "passed", "earlier": test.earlier,
        })
    });
    line(format_args!("{}", serde_json::json!({ "tests": tests.collect::<Vec<_>>() })))
}
