//! Packages that come as source: locked without running them, built in the sandbox, the same each time.

use crate::{
    build, fixture,
    index::{Form, Index},
    lock, lock_text, run,
    wheel::wheel,
    with_index,
};
use fixture::{Project, fail_with, gapimage, said, succeed};
use flate2::{Compression, write::GzEncoder};
use std::{
    fs,
    io::Write,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A base with Python, and a compiler beside it that no image has.
const LAYERS: &str = "[image.main]
layers = [\"base\", \"python\"]
[layer.base]
debian = { suite = \"trixie\", essential = true, configure = true, packages = [\"python3\"] }
[layer.compiler]
debian = { suite = \"trixie\", packages = [\"gcc\", \"libc6-dev\", \"python3-dev\"] }
";

/// A backend that packs `*.py`, and compiles `*.c` if there is any; `CHANGING` in a module's name makes it different each time.
const BACKEND: &str = r#"
import base64, glob, hashlib, os, subprocess, sysconfig, time, zipfile

def get_requires_for_build_wheel(config_settings=None):
    return open('wanted').read().split() if os.path.exists('wanted') else []

def build_wheel(directory, config_settings=None, metadata_directory=None):
    info = open('PKG-INFO').read()
    field = lambda key: next(line.split(': ', 1)[1] for line in info.splitlines() if line.startswith(key + ': '))
    name, version = field('Name'), field('Version')
    files = {path: open(path, 'rb').read() for path in glob.glob('*.py') if path != 'own_backend.py'}
    tag = 'py3-none-any'
    for source in glob.glob('*.c'):
        suffix = sysconfig.get_config_var('EXT_SUFFIX')
        include = sysconfig.get_paths()['include']
        target = source[:-2] + suffix
        subprocess.run(['gcc', '-shared', '-fPIC', '-g', '-I' + include, os.path.abspath(source), '-o', target], check=True)
        files[target] = open(target, 'rb').read()
        tag = f'cp313-cp313-linux_{os.uname().machine}'
    if os.path.exists('pause'):
        time.sleep(2)
    if os.path.exists('random'):
        files['changing.py'] = b'WHEN = %r\n' % os.urandom(8)
    dist = f'{name}-{version}.dist-info'
    extra = open('late').read() if os.path.exists('late') else ''
    files[f'{dist}/METADATA'] = (info.rstrip() + '\n' + extra).encode()
    files[f'{dist}/WHEEL'] = f'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n'.encode()
    digest = lambda data: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()
    record = ''.join(f'{path},sha256={digest(data)},{len(data)}\n' for path, data in files.items())
    files[f'{dist}/RECORD'] = (record + f'{dist}/RECORD,,\n').encode()
    file = f'{name}-{version}-{tag}.whl'
    with zipfile.ZipFile(os.path.join(directory, file), 'w', zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return file
"#;

/// A source distribution of `NAME` 1.0 with these files, which needs `words` and is built by `backend` of an index.
fn sdist(name: &str, files: &[(&str, &str)]) -> (String, Vec<u8>) {
    let info = format!(
        "Metadata-Version: 2.2\nName: {name}\nVersion: 1.0\nLicense-Expression: MIT\nRequires-Dist: words>=2\n"
    );
    let project = "[build-system]\nrequires = [\"own-backend>=1\"]\nbuild-backend = \"own_backend\"\n";
    let own = [("PKG-INFO", info.as_str()), ("pyproject.toml", project)];
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in own.iter().chain(files) {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{name}-1.0/{path}"), text.as_bytes()).unwrap();
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&tar.into_inner().unwrap()).unwrap();
    (format!("{name}-1.0.tar.gz"), gzip.finish().unwrap())
}

/// An index with the backend, what is needed, and these sources.
fn index(sources: &[(String, Vec<u8>)]) -> Index {
    let index = Index::start(Form::Html);
    let wheels = [
        wheel("own_backend", "1.0", &["tool"], &[("own_backend.py", BACKEND)]),
        wheel("tool", "2.0", &[], &[("tool.py", "")]),
        wheel("words", "2.0", &[], &[("words.py", "HELLO = 'two'\n")]),
        // Newer than the source, but the recipe wants the source.
        wheel("pure", "1.0", &[], &[("pure.py", "FROM = 'wheel'\n")]),
    ];
    for (file, bytes) in wheels.iter().chain(sources) {
        index.offer(file, bytes.clone());
    }
    index
}

fn project(requirements: &str, more: &str) -> Project {
    let project = Project::new(&[]);
    let layers = if more.contains("compiler") { LAYERS } else { LAYERS.split("[layer.compiler]").next().unwrap() };
    project.recipe(&format!("{layers}[layer.python]\nwheels = {{ requirements = {requirements}{more} }}\n"));
    project
}

#[test]
fn a_pure_project_is_built_with_locked_tools_and_nothing_runs_when_it_is_locked() {
    // Whoever runs this while locking finds out.
    let trap = "import sys; sys.exit('it was run')\n";
    let source = sdist("pure", &[("pure.py", "import words\nFROM = 'source'\n"), ("setup.py", trap)]);
    let index = index(&[source]);
    let project = project("[\"pure\"]", ", sdist = [\"pure\"]");
    let artifact = build(&index, &project, "a.gap");
    let text = lock_text(&project);
    let row = text.split("[[layer.inputs.wheels.sdist]]").nth(1).unwrap();
    assert!(row.contains("file = \"pure-1.0.tar.gz\"") && row.contains("requires = [\"words>=2\"]"), "{text}");
    assert!(row.contains("own_backend-1.0-py3-none-any.whl") && row.contains("tool-2.0-py3-none-any.whl"), "{text}");
    let program = "import pure, importlib.metadata as m; print(pure.FROM, pure.words.HELLO, m.version('pure'), \
                   m.distribution('pure').read_text('INSTALLER').strip(), __import__('importlib').util.find_spec('own_backend'))";
    assert_eq!(run(&artifact, &["python3", "-c", program]).trim(), "source two 1.0 gapimage None");
    let bill = succeed(gapimage().arg("inspect").arg(&artifact).args(["--document", "sbom"]));
    let bill = said(&bill);
    assert!(bill.contains("file_name=pure-1.0.tar.gz") && bill.contains("BUILD_TOOL_OF"), "{bill}");
    // Another store builds it again, to the same bytes.
    let other = project.path().join("other-store");
    crate::bring_uv(&other);
    let second = project.path().join("b.gap");
    let mut command = with_index(&index, &project);
    command.arg("build").arg(project.path().join("recipe.toml")).arg("-o").arg(&second).arg("--store").arg(&other);
    succeed(&mut command);
    assert!(std::fs::read(&artifact).unwrap() == std::fs::read(&second).unwrap());
}

#[test]
fn an_extension_is_compiled_by_layers_that_are_not_in_the_image() {
    let code = "#include <Python.h>\nstatic struct PyModuleDef module = { PyModuleDef_HEAD_INIT, \"native\", 0, -1, 0 };\n\
                PyMODINIT_FUNC PyInit_native(void) {\n    PyObject *made = PyModule_Create(&module);\n    \
                PyModule_AddStringConstant(made, \"FILE\", __FILE__);\n    return made;\n}\n";
    let index = index(&[sdist("native", &[("native.c", code)])]);
    let project = project("[\"native\"]", ", sdist = [\"native\"], build_on = [\"base\", \"compiler\"]");
    let artifact = build(&index, &project, "a.gap");
    let program = "import native, shutil; print(native.FILE, shutil.which('gcc'))";
    assert_eq!(run(&artifact, &["python3", "-c", program]).trim(), "/build/work/native-1.0/native.c None");
}

#[test]
fn builds_that_differ_or_want_more_than_was_locked_are_refused_with_what_they_are_about() {
    let refused = |files: &[(&str, &str)]| {
        let index = index(&[sdist("odd", files)]);
        let project = project("[\"odd\"]", ", sdist = [\"odd\"]");
        succeed(&mut lock(&index, &project));
        let mut command = with_index(&index, &project);
        command.arg("build").arg(project.path().join("recipe.toml")).arg("-o").arg(project.path().join("a.gap"));
        let said = fail_with(1, &mut command);
        assert!(!project.path().join("a.gap").exists());
        said
    };
    let said = refused(&[("odd.py", ""), ("random", "")]);
    assert!(said.contains("`changing.py` in its wheel differs between two builds"), "{said}");
    let said = refused(&[("odd.py", ""), ("late", "Requires-Dist: surprise>=3\n")]);
    assert!(said.contains("needs surprise>=3, which its source did not say"), "{said}");
    let said = refused(&[("odd.py", ""), ("wanted", "cython")]);
    assert!(said.contains("the backend also wants cython") && said.contains("build_requires"), "{said}");
    let said = refused(&[("odd.c", "#error no way\n")]);
    assert!(said.contains("odd-1.0.tar.gz") && said.contains("gcc"), "{said}");
}

#[test]
fn what_cannot_be_locked_as_source_is_named() {
    let index = index(&[sdist("pure", &[]), ("broken-1.0.tar.gz".to_owned(), b"none".to_vec())]);
    for (requirements, more, expected) in [
        (
            "[\"words\"]",
            ", sdist = [\"words\"]",
            "no index has a source distribution (`NAME-VERSION.tar.gz`) of `words`",
        ),
        ("[\"pure>2\"]", ", sdist = [\"pure\"]", "of `pure`"),
        ("[\"words\"]", ", sdist = [\"pure\"]", "`sdist` names `pure`, which nothing needs"),
        ("[\"broken\"]", ", sdist = [\"broken\"]", "`broken-1.0.tar.gz`: it is no whole tar archive"),
        ("[\"pure\"]", ", sdist = [\"pure\"], build_requires = [\"nowhere-at-all\"]", "nowhere-at-all"),
        ("[\"pure\"]", ", sdist = [\"pure\"], wheelhouse = true", "in no wheelhouse"),
    ] {
        let project = project(requirements, more);
        let said = fail_with(1, &mut lock(&index, &project));
        assert!(said.contains(expected), "{more}: {said}");
    }
}

/// The processes that descend from `ancestor` and whose command line has `word`.
fn descendants(ancestor: u32, word: &str) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let descends = |pid: u32| std::iter::successors(Some(pid), |&pid| parent(pid)).any(|pid| pid == ancestor);
    let says = |pid: u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| String::from_utf8_lossy(&text).contains(word))
    };
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(|&pid| says(pid) && descends(pid)).collect()
}

/// Looks again and again until there is something to see.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(300);
    loop {
        match look() {
            Some(seen) => return seen,
            None => assert!(Instant::now() < end, "it did not come to that"),
        }
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_build_from_source_that_is_killed_ends_what_it_runs_and_is_done_by_the_same_command() {
    // One that no run of this test built before: stores outlive it.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let source = format!("FROM = 'source'\nMADE = {now}\n");
    let index = index(&[sdist("pure", &[("pure.py", &source), ("pause", "")])]);
    let project = project("[\"pure\"]", ", sdist = [\"pure\"]");
    succeed(&mut lock(&index, &project));
    let artifact = project.path().join("a.gap");
    let command = || {
        let mut command = with_index(&index, &project);
        command.arg("build").arg(project.path().join("recipe.toml")).arg("-o").arg(&artifact);
        command
    };
    let mut killed = command().stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let at_work = until(|| descendants(killed.id(), "build.py\0wheel").first().copied());
    killed.kill().unwrap();
    killed.wait().unwrap();
    until(|| (!fs::exists(format!("/proc/{at_work}/root/build")).unwrap_or_default()).then_some(()));
    assert!(!artifact.exists());
    succeed(&mut command());
    assert_eq!(run(&artifact, &["python3", "-c", "import pure; print(pure.FROM)"]).trim(), "source");
}
