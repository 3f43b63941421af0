//! Hostile and mistaken recipes: each is refused with a line and advice.

use super::*;
use std::fs;

const GOOD: &str = r#"
[appliance]
name = "quickstart"
version = "0.1.0"
serial = 3
arch = "x86_64"
trust = "../keys/trust.toml"
expires = 2027-01-01T00:00:00Z

[debian]
suite = "trixie"

[image.os]
boot = true
layers = ["base", "kernel", "agent", "extra"]
config = { entrypoint = ["/usr/bin/gapd"], env = { LANG = "C" }, workdir = "/" }

[image.tools]
layers = ["kernel", "extra"]

[boot]
stub = "stub"
init = "init"
modules = ["e1000e"]
cmdline = "quiet"

[layer.base]
debian = { packages = ["base-files", "libc6=2.41-12"] }
[layer.kernel]
debian = { packages = ["linux-image-amd64"], dependencies = false }
[layer.stub]
debian = { packages = ["systemd-boot-efi"], dependencies = false }
[layer.toolchain]
debian = { packages = ["gcc", "libc6-dev"] }
[layer.agent]
cargo = { workspace = "..", package = "gap-agent", bin = "gapd", to = "/usr/bin/gapd", build_root = "toolchain" }
[layer.init]
cargo = { workspace = "..", package = "gap-init", to = "/init", static = true, build_root = "toolchain" }
[layer.extra]
files = [{ path = "site/motd", to = "/etc/motd", mode = 0o644 }]
"#;

fn load(text: &str) -> Result<Recipe, RecipeErrors> {
    load_with(text, &[])
}

fn load_with(text: &str, others: &[(&str, &str)]) -> Result<Recipe, RecipeErrors> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in others {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let path = dir.path().join("recipe.toml");
    fs::write(&path, text).unwrap();
    Recipe::load(&path)
}

/// The only problem of `GOOD` with `from` replaced by `to`, as `line: message | help`.
fn spoilt(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "{from}");
    only_problem(&load(&GOOD.replace(from, to)).unwrap_err())
}

fn only_problem(errors: &RecipeErrors) -> String {
    let problems = errors.problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    let problem = &problems[0];
    format!("{}:{}: {} | {}", problem.line, problem.column, problem.message, problem.help.as_deref().unwrap_or("-"))
}

#[test]
fn a_good_recipe_is_read_whole() {
    let recipe = load(GOOD).unwrap();
    assert_eq!(recipe.appliance.name, "quickstart");
    assert_eq!(recipe.appliance.rollback_to, 3);
    assert_eq!(recipe.appliance.expires, Some(1_798_761_600));
    assert_eq!(recipe.boot_image().unwrap().name, "os");
    assert_eq!(recipe.images.iter().map(|image| image.name.as_str()).collect::<Vec<_>>(), ["os", "tools"]);
    let LayerKind::Debian(base) = &recipe.layers["base"].kind else { panic!("not debian") };
    assert_eq!((base.suite.as_str(), base.components.as_slice()), ("trixie", &["main".to_owned()][..]));
    assert_eq!(base.packages[1], PackageRequest { name: "libc6".to_owned(), constraint: Some("=2.41-12".to_owned()) });
    let LayerKind::Cargo(init) = &recipe.layers["init"].kind else { panic!("not cargo") };
    assert_eq!((init.bin.as_str(), init.static_link, init.to.to_string().as_str()), ("gap-init", true, "/init"));
    assert_eq!(recipe.layers["init"].line, 37);
}

#[test]
fn a_layer_on_other_layers_below_has_a_place_of_its_own() {
    let recipe = load(GOOD).unwrap();
    let places: Vec<(&str, Vec<&str>)> =
        recipe.placed_layers().into_iter().map(|place| (place.layer.name.as_str(), place.below)).collect();
    let expected: [(&str, &[&str]); 8] = [
        ("toolchain", &[]),
        ("init", &[]),
        ("stub", &[]),
        ("base", &[]),
        ("kernel", &["base"]),
        ("agent", &[]),
        ("extra", &[]),
        ("kernel", &[]),
    ];
    let expected: Vec<(&str, Vec<&str>)> = expected.iter().map(|(name, below)| (*name, below.to_vec())).collect();
    assert_eq!(places.iter().collect::<std::collections::BTreeSet<_>>(), expected.iter().collect());
    assert_eq!(places.len(), expected.len());
    let position = |name| places.iter().position(|(layer, _)| *layer == name).unwrap();
    assert!(position("toolchain") < position("init"));
}

