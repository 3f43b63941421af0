//! Signed archives on a mirror that may be down, slow, truncating, lying, expired or unsigned.

mod archive;
mod downloads;
mod keys;
mod releases;
mod server;
