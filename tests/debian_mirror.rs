//! Against a real mirror, where the environment allows it: set `GAPIMAGE_TEST_MIRROR=1`.
//! The mirror is that of this host; apt, where it is installed, is the oracle.

// What these tests set up must simply be there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use gapimage::source::{
    debian::{
        archive::{Archive, Fetch, fetch},
        copyright,
        deb::{self, Limits, Source},
        index::{Index, IndexFile},
        mirror,
        openpgp::Keyring,
        resolve::{Query, resolve},
        spool::Spool,
    },
    http::{Client, Download, Settings},
};
use std::{collections::BTreeSet, fs, path::Path, process::Command, thread::available_parallelism, time::Instant};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

fn enabled() -> bool {
    std::env::var_os("GAPIMAGE_TEST_MIRROR").is_some()
}

fn indexes(cache: &Path) -> Vec<IndexFile> {
    let archive = Archive {
        name: "debian".to_owned(),
        mirrors: mirror::find(&[], "debian").unwrap(),
        suites: vec!["trixie".to_owned()],
        components: vec!["main".to_owned()],
        accept_expired: false,
    };
    let client = Client::new(Settings::default());
    let keyring = Keyring::open(Path::new(KEYRING)).unwrap();
    let now = jiff::Timestamp::now();
    let with = Fetch { client: &client, arch: "amd64", keyring: &keyring, now, cache, progress: &|_| {} };
    fetch(&[archive], with).unwrap().indexes
}

/// Runs one step and tells how long it took.
fn timed<T>(what: &str, step: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = step();
    eprintln!("{what}: {:.3} s", start.elapsed().as_secs_f64());
    result
}

fn cache() -> std::path::PathBuf {
    let cache = std::env::temp_dir().join("gapimage-test-mirror");
    fs::create_dir_all(&cache).unwrap();
    cache
}

#[test]
fn a_boot_image_is_resolved_fetched_and_unpacked() {
    if !enabled() {
        return;
    }
    let cache = cache();
    timed("release and index, cache as it is", || indexes(&cache));
    let files = timed("release and index, warm", || indexes(&cache));
    let index = timed("parse", || Index::parse(&files, "amd64").unwrap());
    eprintln!("{} packages", index.offers().len());
    assert!(index.offers().len() > 50_000);
    let packages = ["linux-image-amd64", "systemd-boot-efi", "ca-certificates"].map(str::to_owned);
    let query = Query { essential: true, ..Query::new(&packages) };
    let locked = timed("resolve", || resolve(&index, &query).unwrap());
    assert_eq!(locked, resolve(&index, &query).unwrap());
    eprintln!("{} packages locked, {} bytes", locked.len(), locked.iter().map(|package| package.size).sum::<u64>());

    let mirrors = mirror::find(&[], "debian").unwrap();
    let downloads: Vec<Download> = locked
        .iter()
        .map(|package| Download {
            mirrors: mirrors.clone(),
            path: package.path.clone(),
            size: package.size,
            sha256: package.sha256,
        })
        .collect();
    let client = Client::new(Settings::default());
    let paths = timed("download", || client.download_all(&downloads, &cache, &|_| {}).unwrap());
    let spool = Spool::new_in(&cache).unwrap();
    let sources: Vec<Source<'_>> = locked.iter().zip(&paths).map(|(package, path)| Source { package, path }).collect();
    let threads = available_parallelism().unwrap();
    let debs = timed("unpack", || deb::unpack_all(&sources, &spool, &Limits::default(), threads).unwrap());
    let nodes: usize = debs.iter().map(|deb| deb.tree.len()).sum();
    eprintln!("{nodes} files and directories");
    for ((package, path), deb) in locked.iter().zip(&paths).zip(&debs) {
        compare_with_dpkg_deb(path, deb);
        assert_eq!(deb.control.get("Package"), Some(package.name.as_str()));
    }
    let base = locked.iter().zip(&debs).find(|(package, _)| package.name == "bash").unwrap().1;
    let Some(copyright::Copyright::Licences(licences)) = copyright::of_package(&base.tree, "bash") else { panic!() };
    assert!(licences.contains(&"GPL-3.0-or-later".to_owned()), "{licences:?}");
}

