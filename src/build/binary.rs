//! Binaries of a Cargo workspace, built in the sandbox on a layer that holds compiler and linker.

use super::{Problem, Request};
use crate::{
    layer::{
        cargo::{self, Finished, Order, Runner},
        sandbox::{Bind, Job, Sandbox, SandboxError, Scratch, Step},
        tree::Tree,
    },
    recipe::CargoLayer,
    source::cargo::LockedCargo,
    store::LayerKey,
};
use std::io;

/// Shows programs a build root in the sandbox.
struct Sandboxed<'a> {
    sandbox: Sandbox,
    root: &'a Tree,
    scratch: tempfile::TempDir,
}

impl Runner for Sandboxed<'_> {
    fn run(&self, step: &cargo::Step<'_>) -> io::Result<Finished> {
        let binds = step.binds.iter().map(|bind| Bind {
            host: bind.source.clone(),
            inside: bind.target.into(),
            writable: bind.writable,
        });
        let environment = step.env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let job = Job {
            root: self.root,
            scratch: Scratch::Directory(self.scratch.path().to_owned()),
            binds: binds.collect(),
            steps: vec![Step { command: step.command.clone(), environment, directory: step.dir.into() }],
            source_date: 0,
            time_limit: step.time_limit,
        };
        match self.sandbox.run(&job) {
            Ok(outcome) => {
                Ok(Finished { success: true, output: String::from_utf8_lossy(&outcome.output).into_owned() })
            }
            Err(SandboxError::Step { output, .. }) => Ok(Finished { success: false, output }),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

/// Builds the one binary of a layer on the tree of its build root, whose key is `root_key`.
pub fn build(
    request: &Request<'_>,
    layer: &CargoLayer,
    locked: &LockedCargo,
    root: &Tree,
    root_key: &LayerKey,
) -> Result<Tree, Problem> {
    let session = request.store.session_dir();
    let runner =
        Sandboxed { sandbox: Sandbox::new(request.program, session), root, scratch: tempfile::tempdir_in(session)? };
    let order = Order { layer, locked, arch: request.recipe.appliance.arch, root_key };
    let waiting = || (request.step)("another build is compiling with the same crates; waiting");
    Ok(cargo::build(&order, &|path| root.get(path).is_some(), request.store, &runner, waiting)?)
}
