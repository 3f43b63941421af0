//! What is known of the GPUs: how they were provisioned, and which failed since.

use super::{kernel_log::KernelLog, library::Sampler, program};
use crate::{console, root::Root};
use gap_gpu::{
    PciAddress,
    fabric::{self, Fabric},
    health::{self, Reading, Verdict},
    nvml::Sample,
    provision::{Mode, Provisioned},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::{task::spawn_blocking, time::sleep};

/// How often the kernel's log is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How many looks come before the driver's library is asked, and as long until the fabric manager is looked after.
const LOOKS: u32 = 60;

/// The machine's GPUs.
pub struct Board {
    root: Root,
    provisioned: OnceLock<Provisioned>,
    sampler: Sampler,
    since: Mutex<Since>,
}

/// What came to light while they work.
#[derive(Default)]
struct Since {
    log: KernelLog,
    /// The last Xid of each GPU that had one.
    xids: BTreeMap<PciAddress, u32>,
    /// Why GPUs failed.
    failed: BTreeMap<PciAddress, Vec<String>>,
    /// Why the fabric manager could not be started again.
    fabric: Option<String>,
}

impl Board {
    /// GPUs of the machine below `root` that are still to be provisioned.
    pub fn new(root: Root) -> Self {
        Self { root, provisioned: OnceLock::new(), sampler: Sampler::default(), since: Mutex::default() }
    }

    /// They are provisioned. Counts once.
    pub fn set(&self, provisioned: Provisioned) {
        drop(self.provisioned.set(provisioned));
    }

    /// How they were provisioned, once they are.
    pub fn get(&self) -> Option<&Provisioned> {
        self.provisioned.get()
    }

    /// The same; waits until then.
    pub fn wait(&self) -> &Provisioned {
        self.provisioned.wait()
    }

    /// How they are now: what failed since is told of each.
    pub fn now(&self) -> Option<Provisioned> {
        let mut now = self.get()?.clone();
        let since = self.since();
        for gpu in &mut now.gpus {
            let Some(reasons) = since.failed.get(&gpu.address) else { continue };
            gpu.health.verdict = Verdict::Failed;
            // Those of before the start are there already.
            let new: Vec<String> =
                reasons.iter().filter(|reason| !gpu.health.reasons.contains(reason)).cloned().collect();
            gpu.health.reasons.extend(new);
        }
        if now.gpus.iter().all(|gpu| gpu.health.verdict == Verdict::Failed) {
            now.mode = Mode::Cpu;
        }
        Some(now)
    }

    /// Whether a GPU failed for which the release brings a driver: one without is none of its.
    pub fn has_failed(&self) -> bool {
        self.now()
            .is_some_and(|now| now.driver.is_some() && now.gpus.iter().any(|gpu| gpu.health.verdict == Verdict::Failed))
    }

    /// Names of slots whose GPU failed, as it is at this moment.
    pub fn failed_slots(&self) -> BTreeSet<String> {
        let slots = self.get().map(|provisioned| provisioned.slots.as_slice()).unwrap_or_default();
        if slots.is_empty() {
            return BTreeSet::new();
        }
        self.look();
        let since = self.since();
        slots.iter().filter(|slot| since.failed.contains_key(&slot.gpu)).map(|slot| slot.name.clone()).collect()
    }

    /// The last error of each GPU in the kernel's log.
    pub fn last_xids(&self) -> BTreeMap<PciAddress, u32> {
        self.look();
        self.since().xids.clone()
    }

    /// What every GPU measures now; `None` where the driver's library does not answer. What it says of a GPU's health is
    /// kept.
    pub async fn samples(&self) -> Option<Vec<Sample>> {
        let samples = self.sampler.samples(&self.root).await?;
        samples.iter().for_each(|sample| self.judge(sample));
        Some(samples)
    }

    /// Starts the fabric manager again where it has ended: without it nothing computes behind switches.
    fn keep_fabric(&self, start: impl FnOnce(&[String], Duration) -> Result<(), String>) {
        let Some(Provisioned { fabric: Fabric::Needed { command }, gpus, .. }) = self.get() else { return };
        if fabric::is_running(&self.root, command) {
            return;
        }
        let failed = start(command, fabric::deadline(gpus.len())).err();
        let mut since = self.since();
        match &failed {
            None => console::say(format_args!("GPUs: the fabric manager had ended, and was started again")),
            // It is tried again and again, and told once.
            Some(_) if since.fabric == failed => {}
            Some(error) => console::say(format_args!("GPUs: the fabric manager has ended and does not start: {error}")),
        }
        since.fabric = failed;
    }

    /// Reads what the kernel's log has that is new.
    fn look(&self) {
        let mut since = self.since();
        for xid in health::xids(&since.log.news(&self.root)) {
            since.xids.insert(xid.address, xid.code);
            since.note(xid.address, &Reading::default(), &[xid.code]);
        }
    }

    fn judge(&self, sample: &Sample) {
        let Some(address) = sample.address else { return };
        let reading = Reading { remap_failed: sample.remap_failed.map(|rows| rows > 0), ..Reading::default() };
        self.since().note(address, &reading, &[]);
    }

    fn since(&self) -> MutexGuard<'_, Since> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Since {
    fn note(&mut self, address: PciAddress, reading: &Reading, xids: &[u32]) {
        let health = health::judge(reading, xids);
        if health.verdict < Verdict::Failed {
            return;
        }
        let known = self.failed.entry(address).or_default();
        for reason in health.reasons {
            if !known.contains(&reason) {
                console::say(format_args!(
                    "GPU {address} FAILED, and is given to no job until the next start: {reason}"
                ));
                known.push(reason);
            }
        }
    }
}

/// Follows how the GPUs are, once they are provisioned, for ever; nothing where there are none.
pub async fn follow(board: Arc<Board>) {
    follow_every(board, LOOK, program::run).await;
}

async fn follow_every<S>(board: Arc<Board>, look: Duration, start: S)
where
    S: Fn(&[String], Duration) -> Result<(), String> + Clone + Send + 'static,
{
    let waiting = Arc::clone(&board);
    if !spawn_blocking(move || !waiting.wait().gpus.is_empty()).await.unwrap_or(false) {
        return;
    }
    // A start that fails takes minutes, in which what the kernel says is read as ever.
    tokio::spawn(keep_fabric_every(Arc::clone(&board), look.saturating_mul(LOOKS), start));
    loop {
        for _ in 0..LOOKS {
            sleep(look).await;
            let looking = Arc::clone(&board);
            drop(spawn_blocking(move || looking.look()).await);
        }
        drop(board.samples().await);
    }
}

async fn keep_fabric_every<S>(board: Arc<Board>, pause: Duration, start: S)
where
    S: Fn(&[String], Duration) -> Result<(), String> + Clone + Send + 'static,
{
    loop {
        sleep(pause).await;
        let (keeping, start) = (Arc::clone(&board), start.clone());
        drop(spawn_blocking(move || keeping.keep_fabric(start)).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gap_gpu::provision::{Gpu, Slot};
    use std::{fs, thread, time::Instant};

    const FIRST: &str = "0000:1b:00.0";
    const SECOND: &str = "0000:43:00.0";

    /// Two GPUs, the second one cut in two.
    fn board() -> (tempfile::TempDir, Board) {
        board_with(Fabric::None)
    }

    fn board_with(fabric: Fabric) -> (tempfile::TempDir, Board) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("dev")).unwrap();
        let gpu = |address: &str| Gpu {
            address: address.parse().unwrap(),
            device: "0x2330".into(),
            uuid: None,
            model: None,
            memory: None,
            slices: Vec::new(),
            reading: None,
            health: health::judge(&Reading::default(), &[]),
        };
        let slot = |name: &str, address: &str| Slot { name: name.into(), gpu: address.parse().unwrap(), memory: 0 };
        let board = Board::new(Root::new(directory.path()));
        board.set(Provisioned {
            mode: Mode::Gpu,
            driver: Some("550.163.01".into()),
            gpus: vec![gpu(FIRST), gpu(SECOND)],
            fabric,
            devices: Vec::new(),
            slots: vec![slot("GPU-a", FIRST), slot("MIG-b", SECOND), slot("MIG-c", SECOND)],
            problems: Vec::new(),
        });
        (directory, board)
    }

    #[test]
    fn an_xid_that_ends_a_gpu_takes_its_slots_away_and_is_told() {
        let (directory, board) = board();
        assert!(board.failed_slots().is_empty() && !board.has_failed());
        let log = directory.path().join("dev/kmsg");
        fs::write(&log, "3,1,2,-;NVRM: Xid (PCI:0000:1b:00): 13, pid=7, Graphics Exception\n").unwrap();
        assert!(board.failed_slots().is_empty(), "programs make that one");
        fs::write(
            &log,
            "3,1,2,-;NVRM: Xid (PCI:0000:1b:00): 13, pid=7, Graphics Exception\n\
             3,2,3,-;NVRM: Xid (PCI:0000:43:00 GPU-I:01): 79, pid=7, GPU has fallen off the bus.\n",
        )
        .unwrap();
        assert_eq!(board.failed_slots(), ["MIG-b".to_owned(), "MIG-c".to_owned()].into());
        assert!(board.has_failed());
        let now = board.now().unwrap();
        assert_eq!((now.mode, now.gpus[0].health.verdict), (Mode::Gpu, Verdict::Healthy));
        assert_eq!(now.gpus[1].health.reasons, ["the driver reported Xid 79: it fell off the bus"]);
        assert_eq!(board.last_xids(), [(FIRST.parse().unwrap(), 13), (SECOND.parse().unwrap(), 79)].into());
    }

    #[test]
    fn a_fabric_manager_that_ended_is_started_again_and_one_that_runs_is_left_alone() {
        let command = vec!["/usr/bin/nv-fabricmanager".to_owned()];
        let (directory, board) = board_with(Fabric::Needed { command: command.clone() });
        let mut starts = 0;
        let mut keep = |outcome: Result<(), String>| {
            board.keep_fabric(|asked, _| {
                assert_eq!(asked, command);
                starts += 1;
                outcome
            });
            starts
        };
        assert_eq!(keep(Err("no switch".to_owned())), 1);
        assert_eq!(keep(Ok(())), 2);
        for place in ["usr/bin", "proc/77"] {
            fs::create_dir_all(directory.path().join(place)).unwrap();
        }
        fs::write(directory.path().join("usr/bin/nv-fabricmanager"), "").unwrap();
        std::os::unix::fs::symlink(
            directory.path().join("usr/bin/nv-fabricmanager"),
            directory.path().join("proc/77/exe"),
        )
        .unwrap();
        assert_eq!(keep(Ok(())), 2);
    }

    #[tokio::test]
    async fn the_kernels_log_is_read_while_the_fabric_manager_is_being_started() {
        let command = vec!["/usr/bin/nv-fabricmanager".to_owned()];
        let (directory, board) = board_with(Fabric::Needed { command });
        let (board, log) = (Arc::new(board), directory.path().join("dev/kmsg"));
        let watched = Arc::clone(&board);
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let start = move |_: &[String], _: Duration| {
            fs::write(&log, "3,1,2,-;NVRM: Xid (PCI:0000:1b:00): 79, pid=7, GPU has fallen off the bus.\n").unwrap();
            let is_known = || watched.since().failed.contains_key(&FIRST.parse::<PciAddress>().unwrap());
            let began = Instant::now();
            while !is_known() && began.elapsed() < Duration::from_secs(120) {
                thread::sleep(Duration::from_millis(10));
            }
            let _ = tell.send(is_known());
            Ok(())
        };
        let following = tokio::spawn(follow_every(board, Duration::from_millis(1), start));
        assert_eq!(told.recv().await, Some(true));
        following.abort();
    }

    #[test]
    fn memory_without_spare_rows_takes_a_gpu_away_and_without_any_gpu_there_are_the_cpus() {
        let (_directory, board) = board();
        let sample = |address: &str, rows| {
            board.judge(&Sample { address: address.parse().ok(), remap_failed: Some(rows), ..Sample::default() });
        };
        sample(FIRST, 0);
        assert!(board.failed_slots().is_empty());
        sample(FIRST, 1);
        assert_eq!(board.failed_slots(), ["GPU-a".to_owned()].into());
        sample(SECOND, 1);
        assert_eq!(board.now().unwrap().mode, Mode::Cpu);
    }
}
