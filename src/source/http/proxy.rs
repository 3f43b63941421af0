//! Which proxy leads to an address: what the environment says, as curl reads it, else what this host's apt goes by.
//!
//! Through a proxy, an `http://` address is asked for by its whole address (RFC 9112, section 3.2.2), because many proxies
//! open tunnels to the port of HTTPS only; an `https://` address is reached through such a tunnel.

use super::{HttpError, address::Address};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{collections::BTreeMap, env, process::Command};
use ureq::{Proxy, ProxyProtocol};

/// The proxies to be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    /// Names of hosts and domains that are reached directly.
    direct: Vec<String>,
    /// What apt says of single hosts: a proxy, or none.
    hosts: BTreeMap<String, Option<String>>,
}

/// How an address is reached.
#[derive(Debug, Clone)]
pub(super) enum Route {
    /// Without a proxy.
    Direct,
    /// Through a proxy that is asked for the whole address.
    Forward {
        /// Scheme, host and port of the proxy.
        origin: String,
        /// Its `Proxy-Authorization`, if it wants one.
        authorization: Option<String>,
    },
    /// Through a tunnel that a proxy opens.
    Tunnel(Proxy),
}

impl Proxies {
    /// Those of this process's environment and of this host's apt.
    pub fn of_host() -> Self {
        let variable = |name: &str| env::var(name).or_else(|_| env::var(name.to_uppercase())).ok();
        Self::from_settings(variable, apt_settings)
    }

    /// Those that the environment names (`http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`); where it says nothing of a
    /// kind of address, those of apt's configuration, given in the form of `apt-config dump`.
    pub fn from_settings(variable: impl Fn(&str) -> Option<String>, apt: impl FnOnce() -> String) -> Self {
        let all = variable("all_proxy");
        let named = |name: &str| variable(name).or_else(|| all.clone());
        let (http, https) = (named("http_proxy"), named("https_proxy"));
        let no_proxy = variable("no_proxy").unwrap_or_default();
        let mut proxies = Self { direct: no_proxy.split([',', ' ']).filter_map(pattern).collect(), ..Self::default() };
        if http.is_none() || https.is_none() {
            proxies.read_apt(&apt());
        }
        // A variable that is set and empty asks for no proxy.
        let given = |url: String| Some(url).filter(|url| !url.is_empty());
        if let Some(url) = http {
            (proxies.http, proxies.hosts) = (given(url), BTreeMap::new());
        }
        if let Some(url) = https {
            proxies.https = given(url);
        }
        proxies
    }

    /// Lines such as `Acquire::http::Proxy "http://proxy:3128";` and `Acquire::http::Proxy::HOST "DIRECT";`.
    fn read_apt(&mut self, dump: &str) {
        let mut of_https = None;
        for line in dump.lines() {
            let Some((name, value)) = line.trim_end_matches(';').split_once(' ') else { continue };
            let value = value.trim_matches('"');
            let proxy = (!value.is_empty() && value != "DIRECT").then(|| value.to_owned());
            let name = name.to_ascii_lowercase();
            match name.strip_prefix("acquire::http::proxy") {
                Some("") => self.http = proxy,
                Some(host) => {
                    if let Some(host) = host.strip_prefix("::").filter(|host| !host.is_empty()) {
                        self.hosts.insert(host.to_owned(), proxy);
                    }
                }
                None if name == "acquire::https::proxy" => of_https = Some(proxy),
                None => {}
            }
        }
        // As with apt, what holds for HTTP holds for HTTPS unless that says otherwise.
        self.https = of_https.unwrap_or_else(|| self.http.clone());
    }

    /// This proxy for every address.
    pub fn only(url: &str) -> Self {
        Self { http: Some(url.to_owned()), https: Some(url.to_owned()), ..Self::default() }
    }

    /// How to reach an address.
    ///
    /// # Errors
    /// [`HttpError::Proxy`] if the proxy is of a kind that is not known.
    pub(super) fn route(&self, address: &Address<'_>) -> Result<Route, HttpError> {
        let Some(url) = self.proxy_for(address) else { return Ok(Route::Direct) };
        let unknown = || HttpError::Proxy { proxy: super::shown(url) };
        let proxy = Proxy::new(url).map_err(|_| unknown())?;
        let scheme = match proxy.protocol() {
            ProxyProtocol::Http => "http",
            ProxyProtocol::Https => "https",
            _ => return Err(unknown()),
        };
        if address.is_encrypted() {
            return Ok(Route::Tunnel(proxy));
        }
        let authorization = proxy.username().map(|name| {
            let pair = format!("{name}:{}", proxy.password().unwrap_or_default());
            format!("Basic {}", BASE64_STANDARD.encode(pair))
        });
        Ok(Route::Forward { origin: format!("{scheme}://{}:{}", proxy.host(), proxy.port()), authorization })
    }

