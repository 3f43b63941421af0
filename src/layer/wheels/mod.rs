//! Python packages installed from wheels, the same bytes each time.
//!
//! What comes of it is what pip would have made: modules, programs, data, `RECORD`, bytecode that is never checked
//! against its source. They go where Debian's Python looks for what the administrator installed
//! (`/usr/local/lib/python3.N/dist-packages`, before `/usr/lib/python3/dist-packages`), or into a virtual environment of
//! their own. Files keep the times that the wheel gives them; what is made here dates from 1980.

mod built;
mod bytecode;
mod entry_points;
mod error;
mod install;
mod interpreter;
mod memory;
mod opened;
mod parts;
mod record;
mod scheme;
#[cfg(test)]
mod tests;
mod unpacked;
mod wheelhouse;

pub use built::{BUILT, BuildError, Builder, build};
pub use entry_points::{EntryPointError, programs};
pub use error::{InstallError, WheelError};
pub use memory::Memory;
pub use opened::Opened;
pub use parts::{Bundle, bundles};
pub use record::{RecordError, Recorded, parse as parse_record};
pub use scheme::Scheme;
pub use unpacked::forget as forget_unpacked;
pub use wheelhouse::{index as wheelhouse_index, wheels as wheelhouse};

use super::{
    sandbox::{Sandbox, Scratch},
    tree::{Content, Meta, Node, Tree, TreePath},
};
use crate::{
    parallel::try_map,
    source::{
        debian::spool::Spool,
        wheels::{LockedWheel, target::Target},
    },
    store::Store,
};
use bytecode::Bytecode;
use install::Installed;
use std::{num::NonZeroUsize, thread::available_parallelism};

/// Time of the files that are made here: 1980-01-01, the earliest that every archive format can hold.
const FILE_DATE: i64 = super::files::FILES_DATE;

/// What compiles bytecode.
pub struct Compiler<'a> {
    /// The image below, which has the interpreter.
    pub lower: &'a Tree,
    /// Runs it.
    pub sandbox: &'a Sandbox,
    /// Where its files are kept while it runs, for so many bytes.
    pub scratch: &'a dyn Fn(u64) -> Scratch,
    /// What was compiled before, where it is known what the interpreter is.
    pub memory: Option<Memory<'a>>,
}

/// Installs wheels, which must be in the store, into a tree; with a compiler, their bytecode too.
///
/// # Errors
/// [`InstallError`].
pub fn install(
    wheels: &[&LockedWheel],
    target: &Target,
    scheme: &Scheme,
    store: &Store,
    compiler: Option<&Compiler<'_>>,
) -> Result<Tree, InstallError> {
    let trees = install_all(&[wheels], target, scheme, store, compiler)?;
    Ok(trees.into_iter().next().unwrap_or_default())
}

/// Installs several lots of wheels, each into a tree of its own; what compiles bytecode is run once for all of them.
///
/// # Errors
/// [`InstallError`].
pub fn install_all(
    lots: &[&[&LockedWheel]],
    target: &Target,
    scheme: &Scheme,
    store: &Store,
    compiler: Option<&Compiler<'_>>,
) -> Result<Vec<Tree>, InstallError> {
    let spool =
        Spool::new_in(store.session_dir()).map_err(InstallError::io("making a file in", store.session_dir()))?;
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let size = |lot: &&[&LockedWheel]| lot.iter().map(|wheel| wheel.size).sum();
    let lots = try_map(lots, threads, size, |lot| install::install(lot, target, scheme, store, &spool))?;
    let all: Vec<&Installed> = lots.iter().flatten().collect();
    let bytecode = match compiler {
        None => vec![Bytecode::default(); all.len()],
        Some(compiler) => bytecode::compile(&all, scheme, target.python, compiler, &spool)?,
    };
    let mut bytecode = bytecode.iter();
    let lay = |lot: &Vec<Installed>| {
        let mut tree = Tree::new();
        for (wheel, bytecode) in lot.iter().zip(bytecode.by_ref()) {
            wheel.lay(&mut tree, bytecode, scheme)?;
        }
        Ok(tree)
    };
    lots.iter().map(lay).collect()
}

/// What makes a directory a virtual environment of the image's Python (PEP 405); what Debian's packages bring is seen
/// from it.
///
/// # Errors
/// [`InstallError::Path`].
pub fn environment(target: &Target, scheme: &Scheme) -> Result<Tree, InstallError> {
    let series = target.python.series();
    let text = format!(
        "home = /usr/bin\ninclude-system-site-packages = true\nversion = {}\nexecutable = /usr/bin/python{series}\n",
        target.python
    );
    let at = |directory: &TreePath, name: &str| directory.join(name).map_err(|reason| InstallError::path(name, reason));
    let meta = |mode| Meta::root_owned(mode, FILE_DATE);
    let link = |target: String| Node::Symlink { meta: meta(0o777), target: target.into_bytes() };
    let mut tree = Tree::new();
    for directory in [&scheme.data, &scheme.scripts] {
        tree.insert(directory.clone(), Node::Directory { meta: meta(0o755), opaque: false });
    }
    let content = Content::bytes(text.into_bytes());
    tree.insert(at(&scheme.data, "pyvenv.cfg")?, Node::File { meta: meta(0o644), content });
    tree.insert(at(&scheme.scripts, &format!("python{series}"))?, link(format!("/usr/bin/python{series}")));
    for name in ["python", "python3"] {
        tree.insert(at(&scheme.scripts, name)?, link(format!("python{series}")));
    }
    Ok(tree)
}