#[test]
fn unknown_keys_are_refused_with_the_key_that_was_meant() {
    assert_eq!(
        spoilt("serial = 3", "serail = 3\nserial = 3"),
        "5:1: unknown key `serail` in `[appliance]` | did you mean `serial`?"
    );
    assert_eq!(
        spoilt("boot = true", "bot = true\nboot = true"),
        "14:1: unknown key `bot` in the image `os` | did you mean `boot`?"
    );
    assert_eq!(
        spoilt("dependencies = false }\n[layer.stub]", "dependences = false }\n[layer.stub]"),
        "30:46: unknown key `dependences` in `debian` of the layer `kernel` | did you mean `dependencies`?"
    );
    assert_eq!(
        spoilt("files = [", "file = ["),
        "40:1: unknown key `file` in the layer `extra` | did you mean `files`?"
    );
    assert!(spoilt("[debian]", "[images.x]\nlayers = []\n[debian]").starts_with("10:2: unknown key `images`"));
}

#[test]
fn wrong_types_are_refused_where_they_stand() {
    assert_eq!(
        spoilt("serial = 3", "serial = \"3\""),
        "5:10: `serial` should be an integer, but this is a string | take the quotes away"
    );
    assert_eq!(
        spoilt("version = \"0.1.0\"", "version = 0.1"),
        "4:11: `version` should be a string, but this is a number with a fraction | put it in quotes"
    );
    assert_eq!(
        spoilt("modules = [\"e1000e\"]", "modules = \"e1000e\""),
        "24:11: `modules` should be a list, but this is a string | put it in `[ ]`"
    );
    assert!(spoilt("expires = 2027-01-01T00:00:00Z", "expires = 2027-01-01").contains("date with time and time zone"));
    assert!(spoilt("boot = true", "boot = 1").starts_with("14:8: `boot` should be `true` or `false`"));
}

#[test]
fn serials_start_at_one_and_the_floor_is_not_above() {
    assert!(spoilt("serial = 3", "serial = 0").starts_with("5:10: `serial` is 0, but must be at least 1"));
    assert!(spoilt("serial = 3", "serial = -1").contains("at least 1"));
    assert!(spoilt("serial = 3", "serial = 3\nrollback_to = 4").starts_with("6:15: `rollback_to` is above `serial`"));
    assert!(spoilt("serial = 3", "serial = 99999999999999999999").contains("too large"));
}

#[test]
fn missing_and_unused_layers_are_named() {
    assert_eq!(
        spoilt("\"agent\", \"extra\"]", "\"agent\", \"extra\", \"kernl\"]"),
        "15:47: there is no layer `kernl` | did you mean `kernel`?"
    );
    assert!(spoilt("stub = \"stub\"", "stub = \"base\"").contains("nothing uses the layer `stub`"));
    assert!(spoilt("\"agent\", \"extra\"]", "\"agent\", \"extra\", \"base\"]").contains("in this image twice"));
}

#[test]
fn a_layer_cannot_be_built_in_itself() {
    let text = GOOD
        .replace("to = \"/init\", static = true, build_root = \"toolchain\"", "to = \"/init\", build_root = \"init\"");
    assert!(only_problem(&load(&text).unwrap_err()).contains("the layer `init` is built in itself: init → init"));
    assert!(
        spoilt("static = true, build_root = \"toolchain\"", "build_root = \"extra\"")
            .contains("`extra` is a files layer and cannot be a build root")
    );
}

#[test]
fn a_layer_has_exactly_one_kind() {
    assert!(
        spoilt("[layer.extra]", "[layer.extra]\ndebian = { packages = [\"apt\"] }")
            .contains("both `debian` and `files`")
    );
    let empty = spoilt("files = [{ path = \"site/motd\", to = \"/etc/motd\", mode = 0o644 }]", "");
    assert!(empty.contains("the layer `extra` is empty"), "{empty}");
}

