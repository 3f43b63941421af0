//! The documents that an artifact carries about itself: bills of materials, provenance, licences.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::{Project, cache, fail_with, gapimage, said, stdout, succeed};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const RECIPE: &str = "[image.main]\nlayers = [\"base\", \"files\"]\n[image.second]\nlayers = [\"files\"]\n\
    [layer.base]\ndebian = { suite = \"trixie\", packages = [\"base-files\", \"libgcc-s1\", \"busybox\"] }\n\
    [layer.files]\nfiles = [{ path = \"site\", to = \"/srv\" }]\n";

/// Checks SPDX documents as the format's own library does.
const VALIDATE: &str = "\
import sys
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
for path in sys.argv[1:]:
    for problem in validate_full_spdx_document(parse_file(path), 'SPDX-2.3'):
        sys.exit(f'{path}: {problem.validation_message} {problem.context}')
";

fn project() -> Project {
    let project = Project::new(&[("one", b"1")]);
    project.recipe(RECIPE);
    project
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn document(artifact: &Path, title: &str) -> Vec<u8> {
    succeed(gapimage().arg("inspect").arg(artifact).args(["--document", title])).stdout
}

/// The artifact as GNU tar unpacks it.
fn unpacked(project: &Project, artifact: &Path) -> PathBuf {
    let dir = project.path().join("unpacked");
    fs::create_dir_all(&dir).unwrap();
    succeed(Command::new("tar").arg("-xf").arg(artifact).arg("-C").arg(&dir));
    dir
}

fn blob(dir: &Path, descriptor: &Value) -> Vec<u8> {
    fs::read(dir.join("blobs").join(descriptor["digest"].as_str().unwrap().replace(':', "/"))).unwrap()
}

#[test]
fn every_document_is_a_referrer_of_the_images_that_it_is_about() {
    let project = project();
    let artifact = project.signed("a.gap");
    succeed(gapimage().arg("verify").arg(&artifact).arg("--trust").arg(&project.keys.trust).arg("--full"));
    let dir = unpacked(&project, &artifact);
    let index = json(&fs::read(dir.join("index.json")).unwrap());
    let entries = index["manifests"].as_array().unwrap();
    let name = |digest: &Value| {
        let image = entries.iter().find(|entry| entry["digest"] == *digest).unwrap();
        image["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().to_owned()
    };
    let mut about: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in entries {
        let title = &entry["annotations"]["org.opencontainers.image.title"];
        let Some(title) = title.as_str() else { continue };
        let manifest = json(&blob(&dir, entry));
        assert_eq!(manifest["artifactType"], entry["artifactType"]);
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
        assert_eq!(manifest["annotations"], entry["annotations"]);
        let [layer] = manifest["layers"].as_array().unwrap().as_slice() else { panic!("{manifest}") };
        assert_eq!(layer["mediaType"], entry["artifactType"]);
        assert_eq!(blob(&dir, layer), document(&artifact, title), "{title}");
        about.entry(title.to_owned()).or_default().push(name(&manifest["subject"]["digest"]));
    }
    let expected: [(&str, &[&str]); 5] = [
        ("checklist.json", &["main", "second"]),
        ("licenses.json", &["main", "second"]),
        ("main.spdx.json", &["main"]),
        ("provenance.intoto.json", &["main", "second"]),
        ("second.spdx.json", &["second"]),
    ];
    let expected =
        expected.map(|(title, images)| (title.to_owned(), images.iter().map(|it| (*it).to_owned()).collect()));
    assert_eq!(about, expected.into());
}

#[test]
fn bills_of_materials_are_valid_spdx_and_name_every_package_of_the_lock() {
    let project = project();
    let artifact = project.signed("a.gap");
    let main = json(&document(&artifact, "main.spdx.json"));
    let locked = fs::read_to_string(project.path().join("recipe.lock")).unwrap();
    let locked: Vec<&str> =
        locked.lines().filter_map(|line| line.strip_prefix("sha256 = \"sha256:")?.strip_suffix('"')).collect();
    let listed = main["packages"].as_array().unwrap();
    let missing: Vec<_> = locked
        .iter()
        // The first is the archive's own index.
        .skip(1)
        .filter(|digest| !listed.iter().any(|package| package["checksums"][0]["checksumValue"] == ***digest))
        .collect();
    assert!(locked.len() > 4 && missing.is_empty(), "{missing:?}");

    let Some(python) = spdx_tools() else { return };
    let paths = ["main.spdx.json", "second.spdx.json"].map(|title| {
        let path = project.path().join(title);
        fs::write(&path, document(&artifact, title)).unwrap();
        path
    });
    succeed(Command::new(&python).args(["-c", VALIDATE]).args(&paths));
    // The judge does find faults.
    let text = fs::read_to_string(&paths[0]).unwrap();
    let spoilt = project.path().join("spoilt.spdx.json");
    fs::write(&spoilt, text.replace("LicenseRef-debian-copyright\"", "LicenseRef debian copyright\"")).unwrap();
    assert!(!Command::new(&python).args(["-c", VALIDATE]).arg(&spoilt).output().unwrap().status.success());
}

/// A Python with the library that SPDX itself checks documents with, made once in the cache.
fn spdx_tools() -> Option<PathBuf> {
    let dir = cache().join("spdx-tools-0.8.5");
    let python = dir.join("bin/python");
    let works = || Command::new(&python).args(["-c", "import spdx_tools"]).output().is_ok_and(|it| it.status.success());
    if works() {
        return Some(python);
    }
    let venv = Command::new("python3").args(["-m", "venv"]).arg(&dir).output().unwrap();
    let install = Command::new(dir.join("bin/pip")).args(["install", "-q", "spdx-tools==0.8.5"]).output();
    if works() {
        return Some(python);
    }
    let why = install.map_or_else(|error| error.to_string(), |output| said(&output));
    eprintln!("SKIPPED: SPDX documents are not validated, spdx-tools cannot be installed: {}{why}", said(&venv));
    None
}

#[test]
fn a_package_with_the_documentation_of_another_has_its_licences() {
    let project = project();
    let artifact = project.build("a.gap");
    let bill = json(&document(&artifact, "main.spdx.json"));
    let licence = |name: &str| {
        let packages = bill["packages"].as_array().unwrap();
        let package = packages.iter().find(|package| package["name"] == name).unwrap();
        package["licenseDeclared"].as_str().unwrap().to_owned()
    };
    assert!(licence("gcc-14-base").contains("GPL-3.0-or-later"), "{}", licence("gcc-14-base"));
    assert_eq!(licence("libgcc-s1"), licence("gcc-14-base"));
    let table = stdout(&succeed(gapimage().arg("inspect").arg(&artifact).arg("--licenses")));
    let row = |line: &&str| line.starts_with("GPL-3.0-or-later ") && line.contains(" libgcc-s1 ");
    assert_eq!(table.lines().filter(row).count(), 1, "{table}");
    assert!(!table.contains("unknown"), "{table}");
}

#[test]
fn provenance_follows_the_recipe_to_the_byte() {
    let project = project();
    let artifact = project.build("a.gap");
    let before = json(&document(&artifact, "provenance"));
    let recipe = project.path().join("recipe.toml");
    let digest = |statement: &Value| {
        let parameters = &statement["predicate"]["buildDefinition"]["externalParameters"];
        parameters["recipe"]["digest"]["sha256"].as_str().unwrap().to_owned()
    };
    let sum = || stdout(&succeed(Command::new("sha256sum").arg(&recipe)))[..64].to_owned();
    assert_eq!(digest(&before), sum());
    project.recipe(&format!("{RECIPE}# a remark\n"));
    let after = json(&document(&project.build("a.gap"), "provenance"));
    assert_eq!(digest(&after), sum());
    assert_ne!(before, after);
    assert_eq!(before["subject"], after["subject"], "the images are the same");
}

#[test]
fn inspect_lists_documents_and_says_which_ones_there_are() {
    let project = project();
    let artifact = project.build("a.gap");
    let summary = json(&succeed(gapimage().arg("inspect").arg(&artifact).arg("--json")).stdout);
    let titles: Vec<_> = summary["documents"].as_array().unwrap().iter().map(|it| it["title"].clone()).collect();
    let expected = ["main.spdx.json", "second.spdx.json", "provenance.intoto.json", "licenses.json", "checklist.json"];
    assert_eq!(titles, expected);
    let text = stdout(&succeed(gapimage().arg("inspect").arg(&artifact)));
    assert!(text.contains("application/spdx+json"), "{text}");
    let refused = fail_with(1, gapimage().arg("inspect").arg(&artifact).args(["--document", "sbom"]));
    assert!(refused.contains("more than one") && refused.contains("second.spdx.json"), "{refused}");
    let refused = fail_with(1, gapimage().arg("inspect").arg(&artifact).args(["--document", "absent"]));
    assert!(refused.contains("`absent`") && refused.contains("licenses.json"), "{refused}");
    let report = json(&succeed(gapimage().arg("inspect").arg(&artifact).args(["--licenses", "--json"])).stdout);
    assert_eq!(report, json(&document(&artifact, "licenses")));
}
