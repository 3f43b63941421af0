//! The story of a machine's GPUs, from the bus to the specification that containers name them by.
//!
//! Nothing here stops the machine: what does not work is told, and the appliance goes on with the GPUs that do, or on its
//! CPUs.

use crate::{
    PciAddress,
    cdi::{self, Part, Spec},
    cutting,
    driver::{self, DriverGpu},
    fabric::{self, Fabric},
    health::{self, Health, Reading, Verdict, Xid},
    mig::{self, Capability},
    nodes,
    nvml::{Management, ManagementError, Seen, Slice},
    pci::{self, Function, Kind},
};
use gap_handover::site::Cut;
use gap_root::Root;
use serde::Serialize;
use std::time::Duration;

/// The driver's modules, in the order in which they need each other.
pub const MODULES: [&str; 3] = ["nvidia", "nvidia_modeset", "nvidia_uvm"];
/// How long all stages together may take for one GPU, beside what they take anyway: far longer than they do.
const START: Duration = Duration::from_secs(120);
const EACH_GPU: Duration = Duration::from_secs(60);

/// What the stages ask of the machine; a made-up machine stands in for it in tests.
pub trait Machine {
    /// Loads a kernel module with all that it needs.
    ///
    /// # Errors
    /// What the kernel said.
    fn load_module(&mut self, name: &str) -> Result<(), String>;

    /// Runs a program of the OS image until it ends, at most so long.
    ///
    /// # Errors
    /// What the program or the system said.
    fn run(&mut self, command: &[String], limit: Duration) -> Result<(), String>;

    /// The driver's library.
    ///
    /// # Errors
    /// Why there is none.
    fn management(&mut self) -> Result<Box<dyn Management>, ManagementError>;

    /// The kernel's log.
    fn kernel_log(&mut self) -> String;
}

/// What the machine computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// At least one GPU is usable.
    Gpu,
    /// There is none.
    Cpu,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Provisioned {
    /// What jobs can compute with.
    pub mode: Mode,
    /// Version of the kernel driver.
    pub driver: Option<String>,
    /// Every GPU that is plugged in.
    pub gpus: Vec<Gpu>,
    /// What the switches between them needed.
    pub fabric: Fabric,
    /// Names by which jobs ask for devices.
    pub devices: Vec<String>,
    /// What can be given to one job at a time.
    #[serde(skip)]
    pub slots: Vec<Slot>,
    /// What did not work, each as a sentence.
    pub problems: Vec<String>,
}

/// Something that computes for one job at a time: a GPU, or a slice of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// One of the names of its device in the specification.
    pub name: String,
    /// The GPU that it is, or is a slice of.
    pub gpu: PciAddress,
    /// Memory in bytes; 0 where the driver does not tell.
    pub memory: u64,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Where it sits.
    pub address: PciAddress,
    /// PCI device id.
    pub device: String,
    /// `GPU-…`.
    pub uuid: Option<String>,
    /// What its maker calls it.
    pub model: Option<String>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Profiles of its slices, where it is cut.
    pub slices: Vec<String>,
    /// What its sensors say.
    pub reading: Option<Reading>,
    /// Whether to use it.
    pub health: Health,
}

impl Provisioned {
    /// Nothing to compute with but CPUs.
    const fn nothing(driver: Option<String>, gpus: Vec<Gpu>, problems: Vec<String>) -> Self {
        Self { mode: Mode::Cpu, driver, gpus, fabric: Fabric::None, devices: Vec::new(), slots: Vec::new(), problems }
    }
}

/// How long to wait for [`provision`] on this machine; grows with the number of GPUs.
pub fn deadline(root: &Root) -> Duration {
    let gpus = u32::try_from(pci::gpus(&pci::scan(root))).unwrap_or(u32::MAX);
    START.saturating_add(EACH_GPU.saturating_mul(gpus))
}

/// The outcome where [`provision`] did not come to its end: no GPU is used. The driver is asked nothing more, for it may
/// be what hangs.
pub fn given_up(root: &Root, problem: String) -> Provisioned {
    let unused = |function: Function| {
        let reasons = vec!["provisioning did not come to its end".to_owned()];
        Gpu { health: Health { verdict: Verdict::Failed, reasons }, ..gpu(&function, &[], &[], &[]) }
    };
    let functions = pci::scan(root).into_iter().filter(|function| function.kind == Kind::Gpu);
    Provisioned::nothing(driver::version(root), functions.map(unused).collect(), vec![problem])
}

