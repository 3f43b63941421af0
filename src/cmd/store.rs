//! `gapimage store`.

use super::{Failure, Outcome, StoreCommand, StoreDir, failure::failed, terminal::human_bytes};
use crate::{
    report::output::{ascii_json, print},
    store::{Collected, Policy, Roots, Store, Usage, collect, usage},
};
use serde::Serialize;
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// How large the store is, for programs.
#[derive(Serialize)]
struct Sizes {
    dir: PathBuf,
    sources: Size,
    blobs: Size,
    records: Size,
    caches: Size,
    bytes: u64,
}

/// How large a part of it is.
#[derive(Serialize)]
struct Size {
    count: u64,
    bytes: u64,
}

/// Collects garbage, or says how large the store is.
pub fn run(command: &StoreCommand) -> Outcome {
    let text = match command {
        StoreCommand::Gc { keep_days, dry_run, store } => gc(&directory(store)?, *keep_days, *dry_run)?,
        StoreCommand::Du { json, store } => du(directory(store)?, *json)?,
    };
    print(&text).map_err(failed("writing to standard output"))
}

/// The directory that was named, or the user's own.
fn directory(store: &StoreDir) -> Result<PathBuf, Failure> {
    match &store.store {
        Some(dir) => Ok(dir.clone()),
        None => Store::default_dir().map_err(failed("looking for the store")),
    }
}

fn gc(dir: &Path, keep_days: u32, dry_run: bool) -> Result<String, Failure> {
    let age = Duration::from_secs(u64::from(keep_days) * 86_400);
    let used_since = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    let policy = Policy { used_since, down_to: None, dry_run };
    let collected = collect(dir, &Roots::default(), &policy).map_err(failed("collecting garbage"))?;
    Ok(collected_text(&collected, dry_run))
}

fn collected_text(collected: &Collected, dry_run: bool) -> String {
    let verb = if dry_run { "would remove" } else { "removed" };
    let mut text = String::new();
    for removed in &collected.removed {
        // Writing to a string cannot fail; names in the store are digests unless somebody put them there.
        let path = removed.path.to_string_lossy().escape_debug().to_string();
        let _ = writeln!(text, "{verb} {path} ({})", human_bytes(removed.size));
    }
    let (freed, kept) = (human_bytes(collected.freed), human_bytes(collected.kept));
    let _ = writeln!(text, "{verb} {freed}, {kept} {}", if dry_run { "would stay" } else { "stayed" });
    text
}

fn du(dir: PathBuf, json: bool) -> Result<String, Failure> {
    let Usage { sources, blobs, records, caches } = usage(&dir).map_err(failed("measuring the store"))?;
    let size = |(count, bytes)| Size { count, bytes };
    let bytes = sources.1 + blobs.1 + records.1 + caches.1;
    if json {
        let [sources, blobs, records, caches] = [sources, blobs, records, caches].map(size);
        let sizes = Sizes { dir, sources, blobs, records, caches, bytes };
        return ascii_json(&sizes).map_err(failed("writing JSON"));
    }
    let mut text = format!("{}\n", dir.display());
    for (name, (count, bytes)) in [("sources", sources), ("blobs", blobs), ("records", records), ("caches", caches)] {
        let _ = writeln!(text, "  {name:<8} {count:>8} {:>12}", human_bytes(bytes));
    }
    let _ = writeln!(text, "  {:<8} {:>8} {:>12}", "in all", "", human_bytes(bytes));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.insert_source(None, 100, &b"hello"[..]).unwrap();
        dir
    }

    #[test]
    fn sizes_are_told_to_people_and_programs() {
        let dir = filled();
        let json: serde_json::Value = serde_json::from_str(&du(dir.path().to_owned(), true).unwrap()).unwrap();
        assert_eq!(
            (&json["sources"]["count"], &json["sources"]["bytes"], &json["bytes"]),
            (&1.into(), &5.into(), &5.into())
        );
        let text = du(dir.path().to_owned(), false).unwrap();
        assert!(text.contains("sources") && text.contains("5 B"), "{text}");
    }

    #[test]
    fn what_was_used_lately_stays_and_a_dry_run_removes_nothing() {
        let dir = filled();
        let size = || usage(dir.path()).unwrap().sources;
        gc(dir.path(), 1, false).unwrap();
        assert_eq!(size(), (1, 5));
        let said = gc(dir.path(), 0, true).unwrap();
        assert!(said.contains("would remove sources/sha256/"), "{said}");
        assert_eq!(size(), (1, 5));
        let said = gc(dir.path(), 0, false).unwrap();
        assert!(said.contains("removed 5 B"), "{said}");
        assert_eq!(size(), (0, 0));
    }

    #[test]
    fn a_store_in_use_is_left_alone() {
        let dir = filled();
        let _store = Store::open(dir.path()).unwrap();
        assert!(matches!(gc(dir.path(), 0, false), Err(Failure::CouldNotRun(_))));
    }
}
