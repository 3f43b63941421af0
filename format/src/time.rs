//! Points in time as the artifact and the trust file write them: whole seconds, UTC, RFC 3339.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// Whole seconds since 1970-01-01T00:00:00Z, from the year 1970 to 9999.
///
/// Written `2026-01-31T23:59:59Z` and in no other way: no fraction, no offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// Why a text or a number is no timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a time is written like 2026-01-31T23:59:59Z, from 1970 to 9999")]
pub struct ParseTimestampError;

impl Timestamp {
    /// The last second of the year 9999.
    const LAST: u64 = 253_402_207_200;

    /// From seconds since 1970.
    ///
    /// # Errors
    /// [`ParseTimestampError`] for a time after the year 9999.
    pub const fn from_seconds(seconds: u64) -> Result<Self, ParseTimestampError> {
        if seconds > Self::LAST { Err(ParseTimestampError) } else { Ok(Self(seconds)) }
    }

    /// Seconds since 1970.
    pub const fn seconds(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{}", jiff::Timestamp::from_second(seconds).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed: jiff::Timestamp = text.parse().map_err(|_| ParseTimestampError)?;
        let seconds = u64::try_from(parsed.as_second()).map_err(|_| ParseTimestampError)?;
        let time = Self::from_seconds(seconds)?;
        if time.to_string() == text { Ok(time) } else { Err(ParseTimestampError) }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_one_spelling() {
        let time: Timestamp = "2026-01-31T23:59:59Z".parse().unwrap();
        assert_eq!(time.seconds(), 1_769_903_999);
        assert_eq!(time.to_string(), "2026-01-31T23:59:59Z");
        for other in ["2026-01-31T23:59:59.0Z", "2026-01-31T23:59:59+00:00", "2026-01-31t23:59:59Z", "2026-01-31", ""] {
            assert_eq!(other.parse::<Timestamp>(), Err(ParseTimestampError), "{other}");
        }
        assert!("1969-12-31T23:59:59Z".parse::<Timestamp>().is_err());
        assert_eq!(Timestamp::from_seconds(0).unwrap().to_string(), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn every_time_that_is_taken_can_be_written() {
        let last = Timestamp::from_seconds(Timestamp::LAST).unwrap();
        assert_eq!(last.to_string().parse(), Ok(last));
        assert!(Timestamp::from_seconds(Timestamp::LAST + 1).is_err());
    }
}
