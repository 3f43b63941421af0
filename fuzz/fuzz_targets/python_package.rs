//! Any bytes as what a package index and a Python package say: pages, metadata, lists of files, programs, file names. The
//! first byte chooses.
#![no_main]

use gapimage::{
    layer::wheels::{parse_record, programs},
    source::wheels::{
        index::offers,
        metadata::Metadata,
        name::{ProjectName, WheelName},
    },
};
use libfuzzer_sys::fuzz_target;
use url::Url;

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    match kind % 5 {
        0 => {
            let page = Url::parse("https://example.org/simple/a/").expect("an address");
            for offer in offers(&page, bytes).unwrap_or_default() {
                assert!(["http", "https", "file"].contains(&offer.url.scheme()));
            }
        }
        1 => drop(Metadata::parse(bytes)),
        2 => drop(parse_record(bytes)),
        3 => {
            for program in programs(bytes).unwrap_or_default() {
                assert!(!program.name.contains('/') && program.name != "..");
                assert!(!program.module.contains([';', '(', ' ', '\n']) && !program.function.contains([';', '(', ' ', '\n']));
            }
        }
        _ => {
            if let Ok(name) = text.parse::<WheelName>() {
                assert!(!name.as_str().contains('/'));
            }
            if let Ok(name) = ProjectName::new(text) {
                assert_eq!(ProjectName::new(name.as_str()).as_ref(), Ok(&name), "one spelling");
            }
        }
    }
});
