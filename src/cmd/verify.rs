//! `gapimage verify`: the check at the gate.

use super::{
    Outcome, VerifyArgs,
    failure::{Failure, failed},
    terminal::{Terminal, human_bytes, line},
};
use crate::progress::{Stage, Work};
use gap_format::{
    Timestamp, VerifyError,
    escape::escaped,
    release::Policy,
    trust::Trust,
    verify::{self, Accounted, Check, Extent},
};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileTypeExt,
    path::Path,
    time::SystemTime,
};

/// Longest trust file that is read, in bytes.
const MAX_TRUST: u64 = 4 << 20;
const KEEP_OUT: &str = "keep it out, and ask whoever made or carried it";

/// Verifies, and says what was found.
pub fn run(args: &VerifyArgs) -> Outcome {
    let trust = load_trust(&args.trust)?;
    let policy = Policy { min_serial: args.min_serial, ..Policy::at(now()?) };
    let result = check(args, &trust, &policy);
    if args.json
        && let Err(Failure::NotTrusted(report)) = &result
    {
        line(format_args!("{}", serde_json::json!({ "trusted": false, "reason": report.to_string() })))?;
    }
    let accounted = result?;
    if args.json { print_json(&accounted, &trust) } else { print_text(&accounted, &trust) }
}

fn check(args: &VerifyArgs, trust: &Trust, policy: &Policy) -> Result<Accounted, Failure> {
    let refused = |error| refused(&args.file, error, KEEP_OUT);
    if args.file.as_os_str() == "-" {
        let quiet = Check { full: args.full, ..Check::quiet() };
        return verify::verify_stream(&mut io::stdin().lock(), trust, policy, &quiet).map_err(refused);
    }
    verify_file(&args.file, trust, policy, args.full, &Terminal::new(args.json))
}

/// Verifies a file or block device.
///
/// # Errors
/// [`Failure::NotTrusted`] with the reason, or [`Failure::CouldNotRun`].
pub fn verify_file(
    path: &Path,
    trust: &Trust,
    policy: &Policy,
    full: bool,
    terminal: &Terminal,
) -> Result<Accounted, Failure> {
    let opening = format!("opening `{}`", path.display());
    let mut file = File::open(path).map_err(failed(opening.clone()))?;
    let kind = file.metadata().map_err(failed(opening.clone()))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let quiet = Check { full, ..Check::quiet() };
        return verify::verify_stream(&mut (&mut file as &mut dyn Read), trust, policy, &quiet)
            .map_err(|error| refused(path, error, KEEP_OUT));
    }
    let len = file.seek(SeekFrom::End(0)).map_err(failed(opening))?;
    let extent = if kind.is_block_device() { Extent::Disk(len) } else { Extent::File(len) };
    // How much is to be hashed shows once the head is read.
    terminal.begin(&Work::whole(Stage::Verify, &format!("verifying {}", human_bytes(len))));
    let progress = |count, total| terminal.advance_of(count, total);
    let check = Check { full, progress: &progress, ..Check::quiet() };
    verify::verify(&file, extent, trust, policy, &check).map_err(|error| refused(path, error, KEEP_OUT))
}

/// Tells what could not be looked at from what was looked at and found wanting.
pub fn refused(path: &Path, error: VerifyError, advice: &str) -> Failure {
    match error {
        error if error.could_not_run() => failed(format!("checking `{}`", path.display()))(error),
        error => Failure::not_trusted(format!("`{}`: {error}", path.display()), advice),
    }
}

/// Reads a trust file.
///
/// # Errors
/// [`Failure::CouldNotRun`] if it cannot be read or is none.
pub fn load_trust(path: &Path) -> Result<Trust, Failure> {
    let bytes = read_trust(path)?;
    Trust::parse(&bytes).map_err(failed(format!("reading the trust file `{}`", path.display())))
}

/// The bytes of a trust file.
///
/// # Errors
/// [`Failure::CouldNotRun`] if it cannot be read.
pub fn read_trust(path: &Path) -> Result<Vec<u8>, Failure> {
    let reading = format!("reading the trust file `{}`", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed(reading.clone()))?;
    file.take(MAX_TRUST).read_to_end(&mut bytes).map_err(failed(reading))?;
    Ok(bytes)
}

/// This machine's clock.
///
/// # Errors
/// [`Failure::CouldNotRun`] if it shows a time that no release can have.
pub fn now() -> Result<Timestamp, Failure> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let time = since.ok().and_then(|since| Timestamp::from_seconds(since.as_secs()).ok());
    time.ok_or_else(|| Failure::could_not_run("this machine's clock is not set", "set it, and run this again"))
}

fn print_text(accounted: &Accounted, trust: &Trust) -> Outcome {
    let statement = accounted.release.statement();
    let release = &statement.release;
    line(format_args!("trusted      {} {}, serial {}", release.name, escaped(&release.version), release.serial))?;
    line(format_args!("kind         {} for {}", release.kind, release.architecture))?;
    for signer in accounted.release.signers() {
        line(format_args!("signed by    {} ({})", signer.name, signer.key))?;
    }
    if let Some(expires) = release.expires {
        line(format_args!("expires      {expires}"))?;
    }
    line(format_args!("every byte   {} accounted for", human_bytes(statement.length)))?;
    line(format_args!("trust file   {}", trust.fingerprint()))?;
    line(format_args!("no rollback protection: this check knows no earlier release; use --min-serial"))?;
    if accounted.trailing > 0 {
        line(format_args!("behind it    {} bytes on the device that belong to nobody", accounted.trailing))?;
    }
    Ok(())
}

fn print_json(accounted: &Accounted, trust: &Trust) -> Outcome {
    let statement = accounted.release.statement();
    let release = &statement.release;
    let signers =
        accounted.release.signers().iter().map(|signer| serde_json::json!({ "name": signer.name, "key": signer.key }));
    let report = serde_json::json!({
        "trusted": true,
        "kind": release.kind,
        "name": release.name,
        "version": release.version,
        "serial": release.serial,
        "rollback_to": release.rollback_to,
        "architecture": release.architecture,
        "source_date": release.source_date,
        "expires": release.expires,
        "length": statement.length,
        "index": statement.index,
        "signers": signers.collect::<Vec<_>>(),
        "trust_fingerprint": trust.fingerprint(),
        "rollback_protection": "none",
        "bytes_behind": accounted.trailing,
    });
    line(format_args!("{report}"))
}
