//! `[time]`: whose clock is believed, and what is done while it is known to be wrong.

use super::{Network, SiteError};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Most time servers.
pub const MAX_SERVERS: usize = 8;

/// The machine's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Time {
    /// Whether the clock on the machine's board is believed.
    pub rtc: Rtc,
    /// Time servers of the site (NTP, UDP port 123), by their IPv4 addresses. None is asked where none is named.
    #[cfg_attr(feature = "schema", schemars(schema_with = "super::schema::servers"))]
    pub servers: Vec<Ipv4Addr>,
    /// What is done about jobs while the clock is not known to be right.
    pub wrong_clock: WrongClock,
}

/// Whether the clock on the machine's board is believed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Rtc {
    /// It is, unless it is behind the time when the release was made.
    #[default]
    Trusted,
    /// It is not: the clock counts as wrong until a time server has answered.
    Untrusted,
}

/// What is done about jobs while the clock is not known to be right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WrongClock {
    /// They are taken and run; console and API say that the clock is wrong.
    #[default]
    Continue,
    /// They are taken, and wait until it is right.
    Wait,
    /// None is taken until it is right. Those of before go on.
    RefuseJobs,
}

impl Time {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self, network: &Network) -> Result<(), SiteError> {
        if self.servers.len() > MAX_SERVERS {
            return Err(SiteError::Value("time.servers are at most 8"));
        }
        if !self.servers.iter().all(is_unicast) {
            return Err(SiteError::Value("time.servers are IPv4 addresses of single machines of the site"));
        }
        if !self.servers.is_empty() && *network == Network::None {
            return Err(SiteError::Value("time.servers need a network: network.mode is \"dhcp\" or \"static\""));
        }
        if self.rtc == Rtc::Untrusted && self.servers.is_empty() {
            return Err(SiteError::Value("time.rtc is \"untrusted\" only where time.servers names others to believe"));
        }
        Ok(())
    }
}

/// Whether an address is that of one other machine: neither this one, nor many, nor none.
pub(super) fn is_unicast(address: &Ipv4Addr) -> bool {
    let first = address.octets()[0];
    (1..224).contains(&first) && first != 127
}
