//! Metrics in Prometheus' text format (version 0.0.4): GPUs under DCGM's names, and the appliance's own.

mod dcgm;
mod text;

pub use dcgm::{Host, render as render_gpus};
pub use text::{Kind, MEDIA_TYPE, Page};

use crate::{console, gpus, root::Root};
use gap_gpu::{
    PciAddress, health,
    nvml::{Library, Sample},
};
use std::{collections::BTreeMap, sync::OnceLock};

/// The driver's library, kept open from the first time that somebody asks on.
#[derive(Default)]
pub struct Sampler(OnceLock<Option<Library>>);

impl Sampler {
    /// What every GPU measures now; nothing where there is no library or no driver.
    pub fn samples(&self, root: &Root) -> Vec<Sample> {
        let library = self.0.get_or_init(|| Library::load(root).map_err(console::say).ok());
        library.as_ref().map(Library::samples).unwrap_or_default()
    }
}

/// The last error of each GPU in the kernel's log.
pub fn last_xids(root: &Root) -> BTreeMap<PciAddress, u32> {
    health::xids(&gpus::kernel_log(root)).into_iter().map(|xid| (xid.address, xid.code)).collect()
}
