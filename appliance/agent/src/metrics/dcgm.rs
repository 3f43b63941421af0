//! GPUs under the names, units and labels of NVIDIA's dcgm-exporter (`default-counters.csv`), so that dashboards and alarms
//! made for it work here.

use super::text::{Kind, Page};
use gap_gpu::{PciAddress, nvml::Sample};
use std::collections::BTreeMap;

/// Bytes of a MiB: the exporter tells memory in these.
const MIB: u64 = 1 << 20;

/// What is the same for all GPUs of a machine.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Its name.
    pub hostname: String,
    /// Version of the driver.
    pub driver: Option<String>,
    /// The last Xid of each GPU that had one.
    pub xids: BTreeMap<PciAddress, u32>,
}

/// Name, kind, help and value of a metric.
type Row = (&'static str, Kind, &'static str, fn(&Sample) -> Option<f64>);

/// All metrics but Xids, which the library does not keep.
const ROWS: [Row; 18] = [
    ("SM_CLOCK", Kind::Gauge, "SM clock frequency (in MHz).", |gpu| gpu.sm_clock.map(f64::from)),
    ("MEM_CLOCK", Kind::Gauge, "Memory clock frequency (in MHz).", |gpu| gpu.memory_clock.map(f64::from)),
    ("MEMORY_TEMP", Kind::Gauge, "Memory temperature (in C).", |gpu| gpu.memory_temperature.map(float)),
    ("GPU_TEMP", Kind::Gauge, "GPU temperature (in C).", |gpu| gpu.temperature.map(f64::from)),
    ("POWER_USAGE", Kind::Gauge, "Power draw (in W).", |gpu| gpu.power.map(|milli| f64::from(milli) / 1000.0)),
    ("TOTAL_ENERGY_CONSUMPTION", Kind::Counter, "Total energy consumption since boot (in mJ).", |gpu| {
        gpu.energy.map(float)
    }),
    ("PCIE_REPLAY_COUNTER", Kind::Counter, "Total number of PCIe retries.", |gpu| gpu.pcie_replays.map(f64::from)),
    ("GPU_UTIL", Kind::Gauge, "GPU utilization (in %).", |gpu| gpu.utilization.map(f64::from)),
    ("MEM_COPY_UTIL", Kind::Gauge, "Memory utilization (in %).", |gpu| gpu.memory_utilization.map(f64::from)),
    ("FB_FREE", Kind::Gauge, "Framebuffer memory free (in MiB).", |gpu| gpu.memory_free.map(mebibytes)),
    ("FB_USED", Kind::Gauge, "Framebuffer memory used (in MiB).", |gpu| gpu.memory_used.map(mebibytes)),
    ("ECC_SBE_VOL_TOTAL", Kind::Counter, "Total number of single-bit volatile ECC errors.", |gpu| {
        gpu.corrected_ecc.map(float)
    }),
    ("ECC_DBE_VOL_TOTAL", Kind::Counter, "Total number of double-bit volatile ECC errors.", |gpu| {
        gpu.uncorrected_ecc.map(float)
    }),
    ("ECC_SBE_AGG_TOTAL", Kind::Counter, "Total number of single-bit persistent ECC errors.", |gpu| {
        gpu.corrected_ecc_ever.map(float)
    }),
    ("ECC_DBE_AGG_TOTAL", Kind::Counter, "Total number of double-bit persistent ECC errors.", |gpu| {
        gpu.uncorrected_ecc_ever.map(float)
    }),
    ("UNCORRECTABLE_REMAPPED_ROWS", Kind::Counter, "Number of remapped rows for uncorrectable errors", |gpu| {
        gpu.remapped_uncorrected.map(float)
    }),
    ("CORRECTABLE_REMAPPED_ROWS", Kind::Counter, "Number of remapped rows for correctable errors", |gpu| {
        gpu.remapped_corrected.map(float)
    }),
    ("ROW_REMAP_FAILURE", Kind::Gauge, "Whether remapping of rows has failed", |gpu| gpu.remap_failed.map(float)),
];

