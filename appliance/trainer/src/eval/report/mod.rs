//! What an evaluation found: `report.json` for programs, `report.md` and `report.html` for people.

pub(super) mod html;
mod markdown;
mod plot;

use super::{
    answers::Answer,
    example::Example,
    put,
    ratings::Ratings,
    summary::{Compared, Measured},
};
use serde::Serialize;
use std::{collections::BTreeMap, io, path::Path};

/// Examples that the reports for people show.
const SHOWN: usize = 20;

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The form of this file: 1.
    pub version: u64,
    /// Digest of the base model, if one was loaded.
    pub base: Option<String>,
    /// Name of the file with the examples.
    pub data: String,
    /// Its digest.
    pub data_sha256: String,
    /// What the resampling followed from.
    pub seed: u64,
    /// Numbers about each candidate.
    pub measured: Vec<Measured>,
    /// Candidates against each other.
    pub compared: Vec<Compared>,
    /// What people said.
    pub ratings: Option<Ratings>,
    /// Every example with every answer.
    pub examples: Vec<Shown>,
}

/// An example with its answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The example.
    pub id: String,
    /// What was asked.
    pub question: String,
    /// The right answer, if given.
    pub reference: Option<String>,
    /// The answers by candidate.
    pub answers: BTreeMap<String, String>,
}

/// Puts examples and answers together.
pub(super) fn examples(examples: &[Example], answers: &BTreeMap<String, BTreeMap<String, Answer>>) -> Vec<Shown> {
    let shown = |example: &Example| {
        let own = answers.iter().filter_map(|(name, own)| Some((name.clone(), own.get(&example.id)?.answer.clone())));
        Shown {
            id: example.id.clone(),
            question: example.question().to_owned(),
            reference: example.reference.clone(),
            answers: own.collect(),
        }
    };
    examples.iter().filter(|example| example.asks()).map(shown).collect()
}

impl Report {
    /// Writes all three forms into a directory.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        put(&dir.join("report.json"), &serde_json::to_vec_pretty(self)?)?;
        put(&dir.join("report.md"), markdown::report(self).as_bytes())?;
        put(&dir.join("report.html"), html::report(self).as_bytes())
    }

    /// The metrics, each once, in the order of the report.
    fn metrics(&self) -> Vec<&str> {
        let mut metrics: Vec<&str> = self.measured.iter().map(|measured| measured.metric.as_str()).collect();
        metrics.dedup();
        metrics
    }

    /// Examples for people: those on which candidates differ first.
    fn shown(&self) -> Vec<&Shown> {
        let agree = |shown: &Shown| {
            let mut answers = shown.answers.values();
            let first = answers.next();
            answers.all(|answer| Some(answer) == first)
        };
        let (same, different): (Vec<&Shown>, Vec<&Shown>) = self.examples.iter().partition(|shown| agree(shown));
        different.into_iter().chain(same).take(SHOWN).collect()
    }
}

/// A number for people.
fn number(value: f64) -> String {
    format!("{value:.4}")
}

/// An interval for people.
fn interval(interval: Option<(f64, f64)>) -> String {
    interval.map_or_else(|| "–".to_owned(), |(low, high)| format!("{} … {}", number(low), number(high)))
}

/// What an interval says about a difference.
fn verdict(compared: &Compared) -> &'static str {
    let lower_is_better = compared.metric == "perplexity";
    match compared.interval {
        Some((low, _)) if low > 0.0 => {
            if lower_is_better {
                "worse"
            } else {
                "better"
            }
        }
        Some((_, high)) if high < 0.0 => {
            if lower_is_better {
                "better"
            } else {
                "worse"
            }
        }
        _ => "no difference shown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let measured = |candidate: &str, value| Measured {
            candidate: candidate.to_owned(),
            metric: "exact_match".to_owned(),
            value,
            interval: Some((value - 0.1, value + 0.1)),
            examples: 40,
        };
        Report {
            version: 1,
            base: Some("ab".repeat(32)),
            data: "test.jsonl".to_owned(),
            data_sha256: "cd".repeat(32),
            seed: 1,
            measured: vec![measured("base", 0.25), measured("new", 0.75)],
            compared: vec![Compared {
                first: "base".to_owned(),
                second: "new".to_owned(),
                metric: "exact_match".to_owned(),
                difference: 0.5,
                interval: Some((0.3, 0.7)),
                wins: 20,
                ties: 20,
                losses: 0,
            }],
            ratings: None,
            examples: vec![Shown {
                id: "1".to_owned(),
                question: "<script>alert(1)</script> | *q*".to_owned(),
                reference: Some("a".to_owned()),
                answers: BTreeMap::from([("new".to_owned(), "```\n<img src=x>".to_owned())]),
            }],
        }
    }

    #[test]
    fn what_models_write_cannot_break_out_of_the_reports() {
        let html = html::report(&report());
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script") && !html.contains("<img"));
        let markdown = markdown::report(&report());
        assert!(markdown.contains("````\n```\n<img src=x>\n````"), "{markdown}");
    }

    #[test]
    fn the_page_needs_nothing_but_itself() {
        let html = html::report(&report());
        assert!(html.contains("<svg") && !html.contains("http") && !html.contains("<link"));
        assert!(html.contains("better"));
    }

    #[test]
    fn the_same_report_gives_the_same_bytes() {
        assert_eq!(html::report(&report()), html::report(&report()));
        let dir = tempfile::tempdir().unwrap();
        report().write(dir.path()).unwrap();
        let json = std::fs::read(dir.path().join("report.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["compared"][0]["interval"][0], 0.3);
    }
}