/// Provisions the GPUs of a machine. `cuts` says how they are to be cut, if at all.
pub fn provision(root: &Root, machine: &mut dyn Machine, cuts: &[Cut]) -> Provisioned {
    let mut problems = Vec::new();
    let functions = pci::scan(root);
    let count = pci::gpus(&functions);
    if count == 0 {
        return Provisioned::nothing(None, Vec::new(), problems);
    }
    for module in MODULES {
        if let Err(error) = machine.load_module(module) {
            problems.push(format!("the module {module} is not loaded: {error}"));
        }
    }
    let switches = functions.iter().filter(|function| function.kind == Kind::NvSwitch).count();
    make_nodes(root, switches, &mut problems);
    let fabric = start_fabric(root, machine, switches, count, &mut problems);
    let seen = survey(root, machine, &functions, cuts, &mut problems);
    // Slices bring nodes of their own.
    make_nodes(root, switches, &mut problems);

    let xids = health::xids(&machine.kernel_log());
    let known = driver::gpus(root);
    let gpus: Vec<Gpu> = functions
        .iter()
        .filter(|function| function.kind == Kind::Gpu)
        .map(|function| gpu(function, &known, &seen, &xids))
        .collect();
    if seen.len() != count && !known.is_empty() {
        problems.push(format!("{count} GPUs are plugged in and the driver's library sees {}", seen.len()));
    }
    let (devices, slots) = describe(root, switches, &known, &seen, &gpus, &mut problems);
    let is_usable = gpus.iter().any(|gpu| gpu.health.verdict < Verdict::Failed) && !devices.is_empty();
    Provisioned {
        mode: if is_usable { Mode::Gpu } else { Mode::Cpu },
        driver: driver::version(root),
        gpus,
        fabric,
        devices,
        slots,
        problems,
    }
}

fn make_nodes(root: &Root, switches: usize, problems: &mut Vec<String>) {
    let wanted = nodes::wanted(root, switches, &capabilities(root, problems));
    if let Err(error) = nodes::make(root, &wanted) {
        tell_once(problems, error.to_string());
    }
}

fn capabilities(root: &Root, problems: &mut Vec<String>) -> Vec<Capability> {
    mig::capabilities(root).unwrap_or_else(|error| {
        tell_once(problems, error.to_string());
        Vec::new()
    })
}

fn tell_once(problems: &mut Vec<String>, problem: String) {
    if !problems.contains(&problem) {
        problems.push(problem);
    }
}

fn start_fabric(
    root: &Root,
    machine: &mut dyn Machine,
    switches: usize,
    gpus: usize,
    problems: &mut Vec<String>,
) -> Fabric {
    let fabric = fabric::plan(root, switches);
    match &fabric {
        Fabric::None => {}
        // It goes into the background once the links are trained.
        Fabric::Needed { command } => {
            if !fabric::is_running(root, command)
                && let Err(error) = machine.run(command, fabric::deadline(gpus))
            {
                problems.push(format!("the fabric manager did not start: {error}"));
            }
        }
        Fabric::Missing { remedy } => {
            problems.push(format!("the GPUs sit behind NVSwitches, and there is no fabric manager: {remedy}"));
        }
    }
    fabric
}

/// Cuts the GPUs, keeps the driver's state, and reads what the library shows then.
fn survey(
    root: &Root,
    machine: &mut dyn Machine,
    functions: &[Function],
    cuts: &[Cut],
    problems: &mut Vec<String>,
) -> Vec<Seen> {
    if driver::gpus(root).is_empty() {
        return Vec::new();
    }
    let Some(mut library) = load(machine, problems) else { return Vec::new() };
    let list = |library: &dyn Management, problems: &mut Vec<String>| {
        library.gpus().unwrap_or_else(|error| {
            tell_once(problems, error.to_string());
            Vec::new()
        })
    };
    let mut seen = list(&*library, problems);
    let cuttings = cutting::plan(&seen, functions, cuts, problems);
    if !cuttings.is_empty() {
        // MIG mode is not switched while a program uses the GPU, and the library counts as one.
        drop(library);
        cutting::make(machine, &cuttings, problems);
        let Some(again) = load(machine, problems) else { return Vec::new() };
        library = again;
        seen = list(&*library, problems);
        cutting::check(&seen, &cuttings, problems);
    }
    cutting::tell_useless(&seen, problems);
    if let Err(error) = library.persist() {
        problems.push(error.to_string());
    }
    seen
}

fn load(machine: &mut dyn Machine, problems: &mut Vec<String>) -> Option<Box<dyn Management>> {
    machine.management().map_err(|error| problems.push(error.to_string())).ok()
}

