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
mod opened;
mod parts;
mod record;
mod scheme;
#[cfg(test)]
mod tests;
mod wheelhouse;

pub use built::{BUILT, BuildError, Builder, build};
pub use entry_points::{EntryPointError, programs};
pub use error::{InstallError, WheelError};
pub use opened::Opened;
pub use parts::{Bundle, bundles};
pub use record::{RecordError, Recorded, parse as parse_record};
pub use scheme::Scheme;
pub use wheelhouse::{index as wheelhouse_index, wheels as wheelhouse};

use super::{
    sandbox::{Sandbox, Scratch},
    tree::{Content, Meta, Node, Tree, TreePath},
};
use crate::{
    source::{
        debian::spool::Spool,
        wheels::{LockedWheel, target::Target},
    },
    store::Store,
};

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
    let spool =
        Spool::new_in(store.session_dir()).map_err(InstallError::io("making a file in", store.session_dir()))?;
    let installed = install::install(wheels, target, scheme, store, &spool)?;
    let bytecode = match compiler {
        None => Tree::new(),
        Some(compiler) => {
            let Compiler { lower, sandbox, scratch } = compiler;
            bytecode::compile(&installed, scheme, target.python, lower, sandbox, scratch)?
        }
    };
    let mut tree = Tree::new();
    for wheel in &installed {
        wheel.lay(&mut tree, &bytecode, scheme)?;
    }
    Ok(tree)
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
