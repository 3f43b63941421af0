//! Signatures of a site configuration, where the trust root of a release names keys for the role `site`.
//!
//! They stand in the configuration itself, so that one file stays one file on its way: lines of the form
//! `# gap-signature KEYID BASE64` at its very end, which TOML takes for comments. Each is an Ed25519 signature over the
//! DSSE pre-authentication encoding of the bytes before the first of them, with the payload type [`SITE_PAYLOAD`].

use super::{SiteConfig, SiteError};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use gap_format::{
    dsse::{Envelope, EnvelopeError},
    key::KeyId,
    trust::{Clock, Role, Signer, Trust, TrustError},
};

/// Payload type under which a site configuration is signed.
pub const SITE_PAYLOAD: &str = "application/vnd.gapimage.site.v1+toml";
/// How a line with a signature begins.
const MARK: &str = "# gap-signature ";

/// Why the signatures of a configuration do not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Something else stands among or behind them.
    #[error("the lines of its end that begin with `# gap-signature` are not each a key identifier and a signature")]
    Form,
    /// The same key twice, or too many of them.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// They are not by those who may sign it.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Parses a configuration and, where the trust root names keys for site configurations, checks who signed it. Returns it
/// with those who did; with nobody where nobody has to.
///
/// Validity windows of keys are not looked at: at boot there is no clock to compare them with that the configuration
/// itself does not decide on. A revoked key counts for nothing.
///
/// # Errors
/// [`SiteError`]; [`SiteError::Signature`] when it is not signed as the trust root asks.
pub fn accept(text: &str, trust: &Trust) -> Result<(SiteConfig, Vec<Signer>), SiteError> {
    let config = SiteConfig::parse(text)?;
    if trust.threshold(Role::Site).is_none() {
        return Ok((config, Vec::new()));
    }
    let signed = envelope(text)?;
    let signers = trust.signers(&signed, Clock::AlreadyAccepted).map_err(SignatureError::from)?;
    trust.authorise(&signers, Role::Site).map_err(SignatureError::from)?;
    Ok((config, signers))
}

/// Adds a signature to a configuration; one that this key made before is replaced. Others are kept as they are.
///
/// # Errors
/// [`SiteError`] when the configuration itself is not valid, or its end is not as signatures are written.
pub fn sign(text: &str, key: &ed25519_dalek::SigningKey) -> Result<String, SiteError> {
    let (body, lines) = parts(text);
    let mut body = body.to_owned();
    if !body.is_empty() && !body.ends_with('\n') {
        body.push('\n');
    }
    let mut signed = Envelope::new(SITE_PAYLOAD, body.clone().into_bytes());
    let own = KeyId::of(&key.verifying_key());
    for (id, signature) in signatures(lines)?.into_iter().filter(|(id, _)| *id != own) {
        signed.add(id, signature).map_err(SignatureError::from)?;
    }
    signed.sign(key).map_err(SignatureError::from)?;
    let lines =
        signed.signatures().iter().map(|(id, signature)| format!("{MARK}{id} {}\n", STANDARD.encode(signature)));
    body.extend(lines);
    SiteConfig::parse(&body)?;
    Ok(body)
}

/// The configuration as it was signed.
fn envelope(text: &str) -> Result<Envelope, SignatureError> {
    let (body, lines) = parts(text);
    let mut signed = Envelope::new(SITE_PAYLOAD, body.as_bytes().to_vec());
    signatures(lines)?.into_iter().try_for_each(|(id, signature)| signed.add(id, signature))?;
    Ok(signed)
}

/// What is signed, and the lines with the signatures.
fn parts(text: &str) -> (&str, &str) {
    let begins = |at: &usize| *at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n');
    let at = text.match_indices(MARK).map(|(at, _)| at).find(begins).unwrap_or(text.len());
    text.split_at_checked(at).unwrap_or((text, ""))
}

