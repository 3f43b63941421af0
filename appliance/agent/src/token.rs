//! The token that opens the API: its hash from the site configuration, or made at the first start and shown once.

use crate::root::Root;
use gap_format::Digest;
use gap_handover::SiteConfig;
use rustls::crypto::ring;
use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
};
use subtle::ConstantTimeEq;

/// Where the hash of a token that was made here is kept, in memory: an agent that is started again must not change
/// the token under the feet of who noted it down.
const KEPT: &str = "/run/gap/token.sha256";
/// Digits of a made token: Crockford's base 32, which leaves out what is easily misread.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Length of a made token in bytes of randomness.
const RANDOM_LEN: usize = 32;

/// The SHA-256 of the only token that opens the API.
#[derive(Debug, Clone, Copy)]
pub struct TokenHash(Digest);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The random number generator failed.
    #[error("making a token: the system gives no random numbers")]
    Random,
    /// The hash in the site configuration is none.
    #[error("api.token_sha256 of the site configuration is not 64 lower-case hexadecimal digits")]
    Site,
    /// The hash cannot be kept.
    #[error("keeping the hash of the token in {KEPT}: {0}")]
    Keep(#[from] io::Error),
}

impl TokenHash {
    /// Hash of this token.
    pub fn of(token: &str) -> Self {
        Self(Digest::of(token.as_bytes()))
    }

    /// Whether `candidate` is the token. Takes the same time whatever the candidate is.
    pub fn opens(&self, candidate: &[u8]) -> bool {
        Digest::of(candidate).as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

/// The token's hash, and the token itself when it was made just now and has to be shown.
///
/// # Errors
/// [`TokenError`] when a token cannot be made or kept.
pub fn establish(root: &Root, site: &SiteConfig) -> Result<(TokenHash, Option<String>), TokenError> {
    if let Some(hash) = &site.api.token_sha256 {
        return Ok((TokenHash(Digest::from_hex(hash).map_err(|_| TokenError::Site)?), None));
    }
    if let Some(kept) = root.line(KEPT).and_then(|line| Digest::from_hex(&line).ok()) {
        return Ok((TokenHash(kept), None));
    }
    let token = make()?;
    let hash = TokenHash::of(&token);
    let path = root.at(KEPT);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(hash.0.to_hex().as_bytes())?;
    Ok((hash, Some(token)))
}

/// 256 random bits in thirteen groups of four digits.
///
/// # Errors
/// [`TokenError::Random`].
pub fn make() -> Result<String, TokenError> {
    let mut random = [0; RANDOM_LEN];
    ring::default_provider().secure_random.fill(&mut random).map_err(|_| TokenError::Random)?;
    let mut digits = String::new();
    let (mut bits, mut held) = (0_u32, 0_u32);
    let mut put = |digit: u32, count: usize| {
        if count > 0 && count.is_multiple_of(4) {
            digits.push('-');
        }
        let index = usize::try_from(digit & 31).unwrap_or(0);
        digits.push(char::from(DIGITS.get(index).copied().unwrap_or(b'0')));
    };
    let mut count = 0;
    for byte in random {
        bits = (bits << 8) | u32::from(byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            put(bits >> held, count);
            count += 1;
        }
    }
    put(bits << (5 - held), count);
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("run/gap")).unwrap();
        let root = Root::new(directory.path());
        (directory, root)
    }

    #[test]
    fn a_made_token_is_shown_once_and_survives_a_restart_of_the_agent() {
        let (_directory, root) = machine();
        let (hash, shown) = establish(&root, &SiteConfig::default()).unwrap();
        let token = shown.unwrap();
        assert!(hash.opens(token.as_bytes()));
        let (again, shown) = establish(&root, &SiteConfig::default()).unwrap();
        assert_eq!(shown, None);
        assert!(again.opens(token.as_bytes()) && !again.opens(b"") && !again.opens(b"x"));
    }

    #[test]
    fn a_made_token_has_256_bits_in_groups() {
        let token = make().unwrap();
        assert_eq!(token.len(), 52 + 12, "{token}");
        assert!(token.split('-').all(|group| group.len() == 4));
        assert_ne!(token, make().unwrap());
    }

    #[test]
    fn the_site_configuration_decides_where_it_speaks() {
        let (_directory, root) = machine();
        let mut site = SiteConfig::default();
        site.api.token_sha256 = Some(Digest::of(b"secret").to_hex());
        let (hash, shown) = establish(&root, &site).unwrap();
        assert_eq!(shown, None);
        assert!(hash.opens(b"secret") && !hash.opens(b"Secret"));
    }
}
