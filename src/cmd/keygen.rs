//! `gapimage keygen`.

use super::{
    KeygenArgs, Outcome,
    failure::{Failure, failed},
    new_file::write_new,
    terminal::line,
};
use crate::random;
use ed25519_dalek::{
    SigningKey,
    pkcs8::{EncodePrivateKey, KeypairBytes},
};
use gap_format::{key::KeyId, trust};
use pkcs8::LineEnding;
use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::Path,
};
use zeroize::Zeroizing;

/// Name of the first key in its trust file.
const NAME: &str = "release";

/// Makes `release.key` and `trust.toml`.
pub fn run(args: &KeygenArgs) -> Outcome {
    let (key_path, trust_path) = (args.dir.join("release.key"), args.dir.join("trust.toml"));
    for path in [&key_path, &trust_path] {
        if path.exists() {
            let message = format!("`{}` exists already", path.display());
            return Err(Failure::could_not_run(message, "a key is never overwritten: name another directory"));
        }
    }
    let passphrase = if args.passphrase { Some(new_passphrase()?) } else { None };
    let key = generate()?;
    let pem = encode(&key, passphrase.as_ref())?;
    let making = format!("making the directory `{}`", args.dir.display());
    DirBuilder::new().recursive(true).mode(0o700).create(&args.dir).map_err(failed(making))?;
    let trust = trust::starter(NAME, &key.verifying_key());
    write_pair((&key_path, pem.as_bytes()), (&trust_path, trust.as_bytes()))?;
    line(format_args!(
        "private key  {} (mode 0600; keep it away from artifacts and repositories)",
        key_path.display()
    ))?;
    line(format_args!("trust file   {}", trust_path.display()))?;
    line(format_args!("key id       {}", KeyId::of(&key.verifying_key())))
}

/// Writes the key and its trust file: both or neither, as a key alone would keep the next try from making one.
fn write_pair((key_path, key): (&Path, &[u8]), (trust_path, trust): (&Path, &[u8])) -> Outcome {
    let writing = |path: &Path| failed(format!("writing `{}`", path.display()));
    write_new(key_path, key, 0o600).map_err(writing(key_path))?;
    write_new(trust_path, trust, 0o644).map_err(|error| {
        // It was made a moment ago, and nobody trusts it yet.
        let _ = fs::remove_file(key_path);
        writing(trust_path)(error)
    })
}

fn generate() -> Result<SigningKey, Failure> {
    let seed = random::bytes().map_err(failed("making a key"))?;
    Ok(SigningKey::from_bytes(&seed))
}

fn encode(key: &SigningKey, passphrase: Option<&Zeroizing<String>>) -> Result<Zeroizing<String>, Failure> {
    let encoding = |error: pkcs8::Error| Failure::could_not_run(format!("encoding the key: {error}"), "try again");
    // Without the public half (PKCS#8 version 1): OpenSSL refuses keys that carry it.
    let bare = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
    let der = bare.to_pkcs8_der().map_err(encoding)?;
    let Some(passphrase) = passphrase else {
        return der.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|e| encoding(e.into()));
    };
    let salt = random::bytes::<16>().map_err(failed("making a salt"))?;
    let nonce = random::bytes::<16>().map_err(failed("making a nonce"))?;
    let scrypt = pkcs8::pkcs5::scrypt::Params::recommended();
    let parameters = pkcs8::pkcs5::pbes2::Parameters::scrypt_aes256cbc(scrypt, salt.as_slice(), &nonce)
        .map_err(|error| Failure::could_not_run(format!("encrypting the key: {error}"), "try again"))?;
    let info = pkcs8::PrivateKeyInfo::try_from(der.as_bytes()).map_err(encoding)?;
    let encrypted = info.encrypt_with_params(parameters, passphrase.as_bytes()).map_err(encoding)?;
    encrypted.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).map_err(|error| encoding(error.into()))
}

/// From the environment, or asked for twice.
fn new_passphrase() -> Result<Zeroizing<String>, Failure> {
    if let Ok(given) = std::env::var("GAPIMAGE_PASSPHRASE") {
        return Ok(Zeroizing::new(given));
    }
    let ask =
        |prompt| rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(failed("asking for a passphrase"));
    let first = ask("Passphrase for the new key: ")?;
    if *first != *ask("The same again: ")? {
        return Err(Failure::could_not_run("the two passphrases differ", "try again"));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_stays_where_its_trust_file_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let (key, trust) = (dir.path().join("release.key"), dir.path().join("missing/trust.toml"));
        write_pair((&key, b"key"), (&trust, b"trust")).unwrap_err();
        assert!(!key.exists());
        write_pair((&key, b"key"), (&dir.path().join("trust.toml"), b"trust")).unwrap();
        assert_eq!(fs::read(&key).unwrap(), b"key");
    }
}
