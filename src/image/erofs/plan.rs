//! Where everything in the blob goes, decided without reading any data.

use super::{
    directory::Listing,
    format::{
        BLOCK, CHUNK_BITS_MAX, CHUNK_INDEX_LEN, DEVICE_SLOT_LEN, INODE_LEN, INODE_SLOT, Layout, SUPERBLOCK_LEN,
        SUPERBLOCK_OFFSET, device_number,
    },
    pack::Packer,
    xattr::{self, XattrError},
};
use crate::image::merge::{Extent, Inode, InodeId, InodeKind, Merged};

/// Why a tree cannot become an EROFS image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErofsError {
    /// An extended attribute cannot be stored.
    #[error("/{}: {source}", path.escape_ascii())]
    Xattr {
        /// The file.
        path: Vec<u8>,
        /// What is wrong with it.
        source: XattrError,
    },
    /// A device number cannot be stored.
    #[error("/{}: the device number {major}:{minor} is beyond 4095:1048575", path.escape_ascii())]
    Device {
        /// The device node.
        path: Vec<u8>,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A layer cannot be a device.
    #[error("layer {}: its length of {size} bytes is not a multiple of {BLOCK}, so it cannot be mounted", .layer + 1)]
    LayerSize {
        /// The layer, counted from 0.
        layer: usize,
        /// Its length.
        size: u64,
    },
    /// More layers than there can be devices.
    #[error("{0} layers are more than the 4096 devices that one file system can span; merge some")]
    TooManyLayers(usize),
    /// Metadata and layers together exceed 32-bit block addresses.
    #[error("metadata and layers together have {0} blocks of 4 KiB; EROFS reaches 4294967295 (16 TiB)")]
    TooLarge(u64),
}

/// Most layers of one image; with it the root's number still fits into its 16 bits.
const LAYERS_MAX: usize = 4096;

/// The plan of a metadata blob: exact size and the place of everything.
#[derive(Debug)]
pub struct ErofsPlan<'a> {
    pub(super) tree: &'a Merged,
    /// One for each inode of the tree.
    pub(super) places: Vec<Place>,
    /// The directory that holds each directory; the root holds itself. Unused for others.
    pub(super) parents: Vec<InodeId>,
    /// Blocks of superblock, device table and inodes; data blocks follow.
    pub(super) inode_blocks: u64,
    /// Blocks of the whole blob.
    pub(super) blocks: u64,
    /// For each layer its length and its first block in the unified address space, in blocks.
    pub(super) devices: Vec<(u32, u32)>,
}

/// Where one inode goes.
#[derive(Debug)]
pub(super) struct Place {
    /// Offset of the inode in the blob.
    pub offset: u64,
    /// Layout of its data.
    pub layout: Layout,
    /// Length of its data.
    pub size: u64,
    /// Its xattr area, encoded.
    pub xattrs: Vec<u8>,
    /// Where the whole blocks of its data are.
    pub body: Body,
}

/// Where the blocks of an inode's data are that are not inline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// There are none.
    None,
    /// In the blob: `count` blocks from block `first` of the data area. The last may be partial.
    Own { first: u64, count: u64 },
    /// In a layer; the end of the file in the blob if something follows the file in its layer.
    Chunks(Chunks),
}

/// How a file lies in chunks of `1 << bits` blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunks {
    /// Number of the layer.
    pub layer: usize,
    /// First block within the layer.
    pub block: u64,
    /// Blocks that lie in the layer.
    pub count: u64,
    /// Size of a chunk, as a logarithm of blocks.
    pub bits: u32,
    /// The last chunk, if the blob holds it: its first block in the data area, and its blocks.
    pub tail: Option<(u64, u64)>,
}

impl Chunks {
    /// How many chunks the layer holds.
    pub fn in_layer(&self) -> u64 {
        self.count.div_ceil(1 << self.bits)
    }

    /// Length of the array of indexes in bytes.
    fn index_len(&self) -> u64 {
        (self.in_layer() + u64::from(self.tail.is_some())) * CHUNK_INDEX_LEN
    }
}

impl Place {
    /// The inode's number.
    pub fn nid(&self) -> u64 {
        self.offset / INODE_SLOT
    }

    /// How many bytes of the data lie behind the inode.
    pub fn inline_len(&self) -> u64 {
        if self.layout == Layout::FlatInline { self.size % BLOCK } else { 0 }
    }
}

