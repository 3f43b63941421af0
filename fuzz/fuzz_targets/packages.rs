//! Any text as a `Packages` index, with the dependency fields and versions in it.
#![no_main]

use gapimage::source::debian::{packages, relation, version};
use libfuzzer_sys::fuzz_target;
use std::cmp::Ordering;

fuzz_target!(|text: &str| {
    let mut versions: Vec<&str> = Vec::new();
    let _ = packages::parse(text, |package| {
        for field in [package.depends, package.provides, package.conflicts, package.breaks] {
            for relation in relation::parse(field, "amd64").into_iter().flatten().flatten() {
                // Written out and read again, it admits what it admitted.
                let again = relation.to_string();
                let parsed = relation::parse(&again, "amd64").expect("what was parsed can be parsed");
                let parsed = parsed.first().and_then(|clause| clause.first()).expect("one relation");
                assert_eq!(parsed.to_string(), again);
                if let (Some(left), Some(right)) = (&relation.constraint, &parsed.constraint) {
                    assert_eq!(left.admits(package.version), right.admits(package.version));
                }
            }
        }
        versions.push(package.version);
    });
    for (left, right) in versions.iter().zip(versions.iter().skip(1)) {
        assert_eq!(version::compare(left, right), version::compare(right, left).reverse());
        assert_eq!(version::compare(left, left), Ordering::Equal);
    }
});
