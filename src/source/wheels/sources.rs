//! Where the user has Python packages come from: indexes and directories, certificates, proxy and credentials.
//!
//! What uv is told (its configuration files and variables) holds; where it is told nothing, what pip is told; the recipe
//! may name indexes of its own. Nothing of this is ever recorded.

use super::{
    error::{WheelsError, without_credentials},
    netrc::Netrc,
    pip_config::PipConfig,
    uv::Uv,
};
use crate::{
    recipe::WheelsLayer,
    source::http::{Client, HttpError},
};
use serde::Deserialize;
use std::{
    env, fs,
    path::{Path, PathBuf},
};
use url::Url;

/// Variables that tell uv where packages come from.
const UV_VARIABLES: [&str; 6] =
    ["UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX", "UV_INDEX_URL", "UV_NO_INDEX"];
/// Longest configuration file of uv read, in bytes.
const MAX_LEN: u64 = 1 << 20;

/// Where packages come from, in the order in which they are looked for.
#[derive(Clone)]
pub struct Sources {
    /// uv, told all of this.
    pub uv: Uv,
    /// Addresses of indexes, with credentials.
    pub indexes: Vec<Url>,
    /// Directories of this host, and addresses of pages, with links to files.
    pub find_links: Vec<String>,
    netrc: Netrc,
    cert: Option<PathBuf>,
    proxy: Option<String>,
}

impl std::fmt::Debug for Sources {
    /// How many; addresses may hold credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sources({} indexes, {} places of links)", self.indexes.len(), self.find_links.len())
    }
}

/// What uv goes by.
#[derive(Debug, Default, PartialEq, Eq)]
struct Effective {
    index: Option<String>,
    extra: Vec<String>,
    find_links: Vec<String>,
}

impl Sources {
    /// Where packages for this layer come from. `scratch` is an empty directory.
    ///
    /// # Errors
    /// [`WheelsError`] if settings cannot be read or used.
    pub fn find(uv: &Uv, layer: &WheelsLayer, scratch: &Path) -> Result<Self, WheelsError> {
        let pip = PipConfig::of_user()?;
        let mut told = Vec::new();
        if !is_told(uv, scratch)? {
            told.extend(from_pip(&pip));
        }
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        if let Some(cert) = pip.cert.as_ref().filter(|_| !is_set("SSL_CERT_FILE")) {
            told.push(("SSL_CERT_FILE".to_owned(), cert.display().to_string()));
        }
        let proxies = ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy", "http_proxy"];
        let proxy = pip.proxy.clone().filter(|_| !proxies.into_iter().any(is_set));
        if let Some(proxy) = &proxy {
            told.push(("ALL_PROXY".to_owned(), proxy.clone()));
        }
        of_recipe(layer, &mut told);
        let uv = uv.clone().with_environment(told);
        let effective = effective(&uv, scratch, &[], &[])?;
        let named = named_indexes();
        let indexes = effective.extra.iter().chain(&effective.index).map(|address| {
            let url = Url::parse(address).map_err(|error| WheelsError::Settings {
                origin: format!("the index `{}`", without_credentials(address)),
                what: format!("is no address: {error}"),
            })?;
            Ok(sign_in_by_name(url, &named))
        });
        Ok(Self {
            indexes: indexes.collect::<Result<_, WheelsError>>()?,
            find_links: effective.find_links,
            netrc: Netrc::of_user(),
            cert: pip.cert.filter(|_| !is_set("SSL_CERT_FILE")),
            proxy,
            uv,
        })
    }

    /// A client that trusts and asks whom the user wants.
    ///
    /// # Errors
    /// [`HttpError`] if the certificates or the proxy cannot be used.
    pub fn client(&self, client: &Client) -> Result<Client, HttpError> {
        client.with_route(self.cert.as_deref(), self.proxy.as_deref())
    }

    /// The address with the credentials that the user has for it: those of an index on the same host, else netrc's.
    pub fn sign_in(&self, url: Url) -> Url {
        let index = self.indexes.iter().find(|index| index.origin() == url.origin() && !index.username().is_empty());
        match index {
            Some(index) if url.username().is_empty() => with_credentials(url, index.username(), index.password()),
            _ => self.netrc.sign_in(url),
        }
    }
}

fn with_credentials(mut url: Url, username: &str, password: Option<&str>) -> Url {
    // Addresses that cannot have credentials (file:) need none.
    if url.set_username(username).is_ok() {
        let _ = url.set_password(password);
    }
    url
}

/// Whether the user told uv where packages come from.
fn is_told(uv: &Uv, scratch: &Path) -> Result<bool, WheelsError> {
    if UV_VARIABLES.iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty())) {
        return Ok(true);
    }
    Ok(effective(uv, scratch, &[], &[])? != effective(uv, scratch, &["--no-config"], &UV_VARIABLES)?)
}

