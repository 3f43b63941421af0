//! Laying out and finishing an artifact.
//!
//! All sizes are known before a byte is written, so [`ArtifactPlan`] gives every blob its place. The packer writes blobs
//! there in one pass, hashing as it goes; [`ArtifactPlan::finish`] then writes everything else. What depends on digests
//! has the same length whatever they are.

use crate::{
    Digest, WriteAt,
    canonical::CanonicalError,
    dsse::{Envelope, EnvelopeError, STATEMENT_PAYLOAD},
    frame::{Frame, Generator, Owner, Part, TooLarge},
    gpt::{self, Disk},
    head::MAX_DOCUMENT_LEN,
    layout::{self, Align, FIXED_PATHS, GPT_PATH, Layout, LayoutError, Member, OCI_LAYOUT, Verity},
    statement::{Release, Statement, StatementError},
};
use std::io;

/// A blob before its content is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobPlan {
    /// Its length in bytes.
    pub size: u64,
    /// Where it may begin: [`Align::Block`] for what is mounted and for hash trees, [`Align::Partition`] for the EFI
    /// system partition (the first blob of a disk), [`Align::Tar`] for all else.
    pub align: Align,
    /// The number of the blob that is its hash tree.
    pub tree: Option<usize>,
}

/// A blob's digests once it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobDigests {
    /// SHA-256 of the blob.
    pub digest: Digest,
    /// Root of its hash tree, for a blob that has one.
    pub root: Option<Digest>,
}

/// What [`ArtifactPlan::finish`] needs.
#[derive(Debug, Clone, Copy)]
pub struct Contents<'a> {
    /// `index.json`, of the planned length.
    pub index: &'a [u8],
    /// `manifest.json`, of the planned length.
    pub manifest: &'a [u8],
    /// The digests of the blobs in the planned order.
    pub blobs: &'a [BlobDigests],
    /// What the release is.
    pub release: &'a Release,
}

