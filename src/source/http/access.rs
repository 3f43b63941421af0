//! Credentials, and the one server that they are for.

use std::fmt;
use ureq::http::Uri;
use zeroize::Zeroizing;

/// A bearer token (RFC 6750) for one origin: scheme, host and port. It is shown nowhere, and no other server gets it,
/// whatever a redirect says.
pub struct Access {
    origin: Origin,
    header: Zeroizing<String>,
}

impl Access {
    /// `token` for the server at `url`; `None` if that is no address, or the token cannot stand in a header.
    pub fn bearer(url: &str, token: &str) -> Option<Self> {
        let visible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let origin = Origin::of(&url.parse().ok()?)?;
        visible.then(|| Self { origin, header: Zeroizing::new(format!("Bearer {token}")) })
    }

    /// The value of `Authorization` for a request to `uri`, if it goes to the server that the token is for.
    pub(super) fn header_for(&self, uri: &Uri) -> Option<&str> {
        (Origin::of(uri)? == self.origin).then_some(self.header.as_str())
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Scheme, host and port (RFC 6454).
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri.host()?.to_ascii_lowercase();
        Some(Self { scheme, host, port: uri.port_u16().unwrap_or(usual) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(uri: &str) -> bool {
        let access = Access::bearer("https://hub.example/base", "hf_secret").unwrap();
        access.header_for(&uri.parse().unwrap()) == Some("Bearer hf_secret")
    }

    #[test]
    fn only_the_same_scheme_host_and_port_gets_the_token() {
        assert!(given("https://hub.example/x") && given("https://HUB.example:443/x"));
        for other in [
            "http://hub.example/x",
            "https://hub.example:8443/x",
            "https://cdn.hub.example/x",
            "https://hub.example.evil/x",
            "https://hub.example@evil.example/x",
        ] {
            assert!(!given(other), "{other}");
        }
    }

    #[test]
    fn a_token_that_would_split_the_header_is_refused_and_none_is_shown() {
        assert!(Access::bearer("https://hub.example", "a\r\nX: y").is_none());
        assert!(Access::bearer("https://hub.example", "").is_none());
        let access = Access::bearer("https://hub.example", "hf_secret").unwrap();
        assert!(!format!("{access:?}").contains("hf_secret"));
    }
}
