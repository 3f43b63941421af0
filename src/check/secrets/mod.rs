//! Looking for keys, tokens and credentials in layers. What is found is never shown, only where it lies.

mod environment;
mod patterns;
mod scan;
#[cfg(test)]
mod tests;
mod weights;

pub use environment::secret_variables;
pub use scan::{Finding, Found, Origin, scan_tree};

/// Raised when the patterns or the way in which files are read change, so that layers are scanned again.
pub const FORMAT: u64 = 4;
