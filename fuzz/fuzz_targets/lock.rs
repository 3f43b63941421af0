//! Any text as a lock: one that is taken has one form.
#![no_main]

use gapimage::lock::Lock;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    let path = Path::new("a.lock");
    let Ok(lock) = Lock::parse(text, path) else { return };
    let text = lock.to_text().expect("what was read can be written");
    let again = Lock::parse(&text, path).expect("what was written can be read");
    assert_eq!(again.to_text().expect("and written again"), text);
});
