//! The driver's own library (NVML), loaded when it is there.
//!
//! It speaks only to the driver, through device nodes; it opens no network connection.

mod instance;
mod sample;

pub use sample::Sample;

use crate::{
    PciAddress,
    health::{Reading, Slowdown},
    mig::Present,
};
use gap_root::Root;
use nvml_wrapper::{
    Device, Nvml,
    bitmasks::device::ThrottleReasons,
    enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor},
    enums::device::SampleValue,
    error::NvmlError,
    structs::device::FieldId,
    sys_exports::field_id::{NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING},
};
use std::{collections::BTreeMap, path::PathBuf};

/// Where Debian and NVIDIA install the library.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.1",
    "/usr/lib64/libnvidia-ml.so.1",
];

/// A GPU as the library shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where it sits.
    pub address: PciAddress,
    /// `GPU-…`.
    pub uuid: Option<String>,
    /// What its maker calls it.
    pub model: Option<String>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// How it is cut; `None` where it cannot be.
    pub mig: Option<Present>,
    /// Its slices.
    pub slices: Vec<Slice>,
    /// What its sensors say.
    pub reading: Reading,
}

/// A slice of a GPU that is ready to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// `MIG-…`.
    pub uuid: String,
    /// GPU instance and compute instance, as in the names of capabilities.
    pub instance: (u32, u32),
    /// `1g.10gb`.
    pub profile: String,
    /// Memory in bytes.
    pub memory: Option<u64>,
}

/// What can be asked of the driver's library; a table stands in for it where there is none.
pub trait Management {
    /// All GPUs, in the order of their indexes.
    ///
    /// # Errors
    /// What the library says.
    fn gpus(&self) -> Result<Vec<Seen>, ManagementError>;

    /// Keeps the driver's state while no program uses a GPU, which else costs seconds at each start of one.
    ///
    /// # Errors
    /// What the library says.
    fn persist(&self) -> Result<(), ManagementError>;
}

/// What the library could not do.
#[derive(Debug, thiserror::Error)]
#[error("asking the driver's library to {what}: {reason}")]
pub struct ManagementError {
    what: &'static str,
    reason: String,
}

impl ManagementError {
    /// An error in doing `what`.
    pub fn new(what: &'static str, reason: impl ToString) -> Self {
        Self { what, reason: reason.to_string() }
    }
}

/// The real library.
pub struct Library(Nvml);

impl Library {
    /// Loads the library of the OS image.
    ///
    /// # Errors
    /// [`ManagementError`] when it is not there, does not fit the driver, or finds no driver.
    pub fn load(root: &Root) -> Result<Self, ManagementError> {
        let failed = |reason: String| ManagementError::new("start", reason);
        let path: PathBuf =
            LIBRARIES.iter().map(|path| root.at(path)).find(|path| path.exists()).ok_or_else(|| {
                failed("libnvidia-ml.so.1 is not in the OS image: add libnvidia-ml1 to it".to_owned())
            })?;
        let library = Nvml::builder().lib_path(path.as_os_str()).init().map_err(|error| failed(error.to_string()))?;
        Ok(Self(library))
    }
}

impl Management for Library {
    fn gpus(&self) -> Result<Vec<Seen>, ManagementError> {
        let failed = |error: NvmlError| ManagementError::new("list the GPUs", error);
        let count = self.0.device_count().map_err(failed)?;
        // A GPU that was lost has an index still and answers nothing; it is missing in the list then.
        Ok((0..count).filter_map(|index| seen(&self.0, &self.0.device_by_index(index).ok()?)).collect())
    }

    fn persist(&self) -> Result<(), ManagementError> {
        let failed = |error: NvmlError| ManagementError::new("keep its state", error);
        for index in 0..self.0.device_count().map_err(failed)? {
            match self.0.device_by_index(index).and_then(|mut device| device.set_persistent(true)) {
                Ok(()) | Err(NvmlError::NotSupported | NvmlError::GpuLost) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

fn seen(library: &Nvml, device: &Device<'_>) -> Option<Seen> {
    let slices = slices(library, device);
    let mig = device.mig_mode().ok().map(|mode| Present {
        enabled: mode.current == 1,
        slices: slices.iter().fold(BTreeMap::new(), |mut counts, slice| {
            *counts.entry(slice.profile.clone()).or_default() += 1;
            counts
        }),
    });
    Some(Seen {
        address: device.pci_info().ok()?.bus_id.parse().ok()?,
        uuid: device.uuid().ok(),
        model: device.name().ok(),
        memory: device.memory_info().ok().map(|memory| memory.total),
        mig,
        slices,
        reading: reading(device),
    })
}

fn slices(library: &Nvml, device: &Device<'_>) -> Vec<Slice> {
    let count = device.mig_device_count().unwrap_or(0);
    (0..count).filter_map(|index| slice(library, &device.mig_device_by_index(index).ok()?)).collect()
}

fn slice(library: &Nvml, device: &Device<'_>) -> Option<Slice> {
    // "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    let name = device.name().ok()?;
    Some(Slice {
        uuid: device.uuid().ok()?,
        instance: instance::of(library, device)?,
        profile: name.rsplit(' ').next()?.to_owned(),
        memory: device.memory_info().ok().map(|memory| memory.total),
    })
}

fn reading(device: &Device<'_>) -> Reading {
    let fields = [FieldId(NVML_FI_DEV_REMAPPED_PENDING), FieldId(NVML_FI_DEV_REMAPPED_FAILURE)];
    let fields = device.field_values_for(&fields).unwrap_or_default();
    let flag = |index: usize| match fields.get(index)?.as_ref().ok()?.value.as_ref().ok()? {
        SampleValue::U32(value) => Some(*value != 0),
        SampleValue::U64(value) => Some(*value != 0),
        _ => None,
    };
    Reading {
        uncorrected_ecc: device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).ok(),
        remap_pending: flag(0),
        remap_failed: flag(1),
        slowdown: slowdown(device.current_throttle_reasons().unwrap_or(ThrottleReasons::NONE)),
        temperature: device.temperature(TemperatureSensor::Gpu).ok(),
    }
}

fn slowdown(reasons: ThrottleReasons) -> Vec<Slowdown> {
    let table = [
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, Slowdown::HardwareThermal),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, Slowdown::SoftwareThermal),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, Slowdown::PowerBrake),
    ];
    table.into_iter().filter(|(flag, _)| reasons.contains(*flag)).map(|(_, slowdown)| slowdown).collect()
}
