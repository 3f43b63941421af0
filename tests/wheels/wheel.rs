//! Wheels to be offered.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use flate2::{Compression, write::DeflateEncoder};
use rawzip::{CompressionMethod, ZipArchiveWriter, path::EntryPath};
use sha2::Digest as _;
use std::io::Write;

/// A wheel of pure Python: its file name and its bytes.
pub fn wheel(name: &str, version: &str, requires: &[&str], files: &[(&str, &str)]) -> (String, Vec<u8>) {
    tagged(name, version, "py3-none-any", requires, files)
}

/// A wheel for what `tag` says.
pub fn tagged(name: &str, version: &str, tag: &str, requires: &[&str], files: &[(&str, &str)]) -> (String, Vec<u8>) {
    let members = members(name, version, tag, requires, files);
    (format!("{name}-{version}-{tag}.whl"), packed(&members))
}

/// The files of a wheel, `RECORD` last.
pub fn members(
    name: &str,
    version: &str,
    tag: &str,
    requires: &[&str],
    files: &[(&str, &str)],
) -> Vec<(String, String)> {
    let info = format!("{name}-{version}.dist-info");
    let requires: String = requires.iter().map(|needed| format!("Requires-Dist: {needed}\n")).collect();
    let metadata = format!(
        "Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: MIT\nProvides-Extra: loud\n{requires}"
    );
    let mut members: Vec<(String, String)> =
        files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    members.push((format!("{info}/METADATA"), metadata));
    members.push((format!("{info}/WHEEL"), format!("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")));
    let mut record = String::new();
    for (path, text) in &members {
        let digest = BASE64_URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(text));
        record += &format!("{path},sha256={digest},{}\n", text.len());
    }
    record += &format!("{info}/RECORD,,\n");
    members.push((format!("{info}/RECORD"), record));
    members
}

/// An archive of these files.
pub fn packed(members: &[(String, String)]) -> Vec<u8> {
    let mut zip = ZipArchiveWriter::new(Vec::new());
    for (path, text) in members {
        let file = zip.new_file(EntryPath::verbatim(path.as_bytes())).unix_permissions(0o100_644);
        let (mut entry, config) = file.compression_method(CompressionMethod::DEFLATE).start().unwrap();
        let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::default()));
        writer.write_all(text.as_bytes()).unwrap();
        let (encoder, descriptor) = writer.finish().unwrap();
        encoder.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    zip.finish().unwrap()
}
