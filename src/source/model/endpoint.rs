//! Where the hub is, and whether the user's token may go there.

use super::ModelError;
use crate::source::http::shown;
use url::{Host, Url};

/// The hub that is meant where nothing else is said.
const USUAL: &str = "https://huggingface.co";
/// The variable by which Hugging Face's own tools are told of another.
const VARIABLE: &str = "HF_ENDPOINT";
/// The variable by which the user says which other hubs get the token too.
const GRANTS: &str = "GAPIMAGE_HF_TOKEN_FOR";

/// Why a hub does not get the user's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withheld {
    /// Only the recipe names it, and whoever wrote that would get the token of whoever locks it.
    Unnamed,
    /// Everybody on the way could read it.
    InTheClear,
}

impl Withheld {
    /// What the user can do, where the hub at `endpoint` wants a token.
    pub(super) fn remedy(self, endpoint: &str) -> String {
        let endpoint = shown(endpoint);
        match self {
            Self::Unnamed => format!(
                "it was not sent to {endpoint}, which only the recipe names; if that server may have it, set \
                 {GRANTS}={endpoint}"
            ),
            Self::InTheClear => format!(
                "it was not sent to {endpoint}, since everybody on the way could read it; name the hub by an address \
                 that starts with https://"
            ),
        }
    }
}

/// Base address of a hub, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// The endpoint of the recipe if it names one, else that of `HF_ENDPOINT`, else Hugging Face's own hub.
    ///
    /// # Errors
    /// [`ModelError::Endpoint`] if what is named is no address.
    pub fn find(recipe: Option<&str>) -> Result<Self, ModelError> {
        Self::find_in(recipe, std::env::var(VARIABLE).ok().as_deref())
    }

    fn find_in(recipe: Option<&str>, environment: Option<&str>) -> Result<Self, ModelError> {
        let environment = environment.map(str::trim).filter(|url| !url.is_empty());
        let (origin, url) = match (recipe, environment) {
            (Some(url), _) => ("the recipe", url),
            (None, Some(url)) => (VARIABLE, url),
            (None, None) => return Ok(Self(USUAL.to_owned())),
        };
        Self::new(url).ok_or_else(|| ModelError::Endpoint { origin, url: shown(url) })
    }

    /// An address, if it is one that starts with `http://` or `https://` and has neither credentials nor a query.
    pub fn new(url: &str) -> Option<Self> {
        let url = url.trim_end_matches('/');
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
        let plain = !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['@', '?', '#', ' ']);
        plain.then(|| Self(url.to_owned()))
    }

    /// Whether the user's token may go there: the hub is the usual one, or the user's environment names it (`HF_ENDPOINT`,
    /// `GAPIMAGE_HF_TOKEN_FOR`), and nobody on the way can read it.
    pub(super) fn withholds(&self) -> Option<Withheld> {
        let variable = |name| std::env::var(name).unwrap_or_default();
        self.withholds_in(&variable(VARIABLE), &variable(GRANTS))
    }

    fn withholds_in(&self, environment: &str, grants: &str) -> Option<Withheld> {
        let Some(url) = self.parsed() else { return Some(Withheld::Unnamed) };
        let stays_here = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        // First, as nothing that the user says changes it.
        if url.scheme() != "https" && !stays_here {
            return Some(Withheld::InTheClear);
        }
        let own = grants.split_whitespace().chain([USUAL, environment.trim()]);
        // Compared as they are taken apart, since a name has more than one spelling.
        let is_own = own.filter_map(Self::new).any(|own| own.parsed().as_ref() == Some(&url));
        (!is_own).then_some(Withheld::Unnamed)
    }

    fn parsed(&self) -> Option<Url> {
        Url::parse(&self.0).ok()
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipe_goes_before_environment_before_the_usual_hub() {
        let find = |recipe, environment| Endpoint::find_in(recipe, environment).unwrap().0;
        assert_eq!(find(Some("https://a.example/"), Some("https://b.example")), "https://a.example");
        assert_eq!(find(None, Some("http://127.0.0.1:1/hub/")), "http://127.0.0.1:1/hub");
        assert_eq!(find(None, Some(" ")), USUAL);
    }

    #[test]
    fn the_token_goes_to_the_usual_hub_and_where_the_user_says_and_not_in_the_clear() {
        let withheld = |endpoint: &str, environment: &str, grants: &str| {
            Endpoint::new(endpoint).unwrap().withholds_in(environment, grants)
        };
        assert_eq!(withheld(USUAL, "", ""), None);
        assert_eq!(withheld(&format!("{USUAL}:443/"), "https://mirror.example", ""), None);
        assert_eq!(withheld("https://HUB.example", "https://hub.example", ""), None);
        for endpoint in ["https://hub.example", "http://127.0.0.1:8080", &format!("{USUAL}.hub.example")] {
            assert_eq!(withheld(endpoint, "", ""), Some(Withheld::Unnamed), "{endpoint}");
            assert_eq!(withheld(endpoint, " https://mirror.example ", "https://a.example"), Some(Withheld::Unnamed));
            assert_eq!(withheld(endpoint, &format!("{endpoint}/"), ""), None, "{endpoint}");
            assert_eq!(withheld(endpoint, "", &format!("https://a.example {endpoint}")), None, "{endpoint}");
        }
        let named = "https://hub.example/team";
        for other in ["https://hub.example/other", "https://hub.example:8443/team", "https://hub.example"] {
            assert_eq!(withheld(other, named, named), Some(Withheld::Unnamed), "{other}");
        }
        for (clear, withheld_there) in [
            ("http://hub.example", true),
            (&USUAL.replace("https", "http"), true),
            ("http://10.0.0.1", true),
            ("http://localhost.hub.example", true),
            ("http://localhost:1", false),
            ("http://127.1.2.3", false),
            ("http://[::1]:80", false),
        ] {
            assert_eq!(withheld(clear, clear, ""), withheld_there.then_some(Withheld::InTheClear), "{clear}");
        }
    }

    #[test]
    fn an_endpoint_with_credentials_is_refused_without_showing_them() {
        let error = Endpoint::find_in(None, Some("https://user:secret@hub.example")).unwrap_err().to_string();
        assert!(error.contains("HF_ENDPOINT") && !error.contains("secret"), "{error}");
        assert!(Endpoint::find_in(Some("ftp://x"), None).is_err());
    }
}
