use super::*;
use std::{
    collections::BTreeSet,
    fs::Permissions,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path()).unwrap()
}

/// Every file below `dir` but locks.
fn files_below(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![dir.to_owned()];
    while let Some(current) = open.pop() {
        for entry in fs::read_dir(current).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                open.push(path);
            } else if !name.ends_with("lock") && !name.starts_with("locks/") {
                found.insert(name);
            }
        }
    }
    found
}

fn age(path: &Path, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * 86400);
    File::open(path).unwrap().set_modified(then).unwrap();
}

#[test]
fn content_is_found_by_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let digest = Digest::of(b"hello");
    assert!(store.open_source(&digest, None).unwrap().is_none());
    let stored = store.insert_source(Some(&digest), 5, &b"hello"[..]).unwrap();
    assert_eq!(stored, Stored { digest, size: 5 });
    let mut text = String::new();
    store.open_source(&digest, Some(5)).unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert!(store.open_blob(&digest, None).unwrap().is_none(), "sources and blobs are apart");
}

#[test]
fn lying_long_and_broken_content_leaves_nothing() {
    struct Breaks;
    impl Read for Breaks {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let digest = Digest::of(b"hello");
    let wrong = store.insert_source(Some(&digest), 9, &b"hallo"[..]).unwrap_err();
    assert!(matches!(wrong, StoreError::WrongDigest { .. }), "{wrong}");
    let long = store.insert_source(Some(&digest), 4, &b"hello"[..]).unwrap_err();
    assert!(matches!(long, StoreError::TooLong { limit: 4 }), "{long}");
    let broken = store.insert_source(Some(&digest), 9, b"he".chain(Breaks)).unwrap_err();
    assert!(matches!(broken, StoreError::Input(_)), "{broken}");
    drop(store.temp_blob().unwrap());
    drop(store);
    assert_eq!(files_below(dir.path()), BTreeSet::new());
}

#[test]
fn truncated_content_counts_as_absent_and_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let Stored { digest, size } = store.insert_source(None, 5, &b"hello"[..]).unwrap();
    let path = store.source_path(&digest);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "hell").unwrap();
    assert!(store.open_source(&digest, Some(size)).unwrap().is_none());
    store.insert_source(Some(&digest), 5, &b"hello"[..]).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"hello");
}

#[test]
fn many_writers_at_once_agree() {
    let dir = tempfile::tempdir().unwrap();
    let contents: Vec<Vec<u8>> = (0_u8..20).map(|seed| vec![seed; 100_000]).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = open(&dir);
                for content in &contents {
                    store.insert_source(None, 100_000, content.as_slice()).unwrap();
                }
            });
        }
    });
    let store = open(&dir);
    for content in &contents {
        assert_eq!(fs::read(store.source_path(&Digest::of(content))).unwrap(), *content);
    }
    drop(store);
    assert_eq!(files_below(dir.path()).len(), contents.len());
}

#[test]
fn one_key_is_built_by_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (store, other) = (open(&dir), open(&dir));
    let key = Digest::of(b"key");
    let lock = store.build_lock(&key, || panic!("nobody else builds")).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let sent = sender.clone();
        scope.spawn(move || {
            let _lock = other.build_lock(&key, || sent.send("waiting").unwrap()).unwrap();
            sent.send("building").unwrap();
        });
        assert_eq!(receiver.recv().unwrap(), "waiting");
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
        drop(lock);
        assert_eq!(receiver.recv().unwrap(), "building");
    });
}

fn record(store: &Store, content: &[u8]) -> Record {
    let mut blob = store.temp_blob().unwrap();
    blob.write_all(content).unwrap();
    let Stored { digest, size } = blob.commit().unwrap();
    Record { digest, size, verity_root: Digest::of(b"root"), location: None }
}

#[test]
fn a_layer_is_found_in_the_store_and_in_an_artifact() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let key = LayerKey::from(Digest::of(b"key"));
    assert!(store.layer(&key).unwrap().is_none());
    let mut record = record(&store, b"layer");
    store.put_record(&key, &record).unwrap();
    assert_eq!(store.layer(&key).unwrap().unwrap().offset, 0);

    let artifact = dir.path().join("a.gap");
    fs::write(&artifact, b"head layer tail").unwrap();
    record.location = Location::new(&artifact, 5).unwrap();
    store.put_record(&key, &record).unwrap();
    fs::remove_file(store.blob_path(&record.digest)).unwrap();
    let found = store.layer(&key).unwrap().unwrap();
    assert_eq!((found.path.as_path(), found.offset), (artifact.canonicalize().unwrap().as_path(), 5));

    // Signing changes the head and the time, not the layer.
    fs::write(&artifact, b"HEAD layer tail").unwrap();
    age(&artifact, 1);
    assert!(store.layer(&key).unwrap().is_some());
    let seen = store.record(&key).unwrap().unwrap().location.unwrap().identity;
    assert_eq!(seen, Identity::of(&File::open(&artifact).unwrap()).unwrap());

    fs::write(&artifact, b"HEAD lawyr tail").unwrap();
    age(&artifact, 2);
    assert!(store.layer(&key).unwrap().is_none());
    fs::write(&artifact, b"HEAD lay").unwrap();
    assert!(store.layer(&key).unwrap().is_none());
}

