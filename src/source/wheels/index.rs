//! Pages of a Python package index: the simple repository API, as HTML (PEP 503) or JSON (PEP 691), and plain pages of
//! links.

use super::name::ProjectName;
use gap_format::Digest;
use html5gum::{Token, Tokenizer};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use std::collections::BTreeMap;
use url::Url;

/// What is asked of an index: JSON if it has it.
pub const ACCEPT: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";
/// Longest page read, in bytes.
pub const PAGE_MAX: u64 = 64 << 20;
/// Most files on one page.
const FILES_MAX: usize = 200_000;

/// A file that an index offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub file: String,
    /// Where it is.
    pub url: Url,
    /// Its digest, if the page says so.
    pub sha256: Option<Digest>,
    /// Its length in bytes, if the page says so.
    pub size: Option<u64>,
    /// Which versions of Python it is for (PEP 440), if the page says so.
    pub requires_python: Option<String>,
    /// Whether it was withdrawn (PEP 592).
    pub yanked: bool,
}

/// Why a page cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// Not JSON as PEP 691 has it.
    #[error("it is not the JSON of a package index: {0}")]
    Json(#[from] serde_json::Error),
    /// Not text.
    #[error("it is neither HTML nor JSON")]
    Text,
    /// More than any real project has.
    #[error("it lists more than {FILES_MAX} files")]
    TooMany,
}

#[derive(Deserialize)]
struct Page {
    files: Vec<PageFile>,
}

#[derive(Deserialize)]
struct PageFile {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default, rename = "requires-python")]
    requires_python: Option<String>,
    /// `false`, or why it was withdrawn.
    #[serde(default)]
    yanked: serde_json::Value,
}

/// The address of a project's page below that of an index.
///
/// # Errors
/// What is wrong with the address of the index.
pub fn project_page(index: &str, project: &ProjectName) -> Result<Url, url::ParseError> {
    Url::parse(&format!("{}/{project}/", index.trim_end_matches('/')))
}

/// The files that a page lists; what is no address of a file is passed over. `page` is where it came from.
///
/// # Errors
/// [`PageError`].
pub fn offers(page: &Url, body: &[u8]) -> Result<Vec<Offer>, PageError> {
    if body.trim_ascii_start().starts_with(b"{") {
        return from_json(page, body);
    }
    from_html(page, body)
}

fn from_json(page: &Url, body: &[u8]) -> Result<Vec<Offer>, PageError> {
    let listed: Page = serde_json::from_slice(body)?;
    if listed.files.len() > FILES_MAX {
        return Err(PageError::TooMany);
    }
    let offers = listed.files.into_iter().filter_map(|file| {
        let sha256 = file.hashes.get("sha256").and_then(|hex| Digest::from_hex(&hex.to_ascii_lowercase()).ok());
        let url = page.join(&file.url).ok().filter(is_fetchable)?;
        let yanked = !matches!(file.yanked, serde_json::Value::Null | serde_json::Value::Bool(false));
        Some(Offer { file: file.filename, url, sha256, size: file.size, requires_python: file.requires_python, yanked })
    });
    Ok(offers.collect())
}

fn from_html(page: &Url, body: &[u8]) -> Result<Vec<Offer>, PageError> {
    let text = std::str::from_utf8(body).map_err(|_| PageError::Text)?;
    let mut base = page.clone();
    let mut offers = Vec::new();
    for Ok(token) in Tokenizer::new(text) {
        let Token::StartTag(tag) = token else { continue };
        let is_base = tag.name.as_slice() == b"base";
        if !is_base && tag.name.as_slice() != b"a" {
            continue;
        }
        let attribute = |wanted: &[u8]| {
            let found = tag.attributes.iter().find(|(name, _)| name.as_slice() == wanted);
            found.and_then(|(_, value)| std::str::from_utf8(value).ok())
        };
        let Some(href) = attribute(b"href") else { continue };
        let Some(mut url) = base.join(href.trim()).ok().filter(is_fetchable) else { continue };
        if is_base {
            base = url;
            continue;
        }
        let sha256 = url.fragment().and_then(|fragment| fragment.strip_prefix("sha256="));
        let sha256 = sha256.and_then(|hex| Digest::from_hex(&hex.to_ascii_lowercase()).ok());
        url.set_fragment(None);
        let Some(file) = file_name(&url) else { continue };
        if offers.len() == FILES_MAX {
            return Err(PageError::TooMany);
        }
        let requires_python = attribute(b"data-requires-python").map(str::to_owned);
        let yanked = attribute(b"data-yanked").is_some();
        offers.push(Offer { file, url, sha256, size: None, requires_python, yanked });
    }
    Ok(offers)
}

