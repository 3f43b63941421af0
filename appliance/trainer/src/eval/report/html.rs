//! The report as one page that needs nothing but itself: no network, no scripts.

use super::{Report, interval, number, plot, verdict};
use std::fmt::Write as _;

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
content=\"width=device-width\"><title>Evaluation</title><style>\
body{font:15px/1.45 sans-serif;max-width:64em;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0}td,th{border-bottom:1px solid #ccc;padding:.3em .8em .3em 0;text-align:left;\
vertical-align:top}pre{white-space:pre-wrap;font:13px monospace;margin:0;background:#f5f5f5;padding:.4em}\
code{font-size:13px;overflow-wrap:anywhere}figure{margin:1em 0}figcaption{font-weight:bold}svg text{font:12px sans-serif}\
.better{color:#06632a}.worse{color:#a31515}</style></head><body><h1>Evaluation</h1>\n";

/// The whole report.
pub fn report(report: &Report) -> String {
    let mut page = String::from(HEAD);
    head(report, &mut page);
    candidates(report, &mut page);
    pairs(report, &mut page);
    people(report, &mut page);
    examples(report, &mut page);
    page.push_str("</body></html>\n");
    page
}

/// Text that stays text in HTML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn head(report: &Report, page: &mut String) {
    let (data, digest) = (escape(&report.data), &report.data_sha256);
    let _ = write!(page, "<p>Data: <code>{data}</code>, SHA-256 <code>{digest}</code><br>");
    if let Some(base) = &report.base {
        let _ = write!(page, "Base: <code>{base}</code><br>");
    }
    let _ = writeln!(page, "Intervals: 95 %, by resampling the examples (seed {})</p>", report.seed);
}

fn candidates(report: &Report, page: &mut String) {
    page.push_str("<h2>Candidates</h2>\n");
    for metric in report.metrics() {
        let measured = report.measured.iter().filter(|measured| measured.metric == metric);
        let rows: Vec<plot::Row> = measured
            .map(|measured| plot::Row {
                label: escape(&measured.candidate),
                value: measured.value,
                interval: measured.interval,
            })
            .collect();
        let _ = writeln!(
            page,
            "<figure><figcaption>{}</figcaption>{}</figure>",
            escape(metric),
            plot::intervals(&rows, false)
        );
    }
    page.push_str("<table><tr><th>metric<th>candidate<th>value<th>95 % interval<th>examples</tr>\n");
    for measured in &report.measured {
        let (metric, candidate) = (escape(&measured.metric), escape(&measured.candidate));
        let (value, between, examples) = (number(measured.value), interval(measured.interval), measured.examples);
        let _ = writeln!(page, "<tr><td>{metric}<td>{candidate}<td>{value}<td>{between}<td>{examples}</tr>");
    }
    page.push_str("</table>\n");
}

fn pairs(report: &Report, page: &mut String) {
    if report.compared.is_empty() {
        return;
    }
    page.push_str("<h2>Against each other</h2>\n");
    for metric in report.metrics() {
        let compared = report.compared.iter().filter(|compared| compared.metric == metric);
        let rows: Vec<plot::Row> = compared
            .map(|compared| plot::Row {
                label: format!("{} − {}", escape(&compared.second), escape(&compared.first)),
                value: compared.difference,
                interval: compared.interval,
            })
            .collect();
        let _ = writeln!(
            page,
            "<figure><figcaption>{}</figcaption>{}</figure>",
            escape(metric),
            plot::intervals(&rows, true)
        );
    }
    page.push_str("<table><tr><th>metric<th>candidate<th>against<th>difference<th>95 % interval<th>better / same / worse<th>verdict</tr>\n");
    for compared in &report.compared {
        let verdict = verdict(compared);
        let class = verdict.split(' ').next().unwrap_or("");
        let _ = writeln!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{} / {} / {}<td class=\"{class}\">{verdict}</tr>",
            escape(&compared.metric),
            escape(&compared.second),
            escape(&compared.first),
            number(compared.difference),
            interval(compared.interval),
            compared.wins,
            compared.ties,
            compared.losses,
        );
    }
    page.push_str("</table>\n");
}

fn people(report: &Report, page: &mut String) {
    let Some(ratings) = &report.ratings else { return };
    let (first, second) = (escape(&ratings.between.0), escape(&ratings.between.1));
    let _ = writeln!(
        page,
        "<h2>People</h2><p>{first} was better {} times, {second} {} times, {} ties, {} not rated. Difference of the shares: \
         {} ({}).</p>",
        ratings.first,
        ratings.second,
        ratings.ties,
        ratings.open,
        number(ratings.difference),
        interval(ratings.interval),
    );
}

fn examples(report: &Report, page: &mut String) {
    let shown = report.shown();
    if shown.is_empty() {
        return;
    }
    let _ =
        writeln!(page, "<h2>Examples</h2><p>{} of {}; all are in report.json.</p>", shown.len(), report.examples.len());
    for example in shown {
        let _ = writeln!(
            page,
            "<h3>{}</h3><table><tr><th>question<td><pre>{}</pre></tr>",
            escape(&example.id),
            escape(&example.question)
        );
        if let Some(reference) = &example.reference {
            let _ = writeln!(page, "<tr><th>reference<td><pre>{}</pre></tr>", escape(reference));
        }
        for (name, answer) in &example.answers {
            let _ = writeln!(page, "<tr><th>{}<td><pre>{}</pre></tr>", escape(name), escape(answer));
        }
        page.push_str("</table>\n");
    }
}
