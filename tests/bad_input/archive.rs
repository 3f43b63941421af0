//! Mirrors that are down, lie, or offer what is expired or unsigned; packages that are not there or do not fit.

use super::{
    assert_says,
    fixture::{Project, fail_with, gapimage, stdout, succeed},
    keys::{self, Key},
    package::{self, Package},
    server::{Behaviour, Server},
    snapshot,
};
use gap_format::Digest;
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// A project with one Debian layer, and the mirror that it is taken from.
pub struct Site {
    pub project: Project,
    pub server: Server,
    key: Key,
}

impl Site {
    /// Asks for these packages; the mirror has none yet.
    pub fn asking_for(packages: &str) -> Self {
        let (project, server, key) = (Project::new(&[]), Server::start(), Key::new(1));
        fs::write(project.path().join("ring.gpg"), key.public()).unwrap();
        let site = Self { project, server, key };
        site.recipe(&site.server.url, packages);
        site
    }

    fn recipe(&self, mirror: &str, packages: &str) {
        self.project.recipe(&format!(
            "[image.main]\nlayers = [\"base\"]\n\
             [debian]\nsuite = \"test\"\nmirror = \"{mirror}\"\nkeyring = \"ring.gpg\"\n\
             [layer.base]\ndebian = {{ packages = [{packages}] }}\n"
        ));
    }

    /// The text of a release that vouches for the index.
    fn release(index: &[u8], more: &str) -> String {
        format!(
            "Suite: test\nCodename: tested\nDate: Thu, 02 Jan 2025 00:00:00 UTC\n{more}SHA256:\n {} {} \
             main/binary-amd64/Packages\n",
            Digest::of(index).to_hex(),
            index.len()
        )
    }

    /// Publishes these packages.
    pub fn publish(&self, packages: &[Package]) {
        self.publish_with(packages, "");
    }

    /// The same, with further lines in the release.
    pub fn publish_with(&self, packages: &[Package], more: &str) {
        for package in packages {
            self.server.put(&package.path(), package.deb.clone());
        }
        let index: String = packages.iter().map(Package::paragraph).collect();
        let text = Self::release(index.as_bytes(), more);
        self.server.put("dists/test/InRelease", keys::message(&text, vec![self.key.sign(&text)]).into_bytes());
        self.server.put("dists/test/main/binary-amd64/Packages", index.into_bytes());
    }

    /// A command on the recipe, with a store of its own.
    pub fn command(&self, name: &str) -> Command {
        let mut command = gapimage();
        let recipe = self.project.path().join("recipe.toml");
        command.arg(name).arg(recipe).arg("--store").arg(self.project.path().join("store"));
        command.current_dir(self.project.path());
        command
    }

    /// Neither locking nor building gets through, and neither leaves anything behind.
    #[track_caller]
    fn refused(&self, all: &[&str]) {
        let before = snapshot(self.project.path());
        for name in ["lock", "build"] {
            assert_says(&fail_with(1, &mut self.command(name)), all);
        }
        assert_eq!(snapshot(self.project.path()), before);
    }
}

fn hello() -> Package {
    Package::new("hello", "", &package::deb("hello", &[("./usr/share/hello", tar::EntryType::Regular, "", b"hi\n")]))
}

