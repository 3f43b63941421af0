//! A good artifact with changes: unless nothing changed, it is refused, from a file and from a pipe.
//!
//! The input is a list of changes: four bytes of offset (little-endian), one byte to put there.
#![no_main]

#[path = "../../format/tests/fixture/mod.rs"]
mod fixture;

use fixture::{Artifact, check, policy, trust};
use gap_format::{
    trust::Trust,
    verify::{Extent, verify, verify_stream},
};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

static GOOD: OnceLock<(Vec<u8>, Trust)> = OnceLock::new();

fuzz_target!(|changes: &[u8]| {
    let (good, trust) = GOOD.get_or_init(|| (Artifact::archive().bytes, trust()));
    let mut bytes = good.clone();
    for change in changes.chunks_exact(5) {
        let offset = u32::from_le_bytes([change[0], change[1], change[2], change[3]]) as usize;
        let len = bytes.len();
        bytes[offset % len] = change[4];
    }
    let extent = Extent::File(bytes.len() as u64);
    let unchanged = bytes == *good;
    assert_eq!(verify(&bytes, extent, trust, &policy(), &check(1, false)).is_ok(), unchanged);
    assert_eq!(verify_stream(&mut bytes.as_slice(), trust, &policy(), &check(1, false)).is_ok(), unchanged);
});
