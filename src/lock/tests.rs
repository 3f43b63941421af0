use super::*;
use crate::{
    recipe::LayerKind,
    source::cargo::{LockedCrate, Toolchain},
};

const RECIPE: &str = r#"
[appliance]
name = "a"
version = "1"
serial = 1
arch = "x86_64"
[debian]
suite = "trixie"
[image.os]
layers = ["base", "more", "agent", "motd"]
[image.job]
layers = ["more"]
[layer.base]
debian = { packages = ["base-files"] }
[layer.more]
debian = { packages = ["libc6"] }
[layer.tools]
debian = { packages = ["gcc"] }
[layer.agent]
cargo = { workspace = "..", package = "agent", build_root = "tools" }
[layer.motd]
files = [{ path = "motd", to = "/etc/motd" }]
"#;

fn recipe(text: &str) -> Recipe {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    fs::write(&path, text).unwrap();
    Recipe::load(&path).unwrap()
}

fn archive() -> Archive {
    let sha256 = Digest::of(b"InRelease");
    Archive { suite: "trixie".to_owned(), codename: "trixie".to_owned(), date: 1_767_225_600, sha256 }
}

fn package(name: &str) -> LockedPackage {
    LockedPackage {
        name: name.to_owned(),
        version: "1:2.0~rc1+b1-3".to_owned(),
        arch: "amd64".to_owned(),
        size: 7,
        sha256: Digest::of(name.as_bytes()),
        path: format!("pool/main/{name}/{name}_2.0_amd64.deb"),
        archive: "debian".to_owned(),
        installed_size: 12,
        order: 0,
        provides: String::new(),
        conflicts: String::new(),
        licenses: vec!["MIT".to_owned()],
    }
}

fn inputs(kind: &LayerKind) -> Inputs {
    match kind {
        LayerKind::Debian(layer) => Inputs::Debian(LockedDebian {
            releases: vec![archive().sha256],
            packages: layer.packages.iter().map(|request| package(&request.name)).collect(),
        }),
        LayerKind::Cargo(_) => Inputs::Cargo(LockedCargo {
            version: Some("0.1.0".to_owned()),
            license: Some("MIT".to_owned()),
            sources: Digest::of(b"sources"),
            toolchain: Toolchain { rustc: "1.95.0".to_owned(), commit: "abc".to_owned(), host: "x".to_owned() },
            crates: ["serde", "libc"].map(krate).to_vec(),
        }),
        LayerKind::Files(_) => Inputs::Files(LockedFiles { layer: Digest::of(b"hi"), size: 8192 }),
        other => unreachable!("the recipe of these tests has no {} layer", other.name()),
    }
}

fn krate(name: &str) -> LockedCrate {
    LockedCrate {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        sha256: Digest::of(name.as_bytes()),
        size: 3,
        license: Some("MIT OR Apache-2.0".to_owned()),
        used: true,
    }
}

fn locked(place: &PlacedLayer<'_>) -> LockedLayer {
    LockedLayer {
        name: place.layer.name.clone(),
        below: place.below.iter().map(|&name| name.to_owned()).collect(),
        request: request(place, crate::recipe::Arch::X86_64),
        inputs: inputs(&place.layer.kind),
    }
}

fn lock(recipe: &Recipe) -> Lock {
    Lock { archives: vec![archive()], layers: recipe.placed_layers().iter().map(locked).collect() }
}

fn parse(text: &str) -> Result<Lock, LockError> {
    Lock::parse(text, Path::new("a.lock"))
}

