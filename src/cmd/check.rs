//! `gapimage check`: the preflight.

use super::{
    CheckArgs, Outcome,
    failure::{Failure, failed},
    lock::{load, load_recipe, open_store},
};
use crate::{
    check::{Report, check, gather::gather},
    lock::Lock,
    report::output::{ascii_json, print},
};

/// Works the checklist out, prints it, and fails if something in it does.
pub fn run(args: &CheckArgs) -> Outcome {
    let recipe = load_recipe(&args.recipe)?;
    let store = open_store(&args.store)?;
    let lock = load(&Lock::path_for(&args.recipe))?;
    let facts = gather(&recipe, lock.as_ref(), &store).map_err(failed("checking the recipe"))?;
    let report = check(&facts);
    let text = if args.json { ascii_json(&report).map_err(failed("writing the report"))? } else { report.to_string() };
    print(&text).map_err(failed("writing the report"))?;
    verdict(&report)
}

fn verdict(report: &Report) -> Outcome {
    match report.summary.fail {
        0 => Ok(()),
        1 => Err(Failure::wanting("one line of the checklist fails", ADVICE)),
        many => Err(Failure::wanting(format!("{many} lines of the checklist fail"), ADVICE)),
    }
}

const ADVICE: &str = "each `fail` above says what mends it";
