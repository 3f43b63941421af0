//! The documents of a release that has a bit of everything.

use super::{
    attachments::attachments,
    licences::Report,
    origins::{Origins, Tar},
    provenance, sbom,
};
use crate::{
    lock::{Archive, Inputs, Lock, LockedDebian, LockedFiles, LockedLayer},
    pack::{Digests, Subject},
    recipe::Recipe,
    source::{
        cargo::{LockedCargo, LockedCrate, Toolchain},
        debian::LockedPackage,
    },
    trial::{Record, Trial, Verdict},
};
use gap_format::{
    Digest, Timestamp,
    statement::{Kind, Release},
};
use serde_json::Value;
use std::{collections::BTreeSet, path::Path};

const RECIPE: &str = r#"
[appliance]
name = "example"
version = "1.0"
serial = 5
arch = "x86_64"
[debian]
suite = "trixie"
[image.os]
boot = true
layers = ["base", "agent", "site"]
[image.tools]
layers = ["base"]
[boot]
stub = "stub"
init = "init"
[layer.base]
debian = { packages = ["libc6"] }
[layer.stub]
debian = { packages = ["systemd-boot-efi"] }
[layer.root]
debian = { packages = ["gcc"] }
[layer.agent]
cargo = { workspace = ".", package = "gap-agent", bin = "gapd", build_root = "root" }
[layer.init]
cargo = { workspace = ".", package = "gap-init", bin = "gap-init", to = "/init", static = true, build_root = "root" }
[layer.site]
files = [{ path = "site", to = "/srv" }]
"#;

fn archive() -> Archive {
    let sha256 = Digest::of(b"InRelease");
    Archive { suite: "trixie".into(), codename: "trixie".into(), date: 1_750_000_000, sha256 }
}

fn package(name: &str, licenses: &[&str]) -> LockedPackage {
    LockedPackage {
        name: name.into(),
        version: "1:2.0+b1".into(),
        arch: "amd64".into(),
        size: 7,
        sha256: Digest::of(name.as_bytes()),
        path: format!("pool/main/x/{name}_2.0+b1_amd64.deb"),
        archive: "debian".into(),
        installed_size: 12,
        order: 0,
        provides: String::new(),
        conflicts: String::new(),
        licenses: licenses.iter().map(|&licence| licence.into()).collect(),
    }
}

fn debian(packages: &[LockedPackage]) -> Inputs {
    Inputs::Debian(LockedDebian { releases: vec![archive().sha256], packages: packages.to_vec() })
}

fn cargo(name: &str) -> Inputs {
    let krate = |name: &str, used| LockedCrate {
        name: name.into(),
        version: "1.2.3".into(),
        sha256: Digest::of(name.as_bytes()),
        size: 9,
        license: Some("MIT/Apache-2.0".into()),
        used,
    };
    Inputs::Cargo(LockedCargo {
        version: Some("0.1.0".into()),
        license: None,
        sources: Digest::of(name.as_bytes()),
        toolchain: Toolchain {
            rustc: "1.95.0".into(),
            commit: "c0ffee".into(),
            host: "x86_64-unknown-linux-gnu".into(),
        },
        crates: vec![krate("serde", true), krate("winapi", false)],
    })
}

fn lock() -> Lock {
    let layer = |name: &str, inputs| LockedLayer {
        name: name.into(),
        below: Vec::new(),
        request: Digest::of(name.as_bytes()),
        inputs,
    };
    Lock {
        archives: vec![archive()],
        layers: vec![
            layer("agent", cargo("agent")),
            layer("base", debian(&[package("libc6", &["LGPL-2.1-or-later", "LicenseRef-debian-x"])])),
            layer("init", cargo("init")),
            layer(
                "root",
                debian(&[package("gcc", &["GPL-3.0-or-later"]), package("libc6-dev", &["LGPL-2.1-or-later"])]),
            ),
            layer("site", Inputs::Files(LockedFiles { layer: Digest::of(b"stale"), size: 8192 })),
            layer("stub", debian(&[package("systemd-boot-efi", &[])])),
        ],
    }
}

