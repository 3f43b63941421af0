//! Shards: whether all that an index names are there, and hold what it says.

use super::{Inspector, Tensors};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// What the names of indexes end with.
const INDEXES: [&str; 2] = [".safetensors.index.json", ".bin.index.json"];
/// More shards than any model has.
const SHARDS_MAX: u64 = 100_000;
/// How many tensors are named.
const NAMED: usize = 4;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Inspector<'_> {
    /// Compares every index with the shards, and shards with one another.
    pub(super) fn shards(&mut self, tensors: &Tensors) {
        let is_index = |path: &&str| INDEXES.iter().any(|end| path.ends_with(end)) && self.files.is_here(path);
        let indexes: Vec<String> = self.files.paths().filter(is_index).map(str::to_owned).collect();
        for path in &indexes {
            let Some(Ok(json)) = self.files.read(path) else { continue };
            match serde_json::from_slice::<Index>(&json) {
                Ok(index) => self.index(path, &index, tensors),
                Err(error) => self.fail(Some(path), format!("no index of weights: {error}"), "take it again"),
            }
        }
        self.numbers(&indexes);
    }

    fn index(&mut self, path: &str, index: &Index, tensors: &Tensors) {
        let directory = path.rsplit_once('/').map_or(String::new(), |(directory, _)| format!("{directory}/"));
        let shards: BTreeSet<&String> = index.weight_map.values().collect();
        for shard in shards {
            let whole = format!("{directory}{shard}");
            if !self.files.has(&whole) {
                let what = format!("it names the shard `{}`, which is not there", shard.escape_debug());
                self.fail(Some(path), what, "take the shard; check `include` and `exclude`");
                continue;
            }
            let Some(header) = tensors.get(&whole) else { continue };
            let promised = index.weight_map.iter().filter(|(_, at)| *at == shard).map(|(tensor, _)| tensor);
            let lacking: Vec<&String> = promised.filter(|tensor| !header.tensors.contains_key(*tensor)).collect();
            if let Some(what) = listed(&lacking) {
                let what = format!("it lacks {what}, which the index says that it has");
                self.fail(Some(&whole), what, "index and shards are not of one model: take all of them again");
            }
            let extra: Vec<&String> =
                header.tensors.keys().filter(|tensor| !index.weight_map.contains_key(*tensor)).collect();
            if let Some(what) = listed(&extra) {
                let what = format!("it has {what}, which the index does not know");
                self.warn(Some(&whole), what, "loaders pass over it; index and shards may not be of one model");
            }
        }
    }

    /// Shards that are numbered `00001-of-00003` must all be there, with an index.
    fn numbers(&mut self, indexes: &[String]) {
        let mut sets: BTreeMap<(String, u64, String), BTreeSet<u64>> = BTreeMap::new();
        for path in self.files.paths() {
            if let Some((before, number, of, after)) = numbered(path) {
                sets.entry((before, of, after)).or_default().insert(number);
            }
        }
        for ((before, of, after), there) in sets {
            let missing: Vec<u64> = (1..=of.min(SHARDS_MAX)).filter(|number| !there.contains(number)).collect();
            if let Some(first) = missing.first() {
                let what = format!("{} of {of} shards are missing, the first is number {first}", missing.len());
                self.fail(Some(&format!("{before}…{after}")), what, "take all of them");
            }
            let name = format!("{}{after}.index.json", before.trim_end_matches('-'));
            if of > 1 && !indexes.contains(&name) && !after.ends_with(".gguf") && !self.files.has(&name) {
                self.fail(Some(&name), "there are several shards, but no index of them", "take the index");
            }
        }
    }
}

fn listed(names: &[&String]) -> Option<String> {
    let shown: Vec<String> = names.iter().take(NAMED).map(|name| format!("`{}`", name.escape_debug())).collect();
    match names.len() {
        0 => None,
        count if count > NAMED => Some(format!("{} and {} more tensors", shown.join(", "), count - NAMED)),
        _ => Some(shown.join(", ")),
    }
}

/// The parts of `BEFORE-00001-of-00003.AFTER`: with the last hyphen before, and the dot after.
fn numbered(path: &str) -> Option<(String, u64, u64, String)> {
    let (start, rest) = path.rsplit_once("-of-")?;
    let (before, number) = start.rsplit_once('-')?;
    let end = rest.find('.')?;
    let (of, after) = rest.split_at(end);
    let digits = |text: &str| text.len() >= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_index = after.ends_with(".json");
    (digits(number) && digits(of) && !is_index)
        .then(|| Some((format!("{before}-"), number.parse().ok()?, of.parse().ok()?, after.to_owned())))?
}
