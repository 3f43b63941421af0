//! `layout.json`: every member but itself and the envelope, with its place and its digests.

use crate::{
    Digest, canonical,
    canonical::{CanonicalError, MAX_INTEGER},
    gpt, verity,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Name of the member.
pub const PATH: &str = "layout.json";

/// Largest `layout.json`, in bytes.
pub const MAX_LEN: u64 = 8 << 20;

/// Name of the member that holds both primary partition tables; only a disk has it, as its first.
pub const GPT_PATH: &str = ".gpt";

/// Names of the members before the envelope, in order, without [`GPT_PATH`].
pub const FIXED_PATHS: [&str; 3] = ["oci-layout", "index.json", "manifest.json"];

/// The only contents of `oci-layout` (OCI image-spec 1.1, "oci-layout file").
pub const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// What `offset` of a member is a multiple of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub enum Align {
    /// 512: the unit of tar.
    Tar,
    /// 4096: a blob that is mounted, and its hash tree.
    Block,
    /// 1 MiB: the EFI system partition, which is the first blob of a disk.
    Partition,
}

impl Align {
    /// The alignment in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Tar => 512,
            Self::Block => 4096,
            Self::Partition => 1 << 20,
        }
    }
}

impl From<Align> for u64 {
    fn from(align: Align) -> Self {
        align.bytes()
    }
}

impl TryFrom<u64> for Align {
    type Error = &'static str;

    fn try_from(bytes: u64) -> Result<Self, Self::Error> {
        [Self::Tar, Self::Block, Self::Partition]
            .into_iter()
            .find(|align| align.bytes() == bytes)
            .ok_or("an alignment is 512, 4096 or 1048576")
    }
}

/// The list of members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Version of this list; 1.
    pub version: u64,
    /// The members in the order of the file.
    pub members: Vec<Member>,
}

/// One member of the artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name in the tar; a blob's is `blobs/sha256/` and the digest in hexadecimal.
    pub path: String,
    /// Where its data begins, in bytes from the start of the artifact.
    pub offset: u64,
    /// Length of its data in bytes.
    pub size: u64,
    /// What `offset` is a multiple of; see [`Align`].
    pub align: Align,
    /// SHA-256 of its data.
    pub digest: Digest,
    /// Set where the data is mounted through dm-verity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verity: Option<Verity>,
}

/// How a member's data is covered by a hash tree; see [`verity`](crate::verity).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verity {
    /// Root hash over the member's data.
    pub root: Digest,
    /// The member that holds the hash tree.
    pub tree: Digest,
}

/// Why a `layout.json` is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// See [`CanonicalError`].
    #[error("{0}")]
    Canonical(#[from] CanonicalError),
    /// Made by a later version of the format.
    #[error("it has version {0}, and this program knows version 1: use a newer one")]
    Version(u64),
    /// A member is not where it belongs.
    #[error("member number {number} should be {expected}")]
    Order {
        /// Counted from 0.
        number: usize,
        /// What belongs there.
        expected: &'static str,
    },
    /// A number beyond 2^53 - 1.
    #[error("the size or offset of member number {0} is out of range")]
    Range(usize),
    /// Two members are the same blob.
    #[error("the blob {0} is listed twice")]
    Doubled(Digest),
    /// A member's alignment does not fit its use.
    #[error("{path} {reason}")]
    Use {
        /// The member's name (its alphabet was checked).
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// The name of a blob's member.
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.to_hex())
}

impl Layout {
    /// The bytes of `layout.json`.
    ///
    /// # Errors
    /// Never for a value of this type; see [`canonical::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::encode(self)
    }

    /// Reads `layout.json` and checks all that can be checked without the artifact: encoding, order, names, doubles,
    /// alignments, hash trees. Whether the offsets are right is for [`Frame`](crate::frame::Frame) to say.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        let layout: Self = canonical::decode(bytes)?;
        if layout.version != 1 {
            return Err(LayoutError::Version(layout.version));
        }
        layout.check_head()?;
        layout.check_blobs()?;
        Ok(layout)
    }

    /// Whether the artifact is a disk.
    pub fn is_disk(&self) -> bool {
        self.members.first().is_some_and(|member| member.path == GPT_PATH)
    }

    /// Number of members before the envelope.
    pub fn head_count(&self) -> usize {
        FIXED_PATHS.len() + usize::from(self.is_disk())
    }

    /// The blobs, in the order of the file.
    pub fn blobs(&self) -> &[Member] {
        self.members.get(self.head_count()..).unwrap_or_default()
    }

    /// The EFI system partition of a disk.
    pub fn esp(&self) -> Option<&Member> {
        self.blobs().first().filter(|member| member.align == Align::Partition)
    }

    fn check_head(&self) -> Result<(), LayoutError> {
        let expected = self.is_disk().then_some(GPT_PATH).into_iter().chain(FIXED_PATHS);
        for (number, path) in expected.enumerate() {
            let member = self.members.get(number).filter(|member| member.path == path);
            let Some(member) = member else { return Err(LayoutError::Order { number, expected: path }) };
            let fixed_size = match path {
                GPT_PATH => member.size == gpt::PRIMARY_LEN,
                "oci-layout" => member.digest == Digest::of(OCI_LAYOUT),
                _ => true,
            };
            if !fixed_size {
                return Err(unfit(member, "has not the one content it can have"));
            }
            if member.align != Align::Tar || member.verity.is_some() {
                return Err(unfit(member, "is aligned or covered like a mounted blob"));
            }
        }
        Ok(())
    }

    fn check_blobs(&self) -> Result<(), LayoutError> {
        let mut sizes = BTreeMap::new();
        for (number, member) in self.members.iter().enumerate() {
            if member.size > MAX_INTEGER || member.offset > MAX_INTEGER {
                return Err(LayoutError::Range(number));
            }
            if number < self.head_count() {
                continue;
            }
            if member.path != blob_path(&member.digest) {
                return Err(LayoutError::Order { number, expected: "a blob named by its digest" });
            }
            if sizes.insert(member.digest, member).is_some() {
                return Err(LayoutError::Doubled(member.digest));
            }
        }
        self.check_esp()?;
        self.check_trees(&sizes)
    }

    /// A disk's first blob, and no other, is the system partition.
    fn check_esp(&self) -> Result<(), LayoutError> {
        if self.is_disk() && self.esp().is_none_or(|esp| esp.size == 0 || esp.size % Align::Block.bytes() != 0) {
            let number = self.head_count();
            return Err(LayoutError::Order { number, expected: "the EFI system partition, a multiple of 4096 bytes" });
        }
        let others = self.blobs().iter().skip(usize::from(self.is_disk()));
        match others.into_iter().find(|member| member.align == Align::Partition) {
            Some(member) => {
                Err(unfit(member, "is aligned like an EFI system partition but is not the first blob of a disk"))
            }
            None => Ok(()),
        }
    }

    fn check_trees(&self, blobs: &BTreeMap<Digest, &Member>) -> Result<(), LayoutError> {
        let trees: BTreeSet<_> = self.blobs().iter().filter_map(|member| Some(member.verity?.tree)).collect();
        for member in self.blobs() {
            let Some(verity) = member.verity else { continue };
            let problem = match blobs.get(&verity.tree) {
                None => "is covered by a hash tree that the artifact does not hold",
                Some(_) if !verity::can_cover(member.size) => "is covered but not at least two whole blocks long",
                Some(_) if member.align == Align::Tar => "is covered but not on a block boundary",
                Some(_) if trees.contains(&member.digest) => "is covered and at the same time a hash tree",
                Some(tree) if tree.align != Align::Block => "is covered by a hash tree that is not on a block boundary",
                Some(tree) if tree.size != verity::tree_len(member.size) => {
                    "is covered by a hash tree of another length"
                }
                Some(_) => continue,
            };
            return Err(unfit(member, problem));
        }
        Ok(())
    }
}

