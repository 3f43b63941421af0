//! Writing of the planned blob, in one pass from its first byte to its last.

use super::{
    directory::Listing,
    format::{
        BLOCK, CHUNK_INDEX_LEN, ChunkIndex, DeviceSlot, FileType, InodeRecord, SUPERBLOCK_OFFSET, Superblock,
        chunk_format, device_number,
    },
    plan::{Body, Chunks, ErofsPlan, Place},
    xattr,
};
use crate::image::merge::{Extent, Inode, InodeId, InodeKind};
use gap_format::ReadAt;
use std::io::{self, Write};

/// How much of a file is copied at once.
const COPY_LEN: u64 = 64 * 1024;

impl ErofsPlan<'_> {
    /// Writes the blob: exactly [`ErofsPlan::size`] bytes. Reads the inline data, and nothing else, from `layers`,
    /// which are those of the merge in their order.
    ///
    /// # Errors
    /// What reading and writing said; `InvalidInput` if a layer is missing; `InvalidData` if a layer that ends
    /// with a file has other than zeros behind it.
    pub fn write(&self, out: &mut dyn Write, layers: &[&dyn ReadAt]) -> io::Result<()> {
        if layers.len() != self.devices.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the tree has {} layers, but {} were given to read", self.devices.len(), layers.len()),
            ));
        }
        let mut out = Output { out, at: 0, layers };
        self.write_head(&mut out)?;
        self.write_inodes(&mut out)?;
        out.pad_to(self.inode_blocks * BLOCK)?;
        self.write_data(&mut out)?;
        out.pad_to(self.size())
    }

    fn write_head(&self, out: &mut Output) -> io::Result<()> {
        let root = self.places.first().map(Place::nid).unwrap_or_default();
        let superblock = Superblock {
            root_nid: u16::try_from(root).map_err(io::Error::other)?,
            inodes: self.places.len() as u64,
            blocks: narrow(self.blocks)?,
            devices: u16::try_from(self.devices.len()).map_err(io::Error::other)?,
        };
        out.pad_to(SUPERBLOCK_OFFSET)?;
        out.put(&superblock.encode())?;
        for (number, &(blocks, mapped_block)) in self.devices.iter().enumerate() {
            let tag = format!("layer{number}");
            out.put(&DeviceSlot { tag, blocks, mapped_block }.encode())?;
        }
        Ok(())
    }

    fn write_inodes(&self, out: &mut Output) -> io::Result<()> {
        let mut order: Vec<(InodeId, &Place, &Inode)> =
            self.places.iter().zip(self.tree.inodes()).enumerate().map(|(id, (p, i))| (id, p, i)).collect();
        order.sort_unstable_by_key(|(_, place, _)| place.offset);
        for (id, place, inode) in order {
            out.pad_to(place.offset)?;
            out.put(&self.record(id, place, inode)?.encode())?;
            out.put(&place.xattrs)?;
            if let Body::Chunks(chunks) = &place.body {
                out.pad_to(out.at.next_multiple_of(CHUNK_INDEX_LEN))?;
                self.write_chunk_indexes(chunks, out)?;
            }
            let whole = place.size - place.inline_len();
            match &inode.kind {
                _ if place.inline_len() == 0 => {}
                InodeKind::File(extent) => out.copy(extent, whole, place.inline_len())?,
                _ => {
                    let data = self.own_data(id, inode);
                    out.put(usize::try_from(whole).ok().and_then(|at| data.get(at..)).unwrap_or_default())?;
                }
            }
        }
        Ok(())
    }

    /// Writes the data area: what [`Body`] says lies in the blob, in the order of the inodes.
    fn write_data(&self, out: &mut Output) -> io::Result<()> {
        for (id, (place, inode)) in self.places.iter().zip(self.tree.inodes()).enumerate() {
            match (place.body, &inode.kind) {
                (Body::Own { first, count }, kind) => {
                    out.expect_at((self.inode_blocks + first) * BLOCK)?;
                    let len = place.size - place.inline_len();
                    if let InodeKind::File(extent) = kind {
                        out.copy(extent, 0, len)?;
                    } else {
                        let data = self.own_data(id, inode);
                        out.put(usize::try_from(len).ok().and_then(|len| data.get(..len)).unwrap_or_default())?;
                    }
                    out.pad_to((self.inode_blocks + first + count) * BLOCK)?;
                }
                (Body::Chunks(Chunks { count, tail: Some((first, blocks)), .. }), InodeKind::File(extent)) => {
                    out.expect_at((self.inode_blocks + first) * BLOCK)?;
                    out.copy(extent, count * BLOCK, place.size - count * BLOCK)?;
                    out.pad_to((self.inode_blocks + first + blocks) * BLOCK)?;
                }
                (Body::Chunks(_), InodeKind::File(extent)) => out.expect_zeros_behind(extent)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn record(&self, id: InodeId, place: &Place, inode: &Inode) -> io::Result<InodeRecord> {
        Ok(InodeRecord {
            layout: place.layout,
            xattr_units: xattr::units(&place.xattrs).unwrap_or_default(),
            file_type: file_type(inode),
            mode: inode.meta.mode,
            size: place.size,
            place: self.first_block(place, inode)?,
            ino: u32::try_from(id + 1).unwrap_or(u32::MAX),
            uid: inode.meta.uid,
            gid: inode.meta.gid,
            mtime: inode.meta.mtime,
            links: inode.links,
        })
    }

    /// First block, chunk format, or device number.
    fn first_block(&self, place: &Place, inode: &Inode) -> io::Result<u32> {
        if let InodeKind::CharDevice(device) | InodeKind::BlockDevice(device) = &inode.kind {
            return Ok(device_number(device.major, device.minor).unwrap_or_default());
        }
        match place.body {
            Body::None => Ok(0),
            Body::Own { first, .. } => narrow(self.inode_blocks + first),
            Body::Chunks(chunks) => Ok(chunk_format(chunks.bits)),
        }
    }

    /// Writes the indexes of a file: its chunks in the layer, then the last one in the blob.
    fn write_chunk_indexes(&self, chunks: &Chunks, out: &mut Output) -> io::Result<()> {
        let device = u16::try_from(chunks.layer + 1).map_err(io::Error::other)?;
        for chunk in 0..chunks.in_layer() {
            let block = narrow(chunks.block + (chunk << chunks.bits))?;
            out.put(&ChunkIndex { device, block }.encode())?;
        }
        if let Some((first, _)) = chunks.tail {
            out.put(&ChunkIndex { device: 0, block: narrow(self.inode_blocks + first)? }.encode())?;
        }
        Ok(())
    }

    /// The data of a directory or a symbolic link.
    fn own_data(&self, id: InodeId, inode: &Inode) -> Vec<u8> {
        match &inode.kind {
            InodeKind::Symlink(target) => target.clone(),
            InodeKind::Directory(children) => {
                let parent = self.parents.get(id).copied().unwrap_or_default();
                Listing::new(children, id, parent).encode(|child| {
                    let nid = self.places.get(child).map(Place::nid).unwrap_or_default();
                    (nid, self.tree.inodes().get(child).map_or(FileType::Regular, file_type))
                })
            }
            _ => Vec::new(),
        }
    }
}

/// A block number as 32 bits, which the plan has made sure of.
fn narrow(block: u64) -> io::Result<u32> {
    u32::try_from(block).map_err(io::Error::other)
}

fn file_type(inode: &Inode) -> FileType {
    match inode.kind {
        InodeKind::Directory(_) => FileType::Directory,
        InodeKind::File(_) => FileType::Regular,
        InodeKind::Symlink(_) => FileType::Symlink,
        InodeKind::CharDevice(_) => FileType::CharDevice,
        InodeKind::BlockDevice(_) => FileType::BlockDevice,
        InodeKind::Fifo => FileType::Fifo,
    }
}

fn missing_layer(layer: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("layer {} was not given to read", layer + 1))
}

/// The blob so far, and the layers that data comes from.
struct Output<'a> {
    out: &'a mut dyn Write,
    at: u64,
    layers: &'a [&'a dyn ReadAt],
}