impl Body {
    /// How many blocks of the data area it takes.
    fn own_blocks(self) -> u64 {
        match self {
            Self::Own { count, .. } => count,
            Self::Chunks(chunks) => chunks.tail.map_or(0, |(_, blocks)| blocks),
            Self::None => 0,
        }
    }
}

impl<'a> ErofsPlan<'a> {
    /// Plans the blob for `tree`.
    ///
    /// # Errors
    /// [`ErofsError`] where EROFS cannot express the tree.
    pub fn new(tree: &'a Merged) -> Result<Self, ErofsError> {
        let layers = tree.layer_sizes();
        if layers.len() > LAYERS_MAX {
            return Err(ErofsError::TooManyLayers(layers.len()));
        }
        let parents = parents(tree);
        let reserved = SUPERBLOCK_OFFSET + SUPERBLOCK_LEN + layers.len() as u64 * DEVICE_SLOT_LEN;
        let mut packer = Packer::new(reserved);
        let mut data_blocks = 0;
        let mut places = Vec::with_capacity(tree.inodes().len());
        for (id, inode) in tree.inodes().iter().enumerate() {
            let place = place(tree, id, inode, &parents, data_blocks, &mut packer)?;
            data_blocks += place.body.own_blocks();
            places.push(place);
        }
        let inode_blocks = packer.blocks();
        // dm-verity wants two blocks at least.
        let blocks = (inode_blocks + data_blocks).max(2);
        let devices = devices(layers, blocks)?;
        Ok(Self { tree, places, parents, inode_blocks, blocks, devices })
    }

    /// Length of the blob in bytes: a multiple of 4096, at least 8192.
    pub fn size(&self) -> u64 {
        self.blocks * BLOCK
    }
}

/// The directory that holds each directory.
fn parents(tree: &Merged) -> Vec<InodeId> {
    let mut parents = vec![0; tree.inodes().len()];
    for (id, inode) in tree.inodes().iter().enumerate() {
        if let InodeKind::Directory(children) = &inode.kind {
            for &child in children.values() {
                if let Some(parent) = parents.get_mut(child) {
                    *parent = id;
                }
            }
        }
    }
    parents
}

/// Length and place of each layer in the unified address space, in blocks.
fn devices(layers: &[u64], blob_blocks: u64) -> Result<Vec<(u32, u32)>, ErofsError> {
    let total = blob_blocks + layers.iter().map(|size| size.div_ceil(BLOCK)).sum::<u64>();
    let narrow = |blocks: u64| u32::try_from(blocks).map_err(|_| ErofsError::TooLarge(total));
    narrow(total)?;
    let mut next = blob_blocks;
    let mut devices = Vec::with_capacity(layers.len());
    for (layer, &size) in layers.iter().enumerate() {
        if !size.is_multiple_of(BLOCK) {
            return Err(ErofsError::LayerSize { layer, size });
        }
        devices.push((narrow(size / BLOCK)?, narrow(next)?));
        next += size / BLOCK;
    }
    Ok(devices)
}

/// Decides the layout of one inode and packs it. `next_data` is the first free block of the data area.
fn place(
    tree: &Merged,
    id: InodeId,
    inode: &Inode,
    parents: &[InodeId],
    next_data: u64,
    packer: &mut Packer,
) -> Result<Place, ErofsError> {
    let path = || tree.walk().find(|(_, other)| std::ptr::eq(*other, inode)).map(|(path, _)| path).unwrap_or_default();
    let xattrs = xattr::encode(&inode.meta.xattrs).map_err(|source| ErofsError::Xattr { path: path(), source })?;
    let head = INODE_LEN + xattrs.len() as u64;
    let (size, layout, body) = match &inode.kind {
        InodeKind::Directory(children) => {
            let size = Listing::new(children, id, parents.get(id).copied().unwrap_or_default()).size();
            let (layout, body) = flat(head, size, next_data);
            (size, layout, body)
        }
        InodeKind::Symlink(target) => {
            let size = target.len() as u64;
            let (layout, body) = flat(head, size, next_data);
            (size, layout, body)
        }
        InodeKind::File(extent) => {
            let (layout, body) = file(head, extent, tree.layer_sizes(), next_data);
            (extent.len, layout, body)
        }
        InodeKind::CharDevice(device) | InodeKind::BlockDevice(device) => {
            if device_number(device.major, device.minor).is_none() {
                return Err(ErofsError::Device { path: path(), major: device.major, minor: device.minor });
            }
            (0, Layout::FlatPlain, Body::None)
        }
        InodeKind::Fifo => (0, Layout::FlatPlain, Body::None),
    };
    let behind = match body {
        // The array is aligned, hence counted from the aligned end of the head.
        Body::Chunks(chunks) => head.next_multiple_of(CHUNK_INDEX_LEN) - head + chunks.index_len(),
        _ if layout == Layout::FlatInline => size % BLOCK,
        _ => 0,
    };
    Ok(Place { offset: packer.place(head + behind), layout, size, xattrs, body })
}

