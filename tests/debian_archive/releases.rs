//! Releases that are not to be trusted, and those that are.

use super::{
    archive::{PACKAGES, archive, load, publish, release, xz},
    keys::{DAY, Key, MADE, message},
    server::{Behaviour, Server},
};
use gapimage::source::{
    debian::{
        archive::ArchiveError,
        index::{Index, IndexFile},
        openpgp::{Keyring, SignatureError},
        release::{Expectation, Release, ReleaseError},
        resolve::{Query, resolve},
    },
    http::HttpError,
};
use pgp::crypto::hash::HashAlgorithm;
use std::{
    fs,
    process::Command,
    time::{Duration, SystemTime},
};

const TEXT: &str = "Suite: test\nCodename: tested\nDate: Thu, 02 Jan 2025 00:00:00 UTC\nSHA256:\n";

fn verify(data: &str, keys: &[&Key]) -> Result<Release, ReleaseError> {
    let ring: Vec<u8> = keys.iter().flat_map(|key| key.public()).collect();
    let keyring = Keyring::parse(&ring).unwrap();
    let now = jiff::Timestamp::from_second(i64::from(MADE + 11 * DAY)).unwrap();
    Release::verify(data.as_bytes(), &keyring, &Expectation { suite: "test", now, accept_expired: false })
}

