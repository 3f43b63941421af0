//! Debian packages as a layer: unpacked, and configured where the recipe asks for it.

use super::{Problem, Request};
use crate::{
    boot::{depmod::ModuleTables, modules::Kernel},
    layer::{
        configure::{Installation, PackageInput, Workplace, configured, unconfigured},
        files::FILES_DATE,
        sandbox::Sandbox,
        tree::{Content, Meta, Node, Tree},
    },
    recipe::DebianLayer,
    source::debian::{
        LockedPackage,
        deb::{self, Limits},
        fetch::discard_damaged,
        spool::Spool,
    },
};
use std::{num::NonZeroUsize, path::PathBuf, thread::available_parallelism, time::Duration};

/// How long all maintainer scripts of a layer may take together.
const SCRIPTS_LIMIT: Duration = Duration::from_secs(3600);

/// Makes the layer of `packages` on `lower`.
pub fn build(
    request: &Request<'_>,
    layer: &DebianLayer,
    lower: &Tree,
    packages: &[LockedPackage],
) -> Result<Tree, Problem> {
    let session = request.store.session_dir();
    let spool = Spool::new_in(session)?;
    let packages = unpack(request, packages, &spool)?;
    let installation = Installation { lower, packages: &packages, source_date: FILES_DATE };
    if layer.configure {
        let scratch = tempfile::tempdir_in(session)?;
        let sandbox = Sandbox::new(request.program, session);
        let workplace = Workplace { sandbox: &sandbox, scratch: scratch.path(), time_limit: SCRIPTS_LIMIT };
        return Ok(configured(&installation, &workplace)?);
    }
    let mut tree = unconfigured(&installation)?;
    add_module_tables(&mut tree)?;
    Ok(tree)
}

/// Unpacks in the order in which dependencies come first.
fn unpack(request: &Request<'_>, packages: &[LockedPackage], spool: &Spool) -> Result<Vec<PackageInput>, Problem> {
    let mut ordered: Vec<&LockedPackage> = packages.iter().collect();
    ordered.sort_by_key(|package| package.order);
    let paths: Vec<PathBuf> = ordered.iter().map(|package| request.store.source_path(&package.sha256)).collect();
    let sources: Vec<deb::Source<'_>> =
        ordered.iter().zip(&paths).map(|(package, path)| deb::Source { package, path }).collect();
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let debs = deb::unpack_all(&sources, spool, &Limits::default(), threads);
    if let Err(error) = &debs {
        discard_damaged(request.store, error)?;
    }
    let debs = debs?;
    Ok(debs.into_iter().map(PackageInput::from).collect())
}

/// A kernel whose scripts did not run lacks the tables by which modules are found.
fn add_module_tables(tree: &mut Tree) -> Result<(), Problem> {
    let Ok(kernel) = Kernel::find(tree, None) else { return Ok(()) };
    let tables = ModuleTables::of(tree, &kernel)?;
    for (name, text) in tables.files() {
        let file = Node::File { meta: Meta::root_owned(0o644, FILES_DATE), content: Content::bytes(text.as_bytes()) };
        tree.insert(kernel.file(name)?, file);
    }
    Ok(())
}
