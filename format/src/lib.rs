//! The trusted core of gapimage: read, account for, sign and verify an artifact.
//!
//! No network, no clock of its own, no `unsafe`. `docs/format.md` specifies the file.

#![forbid(unsafe_code)]

pub mod canonical;
pub mod digest;
pub mod dsse;
pub mod error;
pub mod escape;
pub mod floor;
pub mod frame;
pub mod gpt;
pub mod head;
pub mod key;
pub mod layout;
pub mod medium;
pub mod oci;
pub mod read_at;
pub mod release;
pub mod sign;
pub mod statement;
pub mod tar_header;
pub mod time;
pub mod trust;
pub mod verify;
pub mod verity;
pub mod write_at;
pub mod writer;

pub use digest::Digest;
pub use error::VerifyError;
pub use read_at::{ReadAt, Slice};
pub use release::Release;
pub use time::Timestamp;
pub use write_at::WriteAt;
