//! Any text as a clear-signed release, and any bytes as a keyring.
#![no_main]

use gapimage::source::debian::openpgp::{ClearSigned, Keyring};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = str::from_utf8(bytes) {
        let _ = ClearSigned::parse(message);
    }
    let _ = Keyring::parse(bytes);
});