/// Adds the metrics of these GPUs. What a GPU cannot tell has no row, and without a GPU there is none at all.
pub fn render(page: &mut Page, host: &Host, samples: &[Sample]) {
    for (name, kind, help, value) in ROWS {
        let rows = samples.iter().filter_map(|gpu| Some((labels(host, gpu), value(gpu)?)));
        page.family(&format!("DCGM_FI_DEV_{name}"), kind, help, rows);
    }
    let last = |gpu: &Sample| gpu.address.and_then(|address| host.xids.get(&address)).copied().unwrap_or(0);
    let rows = samples.iter().map(|gpu| (labels(host, gpu), last(gpu)));
    page.family("DCGM_FI_DEV_XID_ERRORS", Kind::Gauge, "Value of the last XID error encountered.", rows);
}

fn labels(host: &Host, gpu: &Sample) -> Vec<(&'static str, String)> {
    let mut labels = vec![("gpu", gpu.index.to_string()), ("UUID", gpu.uuid.clone().unwrap_or_default())];
    labels.push(("pci_bus_id", gpu.address.map(PciAddress::to_nvml).unwrap_or_default()));
    labels.push(("device", gpu.minor.map(|minor| format!("nvidia{minor}")).unwrap_or_default()));
    labels.push(("modelName", gpu.model.clone().unwrap_or_default()));
    labels.push(("Hostname", host.hostname.clone()));
    labels.extend(host.driver.clone().map(|driver| ("DCGM_FI_DRIVER_VERSION", driver)));
    labels
}

fn mebibytes(bytes: u64) -> f64 {
    float(bytes / MIB)
}

#[allow(clippy::cast_precision_loss, reason = "the format has no other numbers, and these stay far below 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_told_of_as_the_exporter_does() {
        let address: PciAddress = "0000:3b:00.0".parse().unwrap();
        let gpu = Sample {
            index: 1,
            minor: Some(3),
            address: Some(address),
            uuid: Some("GPU-1".into()),
            model: Some("NVIDIA H200".into()),
            utilization: Some(97),
            memory_used: Some(5 << 30),
            temperature: Some(61),
            power: Some(655_500),
            uncorrected_ecc: Some(2),
            ..Sample::default()
        };
        let host =
            Host { hostname: "rack4".into(), driver: Some("550.163.01".into()), xids: BTreeMap::from([(address, 79)]) };
        let mut page = Page::default();
        render(&mut page, &host, &[gpu, Sample { index: 2, ..Sample::default() }]);
        let text = page.into_text();
        let labels = "{gpu=\"1\",UUID=\"GPU-1\",pci_bus_id=\"00000000:3B:00.0\",device=\"nvidia3\",modelName=\"NVIDIA H200\",\
                      Hostname=\"rack4\",DCGM_FI_DRIVER_VERSION=\"550.163.01\"}";
        for (name, value) in [
            ("GPU_UTIL", "97"),
            ("FB_USED", "5120"),
            ("GPU_TEMP", "61"),
            ("POWER_USAGE", "655.5"),
            ("ECC_DBE_VOL_TOTAL", "2"),
            ("XID_ERRORS", "79"),
        ] {
            assert!(text.contains(&format!("\nDCGM_FI_DEV_{name}{labels} {value}\n")), "{name}: {text}");
        }
        assert_eq!(text.matches("DCGM_FI_DEV_GPU_UTIL{").count(), 1, "what a GPU cannot tell has no row");
        assert!(!text.contains("DCGM_FI_DEV_FB_FREE"));
    }

    #[test]
    fn without_a_gpu_there_are_no_rows() {
        let mut page = Page::default();
        render(&mut page, &Host::default(), &[]);
        assert_eq!(page.into_text(), "");
    }
}
