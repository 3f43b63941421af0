//! Copyright files of Debian packages: whatever is in one, its licences are valid SPDX expressions, sorted.
#![no_main]

use gapimage::source::{debian::copyright::licences, licence::Licence};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let found = licences(data);
    assert!(!found.is_empty() && found.is_sorted());
    // What the lock holds means the same to whoever reads it.
    let licence = Licence::all_of("debian", &found);
    assert!(licence.conditions().eq(found.iter().map(String::as_str)), "{found:?}");
});
