//! Real packages to serve, and a recipe that asks for them through the command line.

use super::{
    archive::{release, xz},
    keys::{Key, message},
    server::Server,
};
use gap_format::Digest;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A package to be made.
#[derive(Debug, Clone)]
pub struct Package {
    pub name: &'static str,
    pub version: &'static str,
    /// More control fields, each with its line break.
    pub fields: &'static str,
    /// Length of the one file that it brings, of bytes that do not compress.
    pub payload: usize,
}

impl Package {
    pub const fn new(name: &'static str, version: &'static str, fields: &'static str) -> Self {
        Self { name, version, fields, payload: 100 }
    }

    fn control(&self) -> String {
        let Self { name, version, fields, .. } = self;
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nInstalled-Size: {}\n{fields}",
            self.payload / 1024 + 1
        )
    }

    fn path(&self) -> String {
        format!("pool/{}_{}_amd64.deb", self.name, self.version)
    }

    fn deb(&self) -> Vec<u8> {
        let control =
            tar(&[("./control", format!("{}Maintainer: Test\nDescription: test\n", self.control()).into_bytes())]);
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let payload: Vec<u8> = (0..self.payload).map(|_| noise()).collect();
        let data = tar(&[(&format!("./usr/share/{}", self.name), payload)]);
        let mut deb = b"!<arch>\n".to_vec();
        for (name, content) in [("debian-binary", b"2.0\n".to_vec()), ("control.tar", control), ("data.tar", data)] {
            deb.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).bytes());
            deb.extend(&content);
            deb.extend(vec![b'\n'; content.len() % 2]);
        }
        deb
    }
}

fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_data(&mut header, path, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Puts an archive with these packages on the server, instead of what it had.
pub fn publish(server: &Server, key: &Key, packages: &[Package]) {
    let mut index = String::new();
    for package in packages {
        let deb = package.deb();
        let (control, path, sha256) = (package.control(), package.path(), Digest::of(&deb).to_hex());
        index.push_str(&format!("{control}Filename: {path}\nSize: {}\nSHA256: {sha256}\n\n", deb.len()));
        server.put(&path, deb);
    }
    let packed = xz(index.as_bytes());
    let files =
        [("main/binary-amd64/Packages", index.as_bytes()), ("main/binary-amd64/Packages.xz", packed.as_slice())];
    let text = release(&files, "");
    server.put("dists/test/InRelease", message(&text, vec![key.sign(&text)]).into_bytes());
    server.put("dists/test/main/binary-amd64/Packages.xz", packed);
}

/// A directory with keys, a keyring, a store of its own and a recipe.
pub struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    pub fn new(key: &Key) -> Self {
        let project = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(project.path("ring.gpg"), key.public()).unwrap();
        project.succeed(&["keygen", "keys"]);
        project
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the recipe: one image of `layers`, each of these packages of the archive at `mirror`.
    pub fn recipe(&self, mirror: &str, layers: &[(&str, &str)]) {
        let names: Vec<String> = layers.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let mut text = format!(
            "[appliance]\nname = \"small\"\nversion = \"1\"\nserial = 1\narch = \"x86_64\"\ntrust = \"keys/trust.toml\"\n\
             [debian]\nsuite = \"test\"\nmirror = \"{mirror}\"\nkeyring = \"ring.gpg\"\n[image.main]\nlayers = [{}]\n",
            names.join(", ")
        );
        for (name, packages) in layers {
            text.push_str(&format!("[layer.{name}]\ndebian = {{ packages = [{packages}] }}\n"));
        }
        fs::write(self.path("recipe.toml"), text).unwrap();
    }

    /// The command under test, in this directory, with its store and without this machine's proxies.
    pub fn gapimage(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gapimage"));
        command.args(arguments).current_dir(self.dir.path()).env("GAPIMAGE_STORE", self.path("store"));
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command.env("APT_CONFIG", "/dev/null");
        command
    }

    #[track_caller]
    pub fn succeed(&self, arguments: &[&str]) -> Output {
        let output = self.gapimage(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        output
    }

    /// `name version` of every package of a layer in the lock.
    pub fn locked(&self, layer: &str) -> Vec<String> {
        let lock: toml::Table = toml::from_str(&fs::read_to_string(self.path("recipe.lock")).unwrap()).unwrap();
        let layers = lock["layer"].as_array().unwrap();
        let layer = layers.iter().find(|found| found["name"].as_str() == Some(layer)).unwrap();
        let packages = layer["inputs"]["debian"]["package"].as_array().unwrap();
        let text = |package: &toml::Value, field: &str| package[field].as_str().unwrap().to_owned();
        packages.iter().map(|package| format!("{} {}", text(package, "name"), text(package, "version"))).collect()
    }
}

/// Everything that a command printed.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
