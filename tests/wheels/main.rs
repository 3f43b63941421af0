//! Python packages from an index to a program that runs in the image.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail by panicking")]

mod again;
mod bad;
#[path = "../fixture/mod.rs"]
mod fixture;
mod index;
mod source;
mod wheel;

use fixture::{Project, fail_with, gapimage, said, stdout, succeed};
use index::{Form, Index, SECRET, find_bytes};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};
use wheel::{tagged, wheel};

/// A base in which pip runs.
const BASE: &str = "[image.main]
layers = [\"base\", \"python\"]
[layer.base]
debian = { suite = \"trixie\", \
                    essential = true, configure = true, \
                    packages = [\"ca-certificates\", \"python3\", \"python3-pip\", \"python3-yaml\"] }
";

/// What no user's settings may decide in a test.
const SETTINGS: [&str; 12] = [
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_NO_INDEX",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_NO_INDEX",
    "UV_CACHE_DIR",
    "NETRC",
];

/// Makes sure that there is a uv in the store, fetched from the user's own index.
fn have_uv() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let project = project("[\"six\"]", "");
        succeed(gapimage().arg("lock").arg(project.path().join("recipe.toml")));
    });
}

/// Copies the uv of the shared store into another one, if it was fetched.
fn bring_uv(store: &Path) {
    let tools = fixture::store().join("caches/tools");
    if tools.exists() {
        fs::create_dir_all(store.join("caches")).unwrap();
        succeed(Command::new("cp").arg("-r").arg(tools).arg(store.join("caches/tools")));
    }
}

/// A recipe of the base and these requirements, with more keys.
fn project(requirements: &str, more: &str) -> Project {
    let project = Project::new(&[]);
    write_recipe(&project, requirements, more);
    project
}

fn write_recipe(project: &Project, requirements: &str, more: &str) {
    project.recipe(&format!("{BASE}[layer.python]\nwheels = {{ requirements = {requirements}{more} }}\n"));
}

/// gapimage with the loopback index as the user's own.
fn with_index(index: &Index, project: &Project) -> Command {
    let mut command = gapimage();
    for name in SETTINGS {
        command.env_remove(name);
    }
    command.env("PIP_INDEX_URL", index.url()).env("UV_CACHE_DIR", project.path().join("uv-cache"));
    command
}

fn lock(index: &Index, project: &Project) -> Command {
    have_uv();
    let mut command = with_index(index, project);
    command.arg("lock").arg(project.path().join("recipe.toml"));
    command
}

fn build(index: &Index, project: &Project, out: &str) -> PathBuf {
    have_uv();
    let out = project.path().join(out);
    succeed(with_index(index, project).arg("build").arg(project.path().join("recipe.toml")).arg("-o").arg(&out));
    out
}

fn run(artifact: &Path, command: &[&str]) -> String {
    let output = succeed(gapimage().arg("run").arg(format!("{}:main", artifact.display())).arg("--").args(command));
    said(&output)
}

fn lock_text(project: &Project) -> String {
    fs::read_to_string(project.path().join("recipe.lock")).unwrap()
}

/// An index with a program, what it needs, and what it must not get.
fn greetings(form: Form) -> Index {
    let index = Index::start(form);
    let greeter = [
        ("greeter/__init__.py", "import words\ndef main():\n    print(words.HELLO)\n"),
        ("greeter-1.0.dist-info/entry_points.txt", "[console_scripts]\ngreet = greeter:main\n"),
        ("greeter-1.0.data/scripts/old-greet", "#!python\nprint('old')\n"),
        ("greeter-1.0.data/data/share/greeter/text", "text"),
    ];
    let requires = ["words>=2", "shouting; extra == 'loud'", "windows-only; sys_platform == 'win32'"];
    let offers = [
        wheel("greeter", "1.0", &requires, &greeter),
        wheel("words", "1.0", &[], &[("words.py", "HELLO = 'one'\n")]),
        wheel("words", "2.0", &[], &[("words.py", "HELLO = 'two'\n")]),
        wheel("words", "3.0", &[], &[("words.py", "HELLO = 'three'\n")]),
        wheel("shouting", "1.0", &[], &[("shouting.py", "")]),
        // The first is newer than the image's C library, the second older than needed, the third for another Python.
        tagged("native", "1.0", "cp313-cp313-manylinux_2_99_x86_64", &[], &[("native.py", "FOR = 'tomorrow'\n")]),
        tagged("native", "1.0", "cp313-cp313-manylinux_2_17_x86_64", &[], &[("native.py", "FOR = 'this'\n")]),
        tagged("native", "1.0", "cp312-cp312-manylinux_2_17_x86_64", &[], &[("native.py", "FOR = 'other'\n")]),
    ];
    for (file, bytes) in offers {
        index.offer(&file, bytes);
    }
    index
}

