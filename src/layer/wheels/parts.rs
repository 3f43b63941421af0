//! How a layer of wheels is divided, so that a wheel that changes costs little more than itself.
//!
//! Large wheels are a part each. The small ones go into a few buckets by a hash of their names: which bucket a wheel is in
//! does not depend on the others, so one that comes or goes moves none.

use crate::source::wheels::{LockedWheel, name::ProjectName};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Wheels of this many bytes are a part each.
const LARGE: u64 = 4 << 20;
/// Wheels that are a part each, at most; an image of too many layers cannot be mounted everywhere.
const LARGE_MAX: usize = 40;
/// Small wheels of fewer bytes than this together are one part.
const BUCKETS_FROM: u64 = 8 << 20;
/// How many buckets there are else.
const BUCKETS: u8 = 8;

/// Wheels that are installed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle<'w> {
    /// Its name: that of the project, or `small` with the number of the bucket.
    pub name: String,
    /// The wheels, sorted by name.
    pub wheels: Vec<&'w LockedWheel>,
}

/// Divides wheels into parts, buckets first.
pub fn bundles(wheels: &[LockedWheel]) -> Vec<Bundle<'_>> {
    let mut large: Vec<&LockedWheel> = wheels.iter().filter(|wheel| wheel.size >= LARGE).collect();
    large.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
    large.truncate(LARGE_MAX);
    let is_large = |wheel: &LockedWheel| large.iter().any(|other| other.name == wheel.name);
    let small: u64 = wheels.iter().filter(|wheel| !is_large(wheel)).map(|wheel| wheel.size).sum();
    let mut bundles: BTreeMap<(bool, String), Vec<&LockedWheel>> = BTreeMap::new();
    for wheel in wheels {
        let name = match (is_large(wheel), small < BUCKETS_FROM) {
            (true, _) => wheel.name.to_string(),
            (false, true) => "small".to_owned(),
            (false, false) => format!("small-{}", bucket(&wheel.name)),
        };
        bundles.entry((is_large(wheel), name)).or_default().push(wheel);
    }
    bundles
        .into_iter()
        .map(|((_, name), mut wheels)| {
            wheels.sort_by(|a, b| a.name.cmp(&b.name));
            Bundle { name, wheels }
        })
        .collect()
}

fn bucket(name: &ProjectName) -> u8 {
    let digest = Sha256::digest(name.as_str());
    digest.first().copied().unwrap_or_default() % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::{super::tests::row, *};

    fn rows(sizes: &[(&str, u64)]) -> Vec<LockedWheel> {
        sizes.iter().map(|&(name, size)| LockedWheel { size, ..row(name) }).collect()
    }

    fn names(bundles: &[Bundle<'_>]) -> Vec<(String, usize)> {
        bundles.iter().map(|bundle| (bundle.name.clone(), bundle.wheels.len())).collect()
    }

    #[test]
    fn large_wheels_are_alone_and_small_ones_together() {
        let rows = rows(&[("a", 1), ("torch", 5 << 20), ("b", 2)]);
        assert_eq!(names(&bundles(&rows)), [("small".to_owned(), 2), ("torch".to_owned(), 1)]);
    }

    #[test]
    fn a_wheel_that_comes_moves_no_other() {
        let sizes: Vec<(String, u64)> = (0..60).map(|number| (format!("p{number}"), 1 << 20)).collect();
        let sizes: Vec<(&str, u64)> = sizes.iter().map(|(name, size)| (name.as_str(), *size)).collect();
        let before = rows(&sizes[1..]);
        let after = rows(&sizes);
        let (before, after) = (bundles(&before), bundles(&after));
        assert_eq!(after.len(), usize::from(BUCKETS));
        let changed = after.iter().filter(|bundle| !before.contains(bundle)).count();
        assert_eq!(changed, 1);
    }

    #[test]
    fn there_are_never_too_many_parts() {
        let sizes: Vec<(String, u64)> = (0..200).map(|number| (format!("p{number}"), 5 << 20)).collect();
        let sizes: Vec<(&str, u64)> = sizes.iter().map(|(name, size)| (name.as_str(), *size)).collect();
        assert_eq!(bundles(&rows(&sizes)).len(), LARGE_MAX + usize::from(BUCKETS));
    }
}