#[test]
fn what_is_damaged_can_be_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let key = LayerKey::from(Digest::of(b"key"));
    let record = record(&store, b"layer");
    store.put_record(&key, &record).unwrap();
    let source = store.insert_source(None, 10, &b"source"[..]).unwrap().digest;
    for _ in 0..2 {
        store.discard_layer(&key).unwrap();
        store.discard_source(&source).unwrap();
        assert!(store.layer(&key).unwrap().is_none() && !store.has_source(&source, None));
        assert!(!store.blob_path(&record.digest).exists());
    }
}

#[test]
fn a_damaged_record_counts_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let key = LayerKey::from(Digest::of(b"key"));
    let record = record(&store, b"layer");
    store.put_record(&key, &record).unwrap();
    assert_eq!(store.record(&key).unwrap(), Some(record));
    for damage in ["", "{", "{\"digest\":1}", "null"] {
        fs::write(store.record_path(&key), damage).unwrap();
        assert_eq!(store.record(&key).unwrap(), None, "{damage}");
    }
}

/// Collects what was not used for so many days; roots hold for a hundred, indexes for seven.
fn unused_for(days: u64) -> Policy {
    let ago = |days: u64| SystemTime::now() - Duration::from_secs(days * 86400);
    Policy {
        used_since: ago(days),
        indexes_used_since: ago(7),
        registered_since: ago(100),
        down_to: None,
        dry_run: false,
    }
}

#[test]
fn garbage_is_what_is_neither_referred_to_nor_recent() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let key = |name: &str| LayerKey::from(Digest::of(name.as_bytes()));
    let old = |text: &str| {
        let stored = store.insert_source(None, 100, text.as_bytes()).unwrap();
        age(&store.source_path(&stored.digest), 30);
        stored.digest
    };
    let (rooted, oldest, older) = (old("rooted"), old("oldest"), old("older"));
    age(&store.source_path(&oldest), 40);
    let recent = store.insert_source(None, 100, &b"recent"[..]).unwrap().digest;
    let mut layers = Vec::new();
    for name in ["kept", "lost"] {
        let record = record(&store, name.as_bytes());
        store.put_record(&key(name), &record).unwrap();
        age(&store.record_path(&key(name)), 30);
        age(&store.blob_path(&record.digest), 30);
        layers.push(record.digest);
    }
    let cache = store.cache_dir("cargo", &Digest::of(b"cache")).unwrap();
    fs::write(cache.join("object"), [0; 100]).unwrap();
    age(&cache, 30);
    drop(store);

    let roots = Roots { digests: [rooted].into(), layers: [key("kept")].into(), ..Roots::default() };
    let policy = Policy { dry_run: true, ..unused_for(7) };
    let before = files_below(dir.path());
    let planned = collect(dir.path(), &roots, &policy).unwrap();
    assert_eq!(files_below(dir.path()), before, "a dry run removes nothing");
    assert!(planned.removed[0].path.ends_with(oldest.to_hex()), "least recently used first");

    let size = usage(dir.path(), &roots).unwrap();
    assert_eq!(size[&Kind::Source], Amount { count: 4, bytes: 23, reachable: 6 });
    assert_eq!(size[&Kind::Blob], Amount { count: 2, bytes: 8, reachable: 4 });
    assert_eq!(size[&Kind::Record].count, 2);
    assert_eq!(size[&Kind::Cache("cargo".to_owned())], Amount { count: 1, bytes: 100, reachable: 0 });
    let limit = planned.freed + planned.kept - 1;
    let some = collect(dir.path(), &roots, &Policy { down_to: Some(limit), dry_run: false, ..policy }).unwrap();
    assert_eq!(some.removed.len(), 1, "stops when the store is small enough");

    let done = collect(dir.path(), &roots, &Policy { dry_run: false, ..policy }).unwrap();
    assert_eq!(done.freed + some.freed, planned.freed);
    let store = open(&dir);
    assert!(store.has_source(&rooted, None) && store.has_source(&recent, None));
    assert!(!store.has_source(&older, None) && !store.has_source(&oldest, None));
    assert!(store.layer(&key("kept")).unwrap().is_some() && store.layer(&key("lost")).unwrap().is_none());
    assert!(!store.blob_path(&layers[1]).exists() && !cache.exists());
}

