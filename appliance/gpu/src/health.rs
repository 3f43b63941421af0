//! Health: what the readings of a GPU and the kernel's log mean for whoever wants to use it.
//!
//! Meanings of Xids are those of NVIDIA's "XID Errors" document; thresholds follow its "GPU Memory Error Management".

use crate::PciAddress;
use serde::Serialize;

/// What was read from one GPU. What a GPU cannot tell is `None`, and nothing is concluded from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// Errors in memory since the driver was loaded that could not be corrected.
    pub uncorrected_ecc: Option<u64>,
    /// Whether rows of memory wait to be replaced at the next reset.
    pub remap_pending: Option<bool>,
    /// Whether a row could not be replaced: the spare ones are used up.
    pub remap_failed: Option<bool>,
    /// Why it runs slower than it could.
    pub slowdown: Vec<Slowdown>,
    /// Temperature in degrees Celsius.
    pub temperature: Option<u32>,
}

/// Why a GPU runs slower than it could, where that is no ordinary power limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slowdown {
    /// It is too hot, by its own measure.
    HardwareThermal,
    /// The driver takes it back because it is hot.
    SoftwareThermal,
    /// The power supply asks for it.
    PowerBrake,
}

/// An error that the driver wrote into the kernel's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Xid {
    /// The GPU.
    pub address: PciAddress,
    /// The kind of error.
    pub code: u32,
}

/// What to do with a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Use it.
    Healthy,
    /// Use it, and have it looked after.
    Degraded,
    /// Do not use it.
    Failed,
}

/// A verdict and the reasons for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// What to do.
    pub verdict: Verdict,
    /// Why, each as a sentence with what helps.
    pub reasons: Vec<String>,
}

/// Judges one GPU by its reading and those of the log's errors that concern it.
pub fn judge(reading: &Reading, xids: &[u32]) -> Health {
    let mut findings = Vec::new();
    if reading.remap_failed == Some(true) {
        findings
            .push((Verdict::Failed, "a row of its memory is broken and no spare is left: replace the GPU".to_owned()));
    }
    if let Some(errors @ 1..) = reading.uncorrected_ecc {
        let reason =
            format!("{errors} errors in its memory could not be corrected since the start: restart the machine");
        findings.push((Verdict::Degraded, reason));
    }
    if reading.remap_pending == Some(true) {
        findings.push((Verdict::Degraded, "rows of its memory wait to be replaced: restart the machine".to_owned()));
    }
    findings.extend(reading.slowdown.iter().map(|slowdown| (Verdict::Degraded, slowdown.reason().to_owned())));
    findings.extend(xids.iter().filter_map(|&code| Some((severity(code)?, xid_reason(code)))));
    findings.dedup();
    Health {
        verdict: findings.iter().map(|(verdict, _)| *verdict).max().unwrap_or(Verdict::Healthy),
        reasons: findings.into_iter().map(|(_, reason)| reason).collect(),
    }
}

/// A GPU that is plugged in, and that the driver or its library does not show.
pub fn lost(has_driver: bool) -> Health {
    let reason = if has_driver {
        "it is plugged in and has its driver, but the driver's library does not see it: it fell off the bus or was excluded"
    } else {
        "it is plugged in, but no driver took it: see the kernel's log"
    };
    Health { verdict: Verdict::Failed, reasons: vec![reason.to_owned()] }
}

impl Slowdown {
    const fn reason(self) -> &'static str {
        match self {
            Self::HardwareThermal => "it runs slowly because it is too hot: look after fans and air",
            Self::SoftwareThermal => "the driver slows it down because it is hot: look after fans and air",
            Self::PowerBrake => "the power supply slows it down: look after it",
        }
    }
}

/// How bad an error is; `None` for those that a program makes (13, 31, 43, 45, 68, …).
const fn severity(code: u32) -> Option<Verdict> {
    match code {
        // Fell off the bus; GSP does not answer any more; contained nothing of an error in memory.
        79 | 95 | 119 | 120 => Some(Verdict::Failed),
        // Double-bit error; rows replaced, or not; NVLink; error in memory that was contained; unrecovered after reset.
        48 | 63 | 64 | 74 | 94 | 140 | 154 => Some(Verdict::Degraded),
        _ => None,
    }
}

fn xid_reason(code: u32) -> String {
    let what = match code {
        48 => "an error in memory that could not be corrected",
        63 => "a row of memory is being replaced",
        64 => "a row of memory could not be replaced",
        74 => "an error on NVLink",
        79 => "it fell off the bus",
        94 => "an error in memory that hit one program only",
        95 => "an error in memory that may have hit every program",
        119 | 120 => "its firmware does not answer",
        _ => "the driver asks for a reset",
    };
    format!("the driver reported Xid {code}: {what}")
}

/// Reads the errors out of the kernel's log (`NVRM: Xid (PCI:0000:3b:00): 79, pid=…`; of a slice
/// `NVRM: Xid (PCI:0000:3b:00 GPU-I:05): …`, which is held against its GPU).
pub fn xids(log: &str) -> Vec<Xid> {
    log.lines().filter_map(xid).collect()
}

fn xid(line: &str) -> Option<Xid> {
    let (_, rest) = line.split_once("NVRM: Xid (PCI:")?;
    let (slot, rest) = rest.split_once("): ")?;
    let slot = slot.split(' ').next()?;
    let digits = rest.split(|character: char| !character.is_ascii_digit()).next()?;
    // The driver leaves the function out: it is that of the GPU, 0.
    Some(Xid { address: format!("{slot}.0").parse().ok()?, code: digits.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_known_makes_nobody_ill() {
        assert_eq!(judge(&Reading::default(), &[]), Health { verdict: Verdict::Healthy, reasons: vec![] });
    }

    #[test]
    fn errors_that_programs_make_do_not_count() {
        assert_eq!(judge(&Reading::default(), &[13, 31, 43]).verdict, Verdict::Healthy);
    }

    #[test]
    fn the_worst_finding_decides_and_all_are_told() {
        let reading = Reading {
            uncorrected_ecc: Some(2),
            remap_failed: Some(true),
            slowdown: vec![Slowdown::PowerBrake],
            ..Reading::default()
        };
        let health = judge(&reading, &[94]);
        assert_eq!(health.verdict, Verdict::Failed);
        assert_eq!(health.reasons.len(), 4);
    }

    #[test]
    fn the_log_names_gpu_and_error() {
        let log = "<3>NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n\
            <6>usb 1-1: new device\n<3>NVRM: Xid (PCI:0000:5e:00): 31, pid=1, MMU Fault\n<3>NVRM: Xid (PCI:x): 1\n\
            <3>NVRM: Xid (PCI:0000:5e:00 GPU-I:05): 95, Uncontained\n";
        let found = xids(log);
        assert_eq!(found.iter().map(|xid| xid.code).collect::<Vec<_>>(), [79, 31, 95]);
        assert_eq!(found[1].address, found[2].address);
        assert_eq!(found[0].address.to_string(), "0000:3b:00.0");
    }

    proptest! {
        #[test]
        fn any_log_is_read(log in "(NVRM: Xid \\(PCI:)?.{0,80}") {
            let _ = xids(&log);
        }
    }
}
