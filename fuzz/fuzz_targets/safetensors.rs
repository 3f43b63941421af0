//! Any bytes as safetensors: what is accepted accounts for every byte of the file.
#![no_main]

use gapimage::model::safetensors::read_header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = read_header(bytes, bytes.len() as u64) else { return };
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("a header was read"));
    let tensors: u64 = header.tensors.values().map(|tensor| tensor.bytes).sum();
    assert!(8 + length + tensors <= bytes.len() as u64);
});
