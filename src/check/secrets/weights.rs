//! What of a file of weights is numbers, in which nothing can be found.
//!
//! Only where its header says so, and holds: a file that is merely called like weights is looked through whole.

use crate::{
    layer::tree::Content,
    model::{gguf, safetensors},
};
use std::{io, ops::Range};

/// The parts of a file that are not the data of tensors, in order and without empty ones: all of it, unless it is weights.
///
/// # Errors
/// What the system said when it opened the file.
pub(super) fn parts_to_search(path: &[u8], content: &Content) -> io::Result<Vec<Range<u64>>> {
    let len = content.len();
    let tensors = match path.rsplit(|&byte| byte == b'.').next() {
        Some(b"safetensors") => safetensors(content)?,
        Some(b"gguf") => gguf(content)?,
        _ => Vec::new(),
    };
    let parts = around(tensors, len);
    Ok(match content {
        // To begin in the midst of what is packed costs more than to look through it.
        Content::Packed(_) if parts.iter().any(|part| part.start > 0) => around(Vec::new(), len),
        _ => parts,
    })
}

/// The data of a safetensors file; nothing if it is none.
fn safetensors(content: &Content) -> io::Result<Vec<Range<u64>>> {
    let header = safetensors::read_header(content.reader()?, content.len());
    Ok(header.map(|header| header.data..content.len()).into_iter().collect())
}

/// The tensors of a GGUF file whose lengths are known, in order; nothing if it is none.
fn gguf(content: &Content) -> io::Result<Vec<Range<u64>>> {
    let Ok(header) = gguf::read_header(content.reader()?, content.len()) else { return Ok(Vec::new()) };
    let place = |tensor: &gguf::Tensor| {
        let start = header.data.checked_add(tensor.offset)?;
        Some(start..start.checked_add(tensor.bytes?)?)
    };
    let mut tensors: Vec<Range<u64>> = header.tensors.values().filter_map(place).collect();
    tensors.sort_by_key(|tensor| tensor.start);
    Ok(tensors)
}

/// What lies before, between and after `inner`, which are in order, within the first `len` bytes.
fn around(inner: Vec<Range<u64>>, len: u64) -> Vec<Range<u64>> {
    let inner = inner.into_iter().filter(|range| !range.is_empty());
    let mut from = 0;
    let mut parts = Vec::new();
    for range in inner.chain(std::iter::once(len..len)) {
        if from < range.start {
            parts.push(from..range.start);
        }
        from = from.max(range.end);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::single_range_in_vec_init, reason = "one range is meant")]
    fn what_lies_around_ranges_is_whole_and_not_empty() {
        assert_eq!(around(vec![], 9), [0..9]);
        assert_eq!(around(vec![], 0), []);
        assert_eq!(around(vec![3..3, 4..6, 6..7], 9), [0..4, 7..9]);
        assert_eq!(around(vec![0..9], 9), []);
    }
}