/// Asks uv itself, which resolves nothing for this.
fn effective(uv: &Uv, scratch: &Path, options: &[&str], without: &[&str]) -> Result<Effective, WheelsError> {
    let nothing = scratch.join("nothing.in");
    fs::write(&nothing, "").map_err(WheelsError::io("writing", &nothing))?;
    let arguments =
        ["pip", "compile", "nothing.in", "--emit-index-url", "--emit-find-links", "--no-header", "--offline"];
    let mut command = uv.command(scratch, &arguments);
    command.args(options);
    for name in without {
        command.env_remove(name);
    }
    let output = uv.output(&mut command)?;
    if !output.status.success() {
        let said = without_credentials(String::from_utf8_lossy(&output.stderr).trim());
        return Err(WheelsError::Settings { origin: "uv".to_owned(), what: format!("does not start: {said}") });
    }
    let mut effective = Effective::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.split_once(' ') {
            Some(("--index-url", address)) => effective.index = Some(address.trim().to_owned()),
            Some(("--extra-index-url", address)) => effective.extra.push(address.trim().to_owned()),
            Some(("--find-links", place)) => effective.find_links.push(place.trim().to_owned()),
            _ => {}
        }
    }
    Ok(effective)
}

/// What pip is told, in uv's words.
fn from_pip(pip: &PipConfig) -> Vec<(String, String)> {
    let mut told = Vec::new();
    let mut tell = |name: &str, value: String| told.push((name.to_owned(), value));
    if let Some(index) = &pip.index {
        tell("UV_DEFAULT_INDEX", index.clone());
    }
    if !pip.extra_indexes.is_empty() {
        tell("UV_INDEX", pip.extra_indexes.join(" "));
    }
    // pip passes over what is not there; uv does not.
    let exists = |place: &&String| place.contains("://") || Path::new(place).is_dir();
    let find_links: Vec<&str> = pip.find_links.iter().filter(exists).map(String::as_str).collect();
    if !find_links.is_empty() {
        tell("UV_FIND_LINKS", find_links.join(","));
    }
    if pip.no_index {
        tell("UV_NO_INDEX", "1".to_owned());
    }
    told
}

/// Adds the indexes that the recipe names.
fn of_recipe(layer: &WheelsLayer, told: &mut Vec<(String, String)>) {
    if let Some(index) = &layer.index {
        told.push(("UV_DEFAULT_INDEX".to_owned(), index.clone()));
    }
    if !layer.extra_indexes.is_empty() {
        let earlier = told.iter().rev().find(|(name, _)| name == "UV_INDEX").map(|(_, value)| value.clone());
        let earlier = earlier.or_else(|| env::var("UV_INDEX").ok()).unwrap_or_default();
        let all = layer.extra_indexes.iter().map(String::as_str).chain(earlier.split_whitespace());
        told.push(("UV_INDEX".to_owned(), all.collect::<Vec<_>>().join(" ")));
    }
}

/// The indexes that uv knows by a name, under which the environment may hold credentials.
fn named_indexes() -> Vec<(String, String)> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        index: Vec<Index>,
    }
    #[derive(Deserialize)]
    struct Index {
        name: Option<String>,
        url: String,
    }
    let mut named = Vec::new();
    for variable in ["UV_DEFAULT_INDEX", "UV_INDEX"] {
        let value = env::var(variable).unwrap_or_default();
        let pairs = value.split_whitespace().filter_map(|entry| entry.split_once('='));
        let named_ones = pairs.filter(|(name, _)| !name.contains("://"));
        named.extend(named_ones.map(|(name, url)| (name.to_owned(), url.to_owned())));
    }
    let home = env::var_os("HOME").map(PathBuf::from);
    let user = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home?.join(".config")));
    let files = [
        env::var_os("UV_CONFIG_FILE").map(PathBuf::from),
        user.map(|directory| directory.join("uv/uv.toml")),
        Some("/etc/uv/uv.toml".into()),
    ];
    for file in files.into_iter().flatten() {
        let small = fs::metadata(&file).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_LEN);
        let text = small.then(|| fs::read_to_string(&file).ok()).flatten().unwrap_or_default();
        let Ok(config) = toml::from_str::<Config>(&text) else { continue };
        named.extend(config.index.into_iter().filter_map(|index| Some((index.name?, index.url))));
    }
    named
}

fn sign_in_by_name(url: Url, named: &[(String, String)]) -> Url {
    if !url.username().is_empty() {
        return url;
    }
    let same = |address: &String| Url::parse(address).is_ok_and(|address| address == url);
    let Some((name, _)) = named.iter().find(|(_, address)| same(address)) else { return url };
    let name = name.to_uppercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
    let var = |what: &str| env::var(format!("UV_INDEX_{name}_{what}")).ok();
    match (var("USERNAME"), var("PASSWORD")) {
        (None, None) => url,
        (username, password) => with_credentials(url, &username.unwrap_or_default(), password.as_deref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pip_is_told_is_passed_on() {
        let pip = PipConfig {
            index: Some("https://a/simple".to_owned()),
            extra_indexes: vec!["https://b".to_owned(), "https://c".to_owned()],
            find_links: vec!["/nowhere/at/all".to_owned(), "https://d/links".to_owned()],
            ..PipConfig::default()
        };
        let told = from_pip(&pip);
        let expected = [
            ("UV_DEFAULT_INDEX", "https://a/simple"),
            ("UV_INDEX", "https://b https://c"),
            ("UV_FIND_LINKS", "https://d/links"),
        ];
        assert_eq!(told, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