fn unfit(member: &Member, reason: &'static str) -> LayoutError {
    LayoutError::Use { path: member.path.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(path: &str, content: &[u8]) -> Member {
        let digest = Digest::of(content);
        Member { path: path.into(), offset: 512, size: content.len() as u64, align: Align::Tar, digest, verity: None }
    }

    fn blob(content: &[u8], align: Align) -> Member {
        Member { align, ..member(&blob_path(&Digest::of(content)), content) }
    }

    fn layout() -> Layout {
        let mut data = blob(&[1; 8192], Align::Block);
        let tree = blob(&[2; 4096], Align::Block);
        data.verity = Some(Verity { root: Digest::of(b"root"), tree: tree.digest });
        let head = [member("oci-layout", OCI_LAYOUT), member("index.json", b"{}"), member("manifest.json", b"[]")];
        Layout { version: 1, members: head.into_iter().chain([data, tree]).collect() }
    }

    fn refused(change: impl FnOnce(&mut Layout)) -> String {
        let mut changed = layout();
        change(&mut changed);
        Layout::decode(&changed.encode().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn a_layout_comes_back_as_it_was() {
        assert_eq!(Layout::decode(&layout().encode().unwrap()), Ok(layout()));
    }

    #[test]
    fn other_encodings_of_the_same_layout_are_refused() {
        let text = String::from_utf8(layout().encode().unwrap()).unwrap();
        for other in [
            text.clone() + " ",
            text.replace("\"version\":1", "\"version\": 1"),
            text.replace("\"size\":30", "\"size\":3e1"),
        ] {
            assert_ne!(text, other);
            assert!(Layout::decode(other.as_bytes()).is_err(), "{other}");
        }
        let extra = text.replace("\"version\":1", "\"version\":1,\"\\u001b\":2");
        assert!(Layout::decode(extra.as_bytes()).unwrap_err().to_string().contains("\\u{1b}"));
    }

    #[test]
    fn members_out_of_order_doubled_or_misnamed_are_refused() {
        assert_eq!(refused(|l| l.members.swap(0, 1)), "member number 0 should be oci-layout");
        assert!(refused(|l| l.members.push(l.members[4].clone())).contains("listed twice"));
        assert!(refused(|l| l.members[4].path = "blobs/sha256/../x".into()).contains("named by its digest"));
        assert!(refused(|l| l.members[0].digest = Digest::of(b"")).contains("the one content"));
        assert!(refused(|l| l.version = 2).contains("newer"));
        assert!(refused(|l| l.members[4].size = 1 << 60).contains("out of range"));
    }

    #[test]
    fn trees_and_alignments_that_no_kernel_could_mount_are_refused() {
        assert!(refused(|l| drop(l.members.pop())).contains("does not hold"));
        assert!(refused(|l| l.members[3].align = Align::Tar).contains("block boundary"));
        assert!(refused(|l| l.members[4].size = 8192).contains("another length"));
        assert!(refused(|l| l.members[4].align = Align::Partition).contains("EFI system partition"));
        assert!(refused(|l| l.members.insert(0, member(GPT_PATH, &[0; 40_448]))).contains("EFI system partition"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            prop_assert!(Layout::decode(&bytes).is_err());
        }

        #[test]
        fn a_changed_layout_is_refused_or_written_back_the_same(at in 0usize..1000, byte: u8) {
            let mut bytes = layout().encode().unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(read) = Layout::decode(&bytes) {
                prop_assert_eq!(read.encode().unwrap(), bytes);
            }
        }
    }
}
