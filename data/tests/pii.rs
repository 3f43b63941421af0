//! Recall and false positives of the detector on text that it was not made with; the figures of `docs/data.md`.
//!
//! The text is made by Faker (a Python package with formats of its own), in locales that nobody looked at while the
//! detector was made. `cargo test -p gap-data --test pii -- --nocapture` prints the table.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use gap_data::pii::Detector;
use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::Command,
};

const FAKER: &str = "faker==40.54.0";
/// Rounds over all kinds, for each locale.
const ROUNDS: &str = "50";

/// What must at least be found of each kind, and what may at most be found in 1000 texts without personal data.
const RECALL: [(&str, f64); 7] = [
    ("EMAIL", 0.999),
    ("PHONE", 0.92),
    ("IBAN", 0.91),
    ("CARD", 0.91),
    ("IP", 0.999),
    ("TOKEN", 0.999),
    ("PASSWORD", 0.98),
];
const FALSE_POSITIVES_PER_MILLE: f64 = 1.1;

#[derive(serde::Deserialize)]
struct Labelled {
    text: String,
    spans: Vec<(String, usize, usize)>,
}

/// How often a kind was there, and how often it was found.
#[derive(Default)]
struct Score {
    there: u32,
    /// Covered to the last character.
    found: u32,
    /// Covered by finds of another kind.
    otherwise: u32,
    false_positives: u32,
}

fn corpus(which: &str, seed: &str) -> Vec<Labelled> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pii_corpus.py");
    let done = Command::new(python()).arg(script).args([which, seed, ROUNDS]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A Python with Faker in the cache of the tests.
fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cache = env::var_os("GAPIMAGE_TEST_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
    let venv = cache.join(FAKER.replace("==", "-"));
    let python = venv.join("bin/python");
    let works = || Command::new(&python).args(["-c", "import faker"]).output().is_ok_and(|done| done.status.success());
    if !works() {
        let run = |command: &mut Command| {
            let done = command.output().unwrap();
            assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
        };
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", FAKER]));
    }
    python
}

fn scores(corpus: &[Labelled]) -> (BTreeMap<String, Score>, u32, u32) {
    let detector = Detector::new(Vec::new()).unwrap();
    let mut scores: BTreeMap<String, Score> = BTreeMap::new();
    let (mut clean, mut touched) = (0, 0);
    for Labelled { text, spans } in corpus {
        let findings = detector.find(text);
        let kind_of =
            |label: &str| if matches!(label, "TOKEN" | "PASSWORD") { "SECRET".to_owned() } else { label.to_owned() };
        for (label, start, end) in spans {
            let score = scores.entry(label.clone()).or_default();
            score.there += 1;
            let covers = |same: bool| {
                findings.iter().any(|finding| {
                    let kind = finding.kind.name() == kind_of(label);
                    kind == same && finding.range.start <= *start && *end <= finding.range.end
                })
            };
            if covers(true) {
                score.found += 1;
            } else if covers(false) {
                score.otherwise += 1;
            }
        }
        clean += u32::from(spans.is_empty());
        let wrong = findings.iter().filter(|finding| {
            !spans.iter().any(|(_, start, end)| finding.range.start < *end && *start < finding.range.end)
        });
        let mut any = false;
        for finding in wrong {
            any = true;
            scores.entry(finding.kind.name().to_owned()).or_default().false_positives += 1;
            if env::var_os("SHOW").is_some() {
                println!("false {} {:?} in {text:?}", finding.kind, &text[finding.range.clone()]);
            }
        }
        touched += u32::from(any && spans.is_empty());
        if env::var_os("SHOW").is_some() {
            for (label, start, end) in spans {
                if !findings.iter().any(|finding| finding.range.start <= *start && *end <= finding.range.end) {
                    println!("missed {label} {:?} in {text:?} {findings:?}", &text[*start..*end]);
                }
            }
        }
    }
    (scores, clean, touched)
}

fn table(which: &str, seed: &str) -> (BTreeMap<String, f64>, f64) {
    let corpus = corpus(which, seed);
    let (scores, clean, touched) = scores(&corpus);
    println!("{which}: {} texts, {clean} of them without personal data", corpus.len());
    println!("| kind | there | found | as another kind | recall | false positives |\n|---|---:|---:|---:|---:|---:|");
    let mut recall = BTreeMap::new();
    for (kind, score) in &scores {
        let share = f64::from(score.found) / f64::from(score.there.max(1));
        let Score { there, found, otherwise, false_positives } = score;
        println!("| {kind} | {there} | {found} | {otherwise} | {:.1} % | {false_positives} |", share * 100.0);
        recall.insert(kind.clone(), share);
    }
    let per_mille = f64::from(touched) * 1000.0 / f64::from(clean.max(1));
    println!("{touched} of {clean} texts without personal data have a find: {per_mille:.1} in 1000\n");
    (recall, per_mille)
}

#[test]
fn recall_and_false_positives_are_as_stated() {
    if let Some(which) = env::var_os("ONLY") {
        table(which.to_str().unwrap(), "1");
        return;
    }
    let (recall, false_positives) = table("unseen", "7");
    for (kind, least) in RECALL {
        assert!(recall[kind] >= least, "{kind}: {}", recall[kind]);
    }
    assert!(false_positives <= FALSE_POSITIVES_PER_MILLE, "{false_positives}");
}