#[test]
fn what_a_build_registered_stays_until_its_lock_is_gone_or_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let key = LayerKey::from(Digest::of(b"key"));
    let lock = dir.path().join("recipe.lock");
    fs::write(&lock, "").unwrap();
    let source = store.insert_source(None, 100, &b"source"[..]).unwrap().digest;
    let record = record(&store, b"layer");
    store.put_record(&key, &record).unwrap();
    let note = Digest::of(b"note");
    store.remember("ingredients", &note, b"list").unwrap();
    let roots = Roots { digests: [source].into(), layers: [key].into(), caches: [note].into() };
    store.register(&lock, Roots::default()).unwrap();
    store.register(&lock, roots.clone()).unwrap();
    let old = |days| {
        for path in [store.source_path(&source), store.record_path(&key), store.blob_path(&record.digest)] {
            age(&path, days);
        }
        age(&store.cache_dir("ingredients", &note).unwrap(), days);
        age(&survey::list(&dir.path().join("roots")).unwrap()[0], days);
    };
    old(60);
    let dir = dir.path().to_owned();
    let there = || {
        let policy = unused_for(30);
        let mut roots = Roots::default();
        registered(&dir, policy.registered_since).unwrap().into_iter().for_each(|found| roots.add(found.roots));
        collect(&dir, &roots, &Policy { dry_run: true, ..policy }).unwrap().removed.is_empty()
    };
    assert_eq!(registered(&dir, SystemTime::UNIX_EPOCH).unwrap(), [Registered { lock: lock.clone(), roots }]);
    assert!(there());
    fs::remove_file(&lock).unwrap();
    assert!(!there(), "the lock is gone");
    fs::write(&lock, "").unwrap();
    assert!(there());
    old(101);
    assert!(!there(), "nobody built it for long");
    store.register(&lock, Registered::clone(&registered(&dir, SystemTime::UNIX_EPOCH).unwrap()[0]).roots).unwrap();
    assert!(there(), "building again counts");
    fs::write(survey::list(&dir.join("roots")).unwrap().remove(0), "{").unwrap();
    assert!(!there(), "a damaged root holds nothing");
}

#[test]
fn indexes_and_parts_of_downloads_expire_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    for (cache, ages) in [("indexes", [1, 8]), ("downloads", [8, 31])] {
        let cache = store.cache_dir(cache, &Digest::of(b"")).unwrap();
        for days in ages {
            let path = cache.join(format!("{days}"));
            fs::write(&path, "x").unwrap();
            age(&path, days);
        }
    }
    drop(store);
    let collected = collect(dir.path(), &Roots::default(), &unused_for(30)).unwrap();
    let mut removed: Vec<String> = collected.removed.iter().map(|gone| gone.path.display().to_string()).collect();
    removed.sort();
    assert!(removed.len() == 2 && removed[0].ends_with("/31") && removed[1].ends_with("/8"), "{removed:?}");
    assert!(removed[0].starts_with("caches/downloads") && removed[1].starts_with("caches/indexes"), "{removed:?}");
}

#[test]
fn notes_are_remembered_whole_and_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let (store, key) = (open(&dir), Digest::of(b"key"));
    assert_eq!(store.recall("notes", &key, 10), None);
    assert!(!dir.path().join("caches/notes").exists(), "looking leaves nothing");
    store.remember("notes", &key, b"first").unwrap();
    store.remember("notes", &key, b"other").unwrap();
    assert_eq!(store.recall("notes", &key, 5).as_deref(), Some(&b"other"[..]));
    assert_eq!(store.recall("notes", &key, 4), None);
}

#[test]
fn garbage_is_not_collected_while_somebody_builds() {
    let dir = tempfile::tempdir().unwrap();
    let policy = unused_for(0);
    assert_eq!(collect(dir.path(), &Roots::default(), &policy).unwrap().freed, 0, "there is no store yet");
    let store = open(&dir);
    let refused = collect(dir.path(), &Roots::default(), &policy).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    collect(dir.path(), &Roots::default(), &Policy { dry_run: true, ..policy }).unwrap();
    drop(store);
    collect(dir.path(), &Roots::default(), &policy).unwrap();
}