fn refused(data: &str, keys: &[&Key]) -> SignatureError {
    match verify(data, keys).unwrap_err() {
        ReleaseError::Signature(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn one_good_signature_by_a_known_key_suffices() {
    let (known, unknown) = (Key::new(1), Key::new(2));
    assert!(verify(&message(TEXT, vec![known.sign(TEXT)]), &[&known]).is_ok());
    assert!(verify(&message(TEXT, vec![unknown.sign(TEXT), known.sign(TEXT)]), &[&known]).is_ok());
    assert!(verify(&message(TEXT, vec![known.sign_with_subkey(TEXT)]), &[&known]).is_ok());
    let error = refused(&message(TEXT, vec![unknown.sign(TEXT)]), &[&known]);
    assert!(matches!(error, SignatureError::UnknownKey(ref keys) if keys.len() == 1), "{error}");
}

#[test]
fn changed_and_unsigned_texts_are_refused() {
    let key = Key::new(1);
    let good = message(TEXT, vec![key.sign(TEXT)]);
    let changed = good.replace("Codename: tested", "Codename: twisted");
    assert!(matches!(refused(&changed, &[&key]), SignatureError::Bad(_)));
    assert!(matches!(refused(TEXT, &[&key]), SignatureError::Unsigned));
    let cut = good.split("-----BEGIN PGP SIGNATURE").next().unwrap();
    assert!(matches!(refused(cut, &[&key]), SignatureError::Unsigned));
    assert!(matches!(refused(good.split("-----END").next().unwrap(), &[&key]), SignatureError::Block(_)));
}

#[test]
fn nothing_stands_around_or_hides_in_a_signed_text() {
    let key = Key::new(1);
    let good = message(TEXT, vec![key.sign(TEXT)]);
    let malformed = |data: &str| matches!(refused(data, &[&key]), SignatureError::Malformed { .. });
    assert!(malformed(&format!("Suite: other\n{good}")));
    assert!(malformed(&format!("{good}Suite: other\n")));
    assert!(malformed(&format!("{good}{good}")));
    assert!(malformed(&good.replacen("Hash: ", "NotDashEscaped: ", 1)));
    assert!(malformed(&good.replace("SHA256:\n", "SHA256:\n-----BEGIN PGP SIGNED MESSAGE-----\n")));
    // Blanks at line ends and carriage returns are not part of what is signed.
    assert!(verify(&good.replace('\n', " \r\n"), &[&key]).is_ok());
}

#[test]
fn escaped_dashes_are_undone() {
    let key = Key::new(1);
    let text = format!("{TEXT}-X: 1\n- y\n").replace("- y\n", "");
    let good = message(&text, vec![key.sign(&text)]);
    assert!(good.contains("\n- -X: 1"));
    assert!(verify(&good, &[&key]).is_ok());
}

#[test]
fn keys_that_are_over_are_refused() {
    let signed = |key: &Key| message(TEXT, vec![key.sign(TEXT)]);
    let expired = Key::new(1).expiring(5 * DAY);
    let error = refused(&signed(&expired), &[&expired]);
    assert!(matches!(error, SignatureError::ExpiredKey { ref expired, .. } if expired == "2025-01-06"), "{error}");
    // A subkey is over with its primary key.
    let by_subkey = message(TEXT, vec![expired.sign_with_subkey(TEXT)]);
    assert!(matches!(refused(&by_subkey, &[&expired]), SignatureError::ExpiredKey { .. }));
    let alive = Key::new(1).expiring(50 * DAY);
    assert!(verify(&signed(&alive), &[&alive]).is_ok());
    let revoked = Key::new(1).revoked();
    assert!(matches!(refused(&signed(&revoked), &[&revoked]), SignatureError::RevokedKey(_)));
    let unbound = Key::new(1).with_unbound_subkey(&Key::new(2));
    let by_subkey = message(TEXT, vec![unbound.sign_with_subkey(TEXT)]);
    assert!(matches!(refused(&by_subkey, &[&unbound]), SignatureError::UnknownKey(_)));
}

#[test]
fn weak_hashes_and_signatures_of_the_future_are_refused() {
    let key = Key::rsa(1);
    let by = |hash, at| message(TEXT, vec![key.sign_with(TEXT, hash, at)]);
    assert!(matches!(refused(&by(HashAlgorithm::Sha1, MADE + DAY), &[&key]), SignatureError::WeakHash { .. }));
    assert!(matches!(refused(&by(HashAlgorithm::Sha256, MADE + 20 * DAY), &[&key]), SignatureError::Time { .. }));
}

#[test]
fn a_release_that_is_over_of_the_future_or_of_another_suite_is_refused() {
    let key = Key::new(1);
    let of = |text: &str| verify(&message(text, vec![key.sign(text)]), &[&key]);
    let over = TEXT.replace("SHA256", "Valid-Until: Thu, 09 Jan 2025 00:00:00 UTC\nSHA256");
    assert!(matches!(of(&over), Err(ReleaseError::Expired { .. })));
    assert!(matches!(of(&TEXT.replace("02 Jan", "30 Jan")), Err(ReleaseError::Future { .. })));
    let other = TEXT.replace("test\n", "older\n").replace("tested", "older");
    assert!(matches!(of(&other), Err(ReleaseError::OtherSuite { .. })));
    assert!(matches!(of("Suite: test\n"), Err(ReleaseError::Field("Date"))));
    assert!(matches!(of(&format!("{TEXT} zz 1 a\n")), Err(ReleaseError::Field("SHA256"))));
}

#[test]
fn what_gnupg_signs_is_accepted() {
    let home = tempfile::tempdir().unwrap();
    let gpg = |arguments: &[&str]| {
        Command::new("gpg")
            .arg("--homedir")
            .arg(home.path())
            .args(["--batch", "--quiet", "--passphrase", ""])
            .args(arguments)
            .output()
    };
    let Ok(made) = gpg(&["--quick-generate-key", "Tester <t@example.org>", "ed25519", "sign", "1y"]) else { return };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = format!("{TEXT}X: a  \n-dash: 1\n");
    fs::write(home.path().join("Release"), &text).unwrap();
    let path = home.path().join("Release").display().to_string();
    assert!(gpg(&["--clearsign", &path]).unwrap().status.success());
    let ring = gpg(&["--armor", "--export"]).unwrap().stdout;
    let signed = fs::read(home.path().join("Release.asc")).unwrap();
    let keyring = Keyring::parse(&ring).unwrap();
    let now = jiff::Timestamp::now();
    let expectation = Expectation { suite: "tested", now, accept_expired: false };
    assert_eq!(Release::verify(&signed, &keyring, &expectation).unwrap().suite, "test");
}

fn index(server: &Server, key: &Key) -> Result<Vec<IndexFile>, ArchiveError> {
    load(archive(&[&server.url]), &[key], tempfile::tempdir().unwrap().path())
}

#[test]
fn an_archive_is_fetched_once_and_resolved() {
    let (server, key) = (Server::start(), Key::new(1));
    publish(&server, &key, "");
    let cache = tempfile::tempdir().unwrap();
    let files = load(archive(&[&server.url]), &[&key], cache.path()).unwrap();
    assert_eq!(files[0].text, PACKAGES);
    assert_eq!(load(archive(&[&server.url]), &[&key], cache.path()).unwrap(), files);
    let indexes = server.requests().iter().filter(|path| path.ends_with("Packages.xz")).count();
    assert_eq!(indexes, 1, "the second time, the index comes from the cache");
    let index = Index::parse(&files, "amd64").unwrap();
    let packages = ["hello".to_owned()];
    let locked = resolve(&index, &Query::new(&packages)).unwrap();
    let text = toml::to_string(&locked[0]).unwrap();
    assert!(!text.contains("127.0.0.1"), "{text}");
    assert_eq!(toml::from_str::<gapimage::source::debian::LockedPackage>(&text).unwrap(), locked[0]);
}

#[test]
fn many_may_fetch_an_index_at_once() {
    let (server, key) = (Server::start(), Key::new(1));
    publish(&server, &key, "");
    let cache = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(load(archive(&[&server.url]), &[&key], cache.path()).unwrap()[0].text, PACKAGES));
        }
    });
}

