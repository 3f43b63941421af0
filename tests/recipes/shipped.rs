//! A copy of the repository's recipes that a test may build, and the hub that it takes models from.

use crate::{
    fixture::{Keys, gapimage, keygen, repository, said, stdout, succeed},
    hub::Hub,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// One recipe of the repository, in a directory of its own.
pub struct Shipped {
    name: &'static str,
    dir: TempDir,
    keys: Keys,
    /// Where it takes models from.
    pub hub: Hub,
}

impl Shipped {
    /// The recipe `name`.
    pub fn new(name: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for part in ["recipes", "layers"] {
            succeed(Command::new("cp").arg("-r").arg(repository().join(part)).arg(dir.path()));
        }
        let keys = keygen(&dir.path().join("keys"));
        Self { name, dir, keys, hub: Hub::start() }
    }

    /// Puts a model on the hub under this licence.
    pub fn publish(&self, repo: &str, license: &str, files: &[(String, Vec<u8>)]) {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
        self.hub.put(repo, &files);
        self.hub.card(repo, serde_json::json!({ "license": license }));
    }

    /// The directory of the recipes.
    pub fn recipes(&self) -> PathBuf {
        self.dir.path().join("recipes")
    }

    fn recipe(&self) -> PathBuf {
        self.recipes().join(self.name).with_extension("toml")
    }

    /// Writes `to` where the recipe first has `from`.
    pub fn change(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.recipe()).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(self.recipe(), text.replacen(from, to, 1)).unwrap();
    }

    /// The artifact.
    pub fn artifact(&self) -> PathBuf {
        self.dir.path().join(self.name).with_extension("gap")
    }

    /// A command of gapimage on the recipe.
    pub fn command(&self, command: &str) -> Command {
        let mut gapimage = gapimage();
        gapimage.env("HF_ENDPOINT", &self.hub.url).arg(command).arg(self.recipe());
        gapimage
    }

    /// Builds it, after these tests passed; everything that was said.
    pub fn build(&self, tests: &[(&str, &str)]) -> String {
        let mut command = self.command("build");
        let said = said(&succeed(command.arg("-o").arg(self.artifact()).arg("--trust").arg(&self.keys.trust)));
        for (test, image) in tests {
            assert!(said.contains(&format!("{test} in {image}: passed")), "{said}");
        }
        said
    }

    /// Builds it once more with no connection to anything: the same bytes.
    pub fn build_again_offline(&self) {
        let before = fs::read(self.artifact()).unwrap();
        fs::remove_file(self.artifact()).unwrap();
        let mut command = self.command("build");
        succeed(command.arg("-o").arg(self.artifact()).arg("--trust").arg(&self.keys.trust).arg("--offline"));
        assert!(fs::read(self.artifact()).unwrap() == before, "the same bytes again, without asking anybody");
    }

    /// Signs and verifies it.
    pub fn sign_and_verify(&self) {
        succeed(gapimage().arg("sign").arg(self.artifact()).arg("--key").arg(&self.keys.key));
        succeed(gapimage().arg("verify").arg(self.artifact()).arg("--trust").arg(&self.keys.trust).arg("--full"));
    }

    /// What a program prints in an image of the artifact, without a network.
    pub fn run(&self, image: &str, command: &[&str]) -> String {
        let image = format!("{}:{image}", self.artifact().display());
        stdout(&succeed(gapimage().args(["run", &image, "--"]).args(command)))
    }
}

/// The lines of JSON that a program printed.
pub fn json_lines(printed: &str) -> Vec<Value> {
    let lines = printed.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The text of a file of the recipes.
pub fn text(shipped: &Shipped, path: impl AsRef<Path>) -> String {
    fs::read_to_string(shipped.recipes().join(path)).unwrap()
}
