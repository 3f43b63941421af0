//! What the owner of a machine decides, written by the command line and read by others' tools.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

fn site(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gapimage"));
    command.arg("site").args(arguments).current_dir(directory).output().unwrap()
}

fn code(directory: &Path, arguments: &[&str]) -> Option<i32> {
    site(directory, arguments).status.code()
}

#[test]
fn a_site_is_written_once_with_the_token_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join("rack4").join(name);
    let arguments = ["init", "rack4", "--hostname", "rack4", "--network", "static", "--address", "192.0.2.7/24"];
    assert_eq!(code(directory.path(), &arguments), Some(0));
    for name in ["site.toml", "token", "gapsite.img"] {
        assert_eq!(fs::metadata(at(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    let config = fs::read_to_string(at("site.toml")).unwrap();
    let token = fs::read_to_string(at("token")).unwrap();
    assert!(!config.contains(&token), "the configuration holds the hash alone");
    let sum = Command::new("sha256sum").arg(at("token")).output().unwrap();
    assert!(config.contains(String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap()), "{config}");
    let read = Command::new("mtype").arg("-i").arg(at("gapsite.img")).arg("::/site.toml").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout), config);
    // Again, it would be another token than the one that the machine knows.
    assert_eq!(code(directory.path(), &arguments), Some(1));
    assert_eq!(fs::read_to_string(at("token")).unwrap(), token);
}

#[test]
fn everything_that_a_configuration_can_say_is_said_by_an_option() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = [
        "init",
        "rack4",
        "--network",
        "dhcp",
        "--memory",
        "--claim",
        "--time-server",
        "192.0.2.10",
        "--untrusted-rtc",
        "--wrong-clock",
        "refuse-jobs",
        "--mig",
        "all:1g.18gb=4,3g.71gb=1",
        "--mig",
        "0,2:off",
    ];
    let output = site(directory.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let config = fs::read_to_string(directory.path().join("rack4/site.toml")).unwrap();
    let config: toml::Table = config.parse().unwrap();
    assert_eq!(config["data"]["memory"].as_bool(), Some(true));
    assert_eq!(config["time"]["rtc"].as_str(), Some("untrusted"));
    assert_eq!(config["time"]["wrong_clock"].as_str(), Some("refuse_jobs"));
    let [cut, whole] = config["gpus"]["mig"].as_array().unwrap().as_slice() else { panic!("{config:?}") };
    assert_eq!(cut["devices"].as_str(), Some("all"));
    assert_eq!(cut["mig-devices"]["1g.18gb"].as_integer(), Some(4));
    assert_eq!((whole["mig-enabled"].as_bool(), whole["devices"].as_array().unwrap().len()), (Some(false), 2));
    // Who claims the machine makes its first token.
    assert!(config.get("api").is_none_or(|api| api.get("token_sha256").is_none()), "{config:?}");
    assert!(!directory.path().join("rack4/token").exists());
    assert!(directory.path().join("rack4/gapsite.img").exists());
}

#[test]
fn a_configuration_that_was_changed_by_hand_is_checked_before_it_becomes_a_volume() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("site.toml");
    fs::write(&file, "hostname = 'rack4'\n").unwrap();
    assert_eq!(code(directory.path(), &["check", "site.toml"]), Some(0));
    assert_eq!(code(directory.path(), &["volume", "site.toml"]), Some(0));
    assert_eq!(code(directory.path(), &["volume", "site.toml"]), Some(1), "it is there already");
    fs::write(&file, "hostnam = 'rack4'\n").unwrap();
    let output = site(directory.path(), &["check", "site.toml"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("hostnam"));
    assert_eq!(code(directory.path(), &["volume", "site.toml", "-o", "other.img"]), Some(4));
    assert!(!directory.path().join("other.img").exists());
}

#[test]
fn a_certificate_is_taken_only_with_its_own_key() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        let status = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-subj", "/CN=rack4", "-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(status.status.success());
    }
    let with = |to: &str, key: &str| code(directory.path(), &["init", to, "--certificate", "one.pem", "--key", key]);
    assert_eq!(with("wrong", "two.key"), Some(4));
    assert_eq!(with("none", "one.pem"), Some(4));
    assert!(!directory.path().join("wrong").exists());
    assert_eq!(with("right", "one.key"), Some(0));
}

