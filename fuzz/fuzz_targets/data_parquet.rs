//! Any bytes as a Parquet file: rows or a refusal, within bounded memory. A panic of the decoder is caught and becomes
//! a refusal; the panic hook that would end the fuzzer is taken out for that.
#![no_main]

use gap_data::{Limits, container::{Container, Reading, read_bytes}};
use libfuzzer_sys::fuzz_target;
use std::{panic, sync::Once};

static CATCH: Once = Once::new();

fuzz_target!(|bytes: &[u8]| {
    CATCH.call_once(|| panic::set_hook(Box::new(|_| {})));
    let reading = Reading { container: Some(Container::Parquet), ..Reading::default() };
    let _ = read_bytes("a.parquet", bytes, &reading, &Limits::default());
});
