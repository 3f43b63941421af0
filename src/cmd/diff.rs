//! `gapimage diff`.

use super::{Outcome, failure::failed, inspect::failure};
use crate::report::{
    contents::Contents,
    difference::difference,
    output::{ascii_json, print},
};
use std::path::Path;

/// Says how the artifact `b` differs from `a`; that they differ is no failure.
pub fn run(a: &Path, b: &Path, json: bool) -> Outcome {
    let old = Contents::open(a).map_err(failure)?;
    let new = Contents::open(b).map_err(failure)?;
    let found = difference(&old, &new).map_err(failure)?;
    let text = if json { ascii_json(&found).map_err(failed("writing JSON"))? } else { found.to_string() };
    print(&text).map_err(failed("writing to standard output"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::Failure;

    #[test]
    fn a_missing_artifact_could_not_be_compared() {
        let dir = tempfile::tempdir().unwrap();
        let refused = run(&dir.path().join("a"), &dir.path().join("b"), false);
        assert!(matches!(refused, Err(Failure::CouldNotRun(_))), "{refused:?}");
    }
}
