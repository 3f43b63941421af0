//! Any bytes as a data set in each container but Parquet: every row becomes an example or a problem, and an example is
//! taken again as it was written.
#![no_main]

use gap_data::{BadRows, Input, Limits, Options, Watch, container::{Container, Delimiter, Reading, TextUnit}, pii::PiiAction, prepare, split::{Ratios, Splitting}};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [choice, content @ ..] = bytes else { return };
    let container = match choice % 4 {
        0 => Container::Jsonl,
        1 => Container::Csv { delimiter: Delimiter::Comma },
        2 => Container::Csv { delimiter: Delimiter::Semicolon },
        _ => Container::Text,
    };
    let text_unit = [TextUnit::Line, TextUnit::Paragraph, TextUnit::Document][usize::from(choice / 4 % 3)];
    let options = Options {
        reading: Reading { container: Some(container), text_unit },
        bad_rows: BadRows::LeaveOut,
        pii: PiiAction::Off,
        split: Splitting::Fixed(Ratios::new(100, 0, 0).expect("they add up")),
        limits: Limits { row_bytes: 4096, ..Limits::default() },
        threads: std::num::NonZeroUsize::new(1),
        ..Options::default()
    };
    let directory = tempfile::tempdir().expect("a directory");
    let (file, out) = (directory.path().join("rows"), directory.path().join("out"));
    std::fs::write(&file, content).expect("a file");
    let Ok(prepared) = prepare(&[Input::new("rows", &file)], &options, &out, Watch::unwatched()) else { return };
    let examples = &prepared.card.examples;
    assert_eq!(examples.rows, examples.bad + examples.exact_duplicates + examples.near_duplicates + examples.kept);
    let options = Options { reading: Reading::default(), bad_rows: BadRows::Refuse, ..options };
    let (first, again) = (out.join("train.jsonl"), directory.path().join("again"));
    prepare(&[Input::new("train.jsonl", &first)], &options, &again, Watch::unwatched()).expect("what was written is read");
    assert_eq!(std::fs::read(first).expect("written"), std::fs::read(again.join("train.jsonl")).expect("written"));
});
