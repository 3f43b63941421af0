//! EROFS metadata over layers: what is written is what a reader, the kernel and erofs-utils see.

mod entry;
mod kernel;
mod layers;
mod random;
mod reader;
mod sample;
