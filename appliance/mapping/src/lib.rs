//! From the blobs of a verified release to a mounted image: a slice of the medium, a hash tree over it, EROFS on top.
//!
//! `gap-init` maps the image that it boots, `gapd` those that jobs run in; both by this code, as root. A blob has one
//! device-mapper name that follows from its digest, so what is mapped once serves every image that holds the blob.

pub mod device_mapper;
pub mod erofs;
mod ioctl;
pub mod map;

pub use device_mapper::{Control, Mapped, Number};
pub use erofs::MountError;
pub use map::{MapError, Mapping, map};