#[test]
fn a_lock_is_read_as_it_was_written_and_has_one_form() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let mut lock = lock(&recipe(RECIPE));
    assert_eq!(Lock::load(&path).unwrap(), None);
    lock.save(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("source-date = 2026-01-01T00:00:00Z"), "{text}");
    let loaded = Lock::load(&path).unwrap().unwrap();
    assert_eq!(loaded.to_text().unwrap(), text);
    assert_eq!(loaded.source_date(), 1_767_225_600);

    lock.layers.reverse();
    for layer in &mut lock.layers {
        match &mut layer.inputs {
            Inputs::Cargo(cargo) => cargo.crates.reverse(),
            Inputs::Debian(debian) => debian.packages.reverse(),
            Inputs::Files(_) | Inputs::Wheels(_) | Inputs::Model(_) | Inputs::Run(_) | Inputs::Dataset(_) => {}
        }
    }
    let unused = Archive { suite: "sid".to_owned(), sha256: Digest::of(b"unused"), ..archive() };
    lock.archives = vec![unused, archive(), archive()];
    assert_eq!(lock.to_text().unwrap(), text, "order and leftovers make no difference");
}

#[test]
fn one_layer_on_two_stacks_has_two_sets_of_rows() {
    let recipe = recipe(RECIPE);
    let lock = lock(&recipe);
    let more: Vec<_> = lock.layers.iter().filter(|layer| layer.name == "more").map(|layer| &layer.below).collect();
    assert_eq!(more.len(), 2);
    for image in &recipe.images {
        let place = recipe.places_in(&image.layers).pop().unwrap();
        assert!(lock.layer(&place).unwrap().is_at(&place));
    }
}

#[test]
fn damage_and_strangers_are_refused() {
    let text = lock(&recipe(RECIPE)).to_text().unwrap();
    let spoilt = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} is not in {text}");
        parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
    };
    assert!(spoilt("version = 1\n", "version = 2\n").contains("format version 2"));
    assert!(spoilt("version = 1\n", "").contains("damaged"));
    assert!(spoilt("version = 1\n", "version = 1\nhost = \"x\"\n").contains("unknown field `host`"));
    assert!(spoilt("installed-size = 12", "installed-size = 12\nmirror = \"x\"").contains("unknown field `mirror`"));
    assert!(spoilt("license = ", "licence = ").contains("unknown field `licence`"));
    assert!(spoilt("sha256:", "sha256:0").contains("a digest is"));
    assert!(spoilt("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z").contains("newest archive"));
    for path in ["../../etc/passwd", "/etc/passwd", "pool//x", "pool/a b", "pool/./x", ""] {
        let told = spoilt("pool/main/libc6/libc6_2.0_amd64.deb", path);
        assert!(told.contains("leads out of the archive"), "{path}: {told}");
    }
    assert!(spoilt("name = \"libc\"", "name = \"serde\"").contains("twice in one version"));
    assert!(spoilt("name = \"libc\"", "name = \"../libc\"").contains("no crate can have"));
    let release = archive().sha256.to_string();
    let archives = format!("sha256 = \"{release}\"");
    assert!(spoilt(&archives, &archives.replace(&release, &Digest::of(b"x").to_string())).contains("no archive"));
    assert!(spoilt("below = [\"base\"]", "below = []").contains("there twice"));
    assert!(parse("").is_err() && parse("version = 1").is_ok());
}

#[test]
fn a_changed_recipe_is_noticed_layer_by_layer() {
    let before = lock(&recipe(RECIPE));
    let told = |from: &str, to: &str| {
        assert!(RECIPE.contains(from));
        match before.check(&recipe(&RECIPE.replacen(from, to, 1))) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    };
    assert_eq!(told("a", "a"), "");
    assert_eq!(
        told("version = \"1\"\nserial = 1", "version = \"2\"\nserial = 2"),
        "",
        "a new version locks nothing new"
    );
    assert_eq!(told("suite = \"trixie\"", "suite = \"trixie\"\nmirror = \"http://mirror.invalid/\""), "");
    let asked = told("\"libc6\"", "\"libc6=2.41-1\"");
    assert!(
        asked.contains("since it was locked: layer `more` asks for something else; run `gapimage lock "),
        "{asked}"
    );
    assert!(told("suite = \"trixie\"", "suite = \"sid\"").contains("layer `base` asks"));
    let moved = told("[\"base\", \"more\",", "[\"more\", \"base\",");
    assert!(moved.contains("layer `base` stands on other layers"), "{moved}");
    let without = "layers = [\"base\", \"more\", \"agent\", \"motd\"]\n[image.job]\nlayers = [\"more\"]";
    let moved = told(without, "layers = [\"base\", \"more\", \"agent\", \"motd\"]");
    assert!(moved.contains("layer `more` stands on other layers"), "a row for a place that is no more: {moved}");
    let added = told(
        "layers = [\"more\"]\n",
        "layers = [\"more\", \"new\"]\n[layer.new]\nfiles = [{ path = \"b\", to = \"/b\" }]\n",
    );
    assert!(added.contains("layer `new` is new"), "{added}");
    let fewer = RECIPE.replace(", \"motd\"]", "]").replace(RECIPE.split_once("[layer.motd]").unwrap().1, "");
    let gone = before.check(&recipe(&fewer.replace("[layer.motd]", ""))).unwrap_err().to_string();
    assert!(gone.contains("layer `motd` is gone"), "{gone}");
}

