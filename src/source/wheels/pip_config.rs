//! The user's settings of pip: its configuration files and environment, as far as they say where packages come from.
//!
//! uv does not read them, and most users have no others.

use super::error::WheelsError;
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

/// Longest configuration file read, in bytes.
const MAX_LEN: u64 = 1 << 20;
/// The settings that count.
const KEYS: [&str; 6] = ["index-url", "extra-index-url", "find-links", "no-index", "cert", "proxy"];
/// The sections that hold for installing; the later ones win.
const SECTIONS: [&str; 2] = ["global", "install"];

/// Where pip gets packages from.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PipConfig {
    /// The index, if one is set.
    pub index: Option<String>,
    /// Further indexes.
    pub extra_indexes: Vec<String>,
    /// Directories and pages with links to files.
    pub find_links: Vec<String>,
    /// Whether no index may be asked.
    pub no_index: bool,
    /// Certificates that are trusted.
    pub cert: Option<PathBuf>,
    /// The proxy.
    pub proxy: Option<String>,
}

impl PipConfig {
    /// The settings of this user on this host.
    ///
    /// # Errors
    /// [`WheelsError::Io`] for a file that is there and cannot be read.
    pub fn of_user() -> Result<Self, WheelsError> {
        let var = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let mut values = BTreeMap::new();
        for path in files(&var) {
            if let Some(text) = read(&path)? {
                values.extend(settings(&text));
            }
        }
        Ok(Self::new(&values, &var))
    }

    /// The settings of these files, and of an environment in which `var` finds variables and which goes before them.
    fn new(files: &BTreeMap<&'static str, String>, var: &dyn Fn(&str) -> Option<String>) -> Self {
        let value = |key: &str| {
            let variable = format!("PIP_{}", key.to_uppercase().replace('-', "_"));
            var(&variable).or_else(|| files.get(key).cloned())
        };
        let several =
            |key: &str| value(key).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        Self {
            index: value("index-url"),
            extra_indexes: several("extra-index-url"),
            find_links: several("find-links"),
            no_index: value("no-index").is_some_and(|value| is_true(&value)),
            cert: value("cert").map(PathBuf::from),
            proxy: value("proxy"),
        }
    }
}

impl std::fmt::Debug for PipConfig {
    /// Without addresses, which may hold credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PipConfig").field("no_index", &self.no_index).field("cert", &self.cert).finish_non_exhaustive()
    }
}

fn is_true(value: &str) -> bool {
    matches!(value.trim().to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on" | "y" | "t")
}

/// pip's configuration files, the later ones winning: of the system, the user, the virtual environment, the variable.
fn files(var: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let chosen = var("PIP_CONFIG_FILE").map(PathBuf::from);
    // This is how pip is told to read none at all.
    if chosen.as_deref() == Some(Path::new("/dev/null")) {
        return Vec::new();
    }
    let xdg = var("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".to_owned());
    let mut files: Vec<PathBuf> = xdg.split(':').rev().map(|dir| Path::new(dir).join("pip/pip.conf")).collect();
    files.push("/etc/pip.conf".into());
    if let Some(home) = var("HOME").map(PathBuf::from) {
        files.push(home.join(".pip/pip.conf"));
        let config = var("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
        files.push(config.join("pip/pip.conf"));
    }
    files.extend(var("VIRTUAL_ENV").map(|env| Path::new(&env).join("pip.conf")));
    files.extend(chosen);
    files
}

fn read(path: &Path) -> Result<Option<String>, WheelsError> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() <= MAX_LEN => {
            fs::read_to_string(path).map(Some).map_err(WheelsError::io("reading", path))
        }
        _ => Ok(None),
    }
}

/// The settings in a file of sections, keys and values (Python's `configparser`), where a value may go on in indented
/// lines.
fn settings(text: &str) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    for wanted in SECTIONS {
        let mut section = "";
        let mut key: Option<&'static str> = None;
        for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
            let goes_on = line.starts_with([' ', '\t']) && !line.trim().is_empty();
            if goes_on {
                if let Some(value) = key.and_then(|key| found.get_mut(key)) {
                    let value: &mut String = value;
                    value.push('\n');
                    value.push_str(line.trim());
                }
                continue;
            }
            key = None;
            if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.trim();
            } else if section == wanted
                && let Some((name, value)) = line.split_once(['=', ':'])
            {
                let name = name.trim().to_ascii_lowercase().replace('_', "-");
                key = KEYS.into_iter().find(|known| *known == name);
                if let Some(key) = key {
                    found.insert(key, value.trim().to_owned());
                }
            }
        }
    }
    found.retain(|_, value| !value.trim().is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# a comment\n[global]\nindex-url = https://a/simple\nextra_index_url =\n    https://b\n    # no\n    \
                        https://c\ntimeout = 60\ncert = /etc/ca.pem\n[install]\nindex-url: https://d/simple\n\
                        [freeze]\nindex-url = https://no\n";

    #[test]
    fn files_are_read_as_pip_reads_them() {
        let config = PipConfig::new(&settings(FILE), &|_| None);
        assert_eq!(config.index.as_deref(), Some("https://d/simple"));
        assert_eq!(config.extra_indexes, ["https://b", "https://c"]);
        assert_eq!(config.cert.as_deref(), Some(Path::new("/etc/ca.pem")));
        assert!(!config.no_index);
    }

    #[test]
    fn the_environment_goes_before_the_files() {
        let var = |name: &str| match name {
            "PIP_INDEX_URL" => Some("https://user:SECRET@e/simple".to_owned()),
            "PIP_NO_INDEX" => Some("yes".to_owned()),
            "PIP_FIND_LINKS" => Some("/a /b".to_owned()),
            _ => None,
        };
        let config = PipConfig::new(&settings(FILE), &var);
        assert_eq!(config.index.as_deref(), Some("https://user:SECRET@e/simple"));
        assert_eq!((config.find_links.len(), config.no_index), (2, true));
        assert!(!format!("{config:?}").contains("SECRET"));
    }

    #[test]
    fn the_files_are_pips() {
        let var = |name: &str| match name {
            "HOME" => Some("/home/me".to_owned()),
            "XDG_CONFIG_DIRS" => Some("/x:/y".to_owned()),
            _ => None,
        };
        let listed = [
            "/y/pip/pip.conf",
            "/x/pip/pip.conf",
            "/etc/pip.conf",
            "/home/me/.pip/pip.conf",
            "/home/me/.config/pip/pip.conf",
        ];
        assert_eq!(files(&var), listed.map(PathBuf::from));
        assert!(files(&|name| (name == "PIP_CONFIG_FILE").then(|| "/dev/null".to_owned())).is_empty());
    }
}
