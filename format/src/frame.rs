//! Where everything in an artifact lies, and the bytes that are not content: headers, padding, partition tables.
//!
//! The writer writes these bytes and the verifier compares with them, so the two cannot disagree.

use crate::{
    dsse,
    gpt::{self, Disk},
    layout::{self, Align},
    tar_header::{self, HEADER_LEN},
};
use std::ops::Range;

/// What a run of bytes in the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The tar header of a member, [`HEADER_LEN`] bytes, and the data length that it states.
    Header(Owner, u64),
    /// The data of a member.
    Data(Owner),
    /// Zeros after a member's data up to the next header.
    Padding(Owner),
    /// Zeros at the end of the archive: at least two blocks, up to a multiple of 4096.
    End,
    /// The backup partition tables of a disk.
    Backup,
}

/// Whose header, data or padding it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A member of the layout, by its number there.
    Member(usize),
    /// `release.dsse.json`.
    Envelope,
    /// `layout.json`.
    Layout,
    /// A padding member `.pad/N`; its data is zeros.
    Pad(usize),
}

/// A run of bytes of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub part: Part,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes, never 0.
    pub len: u64,
}

impl Piece {
    /// The byte after the last.
    pub const fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// Whether the format prescribes zeros.
    pub const fn is_zeros(&self) -> bool {
        matches!(self.part, Part::Data(Owner::Pad(_)) | Part::Padding(_) | Part::End)
    }
}

/// Zeros to compare with.
static ZEROS: [u8; 4096] = [0; 4096];

/// The sizes would not fit in 2^53 - 1 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the members together are larger than a file can be")]
pub struct TooLarge;

/// The whole file, cut into pieces without gap or overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pieces: Vec<Piece>,
    offsets: Vec<u64>,
    pads: usize,
    head_len: u64,
    total: u64,
}

impl Frame {
    /// Lays out members of these sizes and alignments, in the order of the layout.
    ///
    /// `disk` says that the first of them is `.gpt`; `layout_len` is the length of `layout.json`. A member's data is put
    /// at the lowest multiple of its alignment that leaves room for its header; a gap before that header is filled with
    /// a padding member.
    ///
    /// # Errors
    /// [`TooLarge`] when an offset would pass 2^53 - 1.
    pub fn new(members: impl Iterator<Item = (u64, Align)>, disk: bool, layout_len: u64) -> Result<Self, TooLarge> {
        let mut frame = Self { pieces: Vec::new(), offsets: Vec::new(), pads: 0, head_len: 0, total: 0 };
        let head_count = layout::FIXED_PATHS.len() + usize::from(disk);
        for (number, (size, align)) in members.enumerate() {
            if number == head_count {
                frame.lay_release(layout_len)?;
            }
            frame.align(align)?;
            frame.offsets.push(frame.total + tar_header::HEADER_LEN as u64);
            frame.lay(Owner::Member(number), size)?;
        }
        if frame.head_len == 0 {
            frame.lay_release(layout_len)?;
        }
        let end = (frame.total + 2 * HEADER_LEN as u64).next_multiple_of(Align::Block.bytes());
        frame.push(Part::End, end - frame.total)?;
        if disk {
            frame.push(Part::Backup, gpt::BACKUP_LEN)?;
        }
        Ok(frame)
    }

    /// The pieces, in the order of the file.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Where the data of each member begins, in the order of the layout.
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// Length of everything up to and including `layout.json` and its padding.
    pub const fn head_len(&self) -> u64 {
        self.head_len
    }

    /// Length of the whole file.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Where the data of `release.dsse.json` lies.
    pub fn envelope(&self) -> Range<u64> {
        self.data_of(Owner::Envelope)
    }

    /// Where the data of `layout.json` lies.
    pub fn layout(&self) -> Range<u64> {
        self.data_of(Owner::Layout)
    }

    fn data_of(&self, owner: Owner) -> Range<u64> {
        self.pieces.iter().find(|piece| piece.part == Part::Data(owner)).map_or(0..0, |piece| piece.offset..piece.end())
    }

    fn lay_release(&mut self, layout_len: u64) -> Result<(), TooLarge> {
        self.lay(Owner::Envelope, dsse::REGION_LEN)?;
        self.lay(Owner::Layout, layout_len)?;
        self.head_len = self.total;
        Ok(())
    }

    /// Header, data and padding of one member.
    fn lay(&mut self, owner: Owner, size: u64) -> Result<(), TooLarge> {
        self.push(Part::Header(owner, size), HEADER_LEN as u64)?;
        self.push(Part::Data(owner), size)?;
        self.push(Part::Padding(owner), self.total.next_multiple_of(HEADER_LEN as u64) - self.total)
    }

    /// Fills up with a padding member so that the data of the next member is aligned.
    fn align(&mut self, align: Align) -> Result<(), TooLarge> {
        let gap = (self.total + HEADER_LEN as u64).next_multiple_of(align.bytes()) - HEADER_LEN as u64 - self.total;
        if gap == 0 {
            return Ok(());
        }
        let number = self.pads;
        self.pads += 1;
        self.lay(Owner::Pad(number), gap - HEADER_LEN as u64)
    }