#[test]
fn packages_run_in_the_image_as_if_pip_had_installed_them() {
    let index = greetings(Form::Html);
    let project = project("[\"greeter[loud]\", \"native\"]", ", constraints = [\"words<3\"]");
    let artifact = build(&index, &project, "a.gap");
    let text = lock_text(&project);
    assert!(text.contains("native-1.0-cp313-cp313-manylinux_2_17_x86_64.whl"), "{text}");
    assert!(text.contains("requires = [\"shouting\", \"words>=2\"]"), "{text}");
    assert!(text.contains("licenses = [\"MIT\"]"), "{text}");
    assert_eq!(run(&artifact, &["greet"]).trim(), "two");
    assert_eq!(run(&artifact, &["old-greet"]).trim(), "old");
    assert_eq!(run(&artifact, &["cat", "/usr/local/share/greeter/text"]).trim(), "text");
    let listed = run(&artifact, &["python3", "-m", "pip", "list", "--path", "/usr/local/lib/python3.13/dist-packages"]);
    for row in ["greeter  1.0", "native   1.0", "shouting 1.0", "words    2.0"] {
        assert!(listed.contains(row), "{listed}");
    }
    assert!(run(&artifact, &["python3", "-m", "pip", "check"]).contains("No broken requirements found"));
    let program = "import native, greeter, sys, importlib.metadata as m\n\
                   flags = open(greeter.__cached__, 'rb').read(8)[4:]\n\
                   files = [str(f) for f in m.files('greeter')]\n\
                   missing = [f for f in m.files('greeter') if not f.locate().exists()]\n\
                   print(native.FOR, flags, m.distribution('greeter').read_text('INSTALLER'), missing, files == sorted(files))";
    assert_eq!(run(&artifact, &["python3", "-c", program]).trim(), "this b'\\x01\\x00\\x00\\x00' gapimage\n [] True");
}

#[test]
fn nothing_that_is_kept_knows_the_index_or_its_password() {
    let index = greetings(Form::Json);
    let project = project("[\"greeter\"]", "");
    let store = project.path().join("store");
    have_uv();
    bring_uv(&store);
    let out = project.path().join("a.gap");
    let recipe = project.path().join("recipe.toml");
    let output =
        succeed(with_index(&index, &project).arg("build").arg(recipe).arg("-o").arg(&out).arg("--store").arg(&store));
    assert!(!said(&output).contains(SECRET));
    fs::remove_dir_all(project.path().join("uv-cache")).unwrap();
    for needle in [SECRET.to_owned(), format!("127.0.0.1:{}", index.url().rsplit(':').next().unwrap())] {
        let needle = needle.trim_end_matches("/simple");
        assert_eq!(find_bytes(project.path(), needle.as_bytes()), Vec::<PathBuf>::new(), "{needle}");
    }
}

#[test]
fn the_same_bytes_come_of_another_store_and_only_what_changed_is_made_again() {
    let index = greetings(Form::Html);
    let project = project("[\"greeter\"]", ", wheelhouse = true");
    let first = build(&index, &project, "first.gap");
    let other = project.path().join("other-store");
    bring_uv(&other);
    let second = project.path().join("second.gap");
    let recipe = project.path().join("recipe.toml");
    succeed(with_index(&index, &project).arg("build").arg(&recipe).arg("-o").arg(&second).arg("--store").arg(&other));
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());
    write_recipe(&project, "[\"greeter\", \"words<3\"]", "");
    let mut command = with_index(&index, &project);
    command.arg("build").arg(&recipe).arg("-o").arg(&second).arg("--store").arg(&other);
    let output = succeed(&mut command);
    let said = said(&output);
    assert!(said.contains("layer `python/small`: building (wheel words changed"), "{said}");
    assert!(!said.contains("layer `base`: building"), "{said}");
}