#[test]
fn paths_do_not_lead_out() {
    for path in ["/etc/shadow", "../../etc/shadow", "site/../../x"] {
        assert!(spoilt("path = \"site/motd\"", &format!("path = \"{path}\"")).contains("is not allowed"), "{path}");
    }
    assert!(spoilt("to = \"/etc/motd\"", "to = \"/etc/../../motd\"").contains("climbs out"));
    assert!(spoilt("to = \"/etc/motd\"", "to = \"etc/motd\"").contains("write `/etc/motd`"));
    assert!(spoilt("mode = 0o644", "mode = 0o100644").contains("no file mode"));
    assert!(spoilt("trust = \"../keys/trust.toml\"", "trust = \"/keys/trust.toml\"").contains("a relative path"));
}

#[test]
fn names_that_no_registry_takes_are_refused() {
    assert!(spoilt("name = \"quickstart\"", "name = \"Quick Start\"").starts_with("3:8: the name `Quick Start`"));
    assert!(spoilt("[image.tools]", "[image.\"a/b\"]").contains("the image name `a/b`"));
    assert!(spoilt("\"base-files\"", "\"base_files\"").contains("the package name `base_files`"));
    assert!(spoilt("libc6=2.41-12", "libc6<2.41").contains("`libc6<2.41` is ambiguous"));
    assert!(spoilt("libc6=2.41-12", "libc6>=x").contains("the version `x`"));
    assert!(spoilt("arch = \"x86_64\"", "arch = \"amd64\"").contains("is called `x86_64` here"));
    assert!(spoilt("suite = \"trixie\"", "suite = \"../x\"").contains("the suite `../x`"));
}

#[test]
fn boot_and_a_booting_image_go_together() {
    assert!(spoilt("boot = true\n", "").contains("but no image boots"));
    assert!(
        spoilt("[image.tools]", "[image.tools]\nboot = true").starts_with("19:8: a second image with `boot = true`")
    );
    assert!(spoilt("cmdline = \"quiet\"", "cmdline = \"quiet gap.os=x\"").contains("`gap.os=x` may not be"));
}

#[test]
fn several_mistakes_are_reported_at_once() {
    let text =
        GOOD.replace("serial = 3", "serial = 0").replace("mode = 0o644", "mod = 0o644").replace("\"quiet\"", "7");
    let errors = load(&text).unwrap_err();
    assert_eq!(errors.problems().iter().map(|problem| problem.line).collect::<Vec<_>>(), [5, 25, 40]);
    assert!(errors.to_string().ends_with("has 3 errors"));
    let report = format!("{:?}", miette::Report::new(errors));
    assert!(report.contains("did you mean `mode`?") && report.contains("recipe.toml:40"), "{report}");
}

#[test]
fn what_is_not_toml_is_shown() {
    assert!(spoilt("serial = 3", "serial = = 3").starts_with("5:10: this is not TOML"));
    assert!(spoilt("serial = 3", "serial = 3\nserial = 4").starts_with("6:1: this is not TOML"));
    assert!(load(&format!("x = {}", "[".repeat(100_000))).is_err());
    assert!(matches!(Recipe::load(Path::new("/nonexistent/recipe.toml")), Err(RecipeErrors::Unreadable { .. })));
    assert!(matches!(load(&"#".repeat(1024 * 1024 + 1)), Err(RecipeErrors::Unreadable { .. })));
    assert_eq!(load("").unwrap_err().problems().len(), 1);
}

const DEFINITION: &str = r#"
[parameters]
suite = { type = "string", default = "trixie" }
packages = { type = "list", default = [] }
configure = { type = "boolean" }

[debian]
suite = "${suite}-backports"
packages = ["base-files", "${packages}", "libc6"]
configure = "${configure}"
"#;

fn with_definition(layer: &str, definition: &str) -> Result<Recipe, RecipeErrors> {
    let text = format!(
        "[appliance]\nname = \"a\"\nversion = \"1\"\nserial = 1\narch = \"x86_64\"\n[image.os]\nlayers = [\"base\"]\n[layer.base]\n{layer}\n"
    );
    load_with(&text, &[("debian.toml", definition)])
}

