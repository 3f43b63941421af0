use super::*;
use crate::{Kind, Progress, Severity, duplicates::Near, inspect, split::Ratios};
use std::{collections::BTreeMap, ops::ControlFlow};

/// Files of a data set in a directory of their own, and one for what is made of them.
struct Set {
    directory: tempfile::TempDir,
    inputs: Vec<Input>,
}

impl Set {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let inputs = files
            .iter()
            .map(|(name, text)| {
                let path = directory.path().join(name);
                fs::write(&path, text).unwrap();
                Input::new(name, &path)
            })
            .collect();
        Self { directory, inputs }
    }

    fn prepare(&self, options: &Options) -> Result<(Prepared, BTreeMap<String, String>), Error> {
        let into = self.directory.path().join("out");
        let prepared = prepare(&self.inputs, options, &into, Watch::unwatched())?;
        let read =
            |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap());
        let files: BTreeMap<_, _> = fs::read_dir(&into).unwrap().map(|entry| read(entry.unwrap())).collect();
        let named: Vec<&String> = prepared.files.iter().map(|(name, _)| name).collect();
        assert_eq!(named, files.keys().collect::<Vec<_>>());
        for (name, digest) in &prepared.files {
            assert_eq!(*digest, Digest::of(files[name].as_bytes()));
        }
        Ok((prepared, files))
    }
}

/// The n-th of many instructions that resemble none of the others.
fn instruction(n: u32) -> String {
    let words = |salt: u32| (0..12).map(|i| format!("w{} ", (n * 31 + salt) * 100 + i)).collect::<String>();
    format!("{{\"instruction\":\"{}\",\"input\":\"\",\"output\":\"{}\"}}\n", words(1), words(2))
}

fn instructions(range: std::ops::Range<u32>) -> String {
    range.map(instruction).collect()
}

fn all_lines(files: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let parts = files.iter().filter(|(name, _)| name.ends_with(".jsonl"));
    parts.flat_map(|(name, text)| text.lines().map(|line| (line.to_owned(), name.clone()))).collect()
}

