//! Where an archive is served: recipe, environment, or the host's own apt configuration
//! (sources.list(5)).

use super::deb822;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Largest apt configuration file read.
const SOURCES_MAX: u64 = 1 << 20;

/// Why no mirror is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// Nothing names one.
    #[error(
        "no mirror of the archive `{archive}` is known: the recipe names none, {variable} is not set, and this host's \
         apt sources have none; name one in the recipe or in the environment"
    )]
    Unknown {
        /// The archive.
        archive: String,
        /// The environment variable that could name one.
        variable: String,
    },
    /// What was named is no address.
    #[error("{origin} names the mirror `{url}`; an address that starts with http://, https:// or file:// was expected")]
    Address {
        /// Who named it.
        origin: String,
        /// What was named.
        url: String,
    },
}

/// The environment variable that names mirrors of an archive: `GAPIMAGE_DEBIAN_MIRROR`, for
/// `debian-security` `GAPIMAGE_DEBIAN_SECURITY_MIRROR`.
pub fn variable(archive: &str) -> String {
    format!("GAPIMAGE_{}_MIRROR", archive.to_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}

/// The mirrors of an archive in order of preference: those of the recipe if it names any, else
/// those of the environment (separated by blanks), else those that this host's apt uses.
///
/// # Errors
/// [`MirrorError`].
pub fn find(recipe: &[String], archive: &str) -> Result<Vec<String>, MirrorError> {
    find_in(recipe, std::env::var(variable(archive)).ok().as_deref(), Path::new("/etc/apt"), archive)
}

/// [`find`] with the environment variable's value and apt's configuration directory given.
///
/// # Errors
/// [`MirrorError`].
pub fn find_in(
    recipe: &[String],
    environment: Option<&str>,
    apt: &Path,
    archive: &str,
) -> Result<Vec<String>, MirrorError> {
    let environment: Vec<String> =
        environment.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    for (origin, named) in [("the recipe".to_owned(), recipe), (variable(archive), &environment)] {
        if !named.is_empty() {
            let checked = named.iter().map(|url| normalise(url).ok_or_else(|| url.clone()));
            let urls: Result<Vec<String>, String> = checked.collect();
            return urls.map_err(|url| MirrorError::Address { origin, url: crate::source::http::shown(&url) });
        }
    }
    let found = of_host(apt, archive);
    match found.is_empty() {
        true => Err(MirrorError::Unknown { archive: archive.to_owned(), variable: variable(archive) }),
        false => Ok(found),
    }
}

/// The address without trailing slashes, if it is of a known kind; apt also writes `file:/path`.
fn normalise(url: &str) -> Option<String> {
    let url = url.trim_end_matches('/');
    if let Some(path) = url.strip_prefix("file:/") {
        return Some(format!("file:///{}", path.trim_start_matches('/')));
    }
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    (!rest.is_empty() && !rest.starts_with('/')).then(|| url.to_owned())
}

/// One archive that apt knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Entry {
    url: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: String,
}

/// The mirrors that apt uses for an archive, the most certain ones first.
fn of_host(apt: &Path, archive: &str) -> Vec<String> {
    let mut entries = Vec::new();
    for path in source_files(apt) {
        let small = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= SOURCES_MAX);
        // What apt itself could not read does not name a mirror.
        let Some(text) = small.then(|| fs::read_to_string(&path).ok()).flatten() else { continue };
        match path.extension().is_some_and(|extension| extension == "sources") {
            true => entries.extend(read_deb822(&text)),
            false => entries.extend(text.lines().filter_map(read_line)),
        }
    }
    let mut ranked: Vec<(u8, String)> =
        entries.iter().filter_map(|entry| Some((rank(entry, archive)?, normalise(&entry.url)?))).collect();
    ranked.sort_by_key(|&(rank, _)| rank);
    let mut seen = BTreeSet::new();
    ranked.into_iter().map(|(_, url)| url).filter(|url| seen.insert(url.clone())).collect()
}

fn source_files(apt: &Path) -> Vec<PathBuf> {
    let mut files = vec![apt.join("sources.list")];
    let parts = fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten();
    let mut parts: Vec<PathBuf> = parts.map(|entry| entry.path()).collect();
    parts.retain(|path| path.extension().is_some_and(|extension| extension == "list" || extension == "sources"));
    parts.sort();
    files.extend(parts);
    files
}