    fn proxy_for(&self, address: &Address<'_>) -> Option<&str> {
        let host = address.host().to_ascii_lowercase();
        let within = |domain: &String| {
            domain == "*"
                || host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if self.direct.iter().any(within) {
            return None;
        }
        match self.hosts.get(&host) {
            Some(proxy) => proxy.as_deref(),
            None if address.is_encrypted() => self.https.as_deref(),
            None => self.http.as_deref(),
        }
    }
}

impl Route {
    /// The proxy as messages name it, without credentials.
    pub(super) fn shown(&self) -> Option<String> {
        match self {
            Self::Direct => None,
            Self::Forward { origin, .. } => Some(origin.clone()),
            Self::Tunnel(proxy) => Some(format!("{}:{}", proxy.host(), proxy.port())),
        }
    }
}

/// An entry of `no_proxy` in lower case, without leading dots and wildcards and without a port.
fn pattern(entry: &str) -> Option<String> {
    let entry = entry.trim().to_ascii_lowercase();
    if entry == "*" {
        return Some(entry);
    }
    let entry = entry.trim_start_matches('*').trim_start_matches('.');
    let host = match entry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.contains(':') => host,
        _ => entry,
    };
    (!host.is_empty()).then(|| host.to_owned())
}

/// What apt says, where there is apt.
fn apt_settings() -> String {
    let output = Command::new("apt-config").args(["dump", "Acquire"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)], apt: &str) -> Proxies {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Proxies::from_settings(find, || apt.to_owned())
    }

    fn route(proxies: &Proxies, url: &str) -> String {
        match proxies.route(&Address::parse(url).unwrap()) {
            Ok(Route::Direct) => "direct".to_owned(),
            Ok(Route::Forward { origin, authorization }) => {
                format!("ask {origin} {}", authorization.unwrap_or_default()).trim().to_owned()
            }
            Ok(Route::Tunnel(proxy)) => format!("tunnel {}:{}", proxy.host(), proxy.port()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_environment_is_read_as_curl_reads_it() {
        let found = proxies(&[("http_proxy", "proxy.example:3128")], "");
        assert_eq!(route(&found, "http://a.example/x"), "ask http://proxy.example:3128");
        assert_eq!(route(&found, "https://a.example/x"), "direct");
        let found = proxies(&[("all_proxy", "http://p.example"), ("https_proxy", "http://s.example:81/")], "");
        assert_eq!(route(&found, "http://a.example"), "ask http://p.example:80");
        assert_eq!(route(&found, "https://a.example"), "tunnel s.example:81");
        let found = proxies(&[("http_proxy", ""), ("all_proxy", "http://p.example:1")], "");
        assert_eq!(route(&found, "http://a.example"), "direct");
    }

    #[test]
    fn hosts_and_domains_are_exempt() {
        let exempt = "localhost, .intern.example,10.0.0.1:80 *.other.example";
        let found = proxies(&[("http_proxy", "http://p.example:1"), ("no_proxy", exempt)], "");
        for host in
            ["localhost", "intern.example", "A.B.intern.example", "10.0.0.1:80", "x.other.example", "me@localhost"]
        {
            assert_eq!(route(&found, &format!("http://{host}/x")), "direct", "{host}");
        }
        for host in ["notintern.example", "intern.example.org", "10.0.0.11"] {
            assert_ne!(route(&found, &format!("http://{host}/x")), "direct", "{host}");
        }
        let found = proxies(&[("http_proxy", "http://p.example:1"), ("no_proxy", "*")], "");
        assert_eq!(route(&found, "http://a.example"), "direct");
    }

    #[test]
    fn apt_decides_where_the_environment_is_silent() {
        let apt = "Acquire::http \"\";\nAcquire::http::Proxy \"http://apt.example:3142\";\n\
                   Acquire::http::Proxy::near.example \"DIRECT\";\nAcquire::http::Timeout \"5\";\n";
        let found = proxies(&[], apt);
        assert_eq!(route(&found, "http://a.example"), "ask http://apt.example:3142");
        assert_eq!(route(&found, "https://a.example"), "tunnel apt.example:3142");
        assert_eq!(route(&found, "http://near.example"), "direct");
        let found = proxies(&[("https_proxy", ""), ("http_proxy", "http://env.example:1")], apt);
        assert_eq!(route(&found, "http://near.example"), "ask http://env.example:1");
        assert_eq!(route(&found, "https://a.example"), "direct");
        let found = proxies(&[], &format!("{apt}Acquire::https::Proxy \"DIRECT\";"));
        assert_eq!(route(&found, "https://a.example"), "direct");
    }

    #[test]
    fn credentials_go_to_the_proxy_and_into_no_message() {
        let found = proxies(&[("all_proxy", "http://me:s%40cret@p.example:8080")], "");
        assert_eq!(route(&found, "http://a.example"), "ask http://p.example:8080 Basic bWU6c0BjcmV0");
        let shown = found.route(&Address::parse("https://a.example").unwrap()).unwrap().shown().unwrap();
        assert_eq!(shown, "p.example:8080");
        let found = proxies(&[("all_proxy", "socks5://me:secret@p.example")], "");
        let error = route(&found, "http://a.example");
        assert!(error.contains("socks5://p.example") && !error.contains("secret"), "{error}");
    }
}
