//! The report as Markdown.

use super::{Report, interval, number, verdict};
use std::fmt::Write as _;

/// The whole report.
pub fn report(report: &Report) -> String {
    let mut text = String::from("# Evaluation\n\n");
    let _ = writeln!(text, "- data: `{}`, SHA-256 `{}`", report.data.replace('`', "'"), report.data_sha256);
    if let Some(base) = &report.base {
        let _ = writeln!(text, "- base: `{base}`");
    }
    let _ = writeln!(text, "- intervals: 95 %, by resampling the examples (seed {})", report.seed);

    text.push_str(
        "\n## Candidates\n\n| metric | candidate | value | 95 % interval | examples |\n|---|---|---|---|---|\n",
    );
    for measured in &report.measured {
        let (value, between) = (number(measured.value), interval(measured.interval));
        let (metric, candidate, examples) = (&measured.metric, &measured.candidate, measured.examples);
        let _ = writeln!(text, "| {metric} | {candidate} | {value} | {between} | {examples} |");
    }
    if !report.compared.is_empty() {
        text.push_str("\n## Against each other\n\n");
        text.push_str(
            "| metric | candidate | against | difference | 95 % interval | better / same / worse | verdict |\n",
        );
        text.push_str("|---|---|---|---|---|---|---|\n");
    }
    for compared in &report.compared {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} / {} / {} | {} |",
            compared.metric,
            compared.second,
            compared.first,
            number(compared.difference),
            interval(compared.interval),
            compared.wins,
            compared.ties,
            compared.losses,
            verdict(compared),
        );
    }
    if let Some(ratings) = &report.ratings {
        let (first, second) = &ratings.between;
        let _ = writeln!(
            text,
            "\n## People\n\n`{first}` was better {} times, `{second}` {} times, {} ties, {} not rated. Difference of the shares: {} ({}).",
            ratings.first,
            ratings.second,
            ratings.ties,
            ratings.open,
            number(ratings.difference),
            interval(ratings.interval),
        );
    }
    let shown = report.shown();
    if !shown.is_empty() {
        let _ =
            writeln!(text, "\n## Examples\n\n{} of {}; all are in report.json.", shown.len(), report.examples.len());
    }
    for example in shown {
        let _ = writeln!(text, "\n### {}\n\n{}", one_line(&example.id), fenced(&example.question));
        if let Some(reference) = &example.reference {
            let _ = writeln!(text, "reference\n\n{}", fenced(reference));
        }
        for (name, answer) in &example.answers {
            let _ = writeln!(text, "`{name}`\n\n{}", fenced(answer));
        }
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A block that its own text cannot end: its fence is longer than any run of backticks in it.
fn fenced(text: &str) -> String {
    let mut longest = 0;
    let mut run = 0;
    for character in text.chars() {
        run = if character == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}\n{text}\n{fence}\n")
}
