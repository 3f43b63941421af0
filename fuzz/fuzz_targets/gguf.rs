//! Any bytes as GGUF: tensors that are accepted lie within the file.
#![no_main]

use gapimage::model::gguf::read_header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = read_header(bytes, bytes.len() as u64) else { return };
    for tensor in header.tensors.values() {
        assert!(tensor.offset + tensor.bytes.unwrap_or(0) <= bytes.len() as u64);
    }
});