#[test]
fn locking_again_keeps_what_still_holds() {
    let old = lock(&recipe(RECIPE));
    let changed = recipe(&RECIPE.replacen("\"base-files\"", "\"base-files\", \"passwd\"", 1));
    let mut relock = Relock::new(Some(&old), changed.appliance.arch);
    let mut kept = Vec::new();
    for place in &changed.placed_layers() {
        match relock.previous(place) {
            Previous::Same(rows) => {
                kept.push((place.layer.name.as_str(), place.below.len()));
                relock.keep(rows);
            }
            Previous::Changed(_) => {
                assert_eq!(relock.below(place).len(), place.below.len());
                relock.add(locked(place), [archive()]);
            }
            Previous::Nothing => panic!("everything was locked"),
        }
    }
    kept.sort_unstable();
    // `more` on `base` is resolved anew because `base` was; `more` on nothing is not.
    assert_eq!(kept, [("agent", 0), ("more", 0), ("motd", 0), ("tools", 0)]);
    relock.finish().check(&changed).unwrap();
    assert_eq!(Relock::new(None, changed.appliance.arch).previous(&changed.placed_layers()[0]), Previous::Nothing);
}

#[test]
fn versions_that_were_locked_are_preferred_nearest_first() {
    let text = RECIPE.replacen("layers = [\"more\"]", "layers = [\"base\", \"more\"]", 1);
    let recipe = recipe(&text);
    let mut old = lock(&recipe);
    // `more` stands on `base` once only; a second place of that name comes from an image that is gone.
    let mut elsewhere = old.layers.iter().find(|layer| layer.name == "more").unwrap().clone();
    elsewhere.below = vec!["gone".to_owned()];
    old.layers.push(elsewhere);
    for (layer, version) in old.layers.iter_mut().zip(["3", "4", "1", "2", "5", "6"]) {
        if let Inputs::Debian(rows) = &mut layer.inputs {
            rows.packages = vec![LockedPackage { version: version.to_owned(), ..package("libc6") }];
        }
    }
    let version_at = |layer: &LockedLayer| match &layer.inputs {
        Inputs::Debian(rows) => rows.packages[0].version.clone(),
        _ => String::new(),
    };
    let place =
        recipe.places_in(&recipe.images[0].layers).into_iter().find(|place| place.layer.name == "more").unwrap();
    let own = version_at(old.layer(&place).unwrap());
    let namesake = version_at(old.layers.last().unwrap());
    let mut rest: Vec<String> =
        old.layers.iter().filter(|layer| layer.name != "more").map(version_at).filter(|v| !v.is_empty()).collect();
    rest.sort_by(|a, b| b.cmp(a));
    let relock = Relock::new(Some(&old), recipe.appliance.arch);
    let preferred: Vec<&str> = relock.preferred(&place).iter().map(|package| package.version.as_str()).collect();
    assert_eq!(preferred[..2], [own.as_str(), namesake.as_str()]);
    assert_eq!(preferred[2..], rest);
    assert!(Relock::new(None, recipe.appliance.arch).preferred(&place).is_empty(), "an update prefers nothing");
}
