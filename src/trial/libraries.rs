//! Shared libraries that programs of an image name, but that are nowhere in it.

use crate::layer::tree::{Content, Node, OpenContent, Tree, TreePath};
use gap_format::ReadAt;
use object::{
    Endianness,
    elf::{DT_NEEDED, FileHeader64},
    read::{
        ReadCache,
        elf::{Dyn, FileHeader},
    },
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Seek, SeekFrom},
};

/// The first bytes of an ELF file.
const MAGIC: &[u8; 4] = b"\x7fELF";
/// Libraries that come with the driver of the machine's GPU, by how their names begin.
const OF_THE_DRIVER: [&str; 8] = [
    "libcuda.so",
    "libcudadebugger.so",
    "libnvcuvid.so",
    "libnvidia-",
    "libnvoptix.so",
    "libGLX_nvidia.so",
    "libEGL_nvidia.so",
    "libvdpau_nvidia.so",
];

/// A library that is nowhere in an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MissingLibrary {
    /// What programs ask for (`DT_NEEDED`).
    pub name: String,
    /// The path of the first file that asks for it, escaped.
    pub needed_by: String,
    /// How many more do.
    pub others: usize,
}

/// What programs and libraries of `image` ask for, but no file of that name holds. Libraries of the GPU's driver are left
/// out. What cannot be read as ELF is passed over.
///
/// # Errors
/// What the system said when a file could not be read.
pub fn missing_libraries(image: &Tree) -> io::Result<Vec<MissingLibrary>> {
    let mut needed: BTreeMap<String, BTreeSet<&TreePath>> = BTreeMap::new();
    let mut names: BTreeSet<&[u8]> = BTreeSet::new();
    for (path, node) in image.iter() {
        names.insert(path.name());
        let Node::File { meta, content } = node else { continue };
        let is_library = path.name().windows(3).any(|part| part == b".so");
        if is_library || meta.mode & 0o111 != 0 {
            for name in needed_by(content)? {
                needed.entry(name).or_default().insert(path);
            }
        }
    }
    needed.retain(|name, _| {
        !names.contains(name.as_bytes()) && !OF_THE_DRIVER.iter().any(|driver| name.starts_with(driver))
    });
    let missing = needed.into_iter().filter_map(|(name, files)| {
        let needed_by = files.first()?.to_string();
        Some(MissingLibrary { name, needed_by, others: files.len() - 1 })
    });
    Ok(missing.collect())
}

/// The names in the `DT_NEEDED` entries of an ELF file; none of another file.
fn needed_by(content: &Content) -> io::Result<Vec<String>> {
    if content.len() < MAGIC.len() as u64 {
        return Ok(Vec::new());
    }
    let open = content.open()?;
    let mut magic = [0; MAGIC.len()];
    open.read_exact_at(&mut magic, 0)?;
    if magic != *MAGIC {
        return Ok(Vec::new());
    }
    let data = ReadCache::new(Reader { content: open, len: content.len(), at: 0 });
    Ok(dynamic_names(&data).unwrap_or_default())
}

fn dynamic_names(data: &ReadCache<Reader>) -> object::Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let Some((entries, strings)) = sections.dynamic(endian, data)? else { return Ok(Vec::new()) };
    let strings = sections.strings(endian, data, strings)?;
    let wanted = entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED);
    let names = wanted.filter_map(|entry| entry.string(endian, strings).ok());
    Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

/// A file's content as a stream.
struct Reader {
    content: OpenContent,
    len: u64,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..count).unwrap_or_default();
        self.content.read_exact_at(part, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.len.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tree::Meta;
    use std::{path::Path, sync::Arc};

    fn file(host: &Path) -> Node {
        let len = std::fs::metadata(host).unwrap().len();
        let content = Content::Path { path: Arc::from(host), len };
        Node::File { meta: Meta::root_owned(0o755, 0), content }
    }

    #[test]
    fn a_library_that_is_nowhere_is_named_with_who_needs_it() {
        let this = std::env::current_exe().unwrap();
        let path = |text: &str| TreePath::new(text).unwrap();
        let mut image = Tree::from_iter([(path("usr/bin/a"), file(&this)), (path("usr/bin/b"), file(&this))]);
        let missing = missing_libraries(&image).unwrap();
        let libc = missing.iter().find(|library| library.name == "libc.so.6").unwrap();
        assert_eq!((libc.needed_by.as_str(), libc.others), ("/usr/bin/a", 1));
        let text =
            Node::File { meta: Meta::root_owned(0o644, 0), content: Content::bytes(*b"\x7fELF, but not really") };
        image.insert(path("lib/libc.so.6"), text);
        assert!(missing_libraries(&image).unwrap().iter().all(|library| library.name != "libc.so.6"));
    }
}