#[test]
fn a_definition_takes_parameters() {
    let layer = "use = \"debian.toml\"\npackages = [\"apt\", \"dpkg\"]\nconfigure = true";
    let recipe = with_definition(layer, DEFINITION).unwrap();
    let LayerKind::Debian(base) = &recipe.layers["base"].kind else { panic!("not debian") };
    let names: Vec<&str> = base.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ["base-files", "apt", "dpkg", "libc6"]);
    assert_eq!((base.suite.as_str(), base.configure), ("trixie-backports", true));
}

#[test]
fn a_definition_s_mistakes_point_at_the_right_file() {
    let problem = |layer: &str, definition: &str| only_problem(&with_definition(layer, definition).unwrap_err());
    let used = "use = \"debian.toml\"\nconfigure = true";
    assert!(
        problem("use = \"debian.toml\"", DEFINITION)
            .starts_with("9:7: this definition needs the parameter `configure`")
    );
    assert!(problem(&format!("{used}\nsuit = \"x\""), DEFINITION).ends_with("did you mean `suite`?"));
    assert!(problem(&format!("{used}\nsuite = 3"), DEFINITION).starts_with("11:9: `suite` should be a string"));
    assert!(
        problem(used, &DEFINITION.replace("${suite}", "${sweet}")).starts_with("8:9: `${sweet}` is not a parameter")
    );
    assert!(problem(used, &DEFINITION.replace("[debian]", "[debain]")).ends_with("did you mean `debian`?"));
    assert!(problem("use = \"missing.toml\"", DEFINITION).contains("cannot be read"));
    assert!(problem("use = \"debian.toml\"", "use = \"debian.toml\"").contains("uses itself"));
    let bad = format!("{used}\npackages = [\"UPPER\"]");
    assert!(problem(&bad, DEFINITION).starts_with("11:13: the package name `UPPER`"));
}

#[test]
fn what_is_built_in_needs_no_file() {
    let recipe = with_definition("use = \"builtin:debian\"\npackages = [\"python3\"]", "").unwrap();
    let LayerKind::Debian(base) = &recipe.layers["base"].kind else { panic!("not debian") };
    assert!(base.configure && base.packages.iter().any(|package| package.name == "python3"));
    let problem = |layer: &str| only_problem(&with_definition(layer, "").unwrap_err());
    assert_eq!(
        problem("use = \"builtin:debain\""),
        "9:7: gapimage has no definition `debain` | did you mean `debian`?"
    );
    for path in ["builtin:../layers/debian", "builtin:/etc/passwd", "builtin:", "builtin:debian.toml"] {
        assert!(problem(&format!("use = \"{path}\"")).contains("gapimage has no definition"), "{path}");
    }
    assert!(problem("use = \"builtin:debian\"\nsuit = \"x\"").ends_with("did you mean `suite`?"));

    let text = GOOD.replace("workspace = \"..\"", "workspace = \"builtin\"");
    let LayerKind::Cargo(init) = &load(&text).unwrap().layers["init"].kind.clone() else { panic!("not cargo") };
    assert_eq!(init.workspace, Workspace::Builtin);
    let LayerKind::Cargo(init) =
        &load(&text.replace("\"builtin\"", "\"./builtin\"")).unwrap().layers["init"].kind.clone()
    else {
        panic!("not cargo")
    };
    assert!(matches!(&init.workspace, Workspace::Directory(path) if path.ends_with("builtin")));
}

#[test]
fn every_builtin_definition_stands_on_its_own() {
    for name in crate::builtin::definitions() {
        let recipe = with_definition(&format!("use = \"builtin:{name}\""), "");
        let recipe = recipe.unwrap_or_else(|error| panic!("{name}: {:?}", miette::Report::new(error)));
        match &recipe.layers["base"].kind {
            LayerKind::Debian(debian) => assert_eq!(debian.keyring, None, "{name}"),
            LayerKind::Cargo(cargo) => assert_eq!(cargo.workspace, Workspace::Builtin, "{name}"),
            LayerKind::Files(_) => panic!("{name} takes files from beside itself"),
            _ => {}
        }
    }
}

