//! Assembling the artifact: every blob goes to its place in one pass, everything else follows from the digests.

mod attachments;
mod chunk;
mod documents;
mod draft;
pub mod ingest;
pub mod output;
mod slots;

pub use attachments::{Attachment, Digests, MakeDocument, Subject};
pub use documents::Image;

use crate::{
    image::{
        erofs::{ErofsError, ErofsPlan},
        merge::Merged,
        oci::{CoveredBlob, OciError},
    },
    layer::sink::Sink,
};
use attachments::Attached;
use chunk::Pool;
use documents::{Covered, Documents};
use draft::Draft;
use gap_format::{
    Digest, ReadAt, Slice, WriteAt,
    sign::journal_path,
    statement::{Release, Statement},
    writer::{ArtifactPlan, BlobDigests, Contents, WriteError},
};
use ingest::{Feed, Place, ingest};
use output::Output;
use sha2::{Digest as _, Sha256};
use slots::Slots;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// Bytes read at once when a hash tree is hashed as a blob.
const CHUNK: usize = 1 << 20;

/// What an artifact is made of.
pub struct Inputs<'a> {
    /// What the release statement says.
    pub release: Release,
    /// The layers, each once.
    pub layers: Vec<Layer<'a>>,
    /// The images, in the order of the recipe.
    pub images: Vec<Image>,
    /// The merged tree of each image.
    pub merged: &'a [Merged],
    /// The boot partition, if an image boots.
    pub boot: Option<Boot<'a>>,
    /// Documents about what is in the artifact.
    pub attachments: Vec<Attachment<'a>>,
}

/// Streams the bytes of a layer.
pub type FillLayer<'a> = dyn Fn(&mut dyn Sink) -> io::Result<()> + 'a;

/// Makes the boot partition for a mount manifest, or says why it cannot.
pub type MakePartition<'a> = dyn Fn(&Digest) -> Result<Vec<u8>, String> + 'a;

/// A layer to be laid down.
pub struct Layer<'a> {
    /// Its name in the recipe.
    pub name: String,
    /// Length of its tar in bytes.
    pub size: u64,
    /// What it is, if it was made before.
    pub known: Option<Known>,
    /// From which of its bytes on there are only large files, which need no place in the page cache.
    pub bulk: u64,
    /// Streams its bytes.
    pub fill: Box<FillLayer<'a>>,
}

/// What a blob is. Its tree's root stands for the same bytes as its digest, so that one need only be computed where both
/// are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// SHA-256 of the blob.
    pub digest: Digest,
    /// Root of its verity tree.
    pub root: Digest,
}

/// The boot partition.
pub struct Boot<'a> {
    /// Number of the image that is started.
    pub image: usize,
    /// Length of the partition in bytes.
    pub size: u64,
    /// Makes the partition that starts the image with this mount manifest.
    pub make: Box<MakePartition<'a>>,
}

/// What was made.
#[derive(Debug)]
pub struct Packed {
    /// The release statement.
    pub statement: Statement,
    /// What each layer turned out to be, in the order of [`Inputs::layers`].
    pub layers: Vec<PackedLayer>,
}

/// A layer in the artifact.
#[derive(Debug, Clone, Copy)]
pub struct PackedLayer {
    /// Its digest and root.
    pub is: Known,
    /// Where it begins in the artifact, in bytes.
    pub offset: u64,
}

