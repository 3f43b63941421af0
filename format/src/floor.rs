//! The floor: the oldest release of an appliance that may still be used.

use crate::{Digest, statement::Statement};
use serde::{Deserialize, Serialize};

/// The oldest release of a name that is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// Name of the appliance, model or data set.
    pub name: String,
    /// Lower serials are refused.
    pub serial: u64,
    /// Digest of the index of the release with exactly that serial, where it is known: another one is refused.
    pub index: Option<Digest>,
}

/// Why a release is below the floor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FloorError {
    /// The floor is about something else.
    #[error("the release is named {found}, and {expected} was expected")]
    OtherName {
        /// Name in the floor.
        expected: String,
        /// Name in the statement.
        found: String,
    },
    /// An older release.
    #[error("the release has serial {found}, and anything older than {floor} is refused: it may have known holes")]
    Older {
        /// Serial in the statement.
        found: u64,
        /// Lowest that is taken.
        floor: u64,
    },
    /// The same serial with other content.
    #[error("another release with the same serial {0} was accepted before: one of the two is not what it claims")]
    OtherContent(u64),
}

impl Floor {
    /// The floor that an accepted release sets for itself: nothing older, and nothing else with its serial.
    pub fn at(statement: &Statement) -> Self {
        let release = &statement.release;
        Self { name: release.name.clone(), serial: release.serial, index: Some(statement.index) }
    }

    /// Whether the release may be used.
    ///
    /// # Errors
    /// See [`FloorError`].
    pub fn check(&self, statement: &Statement) -> Result<(), FloorError> {
        let release = &statement.release;
        if release.name != self.name {
            return Err(FloorError::OtherName { expected: self.name.clone(), found: release.name.clone() });
        }
        if release.serial < self.serial {
            return Err(FloorError::Older { found: release.serial, floor: self.serial });
        }
        if release.serial == self.serial && self.index.is_some_and(|index| index != statement.index) {
            return Err(FloorError::OtherContent(release.serial));
        }
        Ok(())
    }

    /// The floor after this release, which [`check`](Self::check) passed, has proved healthy: its `rollback_to`, and
    /// never lower than before.
    #[must_use]
    pub fn raised_by(&self, statement: &Statement) -> Self {
        let serial = statement.release.rollback_to;
        if serial <= self.serial {
            return self.clone();
        }
        let index = (serial == statement.release.serial).then_some(statement.index);
        Self { name: self.name.clone(), serial, index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Timestamp,
        statement::{Kind, Release},
    };

    fn statement(serial: u64, rollback_to: u64, index: &[u8]) -> Statement {
        let release = Release {
            kind: Kind::Appliance,
            name: "a".into(),
            version: "1".into(),
            serial,
            rollback_to,
            architecture: "any".into(),
            source_date: Timestamp::from_seconds(0).unwrap(),
            expires: None,
        };
        Statement { release, index: Digest::of(index), length: 0, layout: Digest::of(b"") }
    }

    #[test]
    fn older_and_equal_but_different_releases_are_refused() {
        let floor = Floor::at(&statement(5, 5, b"five"));
        assert_eq!(floor.check(&statement(5, 5, b"five")), Ok(()));
        assert_eq!(floor.check(&statement(6, 5, b"six")), Ok(()));
        assert_eq!(floor.check(&statement(4, 4, b"four")), Err(FloorError::Older { found: 4, floor: 5 }));
        assert_eq!(floor.check(&statement(5, 5, b"other")), Err(FloorError::OtherContent(5)));
        let other = Floor { name: "b".into(), ..floor };
        assert!(matches!(other.check(&statement(9, 9, b"")), Err(FloorError::OtherName { .. })));
    }

    #[test]
    fn a_healthy_release_raises_the_floor_only_to_what_it_says() {
        let floor = Floor::at(&statement(5, 5, b"five"));
        assert_eq!(floor.raised_by(&statement(7, 4, b"seven")), floor);
        let raised = floor.raised_by(&statement(7, 6, b"seven"));
        assert_eq!((raised.serial, raised.index), (6, None));
        let raised = floor.raised_by(&statement(7, 7, b"seven"));
        assert_eq!((raised.serial, raised.index), (7, Some(Digest::of(b"seven"))));
    }
}