#[test]
fn the_recipes_and_definitions_of_this_repository_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(root.join("recipes")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            Recipe::load(&path).unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)));
        }
    }
    let definition = fs::read_to_string(root.join("layers/debian.toml")).unwrap();
    let recipe = with_definition("use = \"debian.toml\"\npackages = [\"python3\"]", &definition).unwrap();
    let LayerKind::Debian(base) = &recipe.layers["base"].kind else { panic!("not debian") };
    assert!(base.configure && base.essential && base.packages.iter().any(|package| package.name == "python3"));
}

/// `GOOD` with this line after the layers of the image `tools`, and these sections at its end.
fn carrying(line: &str, sections: &str) -> String {
    GOOD.replace("layers = [\"kernel\", \"extra\"]\n", &format!("layers = [\"kernel\", \"extra\"]\n{line}\n"))
        + sections
}

#[test]
fn models_and_data_sets_are_images_of_their_own_and_lie_in_those_that_name_them() {
    let sections = "[model.bert]\nhub = \"org/bert\"\n[dataset.tickets]\npath = \"tickets\"\n";
    let recipe = load(&carrying("models = [\"bert\"]\ndatasets = [\"tickets\"]", sections)).unwrap();
    let images = recipe.images.iter().map(|image| (image.name.as_str(), image.kind, image.layers.join(" ")));
    let expected = [
        ("os", ImageKind::System, "base kernel agent extra"),
        ("tools", ImageKind::System, "kernel extra model/bert dataset/tickets"),
        ("bert", ImageKind::Model, "model/bert"),
        ("tickets", ImageKind::Dataset, "dataset/tickets"),
    ];
    let expected = expected.map(|(name, kind, layers)| (name, kind, layers.to_owned()));
    assert_eq!(images.collect::<Vec<_>>(), expected);
    assert_eq!(recipe.placed_layers().len(), 10);
}

#[test]
fn a_model_that_is_not_there_and_a_name_used_twice_are_named() {
    let text = carrying("models = [\"brt\"]", "[model.bert]\nhub = \"org/bert\"\n[dataset.tools]\npath = \"x\"\n");
    let shown = format!("{:?}", load(&text).unwrap_err());
    for expected in ["there is no model `brt`", "did you mean `bert`?", "there is an image `tools` already"] {
        assert!(shown.contains(expected), "{shown}");
    }
}

#[test]
fn what_cannot_be_a_model_is_refused_with_its_line() {
    for (section, says) in [
        ("[model.m]\nhub = \"../evil\"\n", "is no name of a repository"),
        ("[model.m]\nhub = \"org/m\"\nrevision = \"a b\"\n", "is not allowed"),
        ("[model.m]\nhub = \"org/m\"\nendpoint = \"https://u:p@hub.example\"\n", "without credentials"),
        ("[model.m]\nhub = \"org/m\"\nname = \"org/x\"\n", "`name` means nothing without `path`"),
        ("[model.m]\npath = \"m\"\nrevision = \"main\"\n", "`revision` means nothing without `hub`"),
        ("[model.m]\npath = \"m\"\nallow_pickle = 3\n", "`true`, `false` or a list of imports"),
        ("[model.hub]\nhub = \"org/m\"\n", "cannot be called `hub`"),
    ] {
        let shown = format!("{:?}", load(&carrying("", section)).unwrap_err());
        assert!(shown.contains(says), "{section}: {shown}");
    }
    let recipe = load(&carrying("", "[model.m]\npath = \"m\"\nallow_pickle = [\"a.B\"]\n")).unwrap();
    let LayerKind::Model(model) = &recipe.layers["model/m"].kind else { panic!("no model") };
    assert_eq!(model.allow_pickle, super::PicklePolicy::Allow(vec!["a.B".to_owned()]));
}