/// Why an artifact cannot be assembled.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// See [`WriteError`].
    #[error(transparent)]
    Write(#[from] WriteError),
    /// See [`OciError`].
    #[error(transparent)]
    Oci(#[from] OciError),
    /// See [`ErofsError`].
    #[error("image `{image}` cannot be laid out as a file system: {source}")]
    Erofs {
        /// The image.
        image: String,
        /// Why not.
        source: ErofsError,
    },
    /// The output cannot be written.
    #[error("{doing} `{}`: {source}", path.display())]
    Output {
        /// What was attempted.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no room for the output.
    #[error("no space left for `{}`, which needs {needed} bytes; free some, or choose another place with -o", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// Its length.
        needed: u64,
    },
    /// No file of that length is allowed there.
    #[error(
        "a file of {needed} bytes, as `{}` would be, is longer than its file system (FAT32 ends at 4 GiB) or a limit of this \
         process allows; choose another place with -o", path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        needed: u64,
    },
    /// There is something else in the place of the output.
    #[error(
        "`{}` is {found}, and an artifact is built as a file: name one with -o, and copy it where it is to go once it is signed",
        path.display()
    )]
    NoFile {
        /// The output.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The output has no directory to lie in.
    #[error("`{}` cannot be made: there is no directory `{}`; make it, or choose another place with -o", path.display(), directory.display())]
    NoDirectory {
        /// The output.
        path: PathBuf,
        /// What is missing.
        directory: PathBuf,
    },
    /// A blob cannot be written, or not read at its source.
    #[error("laying down {what}: {source}")]
    Blob {
        /// Which one.
        what: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A layer from the store is not what its record says.
    #[error("layer `{0}` was damaged in the store and is no longer used; run the same command again")]
    Damaged(String),
    /// Two layers turned out to hold the same bytes; lay them again with what they are known.
    #[error("two layers turned out to be the same")]
    SameLayers(Vec<PackedLayer>),
    /// The boot partition cannot be made.
    #[error("the boot partition cannot be made: {0}")]
    Boot(String),
}

/// Refuses an output that no artifact can be built at, before the work for it is done.
///
/// # Errors
/// [`PackError::NoFile`], [`PackError::NoDirectory`], or [`PackError::Output`] where that cannot be found out.
pub fn check_output(output: &Path) -> Result<(), PackError> {
    use std::os::unix::{ffi::OsStrExt, fs::FileTypeExt};
    let refused = |found| Err(PackError::NoFile { path: output.to_owned(), found });
    match fs::metadata(output).map(|meta| meta.file_type()) {
        Ok(kind) if kind.is_file() => {}
        Ok(kind) if kind.is_dir() => return refused("a directory"),
        Ok(kind) if kind.is_block_device() || kind.is_char_device() => return refused("a device"),
        Ok(_) => return refused("a pipe or socket"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(PackError::Output { doing: "looking at", path: output.to_owned(), source }),
    }
    if output.as_os_str().as_bytes().ends_with(b"/") {
        return refused("the name of a directory");
    }
    let directory = directory_of(output);
    if directory.is_dir() {
        return Ok(());
    }
    Err(PackError::NoDirectory { path: output.to_owned(), directory: directory.to_owned() })
}

/// Refuses an output whose directory takes no new file, by making one that vanishes.
///
/// # Errors
/// [`PackError::Output`].
pub fn try_output(output: &Path) -> Result<(), PackError> {
    let tried = Draft::new_in(directory_of(output));
    let failed = |source| PackError::Output { doing: "making a file for", path: output.to_owned(), source };
    tried.map(drop).map_err(failed)
}

fn directory_of(output: &Path) -> &Path {
    output.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Assembles the artifact at `output`: draft beside it → fsync → rename. `progress` is told of bytes laid down.
///
/// # Errors
/// [`PackError`]; nothing is left behind then, and what was at `output` before is untouched.
pub fn pack(inputs: &Inputs<'_>, output: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<Packed, PackError> {
    let plans = inputs.merged.iter().zip(&inputs.images).map(|(merged, image)| {
        ErofsPlan::new(merged).map_err(|source| PackError::Erofs { image: image.info.name.clone(), source })
    });
    let plans = plans.collect::<Result<Vec<_>, _>>()?;
    let slots = Slots::new(inputs, &plans)?;
    let plan = ArtifactPlan::new(inputs.boot.is_some(), slots.index_len, slots.manifest_len, &slots.plans())?;
    let dir = directory_of(output);
    let failed = |doing| move |source| PackError::Output { doing, path: output.to_owned(), source };
    let draft = Draft::new_in(dir).map_err(failed("making a file for"))?;
    reserve(draft.file(), plan.total(), output)?;
    let out = Output::new(draft.file());
    let packed =
        Laying { inputs, slots, plan, out: &out, pool: Pool::new(), progress, done: Vec::new() }.run(&plans)?;
    draft.file().sync_all().map_err(failed("writing"))?;
    draft.persist(output).map_err(failed("naming"))?;
    // It is about what had the name before.
    match fs::remove_file(journal_path(output)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("removing the journal of an interrupted signing beside")(error));
        }
        _ => {}
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("naming"))?;
    Ok(packed)
}

/// Takes the whole length at once, so that a full disk shows before the work is done.
fn reserve(file: &File, len: u64, output: &Path) -> Result<(), PackError> {
    use rustix::{fs::FallocateFlags, io::Errno};
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        Err(Errno::NOSPC | Errno::DQUOT) => Err(PackError::Full { path: output.to_owned(), needed: len }),
        Err(Errno::FBIG) => Err(PackError::TooLarge { path: output.to_owned(), needed: len }),
        // Not every file system can; then a full disk shows while writing.
        Err(_) => file.set_len(len).map_err(|source| match source.kind() {
            io::ErrorKind::FileTooLarge => PackError::TooLarge { path: output.to_owned(), needed: len },
            _ => PackError::Output { doing: "reserving space for", path: output.to_owned(), source },
        }),
    }
}