#[test]
fn rows_are_distributed_and_described() {
    let set =
        Set::new(&[("a.jsonl", &instructions(0..1000)), ("b.csv", "instruction,output,id\nadd one and two,three,7\n")]);
    let (prepared, files) = set.prepare(&Options::default()).unwrap();
    let card = &prepared.card;
    assert_eq!((card.examples.rows, card.examples.kept), (1001, 1001));
    assert_eq!(card.split.ratios, Ratios::SMALL);
    let counts: Vec<(String, u64)> = card.files.iter().map(|file| (file.name.clone(), file.examples)).collect();
    assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 1001);
    for ((name, count), expected) in counts.iter().zip([900, 50, 50]) {
        assert!(count.abs_diff(expected) < 40, "{counts:?}");
        assert_eq!(files[name].lines().count() as u64, *count);
    }
    assert_eq!(card.unused_columns, BTreeMap::from([("id".to_owned(), 1)]));
    assert_eq!(card.inputs[1].container, "CSV");
    assert!(all_lines(&files).contains_key(r#"{"instruction":"add one and two","input":"","output":"three"}"#));
    let read: serde_json::Value = serde_json::from_str(&files["card.json"]).unwrap();
    assert_eq!(read["examples"]["kept"], 1001);
    assert!(files["card.md"].contains("| kept | 1001 |"), "{}", files["card.md"]);
    assert!(!files["card.json"].contains(set.directory.path().to_str().unwrap()));
}

#[test]
fn the_same_bytes_come_out_with_any_number_of_threads_and_in_any_directory() {
    let text = instructions(0..300)
        + &instructions(100..150)
        + "{\"instruction\":\"mail a@example.org\",\"output\":\"yes\"}\n";
    let with = |threads| {
        let options = Options { threads: NonZeroUsize::new(threads), ..Options::default() };
        Set::new(&[("a.jsonl", &text)]).prepare(&options).unwrap().1
    };
    assert_eq!(with(1), with(5));
}

#[test]
fn nothing_moves_when_rows_are_added_before_after_or_between() {
    let before = Set::new(&[("a.jsonl", &instructions(0..500))]).prepare(&Options::default()).unwrap().1;
    let more = instructions(900..1000) + &instructions(0..250) + &instructions(600..700) + &instructions(250..500);
    let after = Set::new(&[("b.jsonl", &more)]).prepare(&Options::default()).unwrap().1;
    let after = all_lines(&after);
    for (line, part) in all_lines(&before) {
        assert_eq!(after[&line], part);
    }
    assert_eq!(after.len(), 700);
}

#[test]
fn over_ten_thousand_rows_only_leave_training_and_fixed_ratios_do_not_even_that() {
    let parts = |count, split| {
        let options = Options { split, ..Options::default() };
        let (prepared, files) = Set::new(&[("a.jsonl", &instructions(0..count))]).prepare(&options).unwrap();
        (prepared.card.split.ratios, all_lines(&files))
    };
    let (small, before) = parts(9_999, Splitting::BySize);
    let (large, after) = parts(10_000, Splitting::BySize);
    assert_eq!((small, large), (Ratios::SMALL, Ratios::USUAL));
    let mut moved = 0;
    for (line, part) in &before {
        if after[line] != *part {
            assert_eq!(part, "train.jsonl");
            moved += 1;
        }
    }
    assert!((900..1100).contains(&moved), "{moved}");
    let fixed = Splitting::Fixed(Ratios::USUAL);
    let ((_, before), (_, after)) = (parts(100, fixed), parts(12_000, fixed));
    assert!(before.iter().all(|(line, part)| after[line] == *part));
}

#[test]
fn duplicates_are_left_out_and_counted() {
    let near = instruction(5).replace("w15", "v15");
    let text = instructions(0..20) + &instruction(3).replace(' ', "  ") + &near;
    let (prepared, _) = Set::new(&[("a.jsonl", &text)]).prepare(&Options::default()).unwrap();
    let examples = &prepared.card.examples;
    assert_eq!((examples.rows, examples.exact_duplicates, examples.kept + examples.near_duplicates), (22, 1, 21));
    let off = Dedupe { exact: false, near: Near::Off, ..Dedupe::default() };
    let (prepared, _) =
        Set::new(&[("a.jsonl", &text)]).prepare(&Options { dedupe: off, ..Options::default() }).unwrap();
    assert_eq!(prepared.card.examples.kept, 22);
}

#[test]
fn near_duplicates_that_are_kept_lie_in_one_part() {
    let texts: Vec<String> = (0..200u32)
        .map(|n| (0..60).map(|i| format!("w{} ", (n / 4) * 1000 + i + 500 * u32::from(i == n % 4))).collect())
        .collect();
    let text: String = texts.iter().map(|text| format!("{{\"text\":\"{}\"}}\n", text.trim())).collect();
    let dedupe = Dedupe { near: Near::Together, ..Dedupe::default() };
    let options = Options { dedupe, split: Splitting::Fixed("40/30/30".parse().unwrap()), ..Options::default() };
    let (prepared, files) = Set::new(&[("a.jsonl", &text)]).prepare(&options).unwrap();
    assert_eq!(prepared.card.examples.kept, 200);
    let lines = all_lines(&files);
    for group in texts.chunks(4) {
        let parts: std::collections::BTreeSet<&String> =
            group.iter().map(|text| &lines[&format!("{{\"text\":\"{}\"}}", text.trim())]).collect();
        assert_eq!(parts.len(), 1);
    }
}

#[test]
fn personal_data_is_replaced_reported_or_refused_and_never_told() {
    let text = "{\"text\":\"Write to jane.roe@example.org or jane.roe@example.org, key hf_9fKq2LmXz7RtVbW4cYh8NpSd3GjA6eUo\"}\n";
    let with = |pii| {
        Set::new(&[("a.jsonl", text)]).prepare(&Options {
            pii,
            split: Splitting::Fixed("100/0/0".parse().unwrap()),
            ..Options::default()
        })
    };
    let (prepared, files) = with(PiiAction::Redact).unwrap();
    assert_eq!(files["train.jsonl"], "{\"text\":\"Write to [EMAIL_1] or [EMAIL_1], key [SECRET_1]\"}\n");
    assert_eq!(prepared.card.pii.report.counts, BTreeMap::from([("EMAIL".to_owned(), 2), ("SECRET".to_owned(), 1)]));
    for file in files.values() {
        assert!(!file.contains("jane") && !file.contains("hf_9"), "{file}");
    }
    let (_, files) = with(PiiAction::Report).unwrap();
    assert!(files["train.jsonl"].contains("jane.roe"));
    assert!(!files["card.json"].contains("jane") && !files["card.md"].contains("jane"));
    let error = with(PiiAction::Refuse).unwrap_err().to_string();
    assert!(error.contains("2 EMAIL, 1 SECRET") && error.contains("a.jsonl:1") && !error.contains("jane"), "{error}");
}

#[test]
fn bad_rows_are_refused_together_or_left_out() {
    let text = instruction(1) + "{\"instruction\":\"a\"}\n{nonsense}\n\n" + &instruction(2);
    let set = Set::new(&[("a.jsonl", &text)]);
    let Err(Error::Problems { problems }) = set.prepare(&Options::default()) else { panic!() };
    let shown: Vec<String> = problems.first.iter().map(ToString::to_string).collect();
    assert_eq!(shown[0], "a.jsonl:2: `output`: the field is missing; add the field, or name the column that holds it");
    assert!(shown[1].starts_with("a.jsonl:3:2: key must be a string"), "{}", shown[1]);
    assert_eq!(fs::read_dir(set.directory.path().join("out")).unwrap().count(), 0);
    let options = Options { bad_rows: BadRows::LeaveOut, ..Options::default() };
    let (prepared, _) = set.prepare(&options).unwrap();
    assert_eq!((prepared.card.examples.bad, prepared.card.examples.kept), (2, 2));
    assert_eq!(prepared.card.problems.counts, BTreeMap::from([(Kind::Json, 1), (Kind::Missing, 1)]));
}

#[test]
fn problems_beyond_the_limit_are_counted() {
    let text = instruction(1) + &instruction(2) + &instruction(3) + &"{\"instruction\":\"a\"}\n".repeat(3);
    let options = Options { limits: Limits { problems: 1, ..Limits::default() }, ..Options::default() };
    let Err(Error::Problems { problems }) = Set::new(&[("a.jsonl", &text)]).prepare(&options) else { panic!() };
    assert_eq!((problems.first.len(), problems.unlisted(), problems.count(Severity::Error)), (1, 2, 3));
    assert!(problems.to_string().contains("and 2 more; in all 3 × missing"), "{problems}");
}

#[test]
fn bounds_on_rows_hold() {
    let options = |limits| Options { limits, bad_rows: BadRows::LeaveOut, ..Options::default() };
    let set = Set::new(&[("a.jsonl", &instructions(0..10))]);
    let few = set.prepare(&options(Limits { rows: 9, ..Limits::default() }));
    assert!(matches!(few, Err(Error::TooManyRows { limit: 9 })));
    let short = set.prepare(&options(Limits { row_bytes: 20, ..Limits::default() }));
    assert!(matches!(short, Err(Error::Format(_))), "{short:?}");
    assert!(matches!(Set::new(&[("a.jsonl", "\n\n")]).prepare(&Options::default()), Err(Error::Empty)));
    assert!(matches!(Set::new(&[("a.jsonl", "")]).prepare(&Options::default()), Err(Error::Container { .. })));
    assert!(matches!(Set::new(&[("a.jsonl", "{nonsense}\n")]).prepare(&Options::default()), Err(Error::Format(_))));
}

#[test]
fn work_that_is_cancelled_or_interrupted_leaves_the_old_result_or_none() {
    let set = Set::new(&[("a.jsonl", &instructions(0..100))]);
    let (_, files) = set.prepare(&Options::default()).unwrap();
    let into = set.directory.path().join("out");
    for stop_at in [Stage::Read, Stage::Compare, Stage::Write] {
        let mut seen = Vec::new();
        let mut watcher = |progress: Progress| {
            seen.push(progress);
            if progress.stage == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let stopped = prepare(&set.inputs, &Options::default(), &into, Watch::new(&mut watcher));
        assert!(matches!(stopped, Err(Error::Cancelled)));
        assert_eq!(seen.last().unwrap().stage, stop_at);
        let left: BTreeMap<_, _> = fs::read_dir(&into)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
            .collect();
        assert_eq!(left, files);
    }
}

#[test]
fn what_was_prepared_is_prepared_to_itself() {
    let text = instructions(0..200) + "{\"instruction\":\"mail a@example.org\",\"output\":\"yes\"}\n";
    let (_, files) = Set::new(&[("a.jsonl", &text)]).prepare(&Options::default()).unwrap();
    let parts = ["train.jsonl", "validation.jsonl", "test.jsonl"].map(|name| (name, files[name].as_str()));
    let (_, again) = Set::new(&parts).prepare(&Options::default()).unwrap();
    for (name, text) in parts {
        assert_eq!(again[name], text);
    }
}

#[test]
fn looking_writes_nothing_and_reports_all() {
    let text = instruction(1)
        + "{\"instruction\":\"call +49 30 1234567\",\"output\":\"\"}\n"
        + "{\"instruction\":\"a@example.org\",\"output\":\"b\"}\n";
    let set = Set::new(&[("a.jsonl", &text)]);
    let seen = inspect(&set.inputs, &Options::default(), Watch::unwatched()).unwrap();
    assert_eq!((seen.rows, seen.bad, seen.inputs.len()), (3, 1, 1));
    assert_eq!(seen.pii.summary(), "1 EMAIL");
    assert_eq!(seen.problems.counts, BTreeMap::from([(Kind::Empty, 1)]));
    assert_eq!(fs::read_dir(set.directory.path()).unwrap().count(), 1);
}

#[derive(Debug)]
struct Letters;

impl crate::CountTokens for Letters {
    fn digest(&self) -> Digest {
        Digest::of(b"letters")
    }

    fn count(&self, text: &str) -> Result<u32, crate::TokenizerError> {
        Ok(text.chars().filter(|character| character.is_alphabetic()).count() as u32)
    }
}

#[test]
fn lengths_are_counted_in_tokens() {
    let options = Options { tokenizer: Some(Arc::new(Letters)), ..Options::default() };
    let text = "{\"text\":\"ab 12\"}\n{\"text\":\"cde\"}\n";
    let (prepared, files) = Set::new(&[("a.jsonl", text)]).prepare(&options).unwrap();
    let tokens = prepared.card.lengths.tokens.unwrap();
    assert_eq!((tokens.histogram.total, tokens.histogram.most), (5, 3));
    assert_eq!(prepared.card.lengths.characters.total, 8);
    assert!(files["card.md"].contains("Lengths in tokens"));
}