/// How surely an entry is the archive; `None` if it is not. Third parties also name their suites
/// after Debian's, so the keyring and the address count.
fn rank(entry: &Entry, archive: &str) -> Option<u8> {
    const CODENAMES: [&str; 11] = [
        "stable",
        "oldstable",
        "testing",
        "unstable",
        "sid",
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "duke",
        "oldoldstable",
    ];
    let suffix = archive.strip_prefix("debian").unwrap_or_default();
    let of_archive = |suite: &String| suite.strip_suffix(suffix).is_some_and(|base| CODENAMES.contains(&base));
    if !entry.components.iter().any(|component| component == "main") || !entry.suites.iter().any(of_archive) {
        return None;
    }
    let last = entry.url.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    Some(match (entry.signed_by.contains("debian-archive"), last == archive) {
        (true, _) => 0,
        (false, true) if entry.signed_by.is_empty() => 1,
        (false, false) if entry.signed_by.is_empty() => 2,
        _ => 3,
    })
}

/// `deb [option=value …] URI suite component…`
fn read_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let mut rest = line.strip_prefix("deb")?.strip_prefix(|c: char| c.is_ascii_whitespace())?.trim_start();
    let mut signed_by = String::new();
    if let Some(inside) = rest.strip_prefix('[') {
        let (options, after) = inside.split_once(']')?;
        let signed = options.split_ascii_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        signed_by = signed.unwrap_or_default().to_owned();
        rest = after;
    }
    let mut words = rest.split_ascii_whitespace().map(str::to_owned);
    Some(Entry { url: words.next()?, suites: vec![words.next()?], components: words.collect(), signed_by })
}

fn read_deb822(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for paragraph in deb822::parse(text).unwrap_or_default() {
        let words = |name| -> Vec<String> {
            paragraph.get(name).unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
        };
        let disabled = paragraph.get("Enabled").is_some_and(|value| matches!(value, "no" | "false" | "0"));
        if disabled || !words("Types").iter().any(|kind| kind == "deb") {
            continue;
        }
        entries.extend(words("URIs").into_iter().map(|url| Entry {
            url,
            suites: words("Suites"),
            components: words("Components"),
            signed_by: paragraph.get("Signed-By").unwrap_or_default().to_owned(),
        }));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apt(files: &[(&str, &str)]) -> tempfile::TempDir {
        let apt = tempfile::tempdir().unwrap();
        fs::create_dir(apt.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            fs::write(apt.path().join(name), text).unwrap();
        }
        apt
    }

    #[test]
    fn recipe_goes_before_environment_before_host() {
        let apt = apt(&[("sources.list", "deb http://host.example/debian trixie main")]);
        let recipe = ["https://recipe.example/debian/".to_owned()];
        let find = |recipe: &[String], environment| find_in(recipe, environment, apt.path(), "debian").unwrap();
        assert_eq!(find(&recipe, Some("http://env.example/debian")), ["https://recipe.example/debian"]);
        assert_eq!(find(&[], Some("file:/srv/debian http://b.example")), ["file:///srv/debian", "http://b.example"]);
        assert_eq!(find(&[], None), ["http://host.example/debian"]);
    }

    #[test]
    fn both_formats_of_apt_are_read_and_third_parties_are_told_apart() {
        let apt = apt(&[
            (
                "sources.list",
                "# deb http://remark.example/debian trixie main\n\
                 deb [arch=amd64 signed-by=/usr/share/keyrings/other.gpg] https://third.example/debian bookworm main\n\
                 deb-src http://src.example/debian trixie main\n\
                 deb cdrom:[Debian]/ trixie main\n\
                 deb http://plain.example/debian/ bookworm main contrib\n",
            ),
            (
                "sources.list.d/debian.sources",
                "Types: deb deb-src\nURIs: http://m.example/debian\nSuites: bookworm\n bookworm-updates\nComponents: main\n\
                 Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                 Types: deb\nURIs: http://m.example/debian-security\nSuites: bookworm-security\nComponents: main\n\n\
                 Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: sid\nComponents: main\n",
            ),
            ("sources.list.d/node.list", "deb http://node.example/x nodistro main"),
        ]);
        assert_eq!(
            find_in(&[], None, apt.path(), "debian").unwrap(),
            ["http://m.example/debian", "http://plain.example/debian", "https://third.example/debian"]
        );
        assert_eq!(find_in(&[], None, apt.path(), "debian-security").unwrap(), ["http://m.example/debian-security"]);
    }

    #[test]
    fn nothing_known_says_what_to_do() {
        let apt = apt(&[]);
        let error = find_in(&[], None, apt.path(), "debian").unwrap_err().to_string();
        assert!(error.contains("GAPIMAGE_DEBIAN_MIRROR"), "{error}");
        let error = find_in(&["ftp://user:secret@x".to_owned()], None, apt.path(), "debian").unwrap_err().to_string();
        assert!(error.contains("the recipe") && !error.contains("secret"), "{error}");
    }
}
