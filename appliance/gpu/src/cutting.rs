//! GPUs are cut as the site wants it: one after the other, and what came of it is looked at.

use crate::{
    PciAddress,
    mig::{self, Slices},
    nvml::Seen,
    pci::{Function, Kind},
    provision::Machine,
};
use gap_handover::site::Cut;
use std::time::Duration;

/// How long a call of `nvidia-smi` may take.
const CALL: Duration = Duration::from_secs(60);

/// What is to be done to a GPU.
pub struct Cutting {
    address: PciAddress,
    wanted: Slices,
    calls: Vec<Vec<String>>,
}

/// What has to be done to the GPUs that the library sees; nothing to those that are right. The numbers of the site's
/// entries go by all GPUs that are plugged in, so that one that was lost does not change those behind it.
pub fn plan(seen: &[Seen], functions: &[Function], cuts: &[Cut], problems: &mut Vec<String>) -> Vec<Cutting> {
    let plugged = functions.iter().filter(|function| function.kind == Kind::Gpu).enumerate();
    let cutting = plugged.filter_map(|(number, function)| {
        let gpu = seen.iter().find(|gpu| gpu.address == function.address)?;
        let wanted = mig::wanted(cuts, number)?;
        let Some(present) = &gpu.mig else {
            if wanted.is_some() {
                problems.push(format!(
                    "the GPU {} cannot be cut into slices, as the site configuration wants it: leave {number} out of \
                     gpus.mig",
                    gpu.address
                ));
            }
            return None;
        };
        let calls = mig::commands(gpu.address, present, &wanted);
        (!calls.is_empty()).then_some(Cutting { address: gpu.address, wanted, calls })
    });
    cutting.collect()
}

/// Does it. What failed for one GPU keeps no other from being cut.
pub fn make(machine: &mut dyn Machine, cuttings: &[Cutting], problems: &mut Vec<String>) {
    for cutting in cuttings {
        for call in &cutting.calls {
            if let Err(error) = machine.run(call, CALL) {
                problems.push(format!("{}: {error}", call.join(" ")));
                break;
            }
        }
    }
}

/// Tells which GPUs did not come out as they were wanted.
pub fn check(seen: &[Seen], cuttings: &[Cutting], problems: &mut Vec<String>) {
    for Cutting { address, wanted, .. } in cuttings {
        let present = seen.iter().find(|gpu| gpu.address == *address).and_then(|gpu| gpu.mig.as_ref());
        if present.is_some_and(|present| present.is(wanted)) {
            continue;
        }
        let there = present.map_or_else(
            || "the driver's library does not say how it is cut".to_owned(),
            |present| format!("it has {}", described(&present.enabled.then(|| present.slices.clone()))),
        );
        problems.push(format!(
            "the GPU {address} is not cut as the site configuration wants it: {} wanted, and {there}; compare the profiles \
             with those that this GPU has, and restart the machine",
            described(wanted)
        ));
    }
}

/// Tells which GPUs are in MIG mode and have no slices: the driver lets nothing compute on them.
pub fn tell_useless(seen: &[Seen], problems: &mut Vec<String>) {
    for gpu in seen.iter().filter(|gpu| gpu.slices.is_empty() && gpu.mig.as_ref().is_some_and(|mig| mig.enabled)) {
        problems.push(format!(
            "the GPU {} is in MIG mode and has no slices, so nothing computes on it and no job gets it: name its slices in \
             gpus.mig of the site configuration, or have it whole with mig-enabled = false",
            gpu.address
        ));
    }
}

/// `MIG off`, `no slices`, `2 × 1g.10gb and 1 × 3g.40gb`.
fn described(slices: &Slices) -> String {
    match slices {
        None => "MIG off".to_owned(),
        Some(slices) if slices.is_empty() => "no slices".to_owned(),
        Some(slices) => {
            let counts: Vec<String> = slices.iter().map(|(name, count)| format!("{count} × {name}")).collect();
            counts.join(" and ")
        }
    }
}
