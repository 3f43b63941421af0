//! Downloads from servers that misbehave.

use super::{
    archive::client,
    server::{Behaviour, Server},
};
use gap_format::Digest;
use gapimage::source::http::{Download, HttpError};
use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

fn data() -> Vec<u8> {
    (0..300_000_u32).map(|number| (number % 251) as u8).collect()
}

fn wanted(mirrors: &[&str]) -> Download {
    let mirrors = mirrors.iter().map(|&url| url.to_owned()).collect();
    Download { mirrors, path: "pool/f".to_owned(), size: 300_000, sha256: Digest::of(&data()) }
}

fn serving(behaviour: Behaviour) -> Server {
    let server = Server::start();
    server.serve("pool/f", data(), behaviour);
    server
}

fn download(mirrors: &[&str], directory: &Path) -> Result<Vec<u8>, HttpError> {
    let path = client().download(&wanted(mirrors), directory, &|_| {})?;
    assert_eq!(path, directory.join(wanted(&[]).sha256.to_hex()));
    Ok(fs::read(path).unwrap())
}

fn failing(behaviour: Behaviour) -> HttpError {
    let directory = tempfile::tempdir().unwrap();
    let error = download(&[&serving(behaviour).url], directory.path()).unwrap_err();
    // Nothing but the part to continue from is left.
    for entry in fs::read_dir(directory.path()).unwrap() {
        assert_eq!(entry.unwrap().path().extension().unwrap(), "part");
    }
    error
}

#[test]
fn what_was_fetched_is_not_fetched_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = serving(Behaviour::Good);
    let seen = AtomicU64::new(0);
    let progress = |bytes| {
        seen.fetch_add(bytes, Ordering::Relaxed);
    };
    client().download(&wanted(&[&server.url]), directory.path(), &progress).unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 300_000);
    assert_eq!(download(&[&server.url], directory.path()).unwrap(), data());
    assert_eq!(server.requests(), ["/pool/f"]);
}

#[test]
fn a_truncated_download_is_continued_where_it_ended() {
    let directory = tempfile::tempdir().unwrap();
    let server = serving(Behaviour::Cut(100_000));
    assert_eq!(download(&[&server.url], directory.path()).unwrap(), data());
    let requests = server.requests();
    assert_eq!(requests[0], "/pool/f");
    assert!(requests.len() >= 3 && requests[1..].iter().all(|request| request.starts_with("/pool/f@")), "{requests:?}");
}

#[test]
fn a_part_of_an_earlier_run_is_continued_and_a_bad_one_is_not_trusted() {
    let target = wanted(&[]).sha256.to_hex();
    for (part, expected) in [
        (data()[..1000].to_vec(), vec!["/pool/f@1000"]),
        (vec![9; 1000], vec!["/pool/f@1000", "/pool/f"]),
        (vec![9; 400_000], vec!["/pool/f"]),
        (vec![9; 300_000], vec!["/pool/f"]),
        (data(), vec![]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let server = serving(Behaviour::Good);
        fs::write(directory.path().join(&target).with_extension("part"), part).unwrap();
        assert_eq!(download(&[&server.url], directory.path()).unwrap(), data());
        assert_eq!(server.requests(), expected);
    }
}

#[test]
fn a_server_without_ranges_starts_over() {
    let directory = tempfile::tempdir().unwrap();
    let server = serving(Behaviour::NoRanges);
    let part = directory.path().join(wanted(&[]).sha256.to_hex()).with_extension("part");
    fs::write(part, &data()[..1000]).unwrap();
    assert_eq!(download(&[&server.url], directory.path()).unwrap(), data());
}

#[test]
fn each_kind_of_trouble_has_its_own_error() {
    let error = failing(Behaviour::Cut(0));
    assert!(
        matches!(error, HttpError::Truncated { got: 0, expected: 300_000, .. } | HttpError::Unreachable { .. }),
        "{error}"
    );
    assert!(matches!(failing(Behaviour::Stall(500)), HttpError::Stalled { .. }));
    assert!(matches!(failing(Behaviour::Trickle), HttpError::Stalled { .. }));
    assert!(matches!(failing(Behaviour::Lie), HttpError::Digest { .. }));
    assert!(matches!(failing(Behaviour::Longer), HttpError::TooLarge { .. }));
    assert!(matches!(failing(Behaviour::Fail(404, 9)), HttpError::Status { status: 404, .. }));
    assert!(matches!(failing(Behaviour::Fail(503, 9)), HttpError::Status { status: 503, .. }));
}

#[test]
fn passing_trouble_is_sat_out_and_another_mirror_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(download(&[&serving(Behaviour::Fail(503, 2)).url], directory.path()).unwrap(), data());
    for behaviour in [Behaviour::Lie, Behaviour::Fail(404, 9), Behaviour::Longer] {
        let directory = tempfile::tempdir().unwrap();
        let (bad, good) = (serving(behaviour), serving(Behaviour::Good));
        assert_eq!(download(&[&bad.url, &good.url], directory.path()).unwrap(), data());
    }
}

#[test]
fn a_mirror_that_is_down_is_named_without_its_credentials() {
    let directory = tempfile::tempdir().unwrap();
    let error = download(&["http://user:secret@127.0.0.1:1/debian"], directory.path()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, HttpError::Unreachable { .. }), "{text}");
    assert!(text.contains("http://127.0.0.1:1/debian/pool/f") && !text.contains("secret"), "{text}");
}

#[test]
fn a_directory_can_be_a_mirror() {
    let directory = tempfile::tempdir().unwrap();
    let mirror = tempfile::tempdir().unwrap();
    fs::create_dir(mirror.path().join("pool")).unwrap();
    fs::write(mirror.path().join("pool/f"), data()).unwrap();
    let url = format!("file://{}", mirror.path().display());
    assert_eq!(download(&[&url], directory.path()).unwrap(), data());
    let other = tempfile::tempdir().unwrap();
    fs::write(mirror.path().join("pool/f"), b"other").unwrap();
    assert!(matches!(download(&[&url], other.path()), Err(HttpError::Truncated { .. })));
    assert!(matches!(download(&["ftp://x"], other.path()), Err(HttpError::Address { .. })));
}

#[test]
fn many_are_fetched_at_once_and_the_first_failure_is_told() {
    let server = Server::start();
    let mut items: Vec<Download> = (0..40_u8)
        .map(|number| {
            let data = vec![number; 1000 + usize::from(number)];
            server.put(&format!("f{number}"), data.clone());
            let mirrors = vec![server.url.clone()];
            Download { mirrors, path: format!("f{number}"), size: data.len() as u64, sha256: Digest::of(&data) }
        })
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let paths = client().download_all(&items, directory.path(), &|_| {}).unwrap();
    for (number, path) in paths.iter().enumerate() {
        assert_eq!(fs::read(path).unwrap().len(), 1000 + number);
    }
    items[7].path = "none".to_owned();
    let empty = tempfile::tempdir().unwrap();
    let error = client().download_all(&items, empty.path(), &|_| {}).unwrap_err();
    assert!(error.to_string().contains("/none"), "{error}");
}

#[test]
fn two_at_once_share_one_download() {
    let directory = tempfile::tempdir().unwrap();
    let server = serving(Behaviour::Good);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(download(&[&server.url], directory.path()).unwrap(), data()));
        }
    });
    assert_eq!(server.requests().len(), 1);
}