/// Layout of data that lies in the blob: whole blocks in the data area, the rest behind the inode where it fits.
fn flat(head: u64, size: u64, next_data: u64) -> (Layout, Body) {
    let rest = size % BLOCK;
    let (layout, count) = if rest > 0 && head + rest <= BLOCK {
        (Layout::FlatInline, size / BLOCK)
    } else {
        (Layout::FlatPlain, size.div_ceil(BLOCK))
    };
    (layout, if count == 0 { Body::None } else { Body::Own { first: next_data, count } })
}

/// Layout of a regular file.
fn file(head: u64, extent: &Extent, layers: &[u64], next_data: u64) -> (Layout, Body) {
    let (count, rest) = (extent.len / BLOCK, extent.len % BLOCK);
    if count == 0 || !extent.offset.is_multiple_of(BLOCK) {
        return flat(head, extent.len, next_data);
    }
    let (layer, block) = (extent.layer, extent.offset / BLOCK);
    let padded_end = extent.offset + extent.len.next_multiple_of(BLOCK);
    let zeros_follow = extent.ends_layer && layers.get(layer).is_some_and(|&size| padded_end <= size);
    let chunks = if rest == 0 || zeros_follow {
        let count = extent.len.div_ceil(BLOCK);
        let bits = count.next_power_of_two().trailing_zeros().min(CHUNK_BITS_MAX);
        Chunks { layer, block, count, bits, tail: None }
    } else {
        let bits = cheapest_chunk(count);
        let in_layer = count >> bits << bits;
        Chunks { layer, block, count: in_layer, bits, tail: Some((next_data, count - in_layer + 1)) }
    };
    (Layout::ChunkBased, Body::Chunks(chunks))
}

/// The chunk size, as a logarithm of blocks, that costs the blob least for a file of `whole` blocks and a partial
/// one. What is left over by whole chunks is copied into the blob with the partial block, because it has to be one
/// last chunk; smaller chunks leave over less but take more indexes.
fn cheapest_chunk(whole: u64) -> u32 {
    let cost = |bits: u32| ((whole % (1 << bits)) + 1) * BLOCK + ((whole >> bits) + 1) * CHUNK_INDEX_LEN;
    (0..=CHUNK_BITS_MAX).rev().min_by_key(|&bits| cost(bits)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_leave_little_to_copy_and_few_indexes() {
        assert_eq!(cheapest_chunk(1), 0);
        assert_eq!(cheapest_chunk(12), 2, "three chunks of four blocks leave nothing over");
        assert_eq!(cheapest_chunk(1 << 20), 20);
        let whole = (4 << 30) / BLOCK + 12_345;
        let bits = cheapest_chunk(whole);
        let cost = (whole % (1 << bits)) * BLOCK + (whole >> bits) * CHUNK_INDEX_LEN;
        assert!(bits >= 4 && cost < 1 << 20, "chunks of 2^{bits} blocks cost {cost} bytes");
    }

    #[test]
    fn a_file_that_ends_its_layer_is_one_chunk() {
        let extent = Extent { layer: 1, offset: 8192, len: (8 << 30) + 5, ends_layer: true };
        let layers = [8192, 8192 + (8 << 30) + 4096];
        let (_, Body::Chunks(chunks)) = file(64, &extent, &layers, 0) else { panic!("not in chunks") };
        assert_eq!((chunks.in_layer(), chunks.tail, chunks.block), (1, None, 2));
        let (_, Body::Chunks(chunks)) = file(64, &Extent { ends_layer: false, ..extent }, &layers, 7) else {
            panic!("not in chunks")
        };
        assert_eq!(chunks.tail, Some((7, 1)));
    }

    #[test]
    fn what_cannot_be_a_device_is_refused() {
        let refused = |size| {
            let index = crate::layer::tar::LayerIndex { entries: Vec::new(), size };
            ErofsPlan::new(&crate::image::merge::merge(&[&index]).unwrap()).unwrap_err()
        };
        assert_eq!(refused(5000), ErofsError::LayerSize { layer: 0, size: 5000 });
        assert!(matches!(refused(1 << 45), ErofsError::TooLarge(_)));
    }
}
