//! What a recipe says of a layer of Python packages.

use crate::layer::tree::TreePath;

/// Packages of a Python index, resolved for the Python and the C library of the layers below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WheelsLayer {
    /// What is asked for, as PEP 508 has it: the recipe's own list, its file of requirements, its chosen groups.
    pub requirements: Vec<String>,
    /// Further bounds on versions, as PEP 508 has them.
    pub constraints: Vec<String>,
    /// Index to ask instead of the one of the user's settings.
    pub index: Option<String>,
    /// Indexes that are asked before it.
    pub extra_indexes: Vec<String>,
    /// Version of Python (`3.13`); that of the image's own when absent.
    pub python: Option<String>,
    /// Projects that Debian packages below bring and that are not installed again.
    pub provided: Provided,
    /// Directory in the image that becomes a virtual environment of them; when absent, they go where Debian's own Python
    /// finds them.
    pub to: Option<TreePath>,
    /// Whether they are installed.
    pub install: bool,
    /// Whether bytecode is compiled.
    pub bytecode: bool,
    /// Whether the wheels themselves are added, with an index of them.
    pub wheelhouse: bool,
    /// What comes as source.
    pub sdists: Sdists,
}

/// Projects that are built from source distributions, in the sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sdists {
    /// The projects.
    pub projects: Vec<String>,
    /// The layers that make the tree in which they are built, bottom to top; those below in the image when empty.
    pub on: Vec<String>,
    /// What they are built with beyond what they say themselves, as PEP 508 has it.
    pub requires: Vec<String>,
}

/// Projects that come from Debian packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provided {
    /// All that the packages bring.
    All,
    /// These.
    Named(Vec<String>),
}
