//! What the driver's library counts and measures while GPUs work.

use super::Library;
use crate::PciAddress;
use nvml_wrapper::{
    Device,
    enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor},
    enums::device::SampleValue,
    structs::device::FieldId,
    sys_exports::field_id::{
        NVML_FI_DEV_MEMORY_TEMP, NVML_FI_DEV_REMAPPED_COR, NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_UNC,
    },
};

/// One GPU at one moment. What it cannot tell is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// Its number in the library's list.
    pub index: u32,
    /// Number of its device node.
    pub minor: Option<u32>,
    /// Where it sits.
    pub address: Option<PciAddress>,
    /// `GPU-…`.
    pub uuid: Option<String>,
    /// What its maker calls it.
    pub model: Option<String>,
    /// Share of the time in which it computed, in per cent.
    pub utilization: Option<u32>,
    /// Share of the time in which its memory was read or written, in per cent.
    pub memory_utilization: Option<u32>,
    /// Memory in use, in bytes.
    pub memory_used: Option<u64>,
    /// Memory that is free, in bytes.
    pub memory_free: Option<u64>,
    /// Temperature in degrees Celsius.
    pub temperature: Option<u32>,
    /// Temperature of its memory in degrees Celsius.
    pub memory_temperature: Option<u64>,
    /// Power that it draws, in milliwatts.
    pub power: Option<u32>,
    /// Energy that it took since the driver was loaded, in millijoules.
    pub energy: Option<u64>,
    /// Clock of its processors, in MHz.
    pub sm_clock: Option<u32>,
    /// Clock of its memory, in MHz.
    pub memory_clock: Option<u32>,
    /// Errors in memory since the driver was loaded that were corrected.
    pub corrected_ecc: Option<u64>,
    /// Errors in memory since the driver was loaded that could not be corrected.
    pub uncorrected_ecc: Option<u64>,
    /// Errors in memory in its whole life that were corrected.
    pub corrected_ecc_ever: Option<u64>,
    /// Errors in memory in its whole life that could not be corrected.
    pub uncorrected_ecc_ever: Option<u64>,
    /// Rows of memory that were replaced after errors that were corrected.
    pub remapped_corrected: Option<u64>,
    /// Rows of memory that were replaced after errors that could not be corrected.
    pub remapped_uncorrected: Option<u64>,
    /// Whether a row could not be replaced.
    pub remap_failed: Option<u64>,
    /// Transfers on PCI Express that had to be repeated.
    pub pcie_replays: Option<u32>,
}

impl Library {
    /// Samples every GPU that answers.
    pub fn samples(&self) -> Vec<Sample> {
        let count = self.0.device_count().unwrap_or(0);
        (0..count).filter_map(|index| Some(sample(index, &self.0.device_by_index(index).ok()?))).collect()
    }
}

fn sample(index: u32, device: &Device<'_>) -> Sample {
    let fields = [
        FieldId(NVML_FI_DEV_MEMORY_TEMP),
        FieldId(NVML_FI_DEV_REMAPPED_COR),
        FieldId(NVML_FI_DEV_REMAPPED_UNC),
        FieldId(NVML_FI_DEV_REMAPPED_FAILURE),
    ];
    let values = device.field_values_for(&fields).unwrap_or_default();
    let field = |index: usize| match values.get(index)?.as_ref().ok()?.value.as_ref().ok()? {
        SampleValue::U32(value) => Some(u64::from(*value)),
        SampleValue::U64(value) => Some(*value),
        _ => None,
    };
    let utilization = device.utilization_rates().ok();
    let memory = device.memory_info().ok();
    let ecc = |kind, counter| device.total_ecc_errors(kind, counter).ok();
    Sample {
        index,
        minor: device.minor_number().ok(),
        address: device.pci_info().ok().and_then(|pci| pci.bus_id.parse().ok()),
        uuid: device.uuid().ok(),
        model: device.name().ok(),
        utilization: utilization.as_ref().map(|rates| rates.gpu),
        memory_utilization: utilization.as_ref().map(|rates| rates.memory),
        memory_used: memory.as_ref().map(|memory| memory.used),
        memory_free: memory.as_ref().map(|memory| memory.free),
        temperature: device.temperature(TemperatureSensor::Gpu).ok(),
        memory_temperature: field(0),
        power: device.power_usage().ok(),
        energy: device.total_energy_consumption().ok(),
        sm_clock: device.clock_info(Clock::SM).ok(),
        memory_clock: device.clock_info(Clock::Memory).ok(),
        corrected_ecc: ecc(MemoryError::Corrected, EccCounter::Volatile),
        uncorrected_ecc: ecc(MemoryError::Uncorrected, EccCounter::Volatile),
        corrected_ecc_ever: ecc(MemoryError::Corrected, EccCounter::Aggregate),
        uncorrected_ecc_ever: ecc(MemoryError::Uncorrected, EccCounter::Aggregate),
        remapped_corrected: field(1),
        remapped_uncorrected: field(2),
        remap_failed: field(3),
        pcie_replays: device.pcie_replay_counter().ok(),
    }
}
