//! An artifact's release: what its head says, and whether that was verified.
//!
//! [`Release::open`] is what a machine does when it boots: it reads the head once into memory, checks signatures, policy,
//! index and layout, and hands out the places of blobs. No blob is read; dm-verity checks those block by block, and
//! [`Release::read_blob`] hashes what it reads.

mod mount;

use crate::{
    Digest, ReadAt, Timestamp, VerifyError,
    floor::{Floor, FloorError},
    frame::{Frame, Generator, Piece},
    gpt::Disk,
    head::Head,
    key::KeyId,
    layout::{Layout, Member},
    oci::Index,
    statement::{Kind, Statement},
    trust::{Clock, Role, Signer, Trust},
};
pub use mount::{Mount, MountSet};
use std::collections::BTreeMap;

/// What a release has to be, beyond being signed.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The verifier's time.
    pub clock: Clock,
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only this name.
    pub name: Option<String>,
    /// No lower serial.
    pub min_serial: Option<u64>,
    /// What was accepted before.
    pub floor: Option<Floor>,
}

impl Policy {
    /// Takes any release that is in its time.
    pub const fn at(now: Timestamp) -> Self {
        Self { clock: Clock::Now(now), kind: None, name: None, min_serial: None, floor: None }
    }

    fn check(&self, statement: &Statement) -> Result<(), VerifyError> {
        let release = &statement.release;
        if let (Clock::Now(now), Some(until)) = (self.clock, release.expires)
            && now > until
        {
            return Err(VerifyError::Expired { until, now });
        }
        if let Some(expected) = self.kind.filter(|kind| *kind != release.kind) {
            return Err(VerifyError::Kind { expected, found: release.kind });
        }
        if let Some(expected) = self.name.clone().filter(|name| *name != release.name) {
            return Err(FloorError::OtherName { expected, found: release.name.clone() }.into());
        }
        if let Some(floor) = self.min_serial.filter(|floor| release.serial < *floor) {
            return Err(FloorError::Older { found: release.serial, floor }.into());
        }
        Ok(self.floor.as_ref().map_or(Ok(()), |floor| floor.check(statement))?)
    }
}

/// Somebody who may has signed the release.
#[derive(Debug, Clone)]
pub struct Verified {
    signers: Vec<Signer>,
}

/// Nobody has checked a signature: everything in the release is a claim.
#[derive(Debug, Clone)]
pub struct Unverified {
    claimed: Vec<KeyId>,
}

/// A release whose head is consistent in itself; `S` says whether its signatures were checked.
#[derive(Debug, Clone)]
pub struct Release<S = Verified> {
    head: Head,
    statement: Statement,
    index: Index,
    layout: Layout,
    frame: Frame,
    disk: Option<Disk>,
    blobs: BTreeMap<Digest, usize>,
    state: S,
}

impl Release<Verified> {
    /// Reads and verifies the head of the artifact that begins at offset 0 of `source`.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn open(source: &dyn ReadAt, trust: &Trust, policy: &Policy) -> Result<Self, VerifyError> {
        Self::verify(Head::read_at(source)?, trust, policy)
    }

    /// Verifies a head: signatures, then statement and policy, then index and layout.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn verify(head: Head, trust: &Trust, policy: &Policy) -> Result<Self, VerifyError> {
        let signers = trust.signers(head.envelope(), policy.clock)?;
        let statement = Statement::decode(head.envelope().payload())?;
        trust.authorise(&signers, Role::for_kind(statement.release.kind))?;
        policy.check(&statement)?;
        Self::assemble(head, statement, Verified { signers })
    }

    /// Who signed.
    pub fn signers(&self) -> &[Signer] {
        &self.state.signers
    }
}

impl Release<Unverified> {
    /// Reads a head without asking who signed it: for looking at an artifact, and for signing it.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn inspect(source: &dyn ReadAt) -> Result<Self, VerifyError> {
        let head = Head::read_at(source)?;
        let claimed = head.envelope().signatures().keys().copied().collect();
        let statement = Statement::decode(head.envelope().payload())?;
        Self::assemble(head, statement, Unverified { claimed })
    }

    /// The bytes of the statement, which is all that a signature is about.
    pub fn payload(&self) -> &[u8] {
        self.head.envelope().payload()
    }

    /// The keys that signatures are said to be by.
    pub fn claimed_signers(&self) -> &[KeyId] {
        &self.state.claimed
    }
}