/// Why an artifact cannot be laid out or finished.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// See [`TooLarge`].
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A document of the head is larger than a reader takes, or empty.
    #[error("{path} has {len} bytes, and 1 to {limit} are allowed")]
    DocumentSize {
        /// The member.
        path: &'static str,
        /// Its length.
        len: u64,
        /// Longest allowed.
        limit: u64,
    },
    /// A disk needs a first blob that is its EFI system partition.
    #[error("a disk begins with an EFI system partition of whole 4096-byte blocks")]
    NoSystemPartition,
    /// What came is not what was planned.
    #[error("{what} does not have the length or number that was planned")]
    NotAsPlanned {
        /// What differs.
        what: &'static str,
    },
    /// Two blobs turned out to be the same; the second must be left out and the artifact planned again.
    #[error("blobs number {first} and {second} are the same")]
    Duplicate {
        /// The earlier blob, counted from 0.
        first: usize,
        /// The later blob.
        second: usize,
    },
    /// See [`LayoutError`].
    #[error("the layout of the artifact is not valid: {0}")]
    Layout(#[from] LayoutError),
    /// See [`StatementError`].
    #[error("the release statement is not valid: {0}")]
    Statement(#[from] StatementError),
    /// See [`EnvelopeError`].
    #[error("the envelope cannot be made: {0}")]
    Envelope(#[from] EnvelopeError),
    /// See [`CanonicalError`].
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// Writing failed.
    #[error("cannot write the artifact at offset {offset}: {source}")]
    Io {
        /// Where.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// Where everything in an artifact will lie.
///
/// ```
/// # use gap_format::{Digest, Timestamp, layout::Align, statement::{Kind, Release}, writer::*, WriteAt};
/// let config = br#"{"architecture":"amd64","os":"linux"}"#;
/// let index = br#"{"schemaVersion":2,"manifests":[]}"#;
/// let blob = BlobPlan { size: config.len() as u64, align: Align::Tar, tree: None };
/// let plan = ArtifactPlan::new(false, index.len() as u64, 2, &[blob])?;
/// let file = std::sync::Mutex::new(Vec::new());
/// file.write_all_at(config, plan.blob_offsets()[0]).unwrap();
/// let release = Release {
///     kind: Kind::Data, name: "example".into(), version: "1".into(), serial: 1, rollback_to: 1,
///     architecture: "any".into(), source_date: "2026-01-01T00:00:00Z".parse().unwrap(), expires: None,
/// };
/// let blobs = [BlobDigests { digest: Digest::of(config), root: None }];
/// let statement = plan.finish(&file, &Contents { index, manifest: b"[]", blobs: &blobs, release: &release })?;
/// assert_eq!(statement.length, file.into_inner().unwrap().len() as u64);
/// # Ok::<(), WriteError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ArtifactPlan {
    disk: bool,
    blobs: Vec<BlobPlan>,
    layout: Layout,
    frame: Frame,
}

impl ArtifactPlan {
    /// Lays out an artifact: a bootable one when `disk` is set, whose first blob is the EFI system partition.
    ///
    /// # Errors
    /// [`WriteError::TooLarge`], [`WriteError::DocumentSize`], [`WriteError::NoSystemPartition`], or
    /// [`WriteError::NotAsPlanned`] for a tree number without blob.
    pub fn new(disk: bool, index_len: u64, manifest_len: u64, blobs: &[BlobPlan]) -> Result<Self, WriteError> {
        for (path, len) in [("index.json", index_len), ("manifest.json", manifest_len)] {
            check_len(path, len, MAX_DOCUMENT_LEN)?;
        }
        let is_esp =
            |blob: &BlobPlan| blob.align == Align::Partition && blob.size > 0 && blob.size.is_multiple_of(4096);
        if disk && !blobs.first().is_some_and(is_esp) {
            return Err(WriteError::NoSystemPartition);
        }
        if blobs.iter().filter_map(|blob| blob.tree).any(|tree| tree >= blobs.len()) {
            return Err(WriteError::NotAsPlanned { what: "the list of blobs" });
        }
        let mut layout = Layout { version: 1, members: placeholders(disk, index_len, manifest_len, blobs) };
        let (mut layout_len, mut frame);
        let mut guess = 0;
        loop {
            frame = Frame::new(layout.members.iter().map(|member| (member.size, member.align)), disk, guess)?;
            for (member, offset) in layout.members.iter_mut().zip(frame.offsets()) {
                member.offset = *offset;
            }
            // Offsets only grow with the length and the length with the offsets, so this settles at the least length.
            layout_len = layout.encode()?.len() as u64;
            if layout_len == guess {
                break;
            }
            guess = layout_len;
        }
        check_len(layout::PATH, layout_len, layout::MAX_LEN)?;
        Ok(Self { disk, blobs: blobs.to_vec(), layout, frame })
    }

    /// Where the data of each blob begins in the artifact, in bytes, in the order of the plan.
    pub fn blob_offsets(&self) -> &[u64] {
        self.frame.offsets().get(self.layout.head_count()..).unwrap_or_default()
    }

    /// Length of the whole artifact in bytes.
    pub const fn total(&self) -> u64 {
        self.frame.total()
    }

    /// Writes everything but the blobs, with an envelope that nobody has signed yet.
    ///
    /// # Errors
    /// [`WriteError::Duplicate`] when two blobs have one digest; see [`WriteError`] for the rest.
    pub fn finish(&self, target: &dyn WriteAt, contents: &Contents<'_>) -> Result<Statement, WriteError> {
        self.check_contents(contents)?;
        let index = Digest::of(contents.index);
        let first_blob = self.layout.head_count();
        let esp = self.layout.members.get(first_blob).filter(|_| self.disk);
        let disk = esp.map(|esp| Disk { total: self.total(), esp_offset: esp.offset, esp_len: esp.size, index });
        let layout = self.fill_in(contents, disk)?;
        let layout_bytes = layout.encode()?;
        Layout::decode(&layout_bytes)?;
        let (release, length) = (contents.release.clone(), self.total());
        let statement = Statement { release, index, length, layout: Digest::of(&layout_bytes) };
        let envelope = Envelope::new(STATEMENT_PAYLOAD, statement.encode()?).encode_region()?;
        let generator = Generator { layout: &layout, disk };
        let head = usize::from(self.disk);
        for piece in self.frame.pieces() {
            let write = |bytes: &[u8]| {
                let offset = piece.offset;
                target.write_all_at(bytes, offset).map_err(|source| WriteError::Io { offset, source })
            };
            match generator.bytes(piece) {
                Some(bytes) => write(&bytes)?,
                None => match piece.part {
                    Part::Data(Owner::Envelope) => write(&envelope)?,
                    Part::Data(Owner::Layout) => write(&layout_bytes)?,
                    Part::Data(Owner::Member(number)) if number == head => write(OCI_LAYOUT)?,
                    Part::Data(Owner::Member(number)) if number == head + 1 => write(contents.index)?,
                    Part::Data(Owner::Member(number)) if number == head + 2 => write(contents.manifest)?,
                    _ => {}
                },
            }
        }
        Ok(statement)
    }

    fn check_contents(&self, contents: &Contents<'_>) -> Result<(), WriteError> {
        let planned = |path| self.layout.members.iter().find(|member| member.path == path).map(|member| member.size);
        for (what, bytes) in [("index.json", contents.index), ("manifest.json", contents.manifest)] {
            if planned(what) != Some(bytes.len() as u64) {
                return Err(WriteError::NotAsPlanned { what });
            }
        }
        let covers = |(plan, made): (&BlobPlan, &BlobDigests)| plan.tree.is_some() == made.root.is_some();
        if contents.blobs.len() != self.blobs.len() || !self.blobs.iter().zip(contents.blobs).all(covers) {
            return Err(WriteError::NotAsPlanned { what: "the list of blobs" });
        }
        let mut seen = std::collections::BTreeMap::new();
        for (second, blob) in contents.blobs.iter().enumerate() {
            if let Some(first) = seen.insert(blob.digest, second) {
                return Err(WriteError::Duplicate { first, second });
            }
        }
        Ok(())
    }

    /// The layout with all digests in their places.
    fn fill_in(&self, contents: &Contents<'_>, disk: Option<Disk>) -> Result<Layout, WriteError> {
        let mut layout = self.layout.clone();
        let first_blob = layout.head_count();
        for member in layout.members.iter_mut().take(first_blob) {
            member.digest = match member.path.as_str() {
                "index.json" => Digest::of(contents.index),
                "manifest.json" => Digest::of(contents.manifest),
                GPT_PATH => Digest::of(&disk.map(|disk| disk.primary()).unwrap_or_default()),
                _ => member.digest,
            };
        }
        let tree_digest = |tree: usize| contents.blobs.get(tree).map(|blob| blob.digest);
        let blobs = self.blobs.iter().zip(contents.blobs);
        for (member, (plan, made)) in layout.members.iter_mut().skip(first_blob).zip(blobs) {
            member.path = layout::blob_path(&made.digest);
            member.digest = made.digest;
            member.verity = made.root.zip(plan.tree.and_then(tree_digest)).map(|(root, tree)| Verity { root, tree });
        }
        Ok(layout)
    }
}

/// The members with digests of zeros, which are as long as the real ones.
fn placeholders(disk: bool, index_len: u64, manifest_len: u64, blobs: &[BlobPlan]) -> Vec<Member> {
    let zero = Digest::from_bytes([0; 32]);
    let sizes = [OCI_LAYOUT.len() as u64, index_len, manifest_len];
    let fixed = FIXED_PATHS.into_iter().zip(sizes);
    let head = disk.then_some((GPT_PATH, gpt::PRIMARY_LEN)).into_iter().chain(fixed).map(|(path, size)| {
        let digest = if path == "oci-layout" { Digest::of(OCI_LAYOUT) } else { zero };
        Member { path: path.to_owned(), offset: 0, size, align: Align::Tar, digest, verity: None }
    });
    let blobs = blobs.iter().map(|blob| Member {
        path: layout::blob_path(&zero),
        offset: 0,
        size: blob.size,
        align: blob.align,
        digest: zero,
        verity: blob.tree.map(|_| Verity { root: zero, tree: zero }),
    });
    head.chain(blobs).collect()
}

const fn check_len(path: &'static str, len: u64, limit: u64) -> Result<(), WriteError> {
    if len == 0 || len > limit { Err(WriteError::DocumentSize { path, len, limit }) } else { Ok(()) }
}
