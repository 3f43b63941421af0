//! The machine that an appliance is meant for.

use super::Gpu;
use std::{fmt, str::FromStr};

/// `[target]`: what is known of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its GPUs; none for a machine without.
    pub gpu: Option<Gpu>,
    /// How many GPUs each node has; 0 without.
    pub count: u32,
    /// How many nodes work together; at least 1.
    pub nodes: u32,
    /// Version of the NVIDIA driver, where it does not come from the recipe's packages.
    pub driver: Option<DriverVersion>,
    /// Main memory of a node in bytes.
    pub memory: Option<u64>,
    /// Working storage of a node in bytes.
    pub disk: Option<u64>,
}

/// Version of an NVIDIA driver: branch, release and update (`570.124.06`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DriverVersion(Vec<u32>);

/// A text that is no version of a driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a driver's version is up to four numbers with dots between them, such as `570.124.06`")]
pub struct InvalidDriver;

impl DriverVersion {
    /// The branch: the first number.
    pub fn branch(&self) -> u32 {
        self.0.first().copied().unwrap_or_default()
    }
}

impl FromStr for DriverVersion {
    type Err = InvalidDriver;

    fn from_str(text: &str) -> Result<Self, InvalidDriver> {
        let number = |part: &str| {
            let short = (1..=6).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            short.then(|| part.parse().ok()).flatten()
        };
        let numbers = text.split('.').map(number).collect::<Option<Vec<u32>>>().ok_or(InvalidDriver)?;
        if numbers.len() > 4 { Err(InvalidDriver) } else { Ok(Self(numbers)) }
    }
}

impl fmt::Display for DriverVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, number) in self.0.iter().enumerate() {
            match index {
                0 => write!(f, "{number}")?,
                // NVIDIA writes the later parts with at least two digits.
                _ => write!(f, ".{number:02}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(text: &str) -> DriverVersion {
        text.parse().unwrap()
    }

    #[test]
    fn drivers_compare_by_number_and_a_branch_comes_before_its_releases() {
        assert!(driver("570.26") < driver("570.124.06"));
        assert!(driver("525") < driver("525.60.13"));
        assert!(driver("550.54.14") < driver("550.54.15"));
        assert_eq!(driver("570.124.06").to_string(), "570.124.06");
        assert_eq!(driver("535.54.03").branch(), 535);
    }

    #[test]
    fn other_texts_are_no_drivers() {
        for text in ["", "570.", "5a", "1.2.3.4.5", "570-1", "9999999"] {
            assert_eq!(text.parse::<DriverVersion>(), Err(InvalidDriver), "{text}");
        }
    }
}
