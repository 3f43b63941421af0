//! The tar of a layer: an OCI layer and a block device at once.
//!
//! `ustar` with PAX extended headers (POSIX.1-2001, `pax`). Beyond what every tar reader knows, a
//! layer keeps these rules, so that EROFS metadata can point into it:
//!
//! - the data of each file of [`BLOCK`] bytes or more starts on a multiple of [`BLOCK`]; the gap is a
//!   PAX `comment` record in that file's own extended header, filled with a non-digit;
//! - the whole is a multiple of [`BLOCK`] and at least [`MIN_SIZE`] bytes long;
//! - members are sorted by the bytes of their paths, except that files of [`LARGE`] bytes or more
//!   come last, followed by their hard links;
//! - times are whole seconds; numbers that do not fit their octal field are base-256;
//! - removals are OCI whiteouts (`.wh.NAME`, `.wh..wh..opq`).
//!
//! [`TarPlan`] lays a tree out without reading it and then streams it; [`read_index`] finds the
//! entries of a finished layer again and refuses everything that breaks the rules.

mod capability;
mod header;
mod index;
mod pax;
mod plan;
mod stream;
#[cfg(test)]
mod tests;

pub use index::{IndexEntry, IndexError, IndexKind, LayerIndex, read_index};
pub use plan::{PlanError, TarPlan};

/// Alignment of file data and of the whole layer, in bytes.
pub const BLOCK: u64 = 4096;
/// Shortest layer, in bytes: dm-verity needs two blocks.
pub const MIN_SIZE: u64 = 2 * BLOCK;
/// Files of this many bytes or more come last.
pub const LARGE: u64 = 64 << 20;

/// Size of a tar record, in bytes.
const RECORD: u64 = 512;
/// Prefix of the name of a file that removes another (OCI image-spec, "Whiteouts").
const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Name of the file that hides a directory's lower contents.
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
