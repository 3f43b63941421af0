//! Addresses, as far as asking a server and following its redirections needs them (RFC 3986).

use base64::{Engine, prelude::BASE64_STANDARD};

/// An `http://` or `https://` address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address<'a> {
    encrypted: bool,
    /// `name:password`, percent-encoded; empty without any.
    user: &'a str,
    /// Host and port as written.
    authority: &'a str,
    /// Path and query, with the leading slash if there is any path.
    path: &'a str,
}

impl<'a> Address<'a> {
    /// Takes an address apart; `None` if it is of another kind.
    pub(super) fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let encrypted = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user, authority) = authority.rsplit_once('@').unwrap_or(("", authority));
        (!authority.is_empty()).then_some(Self { encrypted, user, authority, path })
    }

    pub(super) const fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Host and port as written.
    pub(super) const fn authority(&self) -> &'a str {
        self.authority
    }

    /// The host without its port.
    pub(super) fn host(&self) -> &'a str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => self.authority,
        }
    }

    /// The address without credentials and fragment.
    pub(super) fn plain(&self) -> String {
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        format!("{}://{}{slash}{}", self.scheme(), self.authority, self.path)
    }

    /// What a server that asks for name and password is told.
    pub(super) fn authorization(&self) -> Option<String> {
        (!self.user.is_empty()).then(|| format!("Basic {}", BASE64_STANDARD.encode(unescaped(self.user))))
    }

    /// Where a redirection from here to `location` leads; without credentials, which are for this server alone.
    pub(super) fn join(&self, location: &str) -> String {
        if location.split_once("://").is_some_and(|(scheme, _)| !scheme.contains(['/', '?', '#'])) {
            return location.to_owned();
        }
        let origin = format!("{}://{}", self.scheme(), self.authority);
        if let Some(rest) = location.strip_prefix("//") {
            return format!("{}://{rest}", self.scheme());
        }
        if location.starts_with('/') {
            return format!("{origin}{location}");
        }
        let path = self.path.split('?').next().unwrap_or_default();
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{origin}{directory}/{location}")
    }

    const fn scheme(&self) -> &'static str {
        if self.encrypted { "https" } else { "http" }
    }
}

/// Undoes percent-encoding; what is no code stays.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| first == b'%').and_then(|digits| str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let address = Address::parse("HTTP://me:a%40b@host.example:81/p/a?q=@/#f").unwrap();
        assert_eq!((address.host(), address.authority()), ("host.example", "host.example:81"));
        assert_eq!(address.plain(), "http://host.example:81/p/a?q=@/");
        assert_eq!(address.authorization().unwrap(), format!("Basic {}", BASE64_STANDARD.encode("me:a@b")));
        assert_eq!(Address::parse("https://h").unwrap().plain(), "https://h/");
        assert_eq!(Address::parse("http://h?q").unwrap().plain(), "http://h/?q");
        assert_eq!(Address::parse("https://[::1]:8443/").unwrap().host(), "[::1]");
        assert_eq!(Address::parse("http://[::1]/").unwrap().host(), "[::1]");
        for other in ["ftp://h/", "file:///x", "http://", "http:///x", "h/x", ""] {
            assert_eq!(Address::parse(other), None, "{other}");
        }
    }

    #[test]
    fn redirections_are_followed_as_written() {
        let from = Address::parse("http://me:pw@a.example:81/p/q/r?s=/t").unwrap();
        for (location, expected) in [
            ("https://b.example/x", "https://b.example/x"),
            ("//b.example/x", "http://b.example/x"),
            ("/x?y", "http://a.example:81/x?y"),
            ("x?u=http://z/", "http://a.example:81/p/q/x?u=http://z/"),
            ("../x", "http://a.example:81/p/q/../x"),
        ] {
            assert_eq!(from.join(location), expected);
        }
        assert_eq!(Address::parse("http://a.example").unwrap().join("x"), "http://a.example/x");
    }
}
