//! The trusted core of gapimage: read, account for, sign and verify an artifact.
//!
//! No network, no clock of its own, no `unsafe`. `docs/format.md` specifies the file.

#![forbid(unsafe_code)]

mod canonical;
pub mod digest;
pub mod escape;
pub mod gpt;
pub mod read_at;
pub mod tar_header;
pub mod time;
pub mod verity;
pub mod write_at;

pub use digest::Digest;
pub use read_at::{ReadAt, Slice};
pub use time::Timestamp;
pub use write_at::WriteAt;