fn signatures(lines: &str) -> Result<Vec<(KeyId, [u8; 64])>, SignatureError> {
    let one = |line: &str| {
        let (id, signature) = line.strip_suffix('\n')?.strip_prefix(MARK)?.split_once(' ')?;
        Some((id.parse().ok()?, STANDARD.decode(signature).ok()?.try_into().ok()?))
    };
    lines.split_inclusive('\n').map(|line| one(line).ok_or(SignatureError::Form)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use gap_format::key::encode_public;

    const CONFIG: &str = "hostname = \"rack4\"\n";

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    /// Keys 1 and 2 may sign site configurations, key 3 releases, key 4 is revoked.
    fn trust(threshold: Option<usize>) -> Trust {
        let entry = |seed: u8, role: &str, more: &str| {
            let public = encode_public(&key(seed).verifying_key());
            format!("[[key]]\nname = \"k{seed}\"\npublic = \"{public}\"\nroles = [\"{role}\"]\n{more}\n")
        };
        let mut text = "version = 1\ncounter = 1\n".to_owned();
        for (seed, role, more) in
            [(1, "site", ""), (2, "site", ""), (3, "appliance", ""), (4, "site", "revoked = true")]
        {
            text.push_str(&entry(seed, role, more));
        }
        text.push_str("[role.appliance]\nthreshold = 1\n");
        if let Some(threshold) = threshold {
            text.push_str(&format!("[role.site]\nthreshold = {threshold}\n"));
        }
        Trust::parse(text.as_bytes()).unwrap()
    }

    fn signed(keys: &[u8]) -> String {
        keys.iter().fold(CONFIG.to_owned(), |text, seed| sign(&text, &key(*seed)).unwrap())
    }

    #[test]
    fn where_no_keys_are_named_nobody_has_to_sign() {
        let (config, signers) = accept(CONFIG, &trust(None)).unwrap();
        assert_eq!((config.hostname.as_deref(), signers.len()), (Some("rack4"), 0));
        assert!(accept(&signed(&[9]), &trust(None)).is_ok(), "a signature is a comment there");
    }

    #[test]
    fn where_keys_are_named_enough_of_them_have_signed_and_nobody_else() {
        let names = |text: &str, threshold| {
            accept(text, &trust(Some(threshold)))
                .map(|(_, signers)| signers.into_iter().map(|signer| signer.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&signed(&[1]), 1).unwrap(), ["k1"]);
        assert_eq!(names(&signed(&[2, 1]), 2).unwrap().len(), 2);
        for (keys, threshold) in [(&[][..], 1), (&[1], 2), (&[3], 1), (&[4], 1), (&[9], 1), (&[1, 3], 1), (&[1, 9], 1)]
        {
            let refused = names(&signed(keys), threshold);
            assert!(matches!(refused, Err(SiteError::Signature(_))), "{keys:?}: {refused:?}");
        }
    }

    #[test]
    fn one_changed_byte_or_one_more_is_refused() {
        let good = signed(&[1]);
        let trust = trust(Some(1));
        for (at, _) in good.char_indices().take(CONFIG.len()) {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(accept(&changed, &trust).is_err(), "byte {at}");
        }
        for more in ["x = 1\n", "# more\n", "\n", " "] {
            assert!(accept(&format!("{good}{more}"), &trust).is_err(), "{more:?}");
            assert!(accept(&good.replacen("# gap", &format!("{more}# gap"), 1), &trust).is_err(), "{more:?}");
        }
        let doubled = format!("{good}{}", good.strip_prefix(CONFIG).unwrap());
        assert!(accept(&doubled, &trust).is_err());
    }

    #[test]
    fn signing_again_replaces_and_others_stay() {
        let both = signed(&[1, 2]);
        assert_eq!(sign(&both, &key(1)).unwrap(), both);
        assert_eq!(both.matches(MARK).count(), 2);
        let edited = both.replace("rack4", "rack5");
        assert!(accept(&sign(&edited, &key(1)).unwrap(), &trust(Some(1))).is_err(), "that of the other is stale");
    }

    #[test]
    fn a_configuration_without_its_last_newline_can_be_signed_and_openssl_would_see_the_same_bytes() {
        let text = sign("hostname = \"x\"", &key(1)).unwrap();
        assert!(text.starts_with("hostname = \"x\"\n# gap-signature "));
        let expected = format!("DSSEv1 {} {SITE_PAYLOAD} 15 hostname = \"x\"\n", SITE_PAYLOAD.len());
        assert_eq!(envelope(&text).unwrap().pre_authentication_encoding(), expected.into_bytes());
        assert!(accept(&text, &trust(Some(1))).is_ok());
        assert!(sign("trust = 1", &key(1)).is_err());
    }
}