impl Output<'_> {
    fn put(&mut self, data: &[u8]) -> io::Result<()> {
        self.at += data.len() as u64;
        self.out.write_all(data)
    }

    fn pad_to(&mut self, offset: u64) -> io::Result<()> {
        const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
        self.expect_before(offset)?;
        while self.at < offset {
            let len = usize::try_from((offset - self.at).min(BLOCK)).unwrap_or(ZEROS.len());
            self.put(ZEROS.get(..len).unwrap_or(&ZEROS))?;
        }
        Ok(())
    }

    fn expect_before(&self, offset: u64) -> io::Result<()> {
        if self.at > offset {
            return Err(io::Error::other(format!("the plan is off: at byte {} already, {offset} expected", self.at)));
        }
        Ok(())
    }

    fn expect_at(&self, offset: u64) -> io::Result<()> {
        if self.at < offset {
            return Err(io::Error::other(format!("the plan is off: at byte {} only, {offset} expected", self.at)));
        }
        self.expect_before(offset)
    }

    /// Copies `len` bytes of a file, from byte `skip` of it.
    fn copy(&mut self, extent: &Extent, skip: u64, len: u64) -> io::Result<()> {
        let layer = self.layers.get(extent.layer).ok_or_else(|| missing_layer(extent.layer))?;
        let mut buffer = vec![0; usize::try_from(len.min(COPY_LEN)).map_err(io::Error::other)?];
        let mut done = 0;
        while done < len {
            let piece = usize::try_from((len - done).min(COPY_LEN)).map_err(io::Error::other)?;
            let part = buffer.get_mut(..piece).unwrap_or_default();
            layer.read_exact_at(part, extent.offset + skip + done)?;
            self.out.write_all(part)?;
            self.at += piece as u64;
            done += piece as u64;
        }
        Ok(())
    }

    /// Refuses unless the last block of a file that stays in its layer is zeros past the end of the file.
    fn expect_zeros_behind(&self, extent: &Extent) -> io::Result<()> {
        let layer = self.layers.get(extent.layer).ok_or_else(|| missing_layer(extent.layer))?;
        let end = extent.offset + extent.len;
        let mut rest = vec![0; usize::try_from(end.next_multiple_of(BLOCK) - end).map_err(io::Error::other)?];
        layer.read_exact_at(&mut rest, end)?;
        if rest.iter().any(|&byte| byte != 0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("layer {}: after its last file, at byte {end}, there is more than zeros", extent.layer + 1),
            ));
        }
        Ok(())
    }
}
