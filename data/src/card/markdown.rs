//! The card for people.

use super::{Card, Histogram};
use crate::{Severity, duplicates::Near, pii::PiiAction};
use std::fmt::{self, Write};

/// Problems shown with their place; the card for machines has more.
const SHOWN: usize = 20;

pub(super) fn card(card: &Card) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(card, &mut text);
    text
}

fn write(card: &Card, out: &mut String) -> fmt::Result {
    writeln!(out, "# Data card\n")?;
    writeln!(out, "Format: **{}** ({}).\n", card.schema.format, escaped(&card.schema.because))?;
    writeln!(out, "| file | part | examples | bytes | digest |\n|---|---|---:|---:|---|")?;
    for file in &card.files {
        let (name, split) = (&file.name, file.split.name());
        writeln!(out, "| `{name}` | {split} | {} | {} | `{}` |", file.examples, file.size, file.sha256)?;
    }
    writeln!(
        out,
        "\nSplit {} ({}), by the digest of each example's content.\n",
        card.split.ratios, card.split.because
    )?;
    writeln!(out, "## Inputs\n\n| file | container | rows | bytes | digest |\n|---|---|---:|---:|---|")?;
    for input in &card.inputs {
        let name = escaped(&input.name);
        writeln!(out, "| `{name}` | {} | {} | {} | `{}` |", input.container, input.rows, input.size, input.sha256)?;
    }
    if !card.unused_columns.is_empty() {
        let names: Vec<String> = card.unused_columns.keys().map(|name| format!("`{}`", escaped(name))).collect();
        writeln!(out, "\nColumns that were not used: {}.", names.join(", "))?;
    }
    examples(card, out)?;
    pii(card, out)?;
    lengths("characters", &card.lengths.characters, out)?;
    if let Some(tokens) = &card.lengths.tokens {
        lengths("tokens", &tokens.histogram, out)?;
        writeln!(out, "\nBy the tokenizer `{}`, contents only: a chat template adds to them.", tokens.tokenizer)?;
    }
    problems(card, out)
}

fn examples(card: &Card, out: &mut String) -> fmt::Result {
    let examples = &card.examples;
    writeln!(out, "\n## Rows\n\n| | rows |\n|---|---:|")?;
    let near = format!(
        "near duplicates left out (similarity ≥ {:.2})",
        f64::from(card.duplicates.threshold_per_mille) / 1000.0
    );
    for (what, count) in [
        ("read", examples.rows),
        ("not usable", examples.bad),
        ("exact duplicates left out", examples.exact_duplicates),
        (near.as_str(), examples.near_duplicates),
        ("left out because they resemble examples of two parts", examples.between_parts),
        ("kept", examples.kept),
    ] {
        writeln!(out, "| {what} | {count} |")?;
    }
    if card.duplicates.near == Near::Off {
        writeln!(out, "\nNear duplicates were not looked for: examples of different parts may resemble each other.")?;
    }
    if card.duplicates.not_fully_compared > 0 {
        let count = card.duplicates.not_fully_compared;
        writeln!(out, "\n{count} examples share their form with so many others that not all comparisons were made.")?;
    }
    Ok(())
}

fn pii(card: &Card, out: &mut String) -> fmt::Result {
    writeln!(out, "\n## Personal data and secrets\n")?;
    let done = match card.pii.action {
        PiiAction::Off => return writeln!(out, "Not looked for."),
        PiiAction::Report => "and kept",
        PiiAction::Redact => "and replaced by placeholders",
        PiiAction::Refuse => "",
    };
    let report = &card.pii.report;
    if report.counts.is_empty() {
        return writeln!(out, "None found. That is no proof that there is none.");
    }
    writeln!(out, "Found in {} rows {done}. That is no proof that there is no more.\n", report.examples)?;
    writeln!(out, "| kind | finds | first at |\n|---|---:|---|")?;
    for (kind, count) in &report.counts {
        let first = report.samples.iter().find(|sample| sample.kind.name() == kind);
        let first = first.map(|sample| format!("{}, `{}`", escaped(&sample.place.to_string()), escaped(&sample.field)));
        writeln!(out, "| {kind} | {count} | {} |", first.unwrap_or_default())?;
    }
    Ok(())
}

fn lengths(unit: &str, histogram: &Histogram, out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "\n## Lengths in {unit}\n\n| least | median | mean | 90 % | 99 % | most | all |\n|---:|---:|---:|---:|---:|---:|---:|"
    )?;
    let Histogram { total, least, mean, median, p90, p99, most, buckets } = histogram;
    writeln!(out, "| {least} | {median} | {mean} | {p90} | {p99} | {most} | {total} |\n")?;
    writeln!(out, "| up to | examples |\n|---:|---:|")?;
    for bucket in buckets {
        writeln!(out, "| {} | {} |", bucket.up_to, bucket.examples)?;
    }
    Ok(())
}

fn problems(card: &Card, out: &mut String) -> fmt::Result {
    let problems = &card.problems;
    if problems.counts.is_empty() {
        return Ok(());
    }
    let (errors, warnings) = (problems.count(Severity::Error), problems.count(Severity::Warning));
    writeln!(out, "\n## Problems\n\n{errors} that make a row unusable, {warnings} warnings.\n")?;
    for (kind, count) in &problems.counts {
        writeln!(out, "- {kind}: {count}")?;
    }
    writeln!(out)?;
    for problem in problems.first.iter().take(SHOWN) {
        writeln!(out, "- {}", escaped(&problem.to_string()))?;
    }
    Ok(())
}

/// Names come from outside and must stay text.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '|' | '<' | '>' | '[' | ']' | '*' | '\\' => escaped.extend(['\\', character]),
            _ if character.is_control() => escaped.extend(character.escape_default()),
            _ => escaped.push(character),
        }
    }
    escaped
}
