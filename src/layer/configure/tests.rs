use super::*;

const DATE: i64 = 1_700_000_000;

fn at(raw: &str) -> TreePath {
    TreePath::new(raw).unwrap()
}

fn file(text: &str) -> Node {
    Node::File { meta: Meta::root_owned(0o644, 1), content: Content::bytes(text.as_bytes()) }
}

fn directory() -> Node {
    Node::Directory { meta: Meta::root_owned(0o755, 1), opaque: false }
}

fn package<const N: usize>(name: &str, control_files: &[(&str, &str)], files: [&str; N]) -> PackageInput {
    let mut tree = Tree::new();
    for raw in files {
        let mut above = at(raw).parent();
        while let Some(parent) = above {
            above = parent.parent();
            tree.insert(parent, directory());
        }
        tree.insert(at(raw), file(name));
    }
    PackageInput {
        name: name.to_owned(),
        version: "1".to_owned(),
        arch: "amd64".to_owned(),
        multi_arch: if name.starts_with("lib") { "same".to_owned() } else { String::new() },
        control_stanza: format!("Package: {name}\nVersion: 1\nArchitecture: amd64\n").into_bytes(),
        control_files: control_files
            .iter()
            .map(|(name, data)| ((*name).to_owned(), data.as_bytes().to_vec()))
            .collect(),
        tree,
    }
}

fn text(tree: &Tree, raw: &str) -> String {
    match tree.get(&at(raw)) {
        Some(Node::File { content, .. }) => String::from_utf8(content.read().unwrap()).unwrap(),
        other => panic!("{raw}: {other:?}"),
    }
}

#[test]
fn without_scripts_the_control_files_are_left_for_scanners() {
    let packages = [package("liba", &[("md5sums", "0 x\n")], ["lib/x86/liba.so"]), package("tool", &[], ["bin/tool"])];
    let lower = Tree::new();
    let layer = unconfigured(&Installation { lower: &lower, packages: &packages, source_date: DATE }).unwrap();
    assert!(text(&layer, "var/lib/dpkg/status.d/liba").starts_with("Package: liba\n"));
    assert_eq!(text(&layer, "var/lib/dpkg/status.d/liba.md5sums"), "0 x\n");
    assert_eq!(text(&layer, "usr/lib/x86/liba.so"), "liba");
    assert_eq!(text(&layer, "usr/bin/tool"), "tool");
    assert!(matches!(layer.get(&at("lib")), Some(Node::Symlink { target, .. }) if target == b"usr/lib"));
    assert!(layer.get(&at("sbin")).is_none(), "nobody uses it");
}

#[test]
fn the_database_is_as_dpkg_leaves_it_after_unpacking() {
    let conffiles = "/etc/a.conf\nremove-on-upgrade /etc/old.conf\n";
    let packages = [package("liba", &[("conffiles", conffiles), ("postinst", "#!/bin/sh\n")], ["etc/a.conf"])];
    let tree = database::write(&Tree::new(), &packages, DATE).unwrap();
    assert_eq!(
        text(&tree, "var/lib/dpkg/status"),
        "Package: liba\nVersion: 1\nArchitecture: amd64\nStatus: install ok unpacked\nConffiles:\n \
         /etc/a.conf newconffile\n /etc/old.conf newconffile remove-on-upgrade\n\n"
    );
    assert_eq!(text(&tree, "var/lib/dpkg/info/liba:amd64.list"), "/.\n/etc\n/etc/a.conf\n");
    assert_eq!(tree.get(&at("var/lib/dpkg/info/liba:amd64.postinst")).and_then(Node::meta).unwrap().mode, 0o755);
}

#[test]
fn packages_are_added_to_the_database_below_once() {
    let first = database::write(&Tree::new(), &[package("a", &[], ["x"])], DATE).unwrap();
    let both = database::write(&first, &[package("b", &[], ["y"])], DATE).unwrap();
    let names: Vec<_> = states(&both).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b"]);
    let again = database::check(&both, &[package("b", &[], ["y"])]).unwrap_err();
    assert!(matches!(again, ConfigureError::Installed { package } if package == "b"));
    assert!(matches!(database::check_installed(&both), Err(ConfigureError::Incomplete { .. })));
}

