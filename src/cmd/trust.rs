//! `gapimage trust`: one trust file follows another.

use super::{
    Outcome,
    failure::{Failure, failed},
    new_file::{write_new, write_over},
    sign::load_key,
    terminal::line,
    verify::{load_trust, now, read_trust},
};
use clap::{Subcommand, ValueHint};
use gap_format::{
    dsse::{Envelope, EnvelopeError, TRUST_PAYLOAD},
    trust::{Clock, Trust, TrustError, sign_trust},
};
use std::path::{Path, PathBuf};

/// Permission bits of signatures.
const MODE: u32 = 0o644;

/// What can be done with the next trust file.
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Sign a trust file that is to follow another; again with another key adds a signature
    #[command(after_help = "Example:\n  gapimage trust sign new/trust.toml --key keys/release.key\n\n\
                            The signatures go into FILE.dsse.json beside it. They count if they are by root keys of the \
                            trust file before.")]
    Sign {
        /// The new trust file, with a higher counter than the one before
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// PKCS#8 PEM file with the Ed25519 private key
        #[arg(long, value_name = "KEY", value_hint = ValueHint::FilePath)]
        key: PathBuf,
    },
    /// Check that a trust file may follow the one that is trusted now
    #[command(after_help = "Example:\n  gapimage trust check trust.toml new/trust.toml\n\n\
                            NEW.dsse.json must lie beside it. Exits with 3 if it may not follow.")]
    Check {
        /// The trust file that is trusted now
        #[arg(value_hint = ValueHint::FilePath)]
        old: PathBuf,
        /// The one that is to follow
        #[arg(value_hint = ValueHint::FilePath)]
        new: PathBuf,
    },
}

/// Signs or checks.
pub fn run(command: &TrustCommand) -> Outcome {
    match command {
        TrustCommand::Sign { file, key } => sign(file, key),
        TrustCommand::Check { old, new } => check(old, new),
    }
}

fn sign(file: &Path, key: &Path) -> Outcome {
    let raw = read_trust(file)?;
    let signing = || failed(format!("signing `{}`", file.display()));
    let next = Trust::parse(&raw).map_err(failed(format!("reading the trust file `{}`", file.display())))?;
    let key = load_key(key)?;
    let path = signatures_of(file);
    let before = if path.exists() { Some(read_trust(&path)?) } else { None };
    if let Some(before) = &before {
        let envelope = Envelope::decode(before, TRUST_PAYLOAD);
        if envelope.map_err(failed(format!("reading `{}`", path.display())))?.payload() != raw {
            let message = format!("`{}` has signatures of other bytes than `{}`", path.display(), file.display());
            return Err(Failure::could_not_run(
                message,
                "if the trust file was changed since, remove them, and sign it again",
            ));
        }
    }
    let writing = || failed(format!("writing `{}`", path.display()));
    match (sign_trust(&raw, before.as_deref(), &key), before) {
        (Ok(signed), None) => write_new(&path, &signed, MODE).map_err(writing())?,
        (Ok(signed), Some(_)) => write_over(&path, &signed, MODE).map_err(writing())?,
        // Asking twice is no mistake: the signature is there.
        (Err(TrustError::Envelope(EnvelopeError::AlreadySigned(_))), _) => {}
        (Err(error), _) => return Err(signing()(error)),
    }
    line(format_args!("signed       {} with counter {}", file.display(), next.counter()))?;
    line(format_args!("fingerprint  {}", next.fingerprint()))?;
    line(format_args!("signatures   {}", path.display()))
}

fn check(old: &Path, new: &Path) -> Outcome {
    const KEEP: &str = "go on with the trust file that you have, and ask whoever made the new one";
    let trust = load_trust(old)?;
    let (raw, signed) = (read_trust(new)?, read_trust(&signatures_of(new))?);
    let refused = |error: TrustError| Failure::not_trusted(format!("`{}`: {error}", new.display()), KEEP);
    let clock = Clock::Now(now()?);
    let (next, bytes) = trust.successor(&signed, clock).map_err(refused)?;
    if bytes != raw {
        let message = format!("`{}` is not what its signatures are about", new.display());
        return Err(Failure::not_trusted(message, KEEP));
    }
    let envelope = Envelope::decode(&signed, TRUST_PAYLOAD).map_err(|error| refused(error.into()))?;
    line(format_args!("trusted      counter {}, which follows {}", next.counter(), trust.counter()))?;
    for signer in trust.signers(&envelope, clock).map_err(refused)? {
        line(format_args!("signed by    {} ({})", signer.name, signer.key))?;
    }
    line(format_args!("fingerprint  {}", next.fingerprint()))
}

/// Where the signatures of a trust file lie: beside it, with `.dsse.json` after its name.
fn signatures_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".dsse.json");
    name.into()
}