#[test]
fn a_model_can_be_made_by_a_program() {
    let made = "[model.m]\nrun = { on = [\"base\"], command = [\"make\"], output = \"/out\" }\n";
    let recipe = load(&carrying("models = [\"m\"]", made)).unwrap();
    let LayerKind::Run(run) = &recipe.layers["model/m"].kind else { panic!("no program") };
    assert_eq!((run.output.to_string(), run.to.to_string()), ("/out".to_owned(), "/models/m".to_owned()));
    let image = recipe.images.iter().find(|image| image.name == "m").unwrap();
    assert_eq!((image.kind, image.layers.join(" ")), (ImageKind::Model, "model/m".to_owned()));
    let places = recipe.placed_layers();
    let place = |name| places.iter().position(|place| place.layer.name == name).unwrap();
    assert!(place("base") < place("model/m"));
    for (keys, says) in [
        ("output = \"/out\", to = \"/x\"", "unknown key `to` in `run` of the model `m`"),
        ("", "`output`"),
        ("output = \"/out\", models = [\"m\"]", "is built in itself"),
    ] {
        let section = format!("[model.m]\nrun = {{ on = [\"base\"], command = [\"make\"], {keys} }}\n");
        let shown = format!("{:?}", load(&carrying("", &section.replace(", }", " }"))).unwrap_err());
        assert!(shown.contains(says), "{keys}: {shown}");
    }
    let shown = format!("{:?}", load(&carrying("", &format!("{made}hub = \"org/m\"\n"))).unwrap_err());
    assert!(shown.contains("unknown key `hub` in the model `m`"), "{shown}");
}

