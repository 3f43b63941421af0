//! Encrypted mirrors, proxies and redirections, through the command line and below it.

use super::{
    archive::settings,
    keys::Key,
    packages::{Package, Project, publish, said},
    proxy::Proxy,
    server::{Behaviour, Server},
};
use gapimage::source::http::{Client, HttpError, Proxies};
use std::{fs, process::Command};

const PACKAGES: [Package; 1] = [Package::new("app", "1", "")];
/// A name that leads nowhere without a proxy.
const NOWHERE: &str = "http://mirror.invalid/debian";

fn project(mirror: &str, key: &Key) -> Project {
    let project = Project::new(key);
    project.recipe(mirror, &[("base", "\"app\"")]);
    project
}

/// A plain mirror by the name of [`NOWHERE`], which only the proxy knows.
fn behind_a_proxy() -> (Server, Proxy, Project) {
    let (server, key) = (Server::start(), Key::new(1));
    publish(&server, &key, &PACKAGES);
    for file in ["dists/test/InRelease", "dists/test/main/binary-amd64/Packages.xz", "pool/app_1_amd64.deb"] {
        server.also_at(file, &format!("debian/{file}"));
    }
    let proxy = Proxy::start(&server.url);
    let project = project(NOWHERE, &key);
    (server, proxy, project)
}

#[track_caller]
fn locks(project: &Project, command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(project.locked("base"), ["app 1"]);
}

#[test]
fn a_mirror_over_tls_is_trusted_by_the_systems_authorities_only() {
    let ((server, authority), key) = (Server::start_with_tls(), Key::new(1));
    publish(&server, &key, &PACKAGES);
    let project = project(&server.url, &key);
    let output = project.gapimage(&["lock", "recipe.toml"]).output().unwrap();
    let error = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("certificate") && error.contains("SSL_CERT_FILE"), "{error}");
    assert!(server.requests().is_empty());

    fs::write(project.path("ca.pem"), authority).unwrap();
    let mut command = project.gapimage(&["lock", "recipe.toml"]);
    locks(&project, command.env("SSL_CERT_FILE", project.path("ca.pem")));

    // A name that the certificate does not have is refused, whoever made the certificate.
    project.recipe(&server.url.replace("localhost", "127.0.0.1"), &[("base", "\"app\"")]);
    let mut command = project.gapimage(&["lock", "recipe.toml", "--update"]);
    let error = said(&command.env("SSL_CERT_FILE", project.path("ca.pem")).output().unwrap());
    assert!(error.contains("certificate"), "{error}");
}

#[test]
fn an_encrypted_mirror_is_reached_through_a_tunnel() {
    let ((server, authority), key) = (Server::start_with_tls(), Key::new(1));
    publish(&server, &key, &PACKAGES);
    let proxy = Proxy::start(&server.url);
    let project = project(&server.url, &key);
    fs::write(project.path("ca.pem"), authority).unwrap();
    let mut command = project.gapimage(&["lock", "recipe.toml"]);
    command.env("SSL_CERT_FILE", project.path("ca.pem")).env("https_proxy", format!("http://me:pw@{}", proxy.address));
    locks(&project, &mut command);
    let host = server.url.trim_start_matches("https://");
    let requests = proxy.requests();
    let expected = format!("CONNECT {host} HTTP/1.1 Proxy-Authorization: Basic bWU6cHc=");
    assert!(!requests.is_empty() && requests.iter().all(|request| *request == expected), "{requests:?}");
}