    fn push(&mut self, part: Part, len: u64) -> Result<(), TooLarge> {
        if len > 0 {
            self.pieces.push(Piece { part, offset: self.total, len });
        }
        self.total = self.total.checked_add(len).filter(|end| *end <= crate::canonical::MAX_INTEGER).ok_or(TooLarge)?;
        Ok(())
    }
}

/// What is needed to generate the bytes between the content.
#[derive(Debug, Clone, Copy)]
pub struct Generator<'a> {
    /// The layout: names of the members.
    pub layout: &'a layout::Layout,
    /// The partition tables, if the artifact is a disk.
    pub disk: Option<Disk>,
}

impl Generator<'_> {
    /// The bytes that the format prescribes for a piece; `None` where it is content: a blob, the head's documents.
    ///
    /// No such piece is longer than 1 MiB, so a gap of zeros is a plain vector, too.
    pub fn bytes(&self, piece: &Piece) -> Option<Vec<u8>> {
        match piece.part {
            Part::Header(owner, size) => {
                let mbr = self.disk.filter(|_| piece.offset == 0).map(|disk| disk.mbr());
                Some(tar_header::encode(&self.path(owner), size, mbr.as_ref())?.to_vec())
            }
            Part::Backup => Some(self.disk?.backup()),
            Part::Data(Owner::Member(0)) => Some(self.disk?.primary()),
            _ if piece.is_zeros() => Some(vec![0; usize::try_from(piece.len).ok()?]),
            _ => None,
        }
    }

    /// Whether a piece is hashed or, as the envelope, encoded again, instead of generated.
    const fn is_content(&self, piece: &Piece) -> bool {
        match piece.part {
            Part::Data(Owner::Member(0)) => self.disk.is_none(),
            Part::Data(_) => !piece.is_zeros(),
            Part::Header(..) | Part::Padding(_) | Part::End | Part::Backup => false,
        }
    }

    /// Compares a piece with the bytes that the format prescribes; the offset of the first that differs, if any does.
    ///
    /// Content is passed over.
    pub fn first_difference(&self, piece: &Piece, found: &[u8]) -> Option<u64> {
        let same = if piece.is_zeros() {
            found.chunks(ZEROS.len()).take_while(|chunk| ZEROS.starts_with(chunk)).map(<[u8]>::len).sum::<usize>()
        } else {
            if self.is_content(piece) {
                return None;
            }
            // A piece that cannot be generated equals nothing.
            let expected = self.bytes(piece).unwrap_or_default();
            if expected == found { found.len() } else { expected.iter().zip(found).take_while(|(a, b)| a == b).count() }
        };
        if same as u64 == piece.len {
            return None;
        }
        // Among zeros only whole chunks were counted; the rest of the way goes byte by byte.
        let rest = found.get(same..).unwrap_or_default();
        let more = if piece.is_zeros() { rest.iter().take_while(|byte| **byte == 0).count() } else { 0 };
        Some(piece.offset + (same + more) as u64)
    }

    /// The name of a member.
    pub fn path(&self, owner: Owner) -> String {
        match owner {
            Owner::Member(number) => self.layout.members.get(number).map_or_else(String::new, |m| m.path.clone()),
            Owner::Envelope => dsse::PATH.to_owned(),
            Owner::Layout => layout::PATH.to_owned(),
            Owner::Pad(number) => format!(".pad/{number}"),
        }
    }

    /// A piece in words, for messages.
    pub fn describe(&self, part: Part) -> String {
        match part {
            Part::Header(owner, _) => format!("the tar header of {}", self.path(owner)),
            Part::Data(Owner::Member(0)) if self.disk.is_some() => "the partition tables in .gpt".to_owned(),
            Part::Data(owner) => format!("the data of {}", self.path(owner)),
            Part::Padding(owner) => format!("the padding after {}", self.path(owner)),
            Part::End => "the end of the archive".to_owned(),
            Part::Backup => "the backup partition tables".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn aligns() -> impl Strategy<Value = Align> {
        prop_oneof![Just(Align::Tar), Just(Align::Block), Just(Align::Partition)]
    }

    proptest! {
        #[test]
        fn pieces_cover_the_file_without_gap_or_overlap(
            members in proptest::collection::vec((0u64..3_000_000, aligns()), 3..40),
            disk: bool,
            layout_len in 0u64..10_000,
        ) {
            let frame = Frame::new(members.iter().copied(), disk, layout_len).unwrap();
            let mut at = 0;
            for piece in frame.pieces() {
                prop_assert_eq!(piece.offset, at);
                prop_assert!(piece.len > 0);
                at = piece.end();
            }
            prop_assert_eq!(at, frame.total());
            prop_assert_eq!(at % 4096, 0);
            prop_assert_eq!(frame.offsets().len(), members.len());
            for ((_, align), offset) in members.iter().zip(frame.offsets()) {
                prop_assert_eq!(offset % align.bytes(), 0);
            }
        }
    }

    #[test]
    fn sizes_that_no_file_can_have_are_refused() {
        let huge = [(u64::MAX, Align::Block)].into_iter();
        assert_eq!(Frame::new(huge, false, 0), Err(TooLarge));
    }
}