#[test]
fn words_that_do_not_fit_together_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for words in [
        &["--network", "static"][..],
        &["--network", "dhcp", "--address", "192.0.2.7/24"],
        &["--network", "static", "--address", "192.0.2.7/33"],
        &["--interface", "eth0"],
        &["--certificate", "x.pem"],
        &["--memory", "--disk", "sda"],
        &["--untrusted-rtc"],
        &["--mig", "all"],
        &["--mig", "some:off"],
        &["--mig", "0:1g.18gb=x"],
        &["--mig", "0:-C=1"],
    ] {
        let arguments = [&["init", "x"], words].concat();
        assert_eq!(code(directory.path(), &arguments), Some(2), "{words:?}");
    }
    assert_eq!(code(directory.path(), &["init", "x", "--hostname", "-"]), Some(4));
    assert_eq!(code(directory.path(), &["init", "x", "--mig", "all:1g.18gb=8"]), Some(4), "more slices than there are");
    assert!(!directory.path().join("x").exists());
}

#[test]
fn a_signed_configuration_is_taken_where_the_release_asks_for_it_and_openssl_verifies_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let openssl = |arguments: &[&str]| {
        Command::new("openssl").args(arguments).current_dir(directory.path()).output().unwrap().status.success()
    };
    for name in ["admin", "other"] {
        let key = format!("{name}.key");
        assert!(openssl(&["genpkey", "-algorithm", "ed25519", "-out", &key]));
        assert!(openssl(&["pkey", "-in", &key, "-pubout", "-out", &format!("{name}.pem")]));
    }
    let public = fs::read_to_string(at("admin.pem")).unwrap();
    let public = public.lines().nth(1).unwrap();
    let trust = format!(
        "version = 1\ncounter = 1\n[[key]]\nname = \"rack-admin\"\npublic = \"{public}\"\nroles = [\"site\"]\n\
         [role.site]\nthreshold = 1\n"
    );
    fs::write(at("trust.toml"), trust).unwrap();
    let check = |file: &str| site(directory.path(), &["check", file, "--trust", "trust.toml"]);
    let init = ["init", "rack4", "--network", "dhcp", "--endpoint", "tracking=192.0.2.20:5000", "--time-server"];
    assert_eq!(code(directory.path(), &[&init[..], &["192.0.2.10", "--sign-key", "admin.key"]].concat()), Some(0));
    let good = check("rack4/site.toml");
    assert!(String::from_utf8_lossy(&good.stdout).contains("signed by rack-admin"), "{good:?}");

    let text = fs::read_to_string(at("rack4/site.toml")).unwrap();
    let (body, line) = text.split_at(text.find("# gap-signature ").unwrap());
    let payload = "application/vnd.gapimage.site.v1+toml";
    fs::write(at("signed"), format!("DSSEv1 {} {payload} {} {body}", payload.len(), body.len())).unwrap();
    fs::write(at("base64"), line.split(' ').nth(3).unwrap()).unwrap();
    assert!(openssl(&["base64", "-d", "-A", "-in", "base64", "-out", "signature"]));
    let verify = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "admin.pem", "-sigfile", "signature", "-in"];
    assert!(openssl(&[&verify[..], &["signed"]].concat()));

    fs::write(at("edited.toml"), text.replace("192.0.2.20", "192.0.2.21")).unwrap();
    fs::write(at("bare.toml"), body).unwrap();
    for file in ["edited.toml", "bare.toml"] {
        assert_eq!(check(file).status.code(), Some(4), "{file}");
        assert_eq!(code(directory.path(), &["sign", file, "--key", "other.key"]), Some(0));
        assert_eq!(check(file).status.code(), Some(4), "{file} signed by another");
    }
    fs::write(at("bare.toml"), body).unwrap();
    assert_eq!(code(directory.path(), &["sign", "bare.toml", "--key", "admin.key"]), Some(0));
    assert_eq!(fs::read_to_string(at("bare.toml")).unwrap(), text, "signed again, the same bytes");
    assert_eq!(code(directory.path(), &["volume", "bare.toml"]), Some(0));
}