#[test]
fn requirements_without_a_solution_fail_in_the_resolvers_words() {
    let index = greetings(Form::Html);
    let project = project("[\"greeter\", \"words<2\"]", "");
    let said = fail_with(1, &mut lock(&index, &project));
    let words: String = said.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
    assert!(words.contains("greeter") && words.contains("words>=2") && words.contains("unsatisfiable"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
    assert!(!project.path().join("recipe.lock").exists());
}

#[test]
fn a_project_that_no_index_has_and_one_without_a_wheel_are_named() {
    let index = greetings(Form::Html);
    index.offer("sourceonly-1.0.tar.gz", b"none".to_vec());
    for name in ["nowhere-to-be-found", "sourceonly"] {
        let said = fail_with(1, &mut lock(&index, &project(&format!("[\"{name}\"]"), "")));
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn other_bytes_than_were_locked_are_refused_and_the_right_ones_taken_later() {
    let index = greetings(Form::Html);
    let (file, good) = wheel("unique", "1.0", &[], &[("unique.py", &format!("PORT = {:?}\n", index.url().len()))]);
    index.offer(&file, good.clone());
    let project = project("[\"unique\"]", "");
    succeed(&mut lock(&index, &project));
    let mut lying = good;
    lying[40] ^= 1;
    index.replace(&file, lying);
    let recipe = project.path().join("recipe.toml");
    let store = project.path().join("store");
    bring_uv(&store);
    let out = project.path().join("a.gap");
    let said = fail_with(
        1,
        with_index(&index, &project).arg("build").arg(&recipe).arg("-o").arg(&out).arg("--store").arg(&store),
    );
    assert!(said.contains("was promised") && !said.contains(SECRET), "{said}");
    assert!(!out.exists());
}

#[test]
fn a_hostile_wheel_is_refused_when_it_is_locked() {
    let index = Index::start(Form::Html);
    let (file, bytes) = wheel("climber", "1.0", &[], &[("../../etc/passwd", "x")]);
    index.offer(&file, bytes);
    let said = fail_with(1, &mut lock(&index, &project("[\"climber\"]", "")));
    assert!(said.contains("climbs"), "{said}");
}

#[test]
fn what_debian_brings_is_not_installed_again() {
    let index = Index::start(Form::Html);
    let (file, bytes) = wheel("reader", "1.0", &["PyYAML>=6"], &[("reader.py", "import yaml\n")]);
    index.offer(&file, bytes);
    let project = project("[\"reader\"]", ", provided = [\"PyYAML\"]");
    succeed(&mut lock(&index, &project));
    let text = lock_text(&project);
    assert!(
        text.contains("package = \"python3-yaml\"") && !text.contains("name = \"pyyaml\"\nversion = \"6.0.2\"\nfile"),
        "{text}"
    );
    let (file, bytes) = wheel("reader", "2.0", &["PyYAML>=99"], &[("reader.py", "import yaml\n")]);
    index.offer(&file, bytes);
    write_recipe(&project, "[\"reader>=2\"]", ", provided = [\"PyYAML\"]");
    let said = fail_with(1, &mut lock(&index, &project));
    assert!(said.contains("pyyaml"), "{said}");
    write_recipe(&project, "[\"reader\"]", ", provided = [\"torch\"]");
    let said = fail_with(1, &mut lock(&index, &project));
    assert!(said.contains("`torch`") && said.contains("pyyaml"), "{said}");
}

#[test]
fn an_environment_of_its_own_and_a_wheelhouse_work_inside() {
    let index = greetings(Form::Html);
    let project = project("[\"greeter\"]", ", to = \"/opt/greetings\", wheelhouse = true");
    let artifact = build(&index, &project, "a.gap");
    assert_eq!(run(&artifact, &["/opt/greetings/bin/greet"]).trim(), "three");
    let prefix = "import sys, yaml; print(sys.prefix, sys.base_prefix)";
    assert_eq!(run(&artifact, &["/opt/greetings/bin/python", "-c", prefix]).trim(), "/opt/greetings /usr");
    let install = "pip install -q --no-index --find-links /opt/wheelhouse --target /tmp/a greeter && \
                   pip install -q --index-url file:///opt/wheelhouse/simple --require-hashes --target /tmp/b \
                   -r /opt/wheelhouse/requirements.txt && cd /tmp/b && PYTHONPATH=/tmp/a python3 -m words && ls /tmp/a";
    let said = run(&artifact, &["sh", "-c", install]);
    assert!(said.contains("words.py"), "{said}");
}

#[test]
fn real_packages_lie_there_as_uv_installs_them() {
    have_uv();
    let project = project("[\"rich\", \"pyyaml\", \"typing-extensions\"]", ", bytecode = false");
    let out = project.path().join("a.gap");
    succeed(gapimage().arg("build").arg(project.path().join("recipe.toml")).arg("-o").arg(&out));
    let text = lock_text(&project);
    let pins: Vec<String> = text
        .split("[[layer.inputs.wheels.wheel]]")
        .skip(1)
        .map(|row| {
            let field = |key: &str| row.split(&format!("{key} = \"")).nth(1).unwrap().split('"').next().unwrap();
            format!("{}=={}", field("name"), field("version"))
        })
        .collect();
    let uv = fs::read_dir(fixture::store().join("caches/tools")).unwrap().next();
    let uv = uv.map_or_else(|| PathBuf::from("uv"), |tool| tool.unwrap().path().join("uv"));
    let theirs = project.path().join("theirs");
    succeed(
        Command::new(uv)
            .args(["pip", "install", "--quiet", "--no-deps", "--python-version", "3.13"])
            .args(["--python-platform", "x86_64-manylinux_2_40", "--target"])
            .arg(&theirs)
            .args(&pins),
    );
    let program = "import hashlib, os, sys\n\
                   for top, _, names in os.walk(sys.argv[1]):\n\
                   \x20   for name in names:\n\
                   \x20       path = os.path.join(top, name)\n\
                   \x20       short = os.path.relpath(path, sys.argv[1])\n\
                   \x20       own = name in ('RECORD', 'INSTALLER', 'REQUESTED', 'uv_cache.json', '.lock') or short.startswith('bin/')\n\
                   \x20       if not own:\n\
                   \x20           print(short, oct(os.stat(path).st_mode), hashlib.sha256(open(path, 'rb').read()).hexdigest())\n";
    let ours = run(&out, &["python3", "-c", program, "/usr/local/lib/python3.13/dist-packages"]);
    let theirs = stdout(&succeed(Command::new("python3").arg("-c").arg(program).arg(&theirs)));
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert!(sorted(&ours).len() > 50);
    assert_eq!(sorted(&ours), sorted(&theirs));
}
