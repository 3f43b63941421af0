//! Any text as one with personal data: what is found lies in it, in order and apart.
#![no_main]

use gap_data::pii::Detector;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static DETECTOR: LazyLock<Detector> = LazyLock::new(|| Detector::new(Vec::new()).expect("patterns compile"));

fuzz_target!(|text: &str| {
    let mut end = 0;
    for finding in DETECTOR.find(text) {
        assert!(end <= finding.range.start && !finding.range.is_empty());
        assert!(text.get(finding.range.clone()).is_some());
        end = finding.range.end;
    }
});