fn is_fetchable(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https" | "file")
}

/// The last part of an address's path, decoded.
pub fn file_name(url: &Url) -> Option<String> {
    let last = url.path_segments()?.next_back().filter(|last| !last.is_empty())?;
    percent_decode_str(last).decode_utf8().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page() -> Url {
        Url::parse("https://example.org/simple/foo/").unwrap()
    }

    #[test]
    fn html_pages_are_read_with_relative_and_escaped_addresses() {
        let digest = Digest::of(b"x");
        let html = format!(
            "<!DOCTYPE html><html><head><base href='/files/'></head><body><!-- <a href=no.whl>no</a> -->\n\
             <a href=\"../a/foo-1%2Bcpu-py3-none-any.whl#sha256={}\" data-requires-python=\"&gt;=3.8\">x</a><br/>\n\
             <A HREF='https://cdn.example.org/foo-2.tar.gz?token=a&amp;b'>y</A><a>z</a><a href='mailto:x@y'>m</a>",
            digest.to_hex()
        );
        let offers = offers(&page(), html.as_bytes()).unwrap();
        assert_eq!(offers.len(), 2);
        assert_eq!(offers[0].file, "foo-1+cpu-py3-none-any.whl");
        assert_eq!(offers[0].url.as_str(), "https://example.org/a/foo-1%2Bcpu-py3-none-any.whl");
        assert_eq!(offers[0].sha256, Some(digest));
        assert_eq!(offers[1].url.query(), Some("token=a&b"));
        assert_eq!((offers[0].requires_python.as_deref(), offers[0].yanked), (Some(">=3.8"), false));
    }

    #[test]
    fn json_pages_are_read() {
        let digest = Digest::of(b"x");
        let json = format!(
            r#"{{"meta":{{"api-version":"1.1"}},"name":"foo","files":[{{"filename":"foo-1-py3-none-any.whl",
            "url":"../../p/foo-1-py3-none-any.whl","hashes":{{"sha256":"{}"}},"size":7,"yanked":"broken"}}]}}"#,
            digest.to_hex()
        );
        let offers = offers(&page(), json.as_bytes()).unwrap();
        assert_eq!(offers[0].url.as_str(), "https://example.org/p/foo-1-py3-none-any.whl");
        assert_eq!((offers[0].sha256, offers[0].size, offers[0].yanked), (Some(digest), Some(7), true));
    }

    #[test]
    fn pages_that_are_none_are_refused() {
        assert!(matches!(offers(&page(), b"{\"files\": 3}"), Err(PageError::Json(_))));
        assert!(matches!(offers(&page(), b"\xff\xfe"), Err(PageError::Text)));
    }

    #[test]
    fn a_projects_page_lies_below_the_index() {
        let name = ProjectName::new("Foo_Bar").unwrap();
        for index in ["https://u:p@example.org/simple", "https://u:p@example.org/simple/"] {
            assert_eq!(project_page(index, &name).unwrap().as_str(), "https://u:p@example.org/simple/foo-bar/");
        }
    }

    proptest! {
        #[test]
        fn any_page_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = offers(&page(), &body);
        }
    }
}
