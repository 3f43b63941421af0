//! Which blobs make up the mounted form of an image.

use super::Release;
use crate::{
    Digest, ReadAt, VerifyError,
    layout::Member,
    oci::{Descriptor, EROFS_TYPE, MOUNT_TYPE, Manifest, TITLE, VERITY_DATA, VERITY_ROOT, VERITY_TYPE},
};
use std::collections::BTreeMap;

/// Largest mount manifest, in bytes.
const MAX_MANIFEST: u64 = 1 << 20;

/// Digits of a digest that name a layer without a title.
const SHORT_DIGEST: usize = 12;

/// Most devices of one image: what the kernel takes in one EROFS mount with room to spare.
const MAX_LAYERS: usize = 1024;

/// A run of blocks in the artifact, its hash tree and its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Digest of the data.
    pub digest: Digest,
    /// Where the data begins in the artifact: bytes, a multiple of 4096.
    pub offset: u64,
    /// Length of the data: bytes, a multiple of 4096.
    pub size: u64,
    /// Root of the hash tree.
    pub root: Digest,
    /// Where the hash tree begins in the artifact: bytes, a multiple of 4096.
    pub tree_offset: u64,
    /// Length of the hash tree in bytes.
    pub tree_size: u64,
}

/// Everything that one EROFS mount needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSet {
    /// The manifest of the image.
    pub image: Digest,
    /// The EROFS metadata: the first device.
    pub metadata: Mount,
    /// The image's layers, lowest first: the extra devices in order.
    pub layers: Vec<Mount>,
}

impl MountSet {
    /// The devices in their order, each with a name for people: `metadata`, then the layers by their titles in the image's
    /// manifest. Without a manifest, and where a layer has no title, it is the beginning of the layer's digest.
    pub fn named(&self, image: Option<&Manifest>) -> impl Iterator<Item = (String, &Mount)> {
        let named = image.into_iter().flat_map(|manifest| &manifest.layers);
        let titles: BTreeMap<Digest, &String> =
            named.filter_map(|layer| Some((layer.digest, layer.annotations.get(TITLE)?))).collect();
        let name = move |mount: &Mount| match titles.get(&mount.digest) {
            Some(title) => (*title).clone(),
            None => mount.digest.to_hex().chars().take(SHORT_DIGEST).collect(),
        };
        let metadata = ("metadata".to_owned(), &self.metadata);
        std::iter::once(metadata).chain(self.layers.iter().map(move |mount| (name(mount), mount)))
    }
}

impl<S> Release<S> {
    /// Reads a mount manifest and finds its blobs.
    ///
    /// # Errors
    /// [`VerifyError::Mount`] when the manifest and the layout do not agree on every blob, root and tree; otherwise as
    /// [`Release::read_blob`].
    pub fn mount_set(&self, source: &dyn ReadAt, manifest: &Digest) -> Result<MountSet, VerifyError> {
        let bytes = self.read_blob(source, manifest, MAX_MANIFEST)?;
        let parsed = Manifest::parse(&bytes)
            .map_err(|source| VerifyError::Oci { path: format!("the mount manifest {manifest}"), source })?;
        self.find_mounts(&parsed).map_err(|reason| VerifyError::Mount { manifest: *manifest, reason })
    }

    fn find_mounts(&self, manifest: &Manifest) -> Result<MountSet, &'static str> {
        if manifest.artifact_type.as_deref() != Some(MOUNT_TYPE) {
            return Err("it is a manifest of another type");
        }
        let image = manifest.subject.as_ref().ok_or("it names no image as its subject")?.digest;
        let (metadata, trees) = manifest.layers.split_first().ok_or("it lists no blobs")?;
        if metadata.media_type != EROFS_TYPE {
            return Err("its first blob is no EROFS metadata");
        }
        if trees.len() > MAX_LAYERS {
            return Err("it lists too many layers");
        }
        let mut mounts = trees.iter().map(|tree| self.find_mount(tree));
        let first = mounts.next().ok_or("it lists no hash trees")??;
        if first.digest != metadata.digest || first.size != metadata.size {
            return Err("its first hash tree is not that of the EROFS metadata");
        }
        Ok(MountSet { image, metadata: first, layers: mounts.collect::<Result<_, _>>()? })
    }

    fn find_mount(&self, tree: &Descriptor) -> Result<Mount, &'static str> {
        if tree.media_type != VERITY_TYPE {
            return Err("it lists something else where a hash tree belongs");
        }
        let annotation = |key| tree.annotations.get(key).and_then(|text| text.parse::<Digest>().ok());
        let root = annotation(VERITY_ROOT).ok_or("a hash tree has no root annotation")?;
        let data = annotation(VERITY_DATA).ok_or("a hash tree has no data annotation")?;
        let data: &Member = self.member(&data).ok_or("the data of a hash tree is not in the artifact")?;
        let found = self.member(&tree.digest).filter(|found| found.size == tree.size);
        let found = found.ok_or("a hash tree is not in the artifact")?;
        if data.verity.is_none_or(|verity| verity.root != root || verity.tree != tree.digest) {
            return Err("layout.json gives a blob another root or hash tree");
        }
        Ok(Mount {
            digest: data.digest,
            offset: data.offset,
            size: data.size,
            root,
            tree_offset: found.offset,
            tree_size: found.size,
        })
    }
}
