//! `[gpus]`: how GPUs are cut into slices (MIG), in the words of mig-parted's `mig-configs`.

use super::SiteError;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Most slices of one GPU.
pub const MAX_SLICES: u8 = 7;
/// Most entries.
pub const MAX_CUTS: usize = 64;

/// The machine's GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Gpus {
    /// How they are cut. Of several entries that concern a GPU the last one counts; one that none concerns is left as it
    /// is.
    #[cfg_attr(feature = "schema", schemars(length(max = 64)))]
    pub mig: Vec<Cut>,
}

/// An entry: how some GPUs are cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", schemars(extend("oneOf" = super::schema::cut_or_whole())))]
pub struct Cut {
    /// `"all"`, or their numbers in the order of PCI addresses, from 0.
    pub devices: CutDevices,
    /// Whether they are cut at all.
    pub mig_enabled: bool,
    /// Slices of each, by profile: how many. At most 7 in all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "super::schema::slices"))]
    pub mig_devices: BTreeMap<Profile, u8>,
}

/// Which GPUs an entry concerns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "devices is \"all\" or a list of GPUs' numbers, from 0 to 255")]
pub enum CutDevices {
    /// All of them.
    Word(All),
    /// These.
    Numbers(Vec<u8>),
}

/// The word for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum All {
    /// `all`.
    All,
}

/// What the driver calls a kind of slice: `1g.18gb`, `1g.18gb+me`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Profile(String);

impl Gpus {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self) -> Result<(), SiteError> {
        if self.mig.len() > MAX_CUTS {
            return Err(SiteError::Value("gpus.mig has at most 64 entries"));
        }
        self.mig.iter().try_for_each(Cut::check)
    }
}

impl Cut {
    fn check(&self) -> Result<(), SiteError> {
        let counts = || self.mig_devices.values().copied();
        if self.mig_enabled == self.mig_devices.is_empty() {
            return Err(SiteError::Value(
                "gpus.mig names slices (mig-devices) where mig-enabled is true, and none where it is false: a GPU in MIG \
                 mode computes nothing without slices",
            ));
        }
        if counts().any(|count| count == 0) || counts().map(u32::from).sum::<u32>() > MAX_SLICES.into() {
            return Err(SiteError::Value("gpus.mig: a GPU has 1 to 7 slices of all profiles together"));
        }
        Ok(())
    }

    /// Whether it concerns the GPU with this number.
    pub fn concerns(&self, number: usize) -> bool {
        match &self.devices {
            CutDevices::Word(All::All) => true,
            CutDevices::Numbers(numbers) => numbers.iter().any(|&one| usize::from(one) == number),
        }
    }
}

impl Profile {
    /// As the driver spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Profile {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = || {
            let (share, rest) = text.split_once("g.")?;
            let (memory, kind) = rest.split_once("gb")?;
            let is_share = share.len() == 1 && share.bytes().all(|byte| (b'1'..=b'7').contains(&byte));
            let is_memory = (1..=3).contains(&memory.len())
                && memory.bytes().all(|byte| byte.is_ascii_digit())
                && !memory.starts_with('0');
            // `+me`, `+gfx`, `-me`, `+me.all`.
            let is_kind = kind.is_empty()
                || kind.strip_prefix(['+', '-']).is_some_and(|name| {
                    (1..=8).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'.')
                });
            (is_share && is_memory && is_kind).then(|| Self(text.to_owned()))
        };
        parts().ok_or("the name of a MIG profile is one such as 1g.18gb or 1g.18gb+me")
    }
}

impl TryFrom<String> for Profile {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Profile> for String {
    fn from(profile: Profile) -> Self {
        profile.0
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SiteConfig;

    #[test]
    fn a_set_of_mig_parted_is_taken_and_written_back() {
        let text = "[[gpus.mig]]\ndevices = \"all\"\nmig-enabled = false\n\n[[gpus.mig]]\ndevices = [1, 2]\n\
                    mig-enabled = true\n\n[gpus.mig.mig-devices]\n\"1g.10gb\" = 2\n\"3g.40gb\" = 1\n";
        let config = SiteConfig::parse(text).unwrap();
        let [whole, cut] = config.gpus.mig.as_slice() else { panic!("{config:?}") };
        assert!(whole.concerns(0) && !cut.concerns(0) && cut.concerns(2));
        assert_eq!(cut.mig_devices.get(&"3g.40gb".parse().unwrap()), Some(&1));
        assert_eq!(SiteConfig::parse(&toml::to_string(&config).unwrap()).unwrap(), config);
        assert!(!toml::to_string(&SiteConfig::default()).unwrap().contains("gpus"), "older appliances do not know it");
    }

    #[test]
    fn more_slices_than_a_gpu_has_are_refused() {
        let of = |two: u8| {
            let text = format!(
                "[[gpus.mig]]\ndevices = 'all'\nmig-enabled = true\nmig-devices = {{ '1g.10gb' = 4, '1g.10gb+me' = {two} }}"
            );
            SiteConfig::parse(&text)
        };
        assert!(of(3).is_ok());
        assert!(of(4).unwrap_err().to_string().contains("1 to 7 slices"));
    }

    #[test]
    fn what_could_be_an_argument_is_no_profile() {
        for text in ["", "-C", "1g.10gb,-C", "1g.10gb -C", "8g.10gb", "1c.2g.20gb", "1g.010gb", "1g.10gb+", "1g.10GB"] {
            assert!(text.parse::<Profile>().is_err(), "{text}");
        }
        for text in ["1g.5gb", "1g.10gb+me", "7g.141gb", "1g.24gb+me.all", "1g.24gb-me"] {
            assert!(text.parse::<Profile>().is_ok(), "{text}");
        }
    }
}