fn with_origins<T>(lock: &Lock, check: impl FnOnce(&Origins<'_>) -> T) -> T {
    let recipe = Recipe::parse(RECIPE.into(), Path::new("recipe.toml")).unwrap();
    let tar = |name: &str, number| Tar {
        name: name.into(),
        number,
        locked: lock.layers.iter().find(|layer| layer.name == name).unwrap(),
    };
    let release = Release {
        kind: Kind::Appliance,
        name: "example".into(),
        version: "1.0".into(),
        serial: 5,
        rollback_to: 5,
        architecture: "x86_64".into(),
        source_date: Timestamp::from_seconds(1_750_000_000).unwrap(),
        expires: None,
    };
    let images = vec![vec![tar("base", 0), tar("agent", 1), tar("site", 2)], vec![tar("base", 0)]];
    let checklist = crate::check::Report::new("example", "1.0", Vec::new());
    let trial = Trial { name: "answers".into(), command: vec!["true".into()], time_limit: 600, ..Trial::default() };
    let tests = vec![Record {
        trial,
        image: "tools".into(),
        with: Vec::new(),
        result: Verdict::Passed,
        missing_libraries: Vec::new(),
    }];
    let trust = Digest::of(b"trust");
    check(&Origins { recipe: &recipe, lock, release, trust, images, tests, checklist: &checklist })
}

fn digests(seed: &str) -> Digests {
    let digest = |what: &str| Digest::of(format!("{seed} {what}").as_bytes());
    Digests {
        layers: ["base", "agent", "site"].map(digest).into(),
        images: ["os", "tools"].map(digest).into(),
        boot: Some(digest("boot")),
    }
}

/// Every document by its title.
fn documents(seed: &str) -> Vec<(String, Vec<u8>)> {
    with_origins(&lock(), |origins| {
        let made = attachments(origins).into_iter().map(|attachment| {
            (attachment.annotations.values().last().unwrap().clone(), (attachment.make)(&digests(seed)))
        });
        made.collect()
    })
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// The relationships of a bill of materials, by the names of packages.
fn relations(bill: &Value) -> BTreeSet<(String, String, String)> {
    let name = |id: &Value| {
        let packages = bill["packages"].as_array().unwrap();
        let package = packages.iter().find(|package| package["SPDXID"] == *id);
        package.map_or(id, |package| &package["name"]).as_str().unwrap().to_owned()
    };
    let relations = bill["relationships"].as_array().unwrap().iter();
    let related = relations.map(|it| {
        (name(&it["spdxElementId"]), it["relationshipType"].as_str().unwrap().into(), name(&it["relatedSpdxElement"]))
    });
    related.collect()
}

#[test]
fn lengths_do_not_depend_on_digests_and_no_two_namespaces_are_the_same() {
    let (one, other) = (documents("one"), documents("other"));
    assert_eq!(one.len(), 7);
    assert!(one.iter().zip(&other).all(|((_, a), (_, b))| a.len() == b.len()));
    assert_eq!(one, documents("one"));
    let bills = one.iter().chain(&other).filter(|(title, _)| title.ends_with(".spdx.json"));
    let namespaces: BTreeSet<_> = bills.map(|(_, bytes)| json(bytes)["documentNamespace"].to_string()).collect();
    assert_eq!(namespaces.len(), 6);
}

#[test]
fn every_image_and_the_boot_partition_have_the_documents_about_them() {
    with_origins(&lock(), |origins| {
        let about: Vec<Vec<Subject>> = attachments(origins).into_iter().map(|it| it.subjects).collect();
        let all = [Subject::Image(0), Subject::Image(1), Subject::Boot];
        let expected = [&all[..1], &all[1..2], &all[2..], &all, &all, &all, &all[1..2]];
        assert_eq!(about, expected.map(<[Subject]>::to_vec));
    });
}

#[test]
fn a_bill_says_what_the_image_holds_and_what_its_binaries_are_made_of() {
    let digests = digests("x");
    let bill = with_origins(&lock(), |origins| json(&sbom::of_image(origins, 0, &digests)));
    assert_eq!(bill["creationInfo"]["created"], "2025-06-15T15:06:40Z");
    let expected = [
        ("SPDXRef-DOCUMENT", "DESCRIBES", "os"),
        ("os", "CONTAINS", "layer base"),
        ("os", "CONTAINS", "layer agent"),
        ("os", "CONTAINS", "layer site"),
        ("os", "CONTAINS", "libc6"),
        ("layer base", "CONTAINS", "libc6"),
        ("os", "CONTAINS", "gapd"),
        ("layer agent", "CONTAINS", "gapd"),
        ("gapd", "GENERATED_FROM", "serde"),
        ("gapd", "GENERATED_FROM", "libc6-dev"),
        ("rust", "BUILD_TOOL_OF", "gapd"),
    ];
    assert_eq!(relations(&bill), expected.map(|(a, b, c)| (a.into(), b.into(), c.into())).into());
    let package = |name: &str| {
        let packages = bill["packages"].as_array().unwrap();
        packages.iter().find(|package| package["name"] == name).unwrap()
    };
    let libc = package("libc6");
    assert_eq!(libc["externalRefs"][0]["referenceLocator"], "pkg:deb/debian/libc6@1:2.0%2Bb1?arch=amd64&distro=trixie");
    assert_eq!(libc["checksums"][0]["checksumValue"], Digest::of(b"libc6").to_hex());
    assert_eq!(libc["licenseDeclared"], "LGPL-2.1-or-later AND LicenseRef-debian-x");
    assert_eq!(bill["hasExtractedLicensingInfos"][0]["licenseId"], "LicenseRef-debian-x");
    assert_eq!(package("serde")["externalRefs"][0]["referenceLocator"], "pkg:cargo/serde@1.2.3");
    assert_eq!(package("serde")["licenseDeclared"], "MIT OR Apache-2.0");
    assert_eq!(package("gapd")["licenseDeclared"], "NOASSERTION");
    assert_eq!(package("layer site")["checksums"][0]["checksumValue"], digests.layers[2].to_hex());
    assert_eq!(package("os")["checksums"][0]["checksumValue"], digests.images[0].to_hex());
}

#[test]
fn what_the_firmware_starts_has_a_bill_of_its_own() {
    let bill = with_origins(&lock(), |origins| json(&sbom::of_boot(origins, &digests("x"))));
    let expected = [
        ("SPDXRef-DOCUMENT", "DESCRIBES", "ESP"),
        ("ESP", "GENERATED_FROM", "os"),
        ("ESP", "CONTAINS", "gap-init"),
        ("gap-init", "GENERATED_FROM", "serde"),
        ("gap-init", "GENERATED_FROM", "libc6-dev"),
        ("rust", "BUILD_TOOL_OF", "gap-init"),
        ("ESP", "CONTAINS", "systemd-boot-efi"),
    ];
    assert_eq!(relations(&bill), expected.map(|(a, b, c)| (a.into(), b.into(), c.into())).into());
}

#[test]
fn provenance_names_every_row_of_the_lock_once_and_nothing_of_the_machine() {
    let digests = digests("x");
    let statement = with_origins(&lock(), |origins| json(&provenance::statement(origins, &digests)));
    let subjects: Vec<_> = statement["subject"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(subjects, ["os", "tools", "ESP"]);
    let definition = &statement["predicate"]["buildDefinition"];
    assert_eq!(definition["externalParameters"]["recipe"]["digest"]["sha256"], Digest::of(RECIPE.as_bytes()).to_hex());
    assert_eq!(definition["externalParameters"]["boots"], "os");
    let named: Vec<_> = definition["resolvedDependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap().split(' ').next().unwrap().to_owned())
        .collect();
    let expected = [
        "InRelease",
        "files",
        "gcc_2.0+b1_amd64.deb",
        "libc6-dev_2.0+b1_amd64.deb",
        "libc6_2.0+b1_amd64.deb",
        "serde-1.2.3.crate",
        "sources",
        "sources",
        "systemd-boot-efi_2.0+b1_amd64.deb",
        "the",
        "winapi-1.2.3.crate",
    ];
    assert_eq!(named, expected);
    // The lock learns the digest of files from the build, and so does the statement.
    assert_eq!(definition["resolvedDependencies"][1]["digest"]["sha256"], digests.layers[2].to_hex());
    let run = &statement["predicate"]["runDetails"];
    assert_eq!(run.as_object().unwrap().keys().collect::<Vec<_>>(), ["builder"], "no clock");
}

#[test]
fn the_licence_report_begins_with_what_nobody_knows() {
    let made = documents("x");
    let (_, bytes) = made.iter().find(|(title, _)| title == "licenses.json").unwrap();
    let table = Report::parse(bytes).unwrap().to_string();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let expected = [
        vec!["unknown", "gap-init", "0.1.0", "ESP"],
        vec!["unknown", "gapd", "0.1.0", "os"],
        vec!["unknown", "systemd-boot-efi", "1:2.0+b1", "ESP"],
        vec!["LicenseRef-debian-x", "libc6", "1:2.0+b1", "os,tools"],
        vec!["LGPL-2.1-or-later", "libc6", "1:2.0+b1", "os,tools"],
        vec!["LGPL-2.1-or-later", "libc6-dev", "1:2.0+b1", "ESP,os"],
        vec!["MIT", "OR", "Apache-2.0", "serde", "1.2.3", "ESP,os"],
    ];
    assert_eq!(lines, expected);
}

#[test]
fn tests_and_checklist_say_whose_they_are() {
    let made = documents("x");
    let document = |wanted: &str| json(&made.iter().find(|(title, _)| title == wanted).unwrap().1);
    let (tests, checklist) = (document("tests.json"), document("checklist.json"));
    for document in [&tests, &checklist] {
        assert_eq!((&document["name"], &document["release"]), (&"example".into(), &"1.0".into()));
    }
    assert_eq!((&tests["tests"][0]["image"], &tests["tests"][0]["result"]), (&"tools".into(), &"passed".into()));
    assert_eq!(checklist["summary"]["fail"], 0);
}
