//! EROFS metadata over layers: one small blob that makes the files inside layer tars mountable in place.
//!
//! The blob holds directories, inodes, symbolic links and small files; the whole blocks of larger files stay in
//! the layers, which the kernel gets as further devices, one per layer, lowest first:
//! `mount -t erofs -o device=LAYER0,device=LAYER1 BLOB DIRECTORY`.
//!
//! **How a file lies.** Data of less than a block lies behind its inode, or in a block of its own where it would
//! cross a block boundary there. A larger file whose data starts on a block boundary of its layer is chunk-based:
//! chunks of the layer's device, and the end of the file (the last, partial block and what whole chunks leave over)
//! as a last chunk in the blob, so that the page past the end of the file reads as zeros and not as the next tar
//! header. The last file of a layer has zeros behind it and is a single chunk, however large. A file whose data does
//! not start on a block boundary is copied into the blob; gapimage's own layers have none.
//!
//! Flat inodes over the unified address space, with the last block inline, would be smaller (measured on a `/usr` of
//! 113 000 files and 6 GB: 73 MB of tails instead of 165 MB of blocks and indexes), and kernels read them; but
//! `fsck.erofs` up to 1.8.6 at least takes such data from the wrong device, and a second reader that agrees is worth
//! more than 2 % of size.
//!
//! Everything is planned without reading data; the blob is then written in one pass, in memory proportional to
//! the number of files.

mod directory;
mod format;
mod pack;
mod plan;
mod writer;
mod xattr;

pub use plan::{ErofsError, ErofsPlan};
pub use xattr::XattrError;