/// Runs the ignored test `name` of this binary in a process of its own, after the shell commands `before`.
fn child(name: &str, before: &str, dir: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg(format!("{before} exec \"$0\" --ignored --exact store::tests::{name} --nocapture"));
    command.arg(env::current_exe().unwrap()).env("STORE_UNDER_TEST", dir).stdout(Stdio::piped());
    command
}

fn store_under_test() -> Store {
    Store::open(Path::new(&env::var_os("STORE_UNDER_TEST").unwrap())).unwrap()
}

#[test]
#[ignore = "the process that is killed by the next test"]
fn write_until_killed() {
    let store = store_under_test();
    let mut blob = store.temp_blob().unwrap();
    blob.write_all(&[7; 100_000]).unwrap();
    let _lock = store.build_lock(&Digest::of(b"key"), || ()).unwrap();
    println!("\nready");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_build_leaves_nothing_and_blocks_nobody() {
    use std::io::BufRead;
    let dir = tempfile::tempdir().unwrap();
    let mut victim = child("write_until_killed", "", dir.path()).spawn().unwrap();
    let mut lines = io::BufReader::new(victim.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"));
    assert_eq!(files_below(dir.path()).len(), 1, "the unfinished file");
    let store = open(&dir);
    assert_eq!(files_below(dir.path()).len(), 1, "the living process keeps its file");
    drop(store);
    victim.kill().unwrap();
    victim.wait().unwrap();
    let store = open(&dir);
    assert_eq!(files_below(dir.path()).len(), 0);
    store.build_lock(&Digest::of(b"key"), || panic!("the dead hold no lock")).unwrap();
}

#[test]
fn who_waits_for_the_downloads_of_another_is_told_and_those_of_other_kinds_are_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (store, other) = (open(&dir), open(&dir));
    let (directory, held) = store.downloads(Downloads::Packages).unwrap();
    assert!(directory.is_dir());
    other.wait_for_downloads(Downloads::Wheels, || panic!("nobody fetches wheels")).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| other.wait_for_downloads(Downloads::Packages, || tell.send(()).unwrap()));
        told.recv().unwrap();
        drop(held);
        waiting.join().unwrap().unwrap();
    });
}

/// Does something without root's right to pass over permissions, as the owner of all files.
fn as_owner_only<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let thread = || {
        let mut sets = capabilities(None).unwrap();
        sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        set_capabilities(None, sets).unwrap();
        what()
    };
    std::thread::scope(|scope| scope.spawn(thread).join().unwrap())
}

#[test]
fn what_a_killed_build_left_and_cannot_be_removed_blocks_nobody_and_is_told_once() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    // As overlayfs leaves its working directory.
    let left = dir.path().join("tmp/session-dead");
    let closed = left.join("work/work");
    fs::create_dir_all(closed.join("inside")).unwrap();
    fs::write(left.join("gone"), "").unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
    as_owner_only(|| {
        let store = Store::open(dir.path()).unwrap();
        let remains = store.remains().unwrap();
        let paths: Vec<_> = remains.iter().map(|remains| remains.path().to_owned()).collect();
        assert_eq!(paths, [left.canonicalize().unwrap()], "neither the session of the living nor nothing");
        assert!(store.remains().unwrap().is_empty(), "who clears it away has it alone");
        collect(dir.path(), &Roots::default(), &policy_that_looks()).unwrap();
    });
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    assert!(open(&dir).remains().unwrap().is_empty());
    assert!(!left.exists(), "what can be removed is");
}

fn policy_that_looks() -> Policy {
    let now = SystemTime::now();
    Policy { used_since: now, indexes_used_since: now, registered_since: now, down_to: None, dry_run: true }
}

#[test]
#[ignore = "run by the next test on a small file system"]
fn write_until_full() {
    let store = store_under_test();
    let dir = store.dir().to_owned();
    store.insert_source(None, 1000, &b"first"[..]).unwrap();
    let full = store.insert_source(None, u64::MAX, io::repeat(0)).unwrap_err();
    assert!(matches!(full, StoreError::Full { .. }), "{full}");
    assert_eq!(files_below(&dir).len(), 1, "what was there stays, what was half-written is gone");
    let mut blob = store.temp_blob().unwrap();
    io::copy(&mut io::repeat(0), &mut blob).unwrap_err();
    drop(blob);
    store.insert_source(None, 1000, &b"second"[..]).unwrap();
    assert_eq!(files_below(&dir).len(), 2);
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=2m small \"$STORE_UNDER_TEST\" &&";
    let output = child("write_until_full", mount, dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
