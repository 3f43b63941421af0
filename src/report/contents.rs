//! The images of an artifact, opened to be looked at.

use crate::{
    image::{
        merge::{Extent, MergeError, Merged, merge},
        oci::{annotation, media_type},
    },
    layer::{
        stack::StackError,
        tar::{IndexError, LayerIndex, read_index},
    },
};
use gap_format::{
    Digest, ReadAt, Release, Slice, VerifyError,
    escape::escaped,
    layout::{Member, Verity},
    oci::{Descriptor, Manifest, ParseOciError},
    release::Unverified,
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

/// Largest manifest that is read, in bytes.
const MAX_MANIFEST: u64 = 1 << 20;
/// Most near names that an error offers.
const SUGGESTIONS: usize = 3;

/// An artifact whose head is consistent in itself; nobody has checked who signed it, nor the bytes of its blobs.
pub struct Contents {
    path: PathBuf,
    file: File,
    release: Release<Unverified>,
    images: Vec<Image>,
}

/// A run of bytes in the artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blob {
    /// Its SHA-256.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Where it begins in the artifact, in bytes.
    pub offset: u64,
    /// Root and blob of its hash tree, if it is mounted.
    pub verity: Option<Verity>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Its name in the recipe; its digest where the manifest gives none. Not escaped.
    pub name: String,
    /// Its tar.
    #[serde(flatten)]
    pub blob: Blob,
}

/// An image in the artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Its name in the index. Not escaped.
    pub name: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Digest of its mount manifest, if it can be mounted in place.
    pub mount: Option<Digest>,
    /// Whether the firmware starts it.
    pub boot: bool,
    /// Its EROFS metadata, if it can be mounted in place.
    pub metadata: Option<Blob>,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
}

