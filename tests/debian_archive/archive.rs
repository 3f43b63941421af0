//! A small signed archive to serve.

use super::{keys, keys::Key, server::Server};
use gap_format::Digest;
use gapimage::source::{
    debian::{
        archive::{Archive, ArchiveError, Fetch, fetch},
        index::IndexFile,
        openpgp::Keyring,
    },
    http::{Client, Proxies, Settings},
};
use std::{io::Write, path::Path, time::Duration};

/// The text of a package index with one package.
pub const PACKAGES: &str = "Package: hello\nVersion: 1\nArchitecture: amd64\nSize: 5\nInstalled-Size: 1\n\
    Filename: pool/h/hello_1_amd64.deb\nSHA256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\n\n";

pub fn xz(data: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// The release of the suite `test`, codename `tested`, that vouches for these files.
pub fn release(files: &[(&str, &[u8])], more: &str) -> String {
    let mut text = format!("Suite: test\nCodename: tested\nDate: Thu, 02 Jan 2025 00:00:00 UTC\n{more}SHA256:\n");
    for (path, data) in files {
        text.push_str(&format!(" {} {} {path}\n", Digest::of(data).to_hex(), data.len()));
    }
    text
}

/// Puts an archive with [`PACKAGES`] on the server; the release lists the packed and the plain index.
pub fn publish(server: &Server, key: &Key, more: &str) {
    let packed = xz(PACKAGES.as_bytes());
    let files =
        [("main/binary-amd64/Packages", PACKAGES.as_bytes()), ("main/binary-amd64/Packages.xz", packed.as_slice())];
    let text = release(&files, more);
    server.put("dists/test/InRelease", keys::message(&text, vec![key.sign(&text)]).into_bytes());
    server.put("dists/test/main/binary-amd64/Packages.xz", packed);
}

/// A client that soon loses patience.
pub fn client() -> Client {
    Client::through(settings(), Proxies::default())
}

/// Little patience.
pub fn settings() -> Settings {
    Settings {
        stall: Duration::from_millis(300),
        connect: Duration::from_secs(1),
        attempts: 3,
        pause: Duration::from_millis(1),
        ..Settings::default()
    }
}

pub fn archive(mirrors: &[&str]) -> Archive {
    Archive {
        name: "debian".to_owned(),
        mirrors: mirrors.iter().map(|&url| url.to_owned()).collect(),
        suites: vec!["test".to_owned()],
        components: vec!["main".to_owned()],
        accept_expired: false,
    }
}

/// Fetches as of ten days after the release.
pub fn load(archive: Archive, keys: &[&Key], cache: &Path) -> Result<Vec<IndexFile>, ArchiveError> {
    let ring: Vec<u8> = keys.iter().flat_map(|key| key.public()).collect();
    let keyring = Keyring::parse(&ring).unwrap();
    let now = jiff::Timestamp::from_second(i64::from(keys::MADE + 11 * keys::DAY)).unwrap();
    let client = client();
    fetch(&[archive], Fetch { client: &client, arch: "amd64", keyring: &keyring, now, cache, progress: &|_| {} })
        .map(|offered| offered.indexes)
}