/// `dpkg-deb` lists the same number of entries and prints the same control file.
fn compare_with_dpkg_deb(path: &Path, deb: &deb::Deb) {
    let run = |arguments: &[&str]| Command::new("dpkg-deb").args(arguments).arg(path).output();
    let Ok(listing) = run(&["--contents"]) else { return };
    let listed = String::from_utf8_lossy(&listing.stdout).lines().filter(|line| !line.ends_with(" ./")).count();
    assert_eq!(deb.tree.len(), listed, "{}", path.display());
    let fields = run(&["--info"]).unwrap();
    assert!(fields.status.success());
    let control = Command::new("dpkg-deb").arg("--field").arg(path).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&control.stdout).trim(), deb.control.text().trim());
}

#[test]
fn apt_finds_the_same_solution() {
    if !enabled() || Command::new("apt-get").arg("--version").output().is_err() {
        return;
    }
    let cache = cache();
    let files = indexes(&cache);
    let index = Index::parse(&files, "amd64").unwrap();
    for request in
        ["openssh-server", "linux-image-amd64", "systemd-boot-efi", "nginx", "python3-venv", "postfix", "gnome-core"]
    {
        let packages = [request.to_owned()];
        let ours: BTreeSet<String> = timed(request, || resolve(&index, &Query::new(&packages)).unwrap())
            .into_iter()
            .map(|package| format!("{} {}", package.name, package.version))
            .collect();
        let theirs = apt_solution(&files[0], request);
        let missing: Vec<_> = theirs.difference(&ours).collect();
        let added: Vec<_> = ours.difference(&theirs).collect();
        eprintln!("{request}: {} packages; apt alone has {missing:?}, gapimage alone has {added:?}", ours.len());
        // Where several choices are right, apt's depends on its order of visits: one in a hundred may differ.
        assert!(missing.len() + added.len() <= ours.len() / 100, "{request}");
    }
}

#[test]
fn a_real_conflict_is_told_in_sentences() {
    if !enabled() {
        return;
    }
    let files = indexes(&cache());
    let index = Index::parse(&files, "amd64").unwrap();
    for (packages, expected) in [
        (vec!["postfix", "exim4-daemon-light"], "conflicts with mail-transport-agent"),
        (vec!["libc6-dev", "libc6<<2.41"], "libc6 (<< 2.41)"),
        (vec!["systemd-sysv", "sysvinit-core"], "systemd-sysv"),
        (vec!["openssh-sevrer"], "did you mean openssh-server"),
    ] {
        let packages: Vec<String> = packages.into_iter().map(str::to_owned).collect();
        let error = timed("refuse", || resolve(&index, &Query::new(&packages)).unwrap_err().to_string());
        eprintln!("{error}");
        assert!(error.contains(expected), "{error}");
    }
}

/// What apt would install into an empty system whose only index is this one.
fn apt_solution(file: &IndexFile, request: &str) -> BTreeSet<String> {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for directory in ["repo", "state/lists/partial", "cache/archives/partial", "etc"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    fs::write(at("repo/Packages"), &file.text).unwrap();
    fs::write(at("status"), "").unwrap();
    fs::write(at("etc/sources.list"), format!("deb [trusted=yes] file:{} ./\n", at("repo").display())).unwrap();
    let configuration = format!(
        "Dir::State \"{0}/state\";\nDir::State::status \"{0}/status\";\nDir::Cache \"{0}/cache\";\nDir::Etc \"{0}/etc\";\n\
         APT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\nAPT::Install-Recommends \"false\";\n\
         APT::Sandbox::User \"\";\nAcquire::Languages \"none\";\npkgCacheGen::ForceEssential \"none\";\n",
        root.path().display()
    );
    fs::write(at("apt.conf"), configuration).unwrap();
    let apt = |arguments: &[&str]| {
        let output = Command::new("apt-get").env("APT_CONFIG", at("apt.conf")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    apt(&["update", "-q"]);
    let simulated = apt(&["install", "-s", "-q", "--no-install-recommends", request]);
    simulated
        .lines()
        .filter_map(|line| line.strip_prefix("Inst "))
        .map(|line| {
            let (name, rest) = line.split_once(' ').unwrap();
            let version = rest.trim_start_matches('(').split(' ').next().unwrap();
            format!("{name} {version}")
        })
        .collect()
}
