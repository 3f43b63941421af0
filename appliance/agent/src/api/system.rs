//! What the appliance tells about itself.

use crate::{
    certificate::Identity,
    clock, gpus,
    machine::{self, Devices, Kernel, Memory},
    modules::later,
    network,
    root::Root,
    scrub::{self, LayerState, Range},
};
use gap_format::{Digest, trust::Signer};
use gap_gpu::provision::Provisioned;
use gap_handover::{
    BootReport,
    boot_report::{Medium, RollbackProtection, SecureBoot, Stage},
    site::{EndpointName, SiteAddress},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// All that is known of the running system.
pub struct System {
    /// The directory that stands for `/`.
    pub root: Root,
    /// Name of the machine.
    pub hostname: String,
    /// What PID 1 saw and did, which the agent verified again.
    pub report: BootReport,
    /// Who signed the release, as the agent found by itself.
    pub signers: Vec<Signer>,
    /// How far the layers are read.
    pub scrub: Arc<scrub::Board>,
    /// The clock.
    pub clock: Arc<clock::Board>,
    /// What of the site configuration is shown.
    pub site: Site,
    /// The network.
    pub network: Arc<network::Board>,
    /// The API's certificate.
    pub identity: Arc<Identity>,
    /// Stages of the agent's own start.
    pub stages: Mutex<Vec<Stage>>,
    /// The GPUs.
    pub gpus: Arc<gpus::Board>,
}

/// What of the site configuration is shown: nothing of it that is secret.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Site {
    /// Who signed it; nobody where the release asks for no signature.
    pub signers: Vec<Signer>,
    /// The endpoints that jobs may be let to reach.
    pub endpoints: BTreeMap<EndpointName, SiteAddress>,
}

/// The answer of `/v1/system`.
#[derive(Debug, Serialize)]
pub struct SystemView {
    object: &'static str,
    status: &'static str,
    hostname: String,
    agent_version: &'static str,
    release: ReleaseView,
    medium: Medium,
    trust: Trust,
    layers: Vec<LayerView>,
    stages: Vec<Stage>,
    certificate_sha256: String,
    network: network::NetworkState,
    clock: clock::ClockState,
    site: Site,
    devices: Devices,
    gpus: Option<Provisioned>,
    memory: Memory,
    kernel: Kernel,
    modules_locked: bool,
}

/// What the signed statement says, and who signed it.
#[derive(Debug, Serialize)]
struct ReleaseView {
    name: String,
    version: String,
    serial: u64,
    index: Digest,
    expires: Option<u64>,
    signers: Vec<Signer>,
}

/// What the verification rests on.
#[derive(Debug, Serialize)]
struct Trust {
    fingerprint: Digest,
    secure_boot: SecureBoot,
    rollback_protection: RollbackProtection,
    worth: String,
}

/// A layer and its verification.
#[derive(Debug, Serialize)]
struct LayerView {
    image: String,
    name: String,
    digest: Digest,
    size: u64,
    verity_root: Digest,
    state: LayerState,
    checked_bytes: u64,
    damaged: Vec<Range>,
}

/// What the firmware and the floor add to the signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// Whether the firmware checked the boot image.
    pub secure_boot: SecureBoot,
    /// What guards the floor.
    pub rollback: RollbackProtection,
}

/// What every machine without Secure Boot has to say.
const WITHOUT_SECURE_BOOT: &str = "the medium brought its own kernel and trust root, so the verification detects \
    damage, but not an attacker who rewrote the medium as a whole; compare the trust root's fingerprint with the one \
    you expect, and verify the medium on another machine.";

impl Protection {
    /// The honest sentences on what the verification is worth here.
    pub fn worth(self) -> String {
        let boot = match self.secure_boot {
            SecureBoot::Enabled => {
                "Secure Boot is enabled: the firmware checked the boot image with the keys enrolled in it, and the boot \
                 image checked the rest; this is worth as much as those keys and the firmware."
                    .to_owned()
            }
            SecureBoot::Disabled => format!("Secure Boot is off: {WITHOUT_SECURE_BOOT}"),
            SecureBoot::Unsupported => format!("This firmware has no Secure Boot: {WITHOUT_SECURE_BOOT}"),
        };
        let rollback = match self.rollback {
            RollbackProtection::None => "No rollback protection: an older, validly signed release would start too.",
        };
        format!("{boot} {rollback}")
    }
}

impl System {
    /// Whether damage was found, or a GPU failed.
    pub fn is_degraded(&self) -> bool {
        self.scrub.is_damaged() || self.gpus.has_failed()
    }

    /// A stage of the agent's own start ended just now.
    pub fn stage(&self, name: &str) {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).push(crate::boot_clock::stage(name));
    }

    /// Everything, as it is now.
    pub fn view(&self) -> SystemView {
        let report = &self.report;
        let protection = Protection { secure_boot: report.secure_boot, rollback: report.rollback_protection };
        let own = self.stages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        SystemView {
            object: "system",
            status: if self.is_degraded() { "degraded" } else { "ok" },
            hostname: self.hostname.clone(),
            agent_version: env!("CARGO_PKG_VERSION"),
            release: self.release(),
            medium: report.medium.clone(),
            trust: Trust {
                fingerprint: report.trust_fingerprint,
                secure_boot: protection.secure_boot,
                rollback_protection: protection.rollback,
                worth: protection.worth(),
            },
            layers: self.layers(),
            stages: report.stages.iter().cloned().chain(own).collect(),
            certificate_sha256: self.identity.fingerprint().to_hex(),
            network: self.network.state(),
            clock: self.clock.state(),
            site: self.site.clone(),
            devices: machine::devices(&self.root),
            gpus: self.gpus.now(),
            memory: machine::memory(&self.root),
            kernel: machine::kernel(),
            modules_locked: later::are_locked(&self.root),
        }
    }

    fn release(&self) -> ReleaseView {
        let release = &self.report.release;
        ReleaseView {
            name: release.name.clone(),
            version: release.version.clone(),
            serial: release.serial,
            index: release.index,
            expires: release.expires,
            signers: self.signers.clone(),
        }
    }

    fn layers(&self) -> Vec<LayerView> {
        let view = |(layer, progress): (scrub::Layer, scrub::LayerProgress)| LayerView {
            image: layer.image,
            name: layer.name,
            digest: layer.digest,
            size: layer.size,
            verity_root: layer.verity_root,
            state: progress.state,
            checked_bytes: progress.checked_bytes,
            damaged: progress.damaged,
        };
        self.scrub.layers().into_iter().map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_secure_boot_the_machine_does_not_claim_more_than_it_can() {
        for secure_boot in [SecureBoot::Disabled, SecureBoot::Unsupported] {
            let worth = Protection { secure_boot, rollback: RollbackProtection::None }.worth();
            assert!(
                worth.contains("not an attacker who rewrote the medium") && worth.contains("No rollback"),
                "{worth}"
            );
        }
        let worth = Protection { secure_boot: SecureBoot::Enabled, rollback: RollbackProtection::None }.worth();
        assert!(worth.starts_with("Secure Boot is enabled"), "{worth}");
    }
}
