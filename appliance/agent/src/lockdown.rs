//! The end of the start: once all has its drivers, the kernel takes no more modules.

use crate::{
    api::{System, WorkCell},
    boot_clock, console, machine,
    modules::{Modules, later},
    root::Root,
};
use gap_handover::{
    boot_report::{BootReport, DRIVERS_PATH},
    site::LATE,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

/// Name of the stage of PID 1 after which a slow stick with a site configuration may still come.
const SEARCHED: &str = "site";
/// How long PID 1 may take to load drivers: some controllers start for a minute.
const DRIVERS: Duration = Duration::from_secs(120);
/// Time between two looks whether it has.
const LOOK: Duration = Duration::from_millis(200);

/// Waits for network drivers, GPUs, the data volume and PID 1, which loads drivers and looks for a late stick; then
/// loads what later media may need, and throws the switch.
pub async fn lock_modules(system: Arc<System>, work: Arc<WorkCell>) {
    system.network.wait_for_drivers().await;
    let waiting = (system.clone(), work);
    let waited = spawn_blocking(move || {
        waiting.0.gpus.wait();
        waiting.1.wait();
    });
    drop(waited.await);
    sleep(left_of_search(&system.report, boot_clock::now_ms())).await;
    wait_for_drivers(&system.root).await;
    drop(spawn_blocking(move || finish(&system)).await);
}

/// Waits, not without end, until PID 1 has loaded what the devices ask for that it found.
async fn wait_for_drivers(root: &Root) {
    let until = Instant::now() + DRIVERS;
    while !root.at(DRIVERS_PATH).exists() && Instant::now() < until {
        sleep(LOOK).await;
    }
}

/// How long PID 1 may still look for a stick, and load modules for it.
fn left_of_search(report: &BootReport, now_ms: u64) -> Duration {
    let searched = report.stages.iter().find(|stage| stage.name == SEARCHED).map_or(now_ms, |stage| stage.ended_ms);
    LATE.saturating_sub(Duration::from_millis(now_ms.saturating_sub(searched)))
}

fn finish(system: &System) {
    match Modules::read(&system.root, &machine::kernel().release) {
        Ok(modules) => {
            let plan = modules.plan_for_later(&system.root);
            plan.load().iter().for_each(|refused| console::say(format_args!("module {refused}")));
            if !plan.missing.is_empty() {
                let missing = plan.missing.join(", ");
                console::say(format_args!("later media: the OS image has no modules {missing}"));
            }
        }
        Err(error) => console::say(error),
    }
    match later::lock(&system.root) {
        Ok(()) => {
            console::say("the kernel takes no more modules until the next start");
            system.stage("modules locked");
        }
        Err(error) => console::say(format_args!("THE KERNEL GOES ON TAKING MODULES: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gap_format::Digest;
    use gap_handover::boot_report::{Clock, Medium, Release, RollbackProtection, SecureBoot, Stage};

    fn report(stages: &[(&str, u64)]) -> BootReport {
        let release = Release {
            name: "x".into(),
            version: "1".into(),
            serial: 1,
            index: Digest::of(b""),
            signers: Vec::new(),
            expires: None,
        };
        BootReport {
            release,
            medium: Medium { device: "/dev/vda".into(), file: None },
            trust_fingerprint: Digest::of(b""),
            secure_boot: SecureBoot::Unsupported,
            rollback_protection: RollbackProtection::None,
            clock: Clock { built: 0, was_behind: false },
            layers: Vec::new(),
            stages: stages.iter().map(|&(name, ended_ms)| Stage { name: name.into(), ended_ms }).collect(),
        }
    }

    #[test]
    fn a_late_stick_gets_its_drivers_before_the_switch_is_thrown() {
        let report = report(&[("kernel", 900), ("site", 3_000)]);
        assert_eq!(left_of_search(&report, 4_000), LATE - Duration::from_secs(1));
        assert_eq!(left_of_search(&report, 3_000 + 60_000), Duration::ZERO);
    }
}
