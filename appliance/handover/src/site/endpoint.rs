//! `[endpoints]`: services of the site that declared jobs may be let to reach, and nothing else on the network.

use super::time::is_unicast;
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddrV4, ops::Deref, str::FromStr};

/// Most endpoints of a site.
pub const MAX_ENDPOINTS: usize = 32;
/// Longest name.
const MAX_NAME: usize = 32;

/// The name of an endpoint: 1 to 32 of `a-z`, `0-9` and `-`, a letter first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointName(String);

/// Address and TCP port of a service of the site: `192.0.2.20:5432`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SiteAddress(SocketAddrV4);

impl EndpointName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EndpointName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = text.len() <= MAX_NAME
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            Err("the name of an endpoint is 1 to 32 of a-z, 0-9 and `-`, a letter first")
        }
    }
}

impl FromStr for SiteAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = text.parse().ok().filter(|address: &SocketAddrV4| is_unicast(address.ip()) && address.port() > 0);
        // One way to write it, so that a schema can say which.
        let found = found.filter(|address| address.to_string() == text);
        found.map(Self).ok_or("an endpoint is the IPv4 address of one other machine, a colon and a port")
    }
}

impl TryFrom<String> for EndpointName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<String> for SiteAddress {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<EndpointName> for String {
    fn from(name: EndpointName) -> Self {
        name.0
    }
}

impl From<SiteAddress> for String {
    fn from(address: SiteAddress) -> Self {
        address.0.to_string()
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Deref for SiteAddress {
    type Target = SocketAddrV4;

    fn deref(&self) -> &SocketAddrV4 {
        &self.0
    }
}
