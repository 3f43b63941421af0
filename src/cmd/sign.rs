//! `gapimage sign`.

use super::{
    Outcome, SignArgs,
    failure::{Failure, failed},
    inspect::failure,
    terminal::{Terminal, human_bytes, line},
    verify::refused,
};
use crate::{
    progress::{Stage, Work},
    report::{contents::Contents, summary::Results},
};
use ed25519_dalek::{SigningKey, pkcs8::DecodePrivateKey};
use gap_format::{
    dsse::EnvelopeError,
    escape::escaped,
    release::{Release, Unverified},
    sign::{SignError, recover, sign_in_place},
    verify::{self, Check, Extent},
};
use std::{fs::File, io::Read, path::Path};
use zeroize::Zeroizing;

/// Longest private key file that is read, in bytes.
const MAX_KEY: u64 = 64 * 1024;

/// Checks everything, shows what is about to be signed, and adds the signature.
pub fn run(args: &SignArgs) -> Outcome {
    let key = load_key(&args.key)?;
    let name = args.file.display();
    if recover(&args.file).map_err(signing)? {
        Terminal::new(false).note(&format!("`{name}` was being signed when that was interrupted; undone"));
    }
    let release = account(&args.file)?;
    show(&release)?;
    let contents = Contents::open(&args.file).map_err(failure)?;
    // It is opened by its name again, and that may be another file's by now.
    if contents.release().payload() != release.payload() {
        return Err(signing(SignError::Changed(args.file.clone())));
    }
    let results = Results::of(&contents).map_err(failure)?;
    for (what, result) in results.lines() {
        line(format_args!("{what:<12} {result}"))?;
    }
    match sign_in_place(&args.file, &release, &key) {
        Ok(id) => line(format_args!("signed       {name} with key {id}")),
        // Asking twice is no mistake: the signature is there.
        Err(SignError::Envelope(EnvelopeError::AlreadySigned(id))) => {
            line(format_args!("signed       {name} already, with key {id}"))
        }
        Err(error) => Err(signing(error)),
    }
}

/// Every byte of it, with the flat digests: what is signed here is trusted elsewhere.
fn account(path: &Path) -> Result<Release<Unverified>, Failure> {
    let file = File::open(path).map_err(failed(format!("opening `{}`", path.display())))?;
    let len = file.metadata().map_err(failed(format!("looking at `{}`", path.display())))?.len();
    let terminal = Terminal::new(false);
    terminal.begin(&Work::whole(Stage::Verify, &format!("checking every byte of {}", human_bytes(len))));
    let progress = |count, total| terminal.advance_of(count, total);
    let check = Check { full: true, progress: &progress, ..Check::quiet() };
    match verify::account(&file, Extent::File(len), &check) {
        Ok(accounted) => Ok(accounted.release),
        Err(error) => Err(refused(path, error, "nothing was signed; build it again")),
    }
}

fn show(release: &Release<Unverified>) -> Outcome {
    let statement = release.statement();
    let it = &statement.release;
    line(format_args!("kind         {}", it.kind))?;
    line(format_args!(
        "release      {} {} (serial {}, rollback to {})",
        it.name,
        escaped(&it.version),
        it.serial,
        it.rollback_to
    ))?;
    line(format_args!("architecture {}", it.architecture))?;
    line(format_args!("date         {}", it.source_date))?;
    if let Some(expires) = it.expires {
        line(format_args!("expires      {expires}"))?;
    }
    line(format_args!("length       {} ({} bytes)", human_bytes(statement.length), statement.length))?;
    line(format_args!("index        {}", statement.index))
}

fn signing(error: SignError) -> Failure {
    match error {
        error @ SignError::Changed(_) => Failure::not_trusted(error, "find out by whom, and sign it again"),
        SignError::Head(error) if !error.could_not_run() => {
            Failure::not_trusted(error, "nothing was signed; build it again")
        }
        error => failed("signing")(error),
    }
}

/// A PKCS#8 PEM key; its passphrase comes from the environment or is asked for.
pub(super) fn load_key(path: &Path) -> Result<SigningKey, Failure> {
    let reading = || format!("reading the key `{}`", path.display());
    let mut pem = Zeroizing::new(String::new());
    let file = File::open(path).map_err(failed(reading()))?;
    file.take(MAX_KEY).read_to_string(&mut pem).map_err(failed(reading()))?;
    let unusable = |error: &dyn std::fmt::Display| {
        let advice = "it must be an Ed25519 key in PKCS#8 PEM, as `gapimage keygen` or `openssl genpkey` makes it";
        Failure::could_not_run(format!("{}: {error}", reading()), advice)
    };
    if !pem.contains("ENCRYPTED PRIVATE KEY") {
        return SigningKey::from_pkcs8_pem(&pem).map_err(|error| unusable(&error));
    }
    let passphrase = match std::env::var("GAPIMAGE_PASSPHRASE") {
        Ok(given) => given,
        Err(_) => rpassword::prompt_password(format!("Passphrase for `{}`: ", path.display()))
            .map_err(failed("asking for the passphrase"))?,
    };
    let passphrase = Zeroizing::new(passphrase);
    let (_, document) = pkcs8::SecretDocument::from_pem(&pem).map_err(|error| unusable(&error))?;
    let encrypted = pkcs8::EncryptedPrivateKeyInfo::try_from(document.as_bytes()).map_err(|error| unusable(&error))?;
    let plain =
        encrypted.decrypt(passphrase.as_bytes()).map_err(|_| unusable(&"the passphrase is not the right one"))?;
    SigningKey::from_pkcs8_der(plain.as_bytes()).map_err(|error| unusable(&error))
}
