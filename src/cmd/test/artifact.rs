//! The tests that a release passed where it was built, tried again where it arrived.

use super::{
    super::{
        inspect::failure,
        terminal::{Terminal, line},
        verify::{load_trust, now, verify_file},
    },
    Failure, Outcome, TestArgs, failed,
};
use crate::{
    interruption,
    progress::{Stage, Work},
    report::{
        contents::{Contents, ContentsError},
        output::print,
        trials::Tests,
    },
    trial::{Bench, Record},
};
use gap_format::{escape::escaped, release::Policy};
use std::fmt::Write as _;

/// What came of one test; why it failed, if it did.
type Tried<'a> = (&'a Record, Option<String>);

/// Tries every test that the artifact records; each, even where one fails.
pub fn run(args: &TestArgs) -> Outcome {
    let terminal = Terminal::new(args.json);
    if let Some(trust) = &args.trust {
        verify_file(&args.file, &load_trust(trust)?, &Policy::at(now()?), false, &terminal)?;
    }
    let contents = Contents::open(&args.file).map_err(failure)?;
    let tests = Tests::of(&contents).map_err(failure)?.map(|list| list.tests).unwrap_or_default();
    let program = std::env::current_exe().map_err(failed("finding the gapimage program"))?;
    interruption::heed().map_err(failed("heeding Ctrl-C"))?;
    let spool = tempfile::tempdir().map_err(failed("making a directory for the images"))?;
    let bench = Bench { program: &program, spool: spool.path() };
    let mut tried: Vec<Tried<'_>> = Vec::new();
    for record in &tests {
        let text = format!("test `{}` in image `{}`", escaped(&record.trial.name), escaped(&record.image));
        terminal.begin(&Work::whole(Stage::Test, &text));
        tried.push((record, try_again(record, &contents, bench).map_err(failure)?));
        if interruption::is_asked() {
            return Err(Failure::could_not_run("the tests were ended, as was asked", "nothing is left of them"));
        }
    }
    drop(terminal);
    if args.json { print_json(&tried) } else { print_text(&tried) }?;
    verdict(&tried)
}

/// Why the test fails, if it does.
fn try_again(record: &Record, contents: &Contents, bench: Bench<'_>) -> Result<Option<String>, ContentsError> {
    let over = record.with.iter().map(|name| contents.image(name)).collect::<Result<Vec<_>, _>>()?;
    let tree = contents.laid(contents.image(&record.image)?, &over)?;
    Ok(record.trial.run(&tree, bench, &|_| ()).err().map(|error| error.to_string()))
}

fn print_text(tried: &[Tried<'_>]) -> Outcome {
    if tried.is_empty() {
        line(format_args!("the artifact records no tests"))?;
    }
    for (record, why) in tried {
        let result = if why.is_some() { "failed" } else { "passed" };
        line(format_args!("{result:<14} {} in {}", escaped(&record.trial.name), escaped(&record.image)))?;
        if let Some(why) = why {
            print(&indented(why)).map_err(failed("writing to standard output"))?;
        }
    }
    Ok(())
}

/// What programs printed is theirs: it must not command a terminal.
fn indented(text: &str) -> String {
    let mut shown = String::new();
    for line in text.lines() {
        // Writing to a string cannot fail.
        let _ = writeln!(shown, "  {}", escaped(line));
    }
    shown
}

fn print_json(tried: &[Tried<'_>]) -> Outcome {
    let tests = tried.iter().map(|(record, why)| {
        let result = if why.is_some() { "failed" } else { "passed" };
        serde_json::json!({ "name": record.trial.name, "image": record.image, "result": result, "reason": why })
    });
    line(format_args!("{}", serde_json::json!({ "tests": tests.collect::<Vec<_>>() })))
}

fn verdict(tried: &[Tried<'_>]) -> Outcome {
    let failures = tried.iter().filter(|(_, why)| why.is_some()).count();
    if failures == 0 {
        return Ok(());
    }
    let advice = "they passed where the artifact was built: compare the processors, and verify the artifact";
    Err(Failure::wanting(format!("{failures} of {} tests fail", tried.len()), advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_print_is_shown_line_by_line_and_escaped() {
        assert_eq!(indented("a\n\u{1b}[2Jb"), "  a\n  \\u{1b}[2Jb\n");
    }
}
