//! Where the hub is.

use super::ModelError;
use crate::source::http::shown;

/// The hub that is meant where nothing else is said.
const USUAL: &str = "https://huggingface.co";
/// The variable by which Hugging Face's own tools are told of another.
const VARIABLE: &str = "HF_ENDPOINT";

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
    fn an_endpoint_with_credentials_is_refused_without_showing_them() {
        let error = Endpoint::find_in(None, Some("https://user:secret@hub.example")).unwrap_err().to_string();
        assert!(error.contains("HF_ENDPOINT") && !error.contains("secret"), "{error}");
        assert!(Endpoint::find_in(Some("ftp://x"), None).is_err());
    }
}