fn gpu(function: &Function, known: &[DriverGpu], seen: &[Seen], xids: &[Xid]) -> Gpu {
    let by_driver = known.iter().find(|gpu| gpu.address == function.address);
    let by_library = seen.iter().find(|gpu| gpu.address == function.address);
    let codes: Vec<u32> = xids.iter().filter(|xid| xid.address == function.address).map(|xid| xid.code).collect();
    let health = match (by_driver, by_library) {
        (Some(_), Some(seen)) => health::judge(&seen.reading, &codes),
        (driver, _) => health::lost(driver.is_some()),
    };
    Gpu {
        address: function.address,
        device: function.device.clone(),
        uuid: by_library.and_then(|gpu| gpu.uuid.clone()).or_else(|| by_driver.and_then(|gpu| gpu.uuid.clone())),
        model: by_library.and_then(|gpu| gpu.model.clone()).or_else(|| by_driver.and_then(|gpu| gpu.model.clone())),
        memory: by_library.and_then(|gpu| gpu.memory),
        slices: by_library
            .map(|gpu| gpu.slices.iter().map(|slice| slice.profile.clone()).collect())
            .unwrap_or_default(),
        reading: by_library.map(|gpu| gpu.reading.clone()),
        health,
    }
}

/// A GPU that jobs may be given, whole or in slices.
struct Offer {
    gpu: DriverGpu,
    slices: Vec<Slice>,
    memory: Option<u64>,
}

/// Writes the specification of the GPUs that may be used; returns the names in it, and what can be given to jobs.
fn describe(
    root: &Root,
    switches: usize,
    known: &[DriverGpu],
    seen: &[Seen],
    gpus: &[Gpu],
    problems: &mut Vec<String>,
) -> (Vec<String>, Vec<Slot>) {
    let capabilities = capabilities(root, problems);
    let is_usable =
        |address: PciAddress| gpus.iter().any(|gpu| gpu.address == address && gpu.health.verdict < Verdict::Failed);
    let usable = seen.iter().filter(|gpu| is_usable(gpu.address));
    let offers: Vec<Offer> = usable.filter_map(|gpu| offer(gpu, known, &capabilities, problems)).collect();
    if offers.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let slots = offers.iter().enumerate().flat_map(|(index, offer)| slots(index, offer)).collect();
    let nodes = nodes::wanted(root, switches, &capabilities);
    let parts: Vec<Part<'_>> =
        offers.iter().map(|offer| Part { gpu: &offer.gpu, slices: offer.slices.as_slice() }).collect();
    let spec = Spec::describe(root, &parts, &nodes, &capabilities);
    if let Err(error) = spec.write(root) {
        problems.push(format!("writing {}: {error}", cdi::PLACE));
        return (Vec::new(), Vec::new());
    }
    (spec.names().map(str::to_owned).collect(), slots)
}

/// What of a GPU jobs may be given. In MIG mode it computes by its slices alone: nothing of one without any is offered, nor
/// slices that no container could open.
fn offer(gpu: &Seen, known: &[DriverGpu], capabilities: &[Capability], problems: &mut Vec<String>) -> Option<Offer> {
    let driver = known.iter().find(|known| known.address == gpu.address)?;
    let (slices, closed): (Vec<&Slice>, Vec<&Slice>) =
        gpu.slices.iter().partition(|slice| cdi::rights(driver.minor, slice, capabilities).len() == cdi::RIGHTS);
    problems.extend(closed.into_iter().map(|Slice { uuid, profile, .. }| {
        format!(
            "the driver names no device nodes for the slice {uuid} ({profile}) of the GPU {}: no job gets it",
            gpu.address
        )
    }));
    let is_cut = !gpu.slices.is_empty() || gpu.mig.as_ref().is_some_and(|mig| mig.enabled);
    if is_cut && slices.is_empty() {
        return None;
    }
    Some(Offer {
        // Before a GPU is opened for the first time, the driver does not know its UUID; the library does.
        gpu: DriverGpu { uuid: gpu.uuid.clone().or(driver.uuid.clone()), ..driver.clone() },
        slices: slices.into_iter().cloned().collect(),
        memory: gpu.memory,
    })
}

/// What of a GPU can be given to jobs: its slices, else itself.
fn slots(index: usize, offer: &Offer) -> Vec<Slot> {
    let Offer { gpu, slices, memory } = offer;
    let slot = |name, memory: Option<u64>| Slot { name, gpu: gpu.address, memory: memory.unwrap_or(0) };
    if slices.is_empty() {
        return vec![slot(gpu.uuid.clone().unwrap_or_else(|| index.to_string()), *memory)];
    }
    slices.iter().map(|slice| slot(slice.uuid.clone(), slice.memory)).collect()
}
