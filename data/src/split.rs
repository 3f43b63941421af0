//! Training, validation and test.
//!
//! Where an example goes follows from the digest of its content alone, so it stays there whatever is added, removed or
//! reordered around it. Two numbers are taken from the digest: the first says whether the example is for training, the
//! second whether one that is not is for validation or for test. So if the share of training changes (as it does by
//! itself at 10,000 examples, from 90 to 80 %), examples only go from training to validation or test; none comes back,
//! and none changes between those two.

use gap_format::Digest;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What a model learns from.
    Train,
    /// What is watched while it learns.
    Validation,
    /// What is measured at the end.
    Test,
}

impl Split {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// Its name, and that of its file without `.jsonl`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// How large the parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Splitting {
    /// 80/10/10; 90/5/5 with fewer than 10,000 examples.
    #[default]
    BySize,
    /// Always the same.
    Fixed(Ratios),
}

/// Percentages that add up to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratios {
    train: u8,
    validation: u8,
    test: u8,
}

/// Why ratios are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a split is three whole percentages that add up to 100, such as `80/10/10`")]
pub struct ParseRatiosError;

/// Fewer examples than this are a small data set.
pub const SMALL: u64 = 10_000;

impl Ratios {
    /// 80/10/10.
    pub const USUAL: Self = Self { train: 80, validation: 10, test: 10 };
    /// 90/5/5.
    pub const SMALL: Self = Self { train: 90, validation: 5, test: 5 };

    /// Percentages of training, validation and test.
    ///
    /// # Errors
    /// [`ParseRatiosError`] unless they add up to 100.
    pub fn new(train: u8, validation: u8, test: u8) -> Result<Self, ParseRatiosError> {
        let sum = u16::from(train) + u16::from(validation) + u16::from(test);
        if sum == 100 { Ok(Self { train, validation, test }) } else { Err(ParseRatiosError) }
    }

    /// The percentage of a part.
    pub const fn percent(&self, split: Split) -> u8 {
        match split {
            Split::Train => self.train,
            Split::Validation => self.validation,
            Split::Test => self.test,
        }
    }

    /// Where the example with that digest goes.
    pub fn split_of(&self, key: &Digest) -> Split {
        let [.., a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *key.as_bytes();
        let first = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let second = u64::from_le_bytes([i, j, k, l, m, n, o, p]);
        if below(first, u64::from(self.train), 100) {
            Split::Train
        } else if below(second, u64::from(self.validation), u64::from(self.validation) + u64::from(self.test)) {
            Split::Validation
        } else {
            Split::Test
        }
    }
}

/// Whether a number is in the first `part / whole` of all 64-bit numbers.
fn below(number: u64, part: u64, whole: u64) -> bool {
    u128::from(number) * u128::from(whole) < u128::from(part) << 64
}

impl Splitting {
    /// The ratios for so many examples.
    pub fn ratios(&self, examples: u64) -> Ratios {
        match self {
            Self::BySize if examples < SMALL => Ratios::SMALL,
            Self::BySize => Ratios::USUAL,
            Self::Fixed(ratios) => *ratios,
        }
    }
}

impl fmt::Display for Ratios {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.train, self.validation, self.test)
    }
}

impl FromStr for Ratios {
    type Err = ParseRatiosError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/').map(|part| part.trim().parse::<u8>());
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(train)), Some(Ok(validation)), Some(Ok(test)), None) => Self::new(train, validation, test),
            _ => Err(ParseRatiosError),
        }
    }
}

impl Serialize for Ratios {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: u32) -> impl Iterator<Item = Digest> {
        (0..count).map(|n| Digest::of(&n.to_le_bytes()))
    }

    #[test]
    fn parts_are_as_large_as_they_should_be() {
        for (text, expected) in
            [("80/10/10", [8000, 1000, 1000]), ("90/5/5", [9000, 500, 500]), ("0/100/0", [0, 10_000, 0])]
        {
            let ratios: Ratios = text.parse().unwrap();
            let mut counts = [0i32; 3];
            keys(10_000).for_each(|key| counts[ratios.split_of(&key) as usize] += 1);
            for (count, expected) in counts.into_iter().zip(expected) {
                assert!((count - expected).abs() <= 120, "{text}: {counts:?}");
            }
        }
        assert!("80/10/11".parse::<Ratios>().is_err());
        assert!("80/20".parse::<Ratios>().is_err());
        assert!("256/0/0".parse::<Ratios>().is_err());
    }

    #[test]
    fn at_ten_thousand_examples_only_leave_training() {
        let (small, large) = (Splitting::BySize.ratios(SMALL - 1), Splitting::BySize.ratios(SMALL));
        assert_eq!((small.to_string(), large.to_string()), ("90/5/5".to_owned(), "80/10/10".to_owned()));
        let mut moved = 0;
        for key in keys(20_000) {
            match (small.split_of(&key), large.split_of(&key)) {
                (before, after) if before == after => {}
                (Split::Train, _) => moved += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!((1800..2200).contains(&moved), "{moved}");
    }
}