/// Why an artifact cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// The file cannot be opened.
    #[error("cannot open `{}`: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no artifact, or its head contradicts itself.
    #[error("`{}` cannot be read as an artifact: {source}", path.display())]
    Head {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<VerifyError>,
    },
    /// A manifest is no OCI manifest.
    #[error("the manifest {digest} in `{}` cannot be read: {source}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Digest of the manifest.
        digest: Digest,
        /// What is wrong with it.
        source: ParseOciError,
    },
    /// A manifest names something that is not there.
    #[error("`{}` contradicts itself: the image `{image}` names the blob {blob}, which is not in the artifact", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The image, escaped.
        image: String,
        /// What it names.
        blob: Digest,
    },
    /// A layer is no layer tar.
    #[error("the layer `{layer}` of `{}` cannot be listed: {source}", path.display())]
    Layer {
        /// The file.
        path: PathBuf,
        /// The layer, escaped.
        layer: String,
        /// What is wrong with it.
        source: Box<IndexError>,
    },
    /// The layers make no tree.
    #[error("the layers of the image `{image}` in `{}` make no tree: {source}", path.display())]
    Merge {
        /// The file.
        path: PathBuf,
        /// The image, escaped.
        image: String,
        /// What is wrong with them.
        source: Box<MergeError>,
    },
    /// No image goes by this name.
    #[error("`{}` holds no image `{wanted}`; {hint}", path.display())]
    NoImage {
        /// The file.
        path: PathBuf,
        /// The name asked for, escaped.
        wanted: String,
        /// What it holds instead.
        hint: String,
    },
    /// No document goes by this name, or several do.
    #[error("`{}` holds {found} document `{wanted}`; {hint}", path.display())]
    NoDocument {
        /// The file.
        path: PathBuf,
        /// `no`, or `more than one`.
        found: &'static str,
        /// The name asked for, escaped.
        wanted: String,
        /// What it holds.
        hint: String,
    },
    /// The layers of images contradict each other when they are laid to be run.
    #[error("the image `{image}` in `{}` cannot be laid: {source}", path.display())]
    Stack {
        /// The artifact.
        path: PathBuf,
        /// The image, escaped.
        image: String,
        /// How.
        source: StackError,
    },
    /// A document is not of the form that its type says.
    #[error("the document `{title}` in `{}` cannot be read: {reason}", path.display())]
    Document {
        /// The artifact.
        path: PathBuf,
        /// The document, escaped.
        title: String,
        /// What is wrong with it, escaped.
        reason: String,
    },
    /// The configuration of an image is no OCI configuration.
    #[error("the configuration of the image `{image}` in `{}` cannot be read: {source}", path.display())]
    Configuration {
        /// The artifact.
        path: PathBuf,
        /// The image, escaped.
        image: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The bytes of a file cannot be read.
    #[error("cannot read a file's bytes in `{}`: {source}", path.display())]
    Read {
        /// The artifact.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Indexes of layers by digest, so that a layer that several images or both of two artifacts hold is listed once.
pub type Indexes = BTreeMap<Digest, Rc<LayerIndex>>;

impl Contents {
    /// Opens the artifact at `path` and reads its documents.
    ///
    /// # Errors
    /// [`ContentsError`] if it is no artifact or its documents do not fit together.
    pub fn open(path: &Path) -> Result<Self, ContentsError> {
        let file = File::open(path).map_err(|source| ContentsError::Open { path: path.to_owned(), source })?;
        let release = Release::inspect(&file)
            .map_err(|source| ContentsError::Head { path: path.to_owned(), source: Box::new(source) })?;
        let mut contents = Self { path: path.to_owned(), file, release, images: Vec::new() };
        contents.images = contents.find_images()?;
        Ok(contents)
    }

    /// What the head says; claims all of it.
    pub const fn release(&self) -> &Release<Unverified> {
        &self.release
    }

    /// The images in the order of the index.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A blob of at most `max` bytes, whose digest is right.
    ///
    /// # Errors
    /// [`ContentsError::Head`] if it is not there, longer or damaged.
    pub(super) fn read_blob(&self, digest: &Digest, max: u64) -> Result<Vec<u8>, ContentsError> {
        self.release.read_blob(&self.file, digest, max).map_err(|source| self.head(source))
    }

    /// The EFI system partition of a disk.
    pub fn esp(&self) -> Option<&Member> {
        self.release.layout().esp()
    }

    /// The image of this name.
    ///
    /// # Errors
    /// [`ContentsError::NoImage`] with names that are near.
    pub fn image(&self, name: &str) -> Result<&Image, ContentsError> {
        self.images.iter().find(|image| image.name == name).ok_or_else(|| ContentsError::NoImage {
            path: self.path.clone(),
            wanted: escaped(name),
            hint: hint(name, &self.images),
        })
    }

    /// The tree that the layers of `image` make. Layers in `indexes` are not read again.
    ///
    /// # Errors
    /// [`ContentsError::Layer`] or [`ContentsError::Merge`] if a layer or the stack of them is malformed.
    pub fn tree(&self, image: &Image, indexes: &mut Indexes) -> Result<Merged, ContentsError> {
        let layers =
            image.layers.iter().map(|layer| self.index(layer, indexes)).collect::<Result<Vec<_>, ContentsError>>()?;
        merge(&layers.iter().map(Rc::as_ref).collect::<Vec<_>>()).map_err(|source| ContentsError::Merge {
            path: self.path.clone(),
            image: escaped(&image.name),
            source: Box::new(source),
        })
    }

    /// Fills `buffer` with bytes of a file of `image`, from byte `at` of the file.
    ///
    /// # Errors
    /// [`ContentsError::Read`] if they cannot be read or lie outside the file.
    pub fn read(&self, image: &Image, extent: &Extent, at: u64, buffer: &mut [u8]) -> Result<(), ContentsError> {
        let failed = |source| ContentsError::Read { path: self.path.clone(), source };
        let layer = image.layers.get(extent.layer).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let data = Slice::new(self.window(layer), extent.offset, extent.len);
        data.read_exact_at(buffer, at).map_err(failed)
    }

    fn window(&self, layer: &Layer) -> Slice<&File> {
        Slice::new(&self.file, layer.blob.offset, layer.blob.size)
    }

    pub(super) fn index(&self, layer: &Layer, indexes: &mut Indexes) -> Result<Rc<LayerIndex>, ContentsError> {
        if let Some(known) = indexes.get(&layer.blob.digest) {
            return Ok(Rc::clone(known));
        }
        let index = read_index(&self.window(layer), layer.blob.size).map_err(|source| ContentsError::Layer {
            path: self.path.clone(),
            layer: escaped(&layer.name),
            source: Box::new(source),
        })?;
        let index = Rc::new(index);
        indexes.insert(layer.blob.digest, Rc::clone(&index));
        Ok(index)
    }

    /// The artifact once more, for contents that outlive this.
    pub(super) fn reopened(&self) -> Result<File, ContentsError> {
        File::open(&self.path).map_err(|source| ContentsError::Open { path: self.path.clone(), source })
    }

    /// The configuration document of an image.
    pub(super) fn configuration(&self, image: &Image) -> Result<Vec<u8>, ContentsError> {
        let config = self.manifest(&image.digest)?.config;
        self.release.read_blob(&self.file, &config.digest, MAX_MANIFEST).map_err(|source| self.head(source))
    }

    /// The error that a document of an image is not what it should be.
    pub(super) fn malformed(&self, image: &Image, source: serde_json::Error) -> ContentsError {
        ContentsError::Configuration { path: self.path.clone(), image: escaped(&image.name), source }
    }

    fn find_images(&self) -> Result<Vec<Image>, ContentsError> {
        let entries = &self.release.index().manifests;
        let mut mounts = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.artifact_type.as_deref() == Some(media_type::MOUNT)) {
            let set = self.release.mount_set(&self.file, &entry.digest).map_err(|source| self.head(source))?;
            mounts.insert(set.image, (entry.digest, set.metadata.digest));
        }
        let started = self.started()?;
        let images = entries.iter().filter(|entry| entry.artifact_type.is_none());
        let images = images.filter_map(|entry| Some((entry.annotations.get(annotation::REF_NAME)?, entry)));
        images
            .map(|(name, entry)| {
                let mount = mounts.get(&entry.digest);
                let layers = self.manifest(&entry.digest)?.layers;
                let layers =
                    layers.iter().map(|layer| self.layer(name, layer)).collect::<Result<_, ContentsError>>()?;
                Ok(Image {
                    name: name.clone(),
                    digest: entry.digest,
                    mount: mount.map(|(manifest, _)| *manifest),
                    boot: mount.is_some_and(|(manifest, _)| started == Some(*manifest)),
                    metadata: mount.map(|(_, metadata)| self.blob(name, metadata)).transpose()?,
                    layers,
                })
            })
            .collect()
    }

    /// The mount manifest of the image that the firmware starts.
    fn started(&self) -> Result<Option<Digest>, ContentsError> {
        let entries = &self.release.index().manifests;
        let Some(entry) = entries.iter().find(|entry| entry.artifact_type.as_deref() == Some(media_type::BOOT)) else {
            return Ok(None);
        };
        Ok(self.manifest(&entry.digest)?.annotations.get(annotation::BOOT_OS).and_then(|digest| digest.parse().ok()))
    }

    pub(super) fn manifest(&self, digest: &Digest) -> Result<Manifest, ContentsError> {
        let bytes = self.read_blob(digest, MAX_MANIFEST)?;
        Manifest::parse(&bytes).map_err(|source| ContentsError::Manifest {
            path: self.path.clone(),
            digest: *digest,
            source,
        })
    }

    fn layer(&self, image: &str, layer: &Descriptor) -> Result<Layer, ContentsError> {
        let name = layer.annotations.get(annotation::TITLE).cloned().unwrap_or_else(|| layer.digest.to_string());
        Ok(Layer { name, blob: self.blob(image, &layer.digest)? })
    }

    fn blob(&self, image: &str, digest: &Digest) -> Result<Blob, ContentsError> {
        let missing = || ContentsError::Missing { path: self.path.clone(), image: escaped(image), blob: *digest };
        let member = self.release.member(digest).ok_or_else(missing)?;
        Ok(Blob { digest: member.digest, size: member.size, offset: member.offset, verity: member.verity })
    }

    pub(super) fn head(&self, source: VerifyError) -> ContentsError {
        ContentsError::Head { path: self.path.clone(), source: Box::new(source) }
    }
}

/// Names that are near `wanted`, or all if there are few.
fn hint(wanted: &str, images: &[Image]) -> String {
    let mut names: Vec<&str> = images.iter().map(|image| image.name.as_str()).collect();
    if names.is_empty() {
        return "it holds no images at all".to_owned();
    }
    names.sort_by_key(|name| (strsim::damerau_levenshtein(wanted, name), *name));
    let few = names.len() <= SUGGESTIONS;
    names.truncate(SUGGESTIONS);
    let names: Vec<String> = names.iter().map(|name| format!("`{}`", escaped(name))).collect();
    format!("{} {}", if few { "it holds" } else { "near it are" }, names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::Sample;

    #[test]
    fn images_come_with_their_layers_by_name_and_their_metadata() {
        let sample = Sample::new();
        let contents = Contents::open(&sample.artifact("a.gap", "1.0", &[("base", "one"), ("site", "two")])).unwrap();
        let [image] = contents.images() else { panic!("one image") };
        assert_eq!((image.name.as_str(), image.boot), ("os", false));
        let names: Vec<_> = image.layers.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, ["base", "site"]);
        let devices = image.metadata.iter().chain(image.layers.iter().map(|layer| &layer.blob));
        assert_eq!(devices.filter(|blob| blob.verity.is_some()).count(), 3);
        assert!(contents.esp().is_none());
    }

    #[test]
    fn an_unknown_image_is_refused_with_the_names_that_are_there() {
        let sample = Sample::new();
        let contents = Contents::open(&sample.artifact("a.gap", "1.0", &[("base", "one")])).unwrap();
        let refused = contents.image("so").unwrap_err().to_string();
        assert!(refused.contains("`so`") && refused.contains("`os`"), "{refused}");
    }

    #[test]
    fn what_is_no_artifact_is_refused() {
        let sample = Sample::new();
        let path = sample.path().join("text");
        std::fs::write(&path, "not an artifact").unwrap();
        assert!(matches!(Contents::open(&path), Err(ContentsError::Head { .. })));
        assert!(matches!(Contents::open(&sample.path().join("absent")), Err(ContentsError::Open { .. })));
    }

    #[test]
    fn bytes_of_a_file_are_read_where_the_tree_says() {
        let sample = Sample::new();
        let contents = Contents::open(&sample.artifact("a.gap", "1.0", &[("base", "hello")])).unwrap();
        let image = contents.image("os").unwrap();
        let tree = contents.tree(image, &mut Indexes::new()).unwrap();
        let extent = tree.inodes().iter().find_map(|inode| match &inode.kind {
            crate::image::merge::InodeKind::File(extent) => Some(*extent),
            _ => None,
        });
        let mut bytes = [0; 4];
        contents.read(image, &extent.unwrap(), 1, &mut bytes).unwrap();
        assert_eq!(&bytes, b"ello");
        assert!(contents.read(image, &extent.unwrap(), 2, &mut bytes).is_err(), "beyond the file");
    }
}