#[test]
fn a_plain_mirror_is_asked_for_through_the_proxy_by_its_whole_address() {
    let (_server, proxy, project) = behind_a_proxy();
    locks(&project, project.gapimage(&["lock", "recipe.toml"]).env("http_proxy", format!("http://{}", proxy.address)));
    let requests = proxy.requests();
    assert!(requests.iter().all(|request| request.starts_with(&format!("GET {NOWHERE}/"))), "{requests:?}");

    // What no_proxy exempts is not asked for through it.
    let before = requests.len();
    let mut command = project.gapimage(&["lock", "recipe.toml", "--update"]);
    command.env("http_proxy", format!("http://{}", proxy.address)).env("no_proxy", "other.invalid,.mirror.invalid");
    assert!(!command.output().unwrap().status.success());
    assert_eq!(proxy.requests().len(), before);
}

#[test]
fn the_proxy_of_apt_is_used_where_the_environment_names_none() {
    if Command::new("apt-config").arg("--version").output().is_err() {
        return;
    }
    let (_server, proxy, project) = behind_a_proxy();
    fs::write(project.path("apt.conf"), format!("Acquire::http::Proxy \"http://{}\";\n", proxy.address)).unwrap();
    locks(&project, project.gapimage(&["lock", "recipe.toml"]).env("APT_CONFIG", project.path("apt.conf")));
    assert!(!proxy.requests().is_empty());
}

fn through(proxy: &str) -> Client {
    let find = |name: &str| (name == "all_proxy").then(|| proxy.to_owned());
    Client::through(settings(), Proxies::from_settings(find, String::new))
}

#[test]
fn a_proxy_or_server_that_never_answers_is_given_up() {
    let silent = Proxy::silent();
    let proxied = through(&format!("http://me:secret@{}", silent.address));
    for (client, url) in [
        (&proxied, "http://mirror.invalid/x".to_owned()),
        (&proxied, "https://mirror.invalid/x".to_owned()),
        (&through(""), format!("https://{}/x", silent.address)),
        (&through(""), format!("http://{}/x", silent.address)),
    ] {
        let error = client.get(&url, 10).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, HttpError::Stalled { .. } | HttpError::Unreachable { .. }), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
    let refused = through("http://127.0.0.1:1").get("http://mirror.invalid/x", 10).unwrap_err().to_string();
    assert!(refused.contains("through the proxy http://127.0.0.1:1"), "{refused}");
    assert!(matches!(through("socks5://127.0.0.1:1").get("http://a.invalid/", 1), Err(HttpError::Proxy { .. })));
}

#[test]
fn redirections_are_followed_but_not_in_circles_nor_out_of_encryption() {
    let (server, other) = (Server::start(), Server::start());
    server.serve("near", *b"", Behaviour::Redirect("there/file".to_owned()));
    server.put("there/file", *b"near");
    server.serve("far", *b"", Behaviour::Redirect(format!("{}/file", other.url)));
    other.put("file", *b"far");
    server.serve("round", *b"", Behaviour::Redirect("/round".to_owned()));
    let client = through("");
    assert_eq!(client.get(&format!("{}/near", server.url), 10).unwrap(), b"near");
    assert_eq!(client.get(&format!("{}/far", server.url), 10).unwrap(), b"far");
    let circle = client.get(&format!("{}/round", server.url), 10).unwrap_err();
    assert!(matches!(circle, HttpError::Redirection { .. }), "{circle}");

    // The proxy of the first address is asked for the second as well.
    let proxy = Proxy::start(&server.url);
    server.serve("start", *b"", Behaviour::Redirect("http://second.invalid/there/file".to_owned()));
    assert_eq!(through(&proxy.address).get("http://first.invalid/start", 10).unwrap(), b"near");
}

#[test]
fn credentials_of_a_mirror_are_for_that_mirror() {
    let (server, other) = (Server::start(), Server::start());
    server.serve("x", *b"", Behaviour::Redirect(format!("{}/x", other.url)));
    other.put("x", *b"x");
    let url = server.url.replace("://", "://me:pw@");
    assert_eq!(through("").get(&format!("{url}/x"), 10).unwrap(), b"x");
    assert_eq!(server.credentials(), ["Basic bWU6cHc="]);
    assert!(other.credentials().is_empty());
}
