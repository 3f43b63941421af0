//! The site configuration: what the owner of a machine may decide. A closed schema: never trust,
//! serial, command line or images.

mod endpoint;
mod gpus;
#[cfg(feature = "schema")]
mod schema;
mod signature;
mod time;

pub use endpoint::{EndpointName, MAX_ENDPOINTS, SiteAddress};
pub use gpus::{All, Cut, CutDevices, Gpus, MAX_SLICES, Profile};
#[cfg(feature = "schema")]
pub use schema::schema;
pub use signature::{SITE_PAYLOAD, SignatureError, accept, sign};
pub use time::{MAX_SERVERS, Rtc, Time, WrongClock};

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    time::Duration,
};

/// Volume label of the FAT file system that carries it (file `site.toml`).
pub const VOLUME_LABEL: &str = "GAPSITE";
/// Name of the file on that volume.
pub const FILE_NAME: &str = "site.toml";
/// Name under which QEMU's firmware configuration device carries it.
pub const FW_CFG_NAME: &str = "opt/gapimage/site";
/// How long PID 1 looks for a stick with a configuration beside the running agent, where none came before.
pub const LATE: Duration = Duration::from_secs(15);
/// Longest configuration accepted, in bytes.
pub const MAX_LEN: usize = 64 * 1024;

/// The whole configuration. All parts are optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SiteConfig {
    /// Name of the machine.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$")))]
    pub hostname: Option<String>,
    /// How to reach it.
    pub network: Network,
    /// Certificate and key of the API; made at boot when absent.
    pub tls: Option<Tls>,
    /// Access to the API.
    pub api: Api,
    /// Where jobs keep their data. Not written when nothing is said: appliances from before do not know it, and would
    /// ignore all the rest.
    #[serde(skip_serializing_if = "Data::is_default")]
    pub data: Data,
    /// The machine's clock. Not written when nothing is said, as `data`.
    #[serde(skip_serializing_if = "Time::is_default")]
    pub time: Time,
    /// Services of the site that jobs may be let to reach, by the names that declared jobs ask for. Not written when
    /// there are none, as `data`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::endpoints"))]
    pub endpoints: BTreeMap<EndpointName, SiteAddress>,
    /// The machine's GPUs. Not written when nothing is said, as `data`.
    #[serde(skip_serializing_if = "Gpus::is_default")]
    pub gpus: Gpus,
}

/// Network of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, tag = "mode", rename_all = "snake_case")]
pub enum Network {
    /// Loopback only.
    #[default]
    None,
    /// Address by DHCP.
    Dhcp {
        /// Interface name; the first wired one when absent.
        #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,15}$")))]
        interface: Option<String>,
    },
    /// Fixed address.
    Static {
        /// Interface name; the first wired one when absent.
        #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,15}$")))]
        interface: Option<String>,
        /// Address.
        #[cfg_attr(feature = "schema", schemars(schema_with = "schema::address"))]
        address: Ipv4Addr,
        /// Prefix length, 0–32.
        #[cfg_attr(feature = "schema", schemars(range(max = 32)))]
        prefix: u8,
        /// Default route.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schemars(schema_with = "schema::address"))]
        gateway: Option<Ipv4Addr>,
        /// Name servers.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schemars(schema_with = "schema::name_servers"))]
        dns: Vec<IpAddr>,
    },
}

/// Certificate of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM certificate chain.
    pub certificate: String,
    /// PEM PKCS#8 private key.
    pub key: String,
}

/// Access to the API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Port to listen on; 8443 when absent.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub port: Option<u16>,
    /// SHA-256 (64 hexadecimal digits) of the first token. When absent, the first admin claims
    /// the machine with a code that its console shows.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub token_sha256: Option<String>,
    /// PEM certificates of authorities. When present, only clients with a certificate of theirs are listened to, and need
    /// a token besides.
    pub client_authorities: Option<String>,
}

/// Where jobs keep their data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(
    feature = "schema",
    schemars(extend("not" = serde_json::json!({ "required": ["disk", "memory"], "properties": { "memory": { "const": true } } })))
)]
pub struct Data {
    /// A disk, by its name in the kernel (`nvme1n1`) or its serial number. An empty one is formatted, one that the
    /// appliance formatted before is used, any other is left alone. When absent, a disk of the appliance or else an
    /// empty one is taken.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[A-Za-z0-9_. :-]{1,128}$")))]
    pub disk: Option<String>,
    /// Uses no disk at all: everything is forgotten at power-off.
    pub memory: bool,
}