impl<S> Release<S> {
    /// Checks that statement, index, layout and all bytes of the head agree.
    fn assemble(head: Head, statement: Statement, state: S) -> Result<Self, VerifyError> {
        expect_digest("index.json", head.index_offset(), statement.index, head.index())?;
        expect_digest("layout.json", head.layout_offset(), statement.layout, head.layout())?;
        let layout = Layout::decode(head.layout())?;
        let index =
            Index::parse(head.index()).map_err(|source| VerifyError::Oci { path: "index.json".to_owned(), source })?;
        let sizes = layout.members.iter().map(|member| (member.size, member.align));
        let frame = Frame::new(sizes, layout.is_disk(), head.layout().len() as u64)?;
        if frame.total() != statement.length {
            return Err(VerifyError::Length { stated: statement.length, computed: frame.total() });
        }
        let (total, index_digest) = (statement.length, statement.index);
        let disk = layout.esp().filter(|_| layout.is_disk()).map(|esp| Disk {
            total,
            esp_offset: esp.offset,
            esp_len: esp.size,
            index: index_digest,
        });
        let first_blob = layout.head_count();
        let blobs = layout.members.iter().enumerate().skip(first_blob).map(|(at, blob)| (blob.digest, at)).collect();
        let release = Self { head, statement, index, layout, frame, disk, blobs, state };
        release.check_places()?;
        release.check_head()?;
        release.check_index()?;
        Ok(release)
    }

    /// Every offset in the layout is the one that follows from the members before it.
    fn check_places(&self) -> Result<(), VerifyError> {
        for (member, expected) in self.layout.members.iter().zip(self.frame.offsets()) {
            if member.offset != *expected {
                let path = member.path.clone();
                return Err(VerifyError::Place { path, expected: *expected, found: member.offset });
            }
        }
        Ok(())
    }

    /// Every byte of the head is generated, or hashed, or part of the envelope.
    fn check_head(&self) -> Result<(), VerifyError> {
        let bytes = self.head.bytes();
        for piece in self.frame.pieces().iter().take_while(|piece| piece.end() <= self.frame.head_len()) {
            self.compare(piece, window(bytes, piece.offset, piece.len))?;
        }
        for member in self.layout.members.iter().take(self.layout.head_count()) {
            expect_digest(&member.path, member.offset, member.digest, window(bytes, member.offset, member.size))?;
        }
        Ok(())
    }

    /// Every manifest of the index is in the artifact.
    fn check_index(&self) -> Result<(), VerifyError> {
        let absent = |digest: &Digest, size| self.member(digest).is_none_or(|member| member.size != size);
        match self.index.manifests.iter().find(|it| absent(&it.digest, it.size)) {
            Some(it) => Err(VerifyError::Missing { digest: it.digest, wanted_by: "index.json".to_owned() }),
            None => Ok(()),
        }
    }

    /// Compares a piece with what the format prescribes for it; content is passed over.
    pub(crate) fn compare(&self, piece: &Piece, found: &[u8]) -> Result<(), VerifyError> {
        let generator = self.generator();
        match generator.first_difference(piece, found) {
            Some(offset) => Err(VerifyError::Differs { what: generator.describe(piece.part), offset }),
            None => Ok(()),
        }
    }

    /// What generates the bytes between the content.
    pub(crate) const fn generator(&self) -> Generator<'_> {
        Generator { layout: &self.layout, disk: self.disk }
    }

    /// What the maker says about the release.
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Everything that the artifact offers.
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// Every member.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where everything lies.
    pub const fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The head as it was read.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// A blob's place, length and cover.
    pub fn member(&self, digest: &Digest) -> Option<&Member> {
        self.layout.members.get(*self.blobs.get(digest)?)
    }

    /// Reads a blob of at most `max` bytes into memory and checks its digest.
    ///
    /// # Errors
    /// [`VerifyError::Missing`], [`VerifyError::BlobSize`], [`VerifyError::Blob`] or [`VerifyError::Io`].
    pub fn read_blob(&self, source: &dyn ReadAt, digest: &Digest, max: u64) -> Result<Vec<u8>, VerifyError> {
        let missing = || VerifyError::Missing { digest: *digest, wanted_by: "the reader".to_owned() };
        let member = self.member(digest).ok_or_else(missing)?;
        if member.size > max {
            return Err(VerifyError::BlobSize { digest: *digest, size: member.size, limit: max });
        }
        let mut bytes = vec![0; usize::try_from(member.size).map_err(|_| missing())?];
        source.read_exact_at(&mut bytes, member.offset).map_err(VerifyError::io(member.path.as_str()))?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(VerifyError::Blob { path: member.path.clone(), offset: member.offset, found });
        }
        Ok(bytes)
    }
}

fn window(bytes: &[u8], offset: u64, len: u64) -> &[u8] {
    let range = || Some(usize::try_from(offset).ok()?..usize::try_from(offset.checked_add(len)?).ok()?);
    range().and_then(|range| bytes.get(range)).unwrap_or_default()
}

fn expect_digest(path: &str, offset: u64, expected: Digest, bytes: &[u8]) -> Result<(), VerifyError> {
    let found = Digest::of(bytes);
    if found == expected {
        return Ok(());
    }
    Err(VerifyError::Document { path: path.to_owned(), offset, expected, found })
}
