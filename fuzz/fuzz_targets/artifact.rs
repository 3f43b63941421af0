//! Any bytes as an artifact: accounting for them ends with an answer, and the readers of its parts write back what they
//! take.
#![no_main]

use gap_format::{
    dsse::Envelope,
    layout::Layout,
    oci,
    statement::Statement,
    tar_header,
    verify::{Check, Extent, account},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let owned = bytes.to_vec();
    let check = Check { full: true, threads: std::num::NonZeroUsize::MIN, progress: &|_, _| () };
    let _ = account(&owned, Extent::File(owned.len() as u64), &check);
    if let Ok(layout) = Layout::decode(bytes) {
        assert_eq!(layout.encode().as_deref(), Ok(bytes));
    }
    if let Ok(statement) = Statement::decode(bytes) {
        assert_eq!(statement.encode().as_deref(), Ok(bytes));
    }
    if let Ok(envelope) = Envelope::decode_region(bytes) {
        assert!(envelope.encode().is_ok_and(|encoded| bytes.starts_with(&encoded)));
    }
    if let Some((path, size)) = bytes.first_chunk().and_then(tar_header::decode) {
        assert!(tar_header::encode(&path, size, None).is_some());
    }
    let _ = oci::Index::parse(bytes);
    let _ = oci::Manifest::parse(bytes);
});