impl Data {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a site configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// It is longer than [`MAX_LEN`].
    #[error("the site configuration is longer than {MAX_LEN} bytes")]
    TooLong,
    /// It is not TOML of the schema.
    #[error("the site configuration is not valid: {0}")]
    Invalid(#[from] toml::de::Error),
    /// A value is out of range.
    #[error("the site configuration is not valid: {0}")]
    Value(&'static str),
    /// The release asks for signatures, and these do not do.
    #[error("the site configuration is not signed as this release asks: {0}")]
    Signature(#[from] SignatureError),
}

impl SiteConfig {
    /// Parses and checks a configuration.
    ///
    /// # Errors
    /// [`SiteError`] when it is too long, not of the schema, or a value is out of range.
    pub fn parse(text: &str) -> Result<Self, SiteError> {
        if text.len() > MAX_LEN {
            return Err(SiteError::TooLong);
        }
        let config: Self = toml::from_str(text)?;
        if let Network::Static { prefix, .. } = config.network
            && prefix > 32
        {
            return Err(SiteError::Value("network.prefix is at most 32"));
        }
        if let Some(hash) = &config.api.token_sha256
            && gap_format::Digest::from_hex(hash).is_err()
        {
            return Err(SiteError::Value("api.token_sha256 is 64 lower-case hexadecimal digits"));
        }
        if let Some(name) = &config.hostname
            && !is_hostname(name)
        {
            return Err(SiteError::Value(
                "hostname is 1 to 63 letters, digits and hyphens, and a hyphen stands neither first nor last",
            ));
        }
        if let Network::Dhcp { interface: Some(name) } | Network::Static { interface: Some(name), .. } = &config.network
            && !is_interface(name)
        {
            return Err(SiteError::Value("network.interface is the name of a network interface, as `eth0`"));
        }
        if let Some(disk) = &config.data.disk
            && (!is_disk(disk) || config.data.memory)
        {
            return Err(SiteError::Value(
                "data.disk is the name or serial number of a disk, and not beside data.memory",
            ));
        }
        if config.api.port == Some(0) {
            return Err(SiteError::Value("api.port is 1 to 65535"));
        }
        if config.network == Network::None && has_more_than_mode(text)? {
            return Err(SiteError::Value("network.mode is \"none\", and nothing goes with that"));
        }
        config.time.check(&config.network)?;
        config.check_endpoints()?;
        config.gpus.check()?;
        Ok(config)
    }

    fn check_endpoints(&self) -> Result<(), SiteError> {
        if self.endpoints.len() > MAX_ENDPOINTS {
            return Err(SiteError::Value("endpoints are at most 32"));
        }
        match &self.network {
            Network::None if !self.endpoints.is_empty() => {
                Err(SiteError::Value("endpoints need a network: network.mode is \"dhcp\" or \"static\""))
            }
            Network::Static { address, .. } if self.endpoints.values().any(|endpoint| endpoint.ip() == address) => {
                Err(SiteError::Value("an endpoint is another machine, and not this one's own address"))
            }
            _ => Ok(()),
        }
    }

    /// Where the endpoint of this name is, if the site names one.
    pub fn endpoint(&self, name: &EndpointName) -> Option<SocketAddrV4> {
        self.endpoints.get(name).map(|address| **address)
    }
}

/// Whether `[network]` says more than its mode: serde lets unknown keys pass beside a variant without fields.
fn has_more_than_mode(text: &str) -> Result<bool, toml::de::Error> {
    let table: toml::Table = toml::from_str(text)?;
    Ok(table.get("network").and_then(toml::Value::as_table).is_some_and(|network| network.len() > 1))
}

/// One label of RFC 1123.
fn is_hostname(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// What the kernel takes as an interface's name, without anything that could lead out of a directory.
fn is_interface(name: &str) -> bool {
    (1..=15).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

/// What sysfs calls a disk, or its maker; without anything that could lead out of a directory.
fn is_disk(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_. :".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused() {
        assert!(matches!(SiteConfig::parse("trust = 'mine'"), Err(SiteError::Invalid(_))));
        assert!(matches!(SiteConfig::parse("[network]\nmode='dhcp'\nx=1"), Err(SiteError::Invalid(_))));
    }

    #[test]
    fn names_that_could_mean_something_else_are_refused() {
        for text in [
            "hostname = ''",
            "hostname = '-x'",
            "hostname = 'a b'",
            "hostname = 'a.b'",
            "[network]\nmode = 'dhcp'\ninterface = '../x'",
            "[network]\nmode = 'static'\naddress = '10.0.0.2'\nprefix = 33",
            "[network]\nmode = 'none'\ninterface = 'eth0'",
            "[api]\nport = 0",
            "[api]\ntoken_sha256 = 'secret'",
            "[data]\ndisk = '../sda'",
            "[data]\ndisk = 'sda'\nmemory = true",
        ] {
            assert!(SiteConfig::parse(text).is_err(), "{text}");
        }
        assert!(SiteConfig::parse("hostname = 'rack4-u12'\n[network]\nmode = 'dhcp'\ninterface = 'eth0'").is_ok());
    }

    #[test]
    fn an_empty_configuration_means_no_network() {
        assert_eq!(SiteConfig::parse("").unwrap().network, Network::None);
    }
}