/// The artifact while its blobs are laid down.
struct Laying<'a> {
    inputs: &'a Inputs<'a>,
    slots: Slots,
    plan: ArtifactPlan,
    out: &'a Output<'a>,
    pool: Pool,
    progress: &'a (dyn Fn(u64) + Sync),
    /// Digests by slot, as far as they are known.
    done: Vec<Option<BlobDigests>>,
}

impl Laying<'_> {
    fn run(&mut self, plans: &[ErofsPlan<'_>]) -> Result<Packed, PackError> {
        self.done = vec![None; self.slots.len()];
        for number in 0..self.inputs.layers.len() {
            self.lay_layer(number)?;
        }
        self.check_distinct()?;
        for (number, plan) in plans.iter().enumerate() {
            self.lay_metadata(number, plan)?;
        }
        let covered = self.covered()?;
        let documents = Documents::new(self.inputs, &covered)?;
        for (slot, bytes) in self.slots.documents(&documents) {
            self.lay_bytes(slot, &bytes)?;
        }
        if let Some(boot) = &self.inputs.boot {
            let partition = (boot.make)(&documents.mount_of(boot.image)).map_err(PackError::Boot)?;
            self.lay_bytes(slots::ESP, &partition)?;
        }
        let esp = self.done.first().copied().flatten().map(|blob| blob.digest);
        let documents = documents.with_esp(self.inputs, esp);
        if let Some((slot, bytes)) = self.slots.boot_manifest(&documents) {
            self.lay_bytes(slot, &bytes)?;
        }
        let attached = Attached::new(self.inputs, &documents, &covered);
        for (slot, bytes) in self.slots.attached(&attached) {
            self.lay_bytes(slot, bytes)?;
        }
        let index = documents.index(&attached);
        let manifest = documents.docker()?;
        let blobs =
            self.done.iter().copied().map(|blob| blob.ok_or(WriteError::NotAsPlanned { what: "the list of blobs" }));
        let blobs = blobs.collect::<Result<Vec<_>, _>>()?;
        let contents = Contents { index: &index, manifest: &manifest, blobs: &blobs, release: &self.inputs.release };
        let statement = self.plan.finish(self.out.file(), &contents)?;
        Ok(Packed { statement, layers: self.packed_layers()? })
    }

    fn offset(&self, slot: usize) -> u64 {
        self.plan.blob_offsets().get(slot).copied().unwrap_or_default()
    }

    fn lay_layer(&mut self, number: usize) -> Result<(), PackError> {
        let Some(layer) = self.inputs.layers.get(number) else { return Ok(()) };
        let (slot, tree) = self.slots.layer(number);
        if self.done.get(slot).is_some_and(Option::is_some) {
            return Ok(());
        }
        let what = format!("layer `{}`", layer.name);
        match self.lay_covered((slot, tree), layer.bulk, layer.known, &what, |feed| (layer.fill)(feed))? {
            made if layer.known.is_none_or(|known| known == made) => Ok(()),
            _ => Err(PackError::Damaged(layer.name.clone())),
        }
    }

    /// Layers whose digests were not known before may be the same; an artifact holds every blob once.
    fn check_distinct(&self) -> Result<(), PackError> {
        let mut seen = std::collections::BTreeMap::new();
        for number in 0..self.inputs.layers.len() {
            let (slot, _) = self.slots.layer(number);
            let Some(blob) = self.done.get(slot).copied().flatten() else { continue };
            if *seen.entry(blob.digest).or_insert(slot) != slot {
                return Err(PackError::SameLayers(self.packed_layers()?));
            }
        }
        Ok(())
    }

    fn lay_metadata(&mut self, image: usize, plan: &ErofsPlan<'_>) -> Result<(), PackError> {
        let (slot, tree) = self.slots.metadata(image);
        if self.done.get(slot).is_some_and(Option::is_some) {
            return Ok(());
        }
        let Some(input) = self.inputs.images.get(image) else { return Ok(()) };
        let window = |&layer: &usize| {
            let size = self.inputs.layers.get(layer).map_or(0, |layer| layer.size);
            Slice::new(self.out.file(), self.offset(self.slots.layer(layer).0), size)
        };
        let windows: Vec<Slice<&File>> = input.layers.iter().map(window).collect();
        let readers: Vec<&dyn ReadAt> = windows.iter().map(|window| window as &dyn ReadAt).collect();
        let what = format!("the file system of image `{}`", input.info.name);
        self.lay_covered((slot, tree), plan.size(), None, &what, |feed| plan.write(feed, &readers)).map(drop)
    }

    /// Lays a mounted blob and its tree; from `bulk` on nothing of the blob is read again. The digest of one that is `known`
    /// is taken as it is: whoever asks compares the root.
    fn lay_covered(
        &mut self,
        (slot, tree): (usize, usize),
        bulk: u64,
        known: Option<Known>,
        what: &str,
        produce: impl FnOnce(&mut Feed<'_>) -> io::Result<()>,
    ) -> Result<Known, PackError> {
        let failed = |source| PackError::Blob { what: what.to_owned(), source };
        let (tree_offset, len) = (self.offset(tree), self.slots.size(slot));
        let place = Place { out: self.out, offset: self.offset(slot), len, bulk, tree: tree_offset };
        let digest = known.map(|known| known.digest);
        let made = ingest(place, &self.pool, digest, self.progress, produce).map_err(failed)?;
        let tree_digest = hash_range(self.out.file(), tree_offset, self.slots.size(tree)).map_err(failed)?;
        self.set(slot, BlobDigests { digest: made.digest, root: Some(made.root) });
        self.set(tree, BlobDigests { digest: tree_digest, root: None });
        Ok(made)
    }

    fn lay_bytes(&mut self, slot: usize, bytes: &[u8]) -> Result<(), PackError> {
        if bytes.len() as u64 != self.slots.size(slot) {
            return Err(WriteError::NotAsPlanned { what: "a document" }.into());
        }
        let failed = |source| PackError::Blob { what: "a document".to_owned(), source };
        self.out.file().write_all_at(bytes, self.offset(slot)).map_err(failed)?;
        self.set(slot, BlobDigests { digest: Digest::of(bytes), root: None });
        Ok(())
    }

    fn set(&mut self, slot: usize, digests: BlobDigests) {
        if let Some(done) = self.done.get_mut(slot) {
            *done = Some(digests);
        }
    }

    /// What is mounted, with its digests.
    fn covered(&self) -> Result<Covered, PackError> {
        let images = 0..self.inputs.images.len();
        let layers = 0..self.inputs.layers.len();
        Ok(Covered {
            metadata: images.map(|image| self.covered_blob(self.slots.metadata(image))).collect::<Result<_, _>>()?,
            layers: layers.map(|layer| self.covered_blob(self.slots.layer(layer))).collect::<Result<_, _>>()?,
        })
    }

    fn covered_blob(&self, (slot, tree): (usize, usize)) -> Result<CoveredBlob, PackError> {
        let blob = |slot: usize| self.done.get(slot).copied().flatten();
        let made = blob(slot).zip(blob(tree)).and_then(|(data, tree)| Some((data.digest, data.root?, tree.digest)));
        let (digest, root, tree_digest) = made.ok_or(WriteError::NotAsPlanned { what: "a mounted blob" })?;
        let (size, tree_size) = (self.slots.size(slot), self.slots.size(tree));
        Ok(CoveredBlob { digest, size, root, tree: tree_digest, tree_size })
    }

    fn packed_layers(&self) -> Result<Vec<PackedLayer>, PackError> {
        let layers = (0..self.inputs.layers.len()).map(|number| {
            let slots = self.slots.layer(number);
            let blob = self.covered_blob(slots)?;
            let is = Known { digest: blob.digest, root: blob.root };
            Ok(PackedLayer { is, offset: self.offset(slots.0) })
        });
        layers.collect()
    }
}

fn hash_range(file: &File, offset: u64, len: u64) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < len {
        let count = usize::try_from(len - at).unwrap_or(CHUNK).min(CHUNK);
        let part = chunk.get_mut(..count).unwrap_or_default();
        file.read_exact_at(part, offset + at)?;
        hasher.update(&*part);
        at += count as u64;
    }
    Ok(hasher.into())
}
