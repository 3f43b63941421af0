//! Images: layers merged into one tree, the file system metadata over it, and the OCI documents.

pub mod erofs;
pub mod merge;
pub mod oci;