#[test]
fn an_index_that_nobody_used_for_long_goes_when_another_comes() {
    let (server, key) = (Server::start(), Key::new(1));
    publish(&server, &key, "");
    let cache = tempfile::tempdir().unwrap();
    for (name, days) in [("old", 8), ("recent", 6)] {
        let file = fs::File::create(cache.path().join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400)).unwrap();
    }
    load(archive(&[&server.url]), &[&key], cache.path()).unwrap();
    assert!(!cache.path().join("old").exists() && cache.path().join("recent").exists());
    // Using it counts.
    let index = cache.path().join(gap_format::Digest::of(PACKAGES.as_bytes()).to_hex());
    fs::File::open(&index).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    load(archive(&[&server.url]), &[&key], cache.path()).unwrap();
    assert!(fs::metadata(&index).unwrap().modified().unwrap() > SystemTime::UNIX_EPOCH);
}

#[test]
fn files_by_digest_are_asked_for_where_the_archive_has_them() {
    let (server, key) = (Server::start(), Key::new(1));
    publish(&server, &key, "Acquire-By-Hash: yes\n");
    let packed = xz(PACKAGES.as_bytes());
    let digest = gap_format::Digest::of(&packed).to_hex();
    server.put(&format!("dists/test/main/binary-amd64/by-hash/SHA256/{digest}"), packed);
    assert_eq!(index(&server, &key).unwrap()[0].text, PACKAGES);
    assert!(!server.requests().iter().any(|path| path.ends_with("Packages.xz")));
}

#[test]
fn an_expired_release_is_taken_only_where_that_was_asked_for() {
    let (server, key) = (Server::start(), Key::new(1));
    publish(&server, &key, "Valid-Until: Thu, 09 Jan 2025 00:00:00 UTC\n");
    let error = index(&server, &key).unwrap_err().to_string();
    assert!(error.contains("InRelease: it was valid until 2025-01-09 and it is 2025-01-12 now"), "{error}");
    let archive = super::archive::archive(&[&server.url]);
    let past = gapimage::source::debian::archive::Archive { accept_expired: true, ..archive };
    assert!(load(past, &[&key], tempfile::tempdir().unwrap().path()).is_ok());
}

#[test]
fn an_index_that_lies_is_refused() {
    let key = Key::new(1);
    let with = |behaviour| {
        let server = Server::start();
        publish(&server, &key, "");
        server.misbehave("dists/test/main/binary-amd64/Packages.xz", behaviour);
        index(&server, &key).unwrap_err()
    };
    assert!(matches!(with(Behaviour::Lie), ArchiveError::Http(HttpError::Digest { .. })));
    assert!(matches!(with(Behaviour::Fail(404, 99)), ArchiveError::Http(HttpError::Status { status: 404, .. })));
    assert!(matches!(with(Behaviour::Stall(0)), ArchiveError::Http(HttpError::Stalled { .. })));
}

#[test]
fn an_index_that_unpacks_to_more_than_it_should_is_refused() {
    let (server, key) = (Server::start(), Key::new(1));
    let bomb = xz(&vec![b'\n'; 1 << 20]);
    let files =
        [("main/binary-amd64/Packages", PACKAGES.as_bytes()), ("main/binary-amd64/Packages.xz", bomb.as_slice())];
    let text = release(&files, "");
    server.put("dists/test/InRelease", message(&text, vec![key.sign(&text)]).into_bytes());
    server.put("dists/test/main/binary-amd64/Packages.xz", bomb.clone());
    assert!(matches!(index(&server, &key).unwrap_err(), ArchiveError::Unpack { .. }));
}

#[test]
fn unknown_components_and_mirrors_that_are_down_are_told() {
    let (server, key) = (Server::start(), Key::new(1));
    publish(&server, &key, "");
    let cache = tempfile::tempdir().unwrap();
    let mut other = archive(&[&server.url]);
    other.components = vec!["extra".to_owned()];
    let error = load(other, &[&key], cache.path()).unwrap_err().to_string();
    assert_eq!(error, "test has no component `extra` for amd64; it has main");
    let mut climbing = archive(&[&server.url]);
    climbing.suites = vec!["../test".to_owned()];
    assert!(matches!(load(climbing, &[&key], cache.path()), Err(ArchiveError::Name(_))));
    let down = archive(&["http://127.0.0.1:1"]);
    assert!(matches!(load(down, &[&key], cache.path()), Err(ArchiveError::Http(HttpError::Unreachable { .. }))));
    // A second mirror helps.
    assert!(load(archive(&["http://127.0.0.1:1", &server.url]), &[&key], cache.path()).is_ok());
}
