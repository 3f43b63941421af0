//! What a recipe says of a layer of Python packages.

/// Packages of a Python index, resolved for the Python and the C library of the layers below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WheelsLayer {
    /// What is asked for, as PEP 508 has it.
    pub requirements: Vec<String>,
    /// Further bounds on versions, as PEP 508 has them.
    pub constraints: Vec<String>,
    /// Version of Python (`3.13`); that of the image's own when absent.
    pub python: Option<String>,
}
