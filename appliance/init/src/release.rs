//! What the boot needs to know of a release that was verified.

use gap_format::Digest;

/// A block-mounted blob: where it lies on the medium and what its reads are checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Title of the layer, or `metadata`.
    pub name: String,
    /// Digest of the whole blob.
    pub digest: Digest,
    /// First byte on the medium.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Root hash of its tree.
    pub root: Digest,
    /// First byte of the tree on the medium.
    pub tree_offset: u64,
}
