//! What a layer is made of, item by item: its key is the hash of this list, and comparing two lists says why a layer
//! must be built again.

use crate::store::{KeyBuilder, LayerKey, Store, StoreError};
use gap_format::Digest;
use std::collections::BTreeMap;

/// Where the store keeps remembered lists.
const NOTES: &str = "ingredients";
/// Longest remembered list that is read, in bytes.
const MAX_LEN: u64 = 64 << 20;
/// Changes that are named before the rest is only counted.
const NAMED: usize = 3;

/// Everything that determines the bytes of one layer, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingredients {
    kind: &'static str,
    format: u64,
    items: BTreeMap<String, String>,
}

impl Ingredients {
    /// An empty list for layers of this kind, made by a builder whose output has this format version.
    pub const fn new(kind: &'static str, format: u64) -> Self {
        Self { kind, format, items: BTreeMap::new() }
    }

    /// Adds an item.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.items.insert(name.into(), value.into());
    }

    /// The key of a layer made of these.
    pub fn key(&self) -> LayerKey {
        let mut key = KeyBuilder::new(self.kind, self.format);
        for (name, value) in &self.items {
            key.list("item", [name, value]);
        }
        key.finish().into()
    }

    /// Remembers the list as the last one of this layer.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub fn remember(&self, store: &Store, layer: &Digest) -> Result<(), StoreError> {
        let list = serde_json::to_vec(&self.items).map_err(|error| StoreError::Input(error.into()))?;
        store.remember(NOTES, layer, &list)
    }

    /// Why a layer of this list is not there: what differs from the last list that was remembered for it.
    pub fn why_not_cached(&self, store: &Store, layer: &Digest) -> String {
        let Some(last) = recall(store, layer) else { return "never built here".to_owned() };
        let mut changes = Vec::new();
        for (name, value) in &self.items {
            match last.get(name) {
                None => changes.push(format!("{name} is new")),
                Some(old) if old != value => changes.push(format!("{name} changed")),
                Some(_) => {}
            }
        }
        changes
            .extend(last.keys().filter(|name| !self.items.contains_key(*name)).map(|name| format!("{name} is gone")));
        match changes.len() {
            0 => "no longer in the store".to_owned(),
            count if count > NAMED => {
                changes.truncate(NAMED);
                format!("{} and {} more", changes.join(", "), count - NAMED)
            }
            _ => changes.join(", "),
        }
    }
}

fn recall(store: &Store, layer: &Digest) -> Option<BTreeMap<String, String>> {
    serde_json::from_slice(&store.recall(NOTES, layer, MAX_LEN)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[(&str, &str)]) -> Ingredients {
        let mut list = Ingredients::new("test", 1);
        for (name, value) in items {
            list.add(*name, *value);
        }
        list
    }

    #[test]
    fn the_key_covers_every_item_and_the_format() {
        let key = list(&[("a", "1"), ("b", "2")]).key();
        assert_eq!(key, list(&[("b", "2"), ("a", "1")]).key());
        for other in [list(&[("a", "1")]), list(&[("a", "1"), ("b", "3")]), list(&[("a1", ""), ("b", "2")])] {
            assert_ne!(key, other.key());
        }
        assert_ne!(key, Ingredients { format: 2, ..list(&[("a", "1"), ("b", "2")]) }.key());
    }

    #[test]
    fn what_changed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layer = Digest::of(b"layer");
        assert_eq!(list(&[]).why_not_cached(&store, &layer), "never built here");
        list(&[("a", "1"), ("b", "2"), ("c", "3")]).remember(&store, &layer).unwrap();
        let why = list(&[("a", "1"), ("b", "9"), ("d", "4")]).why_not_cached(&store, &layer);
        assert_eq!(why, "b changed, d is new, c is gone");
    }
}
