//! `gapimage test`.

mod artifact;
mod recipe;

use super::{Failure, Outcome, TestArgs, failure::failed};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Tries the tests of a recipe, or those that an artifact says it passed.
pub fn run(args: &TestArgs) -> Outcome {
    let looking = format!("looking at `{}`", args.file.display());
    if is_artifact(&args.file).map_err(failed(looking))? {
        return artifact::run(args);
    }
    if args.trust.is_some() {
        return Err(Failure::usage("a recipe is not verified", "leave out --trust, or name an artifact"));
    }
    recipe::run(args)
}

/// Whether this is an artifact, by the first header of its archive: no recipe holds a zero byte (TOML 1.0).
fn is_artifact(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(512).read_to_end(&mut head)?;
    Ok(head.contains(&0))
}
