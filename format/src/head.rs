//! The head of an artifact: everything before the blobs, read once into memory.
//!
//! Before the signatures are checked nothing is interpreted here but tar headers of one fixed form and the envelope.

use crate::{
    ReadAt, VerifyError,
    dsse::{self, Envelope},
    gpt,
    layout::{self, GPT_PATH},
    tar_header::{self, HEADER_LEN},
};
use std::{
    io::{self, Read},
    ops::Range,
};

/// Largest `index.json` and largest `manifest.json`, in bytes.
pub const MAX_DOCUMENT_LEN: u64 = 4 << 20;

/// The head's bytes and where its documents lie in them.
#[derive(Debug, Clone)]
pub struct Head {
    bytes: Vec<u8>,
    index: Range<usize>,
    envelope_at: Range<usize>,
    layout: Range<usize>,
    envelope: Envelope,
}

/// Names of the head's members with the shortest and longest length of each.
const MEMBERS: [(&str, u64, u64); 6] = [
    (GPT_PATH, gpt::PRIMARY_LEN, gpt::PRIMARY_LEN),
    ("oci-layout", layout::OCI_LAYOUT.len() as u64, layout::OCI_LAYOUT.len() as u64),
    ("index.json", 1, MAX_DOCUMENT_LEN),
    ("manifest.json", 1, MAX_DOCUMENT_LEN),
    (dsse::PATH, dsse::REGION_LEN, dsse::REGION_LEN),
    (layout::PATH, 1, layout::MAX_LEN),
];

impl Head {
    /// Reads the head of the artifact that begins at offset 0 of `source`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_at(source: &dyn ReadAt) -> Result<Self, VerifyError> {
        Self::gather(&mut |buffer, offset| source.read_exact_at(buffer, offset))
    }

    /// Reads the head from a pipe, and not a byte more.
    ///
    /// # Errors
    /// [`VerifyError::NotAnArtifact`], [`VerifyError::HeadSize`], [`VerifyError::Truncated`] or
    /// [`VerifyError::Envelope`] when this is no artifact; [`VerifyError::Io`] when reading failed.
    pub fn read(source: &mut dyn Read) -> Result<Self, VerifyError> {
        Self::gather(&mut |buffer, _| source.read_exact(buffer))
    }

    fn gather(fill: &mut dyn FnMut(&mut [u8], u64) -> io::Result<()>) -> Result<Self, VerifyError> {
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        for (path, least, most) in MEMBERS {
            let offset = bytes.len() as u64;
            if path != "oci-layout" || offset != HEADER_LEN as u64 {
                extend(&mut bytes, HEADER_LEN as u64, fill)?;
            }
            let header = bytes.last_chunk::<HEADER_LEN>().and_then(tar_header::decode);
            let (found, size) = header.ok_or(VerifyError::NotAnArtifact { offset, expected: path })?;
            if path == GPT_PATH && found == "oci-layout" {
                places.push(0..0);
                continue; // no disk: this header is already the next member's
            }
            if found != path {
                return Err(VerifyError::NotAnArtifact { offset, expected: path });
            }
            if !(least..=most).contains(&size) {
                return Err(VerifyError::HeadSize { path, offset, size, limit: most });
            }
            let start = bytes.len();
            extend(&mut bytes, size, fill)?;
            places.push(start..bytes.len());
            let padding = (bytes.len() as u64).next_multiple_of(HEADER_LEN as u64) - bytes.len() as u64;
            extend(&mut bytes, padding, fill)?;
        }
        let place = |number: usize| places.get(number).cloned().unwrap_or_default();
        let envelope_at = place(4);
        let envelope = Envelope::decode_region(bytes.get(envelope_at.clone()).unwrap_or_default())
            .map_err(|source| VerifyError::Envelope { offset: envelope_at.start as u64, source })?;
        Ok(Self { index: place(2), layout: place(5), envelope_at, envelope, bytes })
    }

    /// All bytes of the head.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of `index.json`.
    pub fn index(&self) -> &[u8] {
        self.bytes.get(self.index.clone()).unwrap_or_default()
    }

    /// The bytes of `layout.json`.
    pub fn layout(&self) -> &[u8] {
        self.bytes.get(self.layout.clone()).unwrap_or_default()
    }

    /// Where the data of `index.json` begins.
    pub const fn index_offset(&self) -> u64 {
        self.index.start as u64
    }

    /// Where the data of `layout.json` begins.
    pub const fn layout_offset(&self) -> u64 {
        self.layout.start as u64
    }

    /// Where the data of `release.dsse.json` begins.
    pub const fn envelope_offset(&self) -> u64 {
        self.envelope_at.start as u64
    }

    /// The envelope, whose signatures nobody has checked yet.
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }
}

/// Appends `len` bytes; `len` was bounded by the caller.
fn extend(
    bytes: &mut Vec<u8>,
    len: u64,
    fill: &mut dyn FnMut(&mut [u8], u64) -> io::Result<()>,
) -> Result<(), VerifyError> {
    let start = bytes.len();
    let end = start + usize::try_from(len).unwrap_or(0);
    bytes.resize(end, 0);
    fill(bytes.get_mut(start..).unwrap_or_default(), start as u64).map_err(|source| {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return VerifyError::Truncated { expected: end as u64, found: start as u64 };
        }
        VerifyError::Io { what: format!("the head of the artifact at offset {start}"), source }
    })
}
