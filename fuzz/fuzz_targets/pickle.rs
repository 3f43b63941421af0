//! Any bytes as pickles: they are followed to their end or refused, in bounded memory.
#![no_main]

use gapimage::model::pickle::stream;
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;

fuzz_target!(|bytes: &[u8]| {
    let Ok(imports) = stream(Cursor::new(bytes)) else { return };
    for import in imports {
        let _ = (import.danger(), import.to_string());
    }
});