/// A layer of Python packages with these keys.
fn wheels(keys: &str, requirements: &str) -> Result<WheelsLayer, RecipeErrors> {
    let layer = format!("[layer.python]\nwheels = {{ {keys} }}\n");
    let text = GOOD.replace("layers = [\"kernel\", \"extra\"]\n", "layers = [\"base\", \"python\"]\n") + &layer;
    let recipe = load_with(&text, &[("requirements.txt", requirements)])?;
    match &recipe.layers["python"].kind {
        LayerKind::Wheels(layer) => Ok(layer.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn requirements_come_from_the_recipe_its_file_and_the_chosen_groups() {
    let keys = "requirements = [\"a[x]>=1\"], requirements_file = \"requirements.txt\", constraints = [\"f<2\"], \
                groups = { one = [\"d\"], two = [\"e; python_version < '4'\"] }, with = [\"two\"]";
    let file = "# a comment\nb==2.0  # why\n\nc \\\n  >= 3\n";
    let layer = wheels(keys, file).unwrap();
    assert_eq!(layer.requirements, ["a[x]>=1", "b==2.0", "c    >= 3", "e; python_version < '4'"]);
    assert_eq!(layer.constraints, ["f<2"]);
    assert_eq!(layer.provided, Provided::Named(Vec::new()));
    assert!(layer.install && layer.bytecode && !layer.wheelhouse);
}

#[test]
fn mistaken_layers_of_python_packages_are_named() {
    for (keys, file, expected) in [
        ("requirements = [\"a >>> 1\"]", "", "is no requirement"),
        ("requirements = [\"a @ https://user:SECRET@host/a.whl\"]", "", "an address of its own"),
        ("requirements = []", "", "has no `requirements`"),
        (
            "requirements_file = \"requirements.txt\"",
            "--index-url https://user:SECRET@host\na",
            "the option `--index-url`",
        ),
        ("requirements_file = \"requirements.txt\"", "a==1 --hash=sha256:00", "the option `--hash`"),
        ("requirements_file = \"../x\"", "", "is not allowed"),
        ("requirements = [\"a\"], index = \"https://user:SECRET@host/simple\"", "", "holds credentials"),
        ("requirements = [\"a\"], extra_indexes = [\"ftp://host\"]", "", "is not allowed"),
        ("requirements = [\"a\"], with = [\"tracking\"]", "", "there are none"),
        ("requirements = [\"a\"], groups = { hpo = [\"b\"] }, with = [\"hpi\"]", "", "there is no group `hpi`"),
        ("requirements = [\"a\"], python = \"2.7\"", "", "no series of Python 3"),
        ("requirements = [\"a\"], provided = \"torch\"", "", "a list of projects"),
        ("requirements = [\"a\"], install = false", "", "neither installs nor keeps"),
        ("requirements = [\"a\"], sdists = [\"a\"]", "", "unknown key `sdists`"),
    ] {
        let shown = format!("{:?}", wheels(keys, file).unwrap_err());
        assert!(shown.contains(expected), "{keys}: {shown}");
    }
}

fn dataset(lines: &str) -> Result<DatasetLayer, RecipeErrors> {
    let recipe = load(&carrying("datasets = [\"d\"]", &format!("[dataset.d]\n{lines}\n")))?;
    match &recipe.layers["dataset/d"].kind {
        LayerKind::Dataset(layer) => Ok(layer.clone()),
        other => panic!("not a data set but {}", other.name()),
    }
}

#[test]
fn what_a_recipe_says_of_a_data_set_is_what_is_done() {
    use gap_data::{BadRows, duplicates::Near, format::Slot, pii::PiiAction, split::Splitting};
    let usual = dataset("path = \"rows\"").unwrap().preparation;
    assert_eq!((usual.exact, usual.near, usual.similarity), (true, Near::Remove, 80));
    assert_eq!((usual.pii, usual.split, usual.bad_rows), (PiiAction::Redact, Splitting::BySize, BadRows::Refuse));
    let layer = dataset(
        "url = \"https://data.example.org/a.csv\"\nsha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n\
         columns = { output = \"answer\" }\ndedupe = \"together\"\nsimilarity = 90\npii = \"refuse\"\n\
         patterns = { STAFF_ID = '\\d{6}' }\nsplit = \"70/15/15\"\nbad_rows = \"leave-out\"\ntokenizer = \"m/tokenizer.json\"\n\
         license = \"CC-BY-4.0\"",
    );
    let layer = layer.unwrap();
    let wanted = &layer.preparation;
    assert!(matches!(layer.source, DatasetSource::Url { .. }));
    assert_eq!((wanted.exact, wanted.near, wanted.similarity), (true, Near::Together, 90));
    assert_eq!(wanted.columns[&Slot::Output], "answer");
    assert_eq!(wanted.patterns["STAFF_ID"], "\\d{6}");
    assert_eq!(wanted.split, Splitting::Fixed("70/15/15".parse().unwrap()));
    assert_eq!(layer.license.as_deref(), Some("CC-BY-4.0"));
    let layer = dataset("hub = \"org/rows\"\nrevision = \"v2\"\ninclude = [\"*.parquet\"]").unwrap();
    let DatasetSource::Hub { repository, include, .. } = layer.source else { panic!("{:?}", layer.source) };
    assert_eq!((repository.repo.as_str(), repository.revision.as_str()), ("org/rows", "v2"));
    assert_eq!(include, ["*.parquet"]);
}

#[test]
fn mistakes_in_data_sets_are_named() {
    for (lines, expected) in [
        ("", "has no `path`"),
        ("path = \"../rows\"", "is not allowed"),
        ("path = \"a\"\nurl = \"https://a.example/b\"", "has both `path` and `url`"),
        ("url = \"https://a.example/b\"", "has a `url` and no `sha256`"),
        ("url = \"https://a.example/b\"\nsha256 = \"12\"", "`sha256` is no digest"),
        ("path = \"a\"\nsha256 = \"12\"", "`sha256` is for a `url`"),
        ("path = \"a\"\nhub = \"org/name\"", "has both `path` and `hub`"),
        ("path = \"a\"\nrevision = \"main\"", "`revision` means nothing without `hub`"),
        ("path = \"a\"\ninclude = [\"*.jsonl\"]", "mean nothing without `hub`"),
        ("hub = \"../name\"", "is no name of a repository"),
        ("path = \"a\"\nformat = \"chat\"", "`format` cannot be `chat`"),
        ("path = \"a\"\ncolumns = { answer = \"x\" }", "no format has a part `answer`"),
        ("path = \"a\"\nsimilarity = 20", "is no similarity of near duplicates"),
        ("path = \"a\"\nsplit = \"80/10\"", "a split is three whole percentages"),
        ("path = \"a\"\npatterns = { id = \"x\" }", "capital letters"),
        ("path = \"a\"\npatterns = { ID = \"(\" }", "the pattern ID is refused"),
        ("path = \"a\"\npi = \"off\"", "unknown key `pi`"),
    ] {
        let shown = format!("{:?}", dataset(lines).unwrap_err());
        assert!(shown.contains(expected), "{lines}: {shown}");
    }
}
