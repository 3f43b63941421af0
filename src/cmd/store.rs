//! `gapimage store`.

use super::{
    Failure, Outcome, StoreCommand, StoreDir,
    failure::failed,
    lock::{load, load_recipe},
    terminal::human_bytes,
};
use crate::{
    lock::Lock,
    plan::Plan,
    report::output::{ascii_json, print},
    source::debian::archive::INDEX_LIFE,
    store::{Collected, Policy, Registered, Roots, Store, collect, registered, usage},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Days after which a build is forgotten whose lock nobody built from again.
pub const FORGET_DAYS: u32 = 180;

/// How large the store is, for programs.
#[derive(Debug, Serialize)]
struct Sizes {
    dir: PathBuf,
    /// By kind.
    kinds: BTreeMap<String, Size>,
    /// The locks that lead to what is reachable.
    locks: Vec<PathBuf>,
    bytes: u64,
    reachable: u64,
    unreachable: u64,
}

/// How large a part of it is.
#[derive(Debug, Serialize)]
struct Size {
    count: u64,
    bytes: u64,
    reachable: u64,
    unreachable: u64,
}

/// Collects garbage, or says how large the store is.
pub fn run(command: &StoreCommand) -> Outcome {
    let text = match command {
        StoreCommand::Gc { keep_days, forget_days, keep, dry_run, store } => {
            let policy = Policy {
                used_since: days_ago(*keep_days),
                indexes_used_since: ago(INDEX_LIFE),
                registered_since: days_ago(*forget_days),
                down_to: None,
                dry_run: *dry_run,
            };
            gc(&directory(store)?, keep, &policy)?
        }
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

fn days_ago(days: u32) -> SystemTime {
    ago(Duration::from_secs(u64::from(days) * 86_400))
}

fn ago(age: Duration) -> SystemTime {
    SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn gc(dir: &Path, keep: &[PathBuf], policy: &Policy) -> Result<String, Failure> {
    let mut roots = roots_of(&built(dir, policy.registered_since)?);
    for path in keep {
        roots.add(named(path, dir)?);
    }
    let collected = collect(dir, &roots, policy).map_err(failed("collecting garbage"))?;
    Ok(collected_text(&collected, policy.dry_run))
}

fn built(dir: &Path, since: SystemTime) -> Result<Vec<Registered>, Failure> {
    registered(dir, since).map_err(failed("looking for the locks that were built from"))
}

/// What builds registered, and what their locks pin by now.
fn roots_of(built: &[Registered]) -> Roots {
    let mut roots = Roots::default();
    for build in built {
        roots.add(build.roots.clone());
        // A damaged lock pins nothing; what was built from it before stays.
        let lock = Lock::load(&build.lock).ok().flatten();
        roots.digests.extend(lock.iter().flat_map(Lock::sources));
    }
    roots
}

/// What a recipe or lock that the user named needs.
fn named(path: &Path, dir: &Path) -> Result<Roots, Failure> {
    let is_lock = path.extension().is_some_and(|extension| extension == "lock");
    let lock_path = if is_lock { path.to_owned() } else { Lock::path_for(path) };
    let lock = load(&lock_path)?.ok_or_else(|| {
        let message = format!("there is no lock `{}` to keep anything for", lock_path.display());
        Failure::could_not_run(message, "name a recipe that was locked; nothing was removed")
    })?;
    let mut roots = Roots { digests: lock.sources(), ..Roots::default() };
    let recipe_path = path.with_extension("toml");
    if !is_lock || recipe_path.exists() {
        let recipe = load_recipe(if is_lock { &recipe_path } else { path })?;
        // Closed again before anything is collected: nothing is, while somebody has the store open.
        let store = Store::open(dir).map_err(failed("opening the store"))?;
        let plan =
            Plan::new(&recipe, &lock, &store).map_err(failed(format!("planning `{}`", recipe.path.display())))?;
        roots.add(plan.roots());
    }
    Ok(roots)
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
    let built = built(&dir, days_ago(FORGET_DAYS))?;
    let usage = usage(&dir, &roots_of(&built)).map_err(failed("measuring the store"))?;
    let kinds: BTreeMap<String, Size> = usage
        .into_iter()
        .map(|(kind, amount)| {
            let unreachable = amount.bytes - amount.reachable;
            let size = Size { count: amount.count, bytes: amount.bytes, reachable: amount.reachable, unreachable };
            (kind.to_string(), size)
        })
        .collect();
    let bytes = kinds.values().map(|size| size.bytes).sum();
    let reachable = kinds.values().map(|size| size.reachable).sum();
    let locks = built.into_iter().map(|build| build.lock).collect();
    let sizes = Sizes { dir, kinds, locks, bytes, reachable, unreachable: bytes - reachable };
    if json { ascii_json(&sizes).map_err(failed("writing JSON")) } else { Ok(sizes_text(&sizes)) }
}

fn sizes_text(sizes: &Sizes) -> String {
    let mut text = format!("{}\n", sizes.dir.display());
    let mut row = |name: &str, count: &str, bytes: &str, reachable: &str, unreachable: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<20} {count:>8} {bytes:>12} {reachable:>12} {unreachable:>12}");
    };
    row("", "files", "bytes", "reachable", "unreachable");
    for (kind, size) in &sizes.kinds {
        let [bytes, reachable, unreachable] = [size.bytes, size.reachable, size.unreachable].map(human_bytes);
        row(kind, &size.count.to_string(), &bytes, &reachable, &unreachable);
    }
    let [bytes, reachable, unreachable] = [sizes.bytes, sizes.reachable, sizes.unreachable].map(human_bytes);
    row("in all", "", &bytes, &reachable, &unreachable);
    for lock in &sizes.locks {
        let _ = writeln!(text, "kept for {}", lock.display().to_string().escape_debug());
    }
    text
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

    fn unused_for(days: u32) -> Policy {
        let (used_since, registered_since) = (days_ago(days), days_ago(FORGET_DAYS));
        Policy { used_since, indexes_used_since: used_since, registered_since, down_to: None, dry_run: false }
    }

    fn sources(dir: &Path) -> (u64, u64) {
        let usage = usage(dir, &Roots::default()).unwrap();
        usage.get(&crate::store::Kind::Source).map_or((0, 0), |amount| (amount.count, amount.bytes))
    }

    #[test]
    fn sizes_are_told_to_people_and_programs() {
        let dir = filled();
        let json: serde_json::Value = serde_json::from_str(&du(dir.path().to_owned(), true).unwrap()).unwrap();
        let expected = serde_json::json!({ "count": 1, "bytes": 5, "reachable": 0, "unreachable": 5 });
        assert_eq!((&json["kinds"]["sources"], &json["bytes"]), (&expected, &5.into()));
        let text = du(dir.path().to_owned(), false).unwrap();
        assert!(text.contains("sources") && text.contains("5 B"), "{text}");
    }

    #[test]
    fn what_was_used_lately_stays_and_a_dry_run_removes_nothing() {
        let dir = filled();
        gc(dir.path(), &[], &unused_for(1)).unwrap();
        assert_eq!(sources(dir.path()), (1, 5));
        let said = gc(dir.path(), &[], &Policy { dry_run: true, ..unused_for(0) }).unwrap();
        assert!(said.contains("would remove sources/sha256/"), "{said}");
        assert_eq!(sources(dir.path()), (1, 5));
        let said = gc(dir.path(), &[], &unused_for(0)).unwrap();
        assert!(said.contains("removed 5 B"), "{said}");
        assert_eq!(sources(dir.path()), (0, 0));
    }

    #[test]
    fn a_store_in_use_is_left_alone() {
        let dir = filled();
        let _store = Store::open(dir.path()).unwrap();
        assert!(matches!(gc(dir.path(), &[], &unused_for(0)), Err(Failure::CouldNotRun(_))));
    }

    #[test]
    fn what_a_named_or_registered_lock_pins_stays_and_a_missing_one_ends_it() {
        let dir = filled();
        let site = tempfile::tempdir().unwrap();
        let lock = site.path().join("a.lock");
        let text = "version = 1\n[[layer]]\nname = \"l\"\nbelow = []\nrequest = \"DIGEST\"\n[layer.inputs.cargo]\n\
                    sources = \"DIGEST\"\ntoolchain = { rustc = \"1\", commit = \"c\", host = \"h\" }\n\
                    [[layer.inputs.cargo.crate]]\nname = \"c\"\nversion = \"1\"\nsha256 = \"DIGEST\"\nsize = 5\nused = true\n";
        std::fs::write(&lock, text.replace("DIGEST", &gap_format::Digest::of(b"hello").to_string())).unwrap();
        gc(dir.path(), std::slice::from_ref(&lock), &unused_for(0)).unwrap();
        assert_eq!(sources(dir.path()), (1, 5));
        let missing = gc(dir.path(), &[site.path().join("b.toml")], &unused_for(0));
        assert!(matches!(missing, Err(Failure::CouldNotRun(_))));
        assert_eq!(sources(dir.path()), (1, 5));

        Store::open(dir.path()).unwrap().register(&lock, Roots::default()).unwrap();
        gc(dir.path(), &[], &unused_for(0)).unwrap();
        assert_eq!(sources(dir.path()), (1, 5), "the lock that was built from pins it by now");
        let text = du(dir.path().to_owned(), false).unwrap();
        assert!(text.contains(&format!("kept for {}", lock.display())), "{text}");
        std::fs::remove_file(&lock).unwrap();
        gc(dir.path(), &[], &unused_for(0)).unwrap();
        assert_eq!(sources(dir.path()), (0, 0));
    }
}
