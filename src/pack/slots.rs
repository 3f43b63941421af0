//! Which blobs an artifact has, in which order, and which of them are shared.

use super::{
    Inputs, PackError,
    attachments::Attached,
    documents::{Covered, Documents},
};
use crate::image::{erofs::ErofsPlan, oci::CoveredBlob};
use gap_format::{Digest, layout::Align, verity::tree_len, writer::BlobPlan};
use std::collections::BTreeMap;

/// The slot of the boot partition, which is the first blob of a disk.
pub(super) const ESP: usize = 0;

/// The blobs in the order of the artifact.
pub(super) struct Slots {
    plans: Vec<BlobPlan>,
    /// For each document in the order of [`Documents::blobs`], its slot.
    documents: Vec<usize>,
    boot_manifest: Option<usize>,
    /// For each blob in the order of [`Attached::blobs`], its slot.
    attached: Vec<usize>,
    /// For each layer, its slot and that of its tree.
    layers: Vec<(usize, usize)>,
    /// For each image, the slot of its metadata and that of the tree.
    metadata: Vec<(usize, usize)>,
    /// Length of `index.json`.
    pub index_len: u64,
    /// Length of `manifest.json`.
    pub manifest_len: u64,
}

impl Slots {
    pub fn new(inputs: &Inputs<'_>, plans: &[ErofsPlan<'_>]) -> Result<Self, PackError> {
        let covered = placeholders(inputs, plans);
        let documents = Documents::new(inputs, &covered)?;
        let attached = Attached::new(inputs, &documents, &covered);
        let mut slots = Self {
            plans: Vec::new(),
            documents: Vec::new(),
            boot_manifest: None,
            attached: Vec::new(),
            layers: vec![(0, 0); inputs.layers.len()],
            metadata: Vec::new(),
            index_len: documents.index(&attached).len() as u64,
            manifest_len: documents.docker()?.len() as u64,
        };
        if let Some(boot) = &inputs.boot {
            slots.add(boot.size, Align::Partition);
        }
        slots.add_documents(inputs, &documents, &attached);
        slots.add_images(inputs, plans);
        Ok(slots)
    }

    /// Two images of the same layers and settings have the same configuration, which is laid once.
    fn add_documents(&mut self, inputs: &Inputs<'_>, documents: &Documents, attached: &Attached) {
        let mut known = BTreeMap::new();
        self.documents = documents.blobs().map(|bytes| self.add_once(bytes, &mut known)).collect();
        if inputs.boot.is_some() {
            self.boot_manifest = Some(self.add(documents.boot.len() as u64, Align::Tar));
        }
        self.attached = attached.blobs().map(|bytes| self.add_once(bytes, &mut known)).collect();
    }

    fn add_once<'b>(&mut self, bytes: &'b [u8], known: &mut BTreeMap<&'b [u8], usize>) -> usize {
        *known.entry(bytes).or_insert_with(|| self.add(bytes.len() as u64, Align::Tar))
    }

    /// For each image: metadata, layers, then the trees of both; what an earlier image brought is not laid again.
    fn add_images(&mut self, inputs: &Inputs<'_>, plans: &[ErofsPlan<'_>]) {
        let mut of_layers: BTreeMap<Digest, (usize, usize)> = BTreeMap::new();
        let mut of_stacks: BTreeMap<Vec<Digest>, (usize, usize)> = BTreeMap::new();
        for (image, plan) in inputs.images.iter().zip(plans) {
            let stack: Vec<Digest> = image.layers.iter().map(|&layer| identity(inputs, layer)).collect();
            let mut waiting = Vec::new();
            if !of_stacks.contains_key(&stack) {
                let slot = self.add(plan.size(), Align::Block);
                of_stacks.insert(stack.clone(), (slot, 0));
                waiting.push(slot);
            }
            for (&layer, id) in image.layers.iter().zip(&stack) {
                if !of_layers.contains_key(id) {
                    let size = inputs.layers.get(layer).map_or(0, |layer| layer.size);
                    let slot = self.add(size, Align::Block);
                    of_layers.insert(*id, (slot, 0));
                    waiting.push(slot);
                }
            }
            for slot in waiting {
                let tree = self.add(tree_len(self.size(slot)), Align::Block);
                if let Some(plan) = self.plans.get_mut(slot) {
                    plan.tree = Some(tree);
                }
                let pairs = of_stacks.values_mut().chain(of_layers.values_mut());
                pairs.filter(|pair| pair.0 == slot).for_each(|pair| pair.1 = tree);
            }
            self.metadata.push(of_stacks.get(&stack).copied().unwrap_or_default());
            for (&layer, id) in image.layers.iter().zip(&stack) {
                if let Some(pair) = self.layers.get_mut(layer) {
                    *pair = of_layers.get(id).copied().unwrap_or_default();
                }
            }
        }
    }

    fn add(&mut self, size: u64, align: Align) -> usize {
        self.plans.push(BlobPlan { size, align, tree: None });
        self.plans.len() - 1
    }

    pub fn plans(&self) -> Vec<BlobPlan> {
        self.plans.clone()
    }

    pub const fn len(&self) -> usize {
        self.plans.len()
    }

    /// Length of the blob in a slot.
    pub fn size(&self, slot: usize) -> u64 {
        self.plans.get(slot).map_or(0, |plan| plan.size)
    }

    /// The slot of a layer and of its tree.
    pub fn layer(&self, number: usize) -> (usize, usize) {
        self.layers.get(number).copied().unwrap_or_default()
    }

    /// The slot of an image's metadata and of its tree.
    pub fn metadata(&self, image: usize) -> (usize, usize) {
        self.metadata.get(image).copied().unwrap_or_default()
    }

    /// Documents with their slots, but for the boot manifest.
    pub fn documents(&self, documents: &Documents) -> Vec<(usize, Vec<u8>)> {
        self.documents.iter().copied().zip(documents.blobs().map(<[u8]>::to_vec)).collect()
    }

    /// The blobs of attachments with their slots.
    pub fn attached<'b>(&self, attached: &'b Attached) -> Vec<(usize, &'b [u8])> {
        self.attached.iter().copied().zip(attached.blobs()).collect()
    }

    /// The boot manifest with its slot.
    pub fn boot_manifest(&self, documents: &Documents) -> Option<(usize, Vec<u8>)> {
        Some((self.boot_manifest?, documents.boot.clone()))
    }
}

/// The digest of a layer, or a stand-in that no other layer has.
fn identity(inputs: &Inputs<'_>, layer: usize) -> Digest {
    let known = inputs.layers.get(layer).and_then(|layer| layer.known);
    known.map(|known| known.digest).unwrap_or_else(|| Digest::of(format!("layer {layer}").as_bytes()))
}

/// Stand-ins for what is not known before it is laid down; documents get the same lengths, and are equal to each other
/// exactly when the real ones will be.
fn placeholders(inputs: &Inputs<'_>, plans: &[ErofsPlan<'_>]) -> Covered {
    let covered = |digest, size| {
        let tree_size = tree_len(size);
        CoveredBlob { digest, size, root: digest, tree: digest, tree_size }
    };
    let layers = inputs.layers.iter().enumerate();
    let metadata = inputs.images.iter().zip(plans).map(|(image, plan)| {
        let stack: String = image.layers.iter().map(|&layer| identity(inputs, layer).to_hex()).collect();
        covered(Digest::of(stack.as_bytes()), plan.size())
    });
    Covered {
        metadata: metadata.collect(),
        layers: layers.map(|(number, layer)| covered(identity(inputs, number), layer.size)).collect(),
    }
}