#[test]
fn triggers_are_registered_and_activated_by_paths() {
    let interested = package("man", &[("triggers", "# note\ninterest-noawait /usr/share/man\n")], ["bin/man"]);
    let named = package("libc-bin", &[("triggers", "interest-await ldconfig\ninterest ../x\n")], ["sbin/ldconfig"]);
    let below = database::write(&Tree::new(), &[interested, named], DATE).unwrap();
    assert_eq!(text(&below, "var/lib/dpkg/triggers/File"), "/usr/share/man man/noawait\n");
    assert_eq!(text(&below, "var/lib/dpkg/triggers/ldconfig"), "libc-bin:amd64\n");
    assert_eq!(text(&below, "var/lib/dpkg/triggers/Unincorp"), "");
    assert!(below.iter().all(|(path, _)| path.name() != b"x"));
    let page = package("libx", &[("triggers", "activate-noawait ldconfig\n")], ["usr/share/man/man1/x.1"]);
    let after = database::write(&below, &[page], DATE).unwrap();
    assert_eq!(text(&after, "var/lib/dpkg/triggers/Unincorp"), "/usr/share/man -\nldconfig -\n");
    let elsewhere = package("y", &[], ["usr/share/manual/y"]);
    let after = database::write(&below, &[elsewhere], DATE).unwrap();
    assert_eq!(text(&after, "var/lib/dpkg/triggers/Unincorp"), "");
}

#[test]
fn a_configuration_file_below_is_kept_and_the_new_one_waits() {
    let mut lower = Tree::new();
    lower.insert(at("etc"), directory());
    lower.insert(at("etc/own.conf"), file("ours"));
    let packages =
        [package("tool", &[("conffiles", "/etc/own.conf\n/etc/new.conf\n")], ["etc/own.conf", "etc/new.conf"])];
    let installation = Installation { lower: &lower, packages: &packages, source_date: DATE };
    let mut stack = unpacked(&installation).unwrap();
    keep_changed_conffiles(&mut stack, &installation).unwrap();
    assert_eq!(text(stack.tree(), "etc/own.conf"), "ours");
    assert_eq!(text(stack.tree(), "etc/own.conf.dpkg-new"), "tool");
    assert_eq!(text(stack.tree(), "etc/new.conf"), "tool");
}

#[test]
fn required_packages_are_configured_first() {
    let mut required = package("required", &[], ["x"]);
    required.control_stanza.extend(b"Priority: required\n");
    let packages = [package("first", &[("preinst", "")], ["y"]), required];
    let commands: Vec<_> = steps(&packages).into_iter().map(|step| step.command.join(" ")).collect();
    assert_eq!(commands[0], "/var/lib/dpkg/info/first.preinst install");
    assert!(commands[1].ends_with("--configure required first"), "{}", commands[1]);
    assert!(commands[2].ends_with("--configure --pending"));
}

#[test]
fn dpkg_must_be_there() {
    let sandbox = Sandbox::new(Path::new("/nonexistent"), Path::new("/nonexistent"));
    let scratch = Path::new("/nonexistent");
    let workplace = Workplace { sandbox: &sandbox, scratch, time_limit: Duration::from_secs(1) };
    let packages = [package("tool", &[], ["bin/tool"])];
    let lower = Tree::new();
    let installation = Installation { lower: &lower, packages: &packages, source_date: DATE };
    assert!(matches!(configured(&installation, &workplace), Err(ConfigureError::NoDpkg)));
    let below = unconfigured(&installation).unwrap();
    let packages = [package("other", &[], ["bin/other"])];
    let installation = Installation { lower: &below, packages: &packages, source_date: DATE };
    assert!(matches!(configured(&installation, &workplace), Err(ConfigureError::Unconfigured)));
}
