//! Any text as a model's card: the licences that are found are short and clean.
#![no_main]

use gapimage::source::model::card_licenses;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for licence in card_licenses(text) {
        assert!(licence.len() <= 4 * 200 && !licence.contains(char::is_control));
    }
});