#[test]
fn who_waits_for_the_downloads_of_another_build_is_told_and_goes_on() {
    let site = Site::asking_for("\"hello\"");
    site.publish(&[hello()]);
    let store = site.project.path().join("store");
    fs::create_dir_all(store.join("locks")).unwrap();
    for name in ["lock", "build"] {
        let held = File::create(store.join("locks").join(Digest::of(b"packages").to_hex())).unwrap();
        held.lock().unwrap();
        let mut child = site.command(name).arg("--json").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, told) = mpsc::channel();
        let reader = std::thread::spawn(move || stderr.lines().try_for_each(|line| tell.send(line.unwrap())));
        // Who waits in silence tells nothing more.
        let next = || told.recv_timeout(Duration::from_secs(120)).unwrap();
        while !next().contains(r#""begin","stage":"wait","layer":"base""#) {}
        held.unlock().unwrap();
        while !next().contains(r#""begin","stage":"fetch","layer":"base""#) {}
        told.into_iter().for_each(drop);
        assert!(child.wait().unwrap().success(), "{name}");
        reader.join().unwrap().unwrap();
        // So that building fetches as well.
        fs::remove_dir_all(store.join("sources")).unwrap();
    }
}

#[test]
fn what_a_good_mirror_offers_is_built() {
    let site = Site::asking_for("\"hello\"");
    site.publish(&[hello()]);
    succeed(&mut site.command("lock"));
    succeed(site.command("build").args(["-o", "x.gap"]));
    let listed =
        stdout(&succeed(gapimage().args(["inspect", "x.gap", "--files", "main"]).current_dir(site.project.path())));
    assert!(listed.contains("/usr/share/hello"), "{listed}");
    let lock = fs::read_to_string(site.project.path().join("recipe.lock")).unwrap();
    assert!(!lock.contains("127.0.0.1"), "{lock}");
}

#[test]
fn a_mirror_that_is_down_is_named_with_what_to_do() {
    let site = Site::asking_for("\"hello\"");
    site.recipe("http://127.0.0.1:1", "\"hello\"");
    site.refused(&["layer `base`", "cannot reach http://127.0.0.1:1/dists/test/InRelease", "choose another mirror"]);
}

#[test]
fn a_mirror_that_lies_about_a_hash_is_refused() {
    let site = Site::asking_for("\"hello\"");
    site.publish(&[hello()]);
    site.server.misbehave("dists/test/main/binary-amd64/Packages", Behaviour::Lie);
    site.refused(&["binary-amd64/Packages", "was promised", "out of step or lies"]);
    site.server.misbehave("dists/test/main/binary-amd64/Packages", Behaviour::Good);
    site.server.misbehave(&hello().path(), Behaviour::Lie);
    site.refused(&["pool/hello.deb", "was promised", "out of step or lies"]);
    site.server.misbehave(&hello().path(), Behaviour::Longer);
    site.refused(&["pool/hello.deb", "larger than the"]);
    site.server.misbehave(&hello().path(), Behaviour::Good);
    succeed(&mut site.command("lock"));
}

#[test]
fn an_expired_unsigned_or_strangely_signed_release_is_refused() {
    let site = Site::asking_for("\"hello\"");
    site.publish_with(&[hello()], "Valid-Until: Thu, 09 Jan 2025 00:00:00 UTC\n");
    site.refused(&["InRelease", "it was valid until 2025-01-09"]);
    let text = Site::release(b"", "");
    site.server.put("dists/test/InRelease", text.clone().into_bytes());
    site.refused(&["InRelease", "not signed"]);
    let stranger = keys::message(&text, vec![Key::new(2).sign(&text)]);
    site.server.put("dists/test/InRelease", stranger.into_bytes());
    site.refused(&["InRelease", "key"]);
    let changed = keys::message(&text, vec![site.key.sign(&text)]).replace("tested", "twisted");
    site.server.put("dists/test/InRelease", changed.into_bytes());
    site.refused(&["InRelease", "signature"]);
}

#[test]
fn a_package_that_does_not_exist_is_named_with_those_that_are_near() {
    let site = Site::asking_for("\"helo\"");
    site.publish(&[hello()]);
    site.refused(&["layer `base`", "helo", "did you mean", "hello"]);
}

#[test]
fn packages_that_cannot_be_had_together_are_explained_with_the_chain() {
    let site = Site::asking_for("\"web\", \"old\"");
    let package = |name: &str, more: &str| Package::new(name, more, &package::deb(name, &[]));
    site.publish(&[
        package("web", "Depends: engine (>= 1)\n"),
        package("engine", "Conflicts: old\n"),
        package("old", ""),
    ]);
    site.refused(&["web", "web 1 needs engine (>= 1)", "engine 1 conflicts with old"]);
    site.recipe(&site.server.url, "\"lonely\"");
    site.publish(&[package("lonely", "Depends: nothing-there (>= 2)\n")]);
    site.refused(&["lonely", "nothing-there"]);
}
