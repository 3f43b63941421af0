//! Streaming the contents of files, and noticing those that changed.

use crate::layer::{
    sink::Sink,
    tree::{Compared, Content},
};
use std::{fs::File, io};

/// Appends what a file holds.
///
/// # Errors
/// What the system said, naming a source that cannot be opened; [`io::ErrorKind::InvalidData`] for a source that has
/// another length by now, and for one that is not as it should be.
pub(super) fn write_content(content: &Content, sink: &mut dyn Sink, compared: Compared) -> io::Result<()> {
    match content {
        Content::Bytes(data) => sink.push(data),
        Content::Slice { file, offset, len } => sink.copy(&**file, *offset, *len),
        Content::Packed(packed) => packed.stream(sink, compared),
        Content::Path { path, len } => {
            let explain =
                |error: io::Error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()));
            let file = File::open(path).map_err(explain)?;
            let found = file.metadata().map_err(explain)?.len();
            if found != *len {
                let message = format!("{} changed during the build: {len} bytes before, {found} now", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            sink.copy(&file, 0, *len)
        }
    }
}
