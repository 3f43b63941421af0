//! Tokens and codes: made here of random bits, or known by a hash that the site configuration gives.

use gap_format::Digest;
use gap_handover::SiteConfig;
use rustls::crypto::ring;
use subtle::ConstantTimeEq;

/// Digits of what is made: Crockford's base 32, which leaves out what is easily misread.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Randomness of a token, in bytes.
const TOKEN_LEN: usize = 32;
/// Randomness of a code that is typed from a screen, in bytes.
const CODE_LEN: usize = 10;
/// Longest code that is looked at, in bytes: four groups with a good deal of white space around.
const MAX_CODE: usize = 64;

/// The SHA-256 of a token or a code.
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
}

impl TokenHash {
    /// Hash of this token.
    pub fn of(token: &str) -> Self {
        Self(Digest::of(token.as_bytes()))
    }

    /// The first token, where the site configuration names one.
    ///
    /// # Errors
    /// [`TokenError::Site`].
    pub fn of_site(site: &SiteConfig) -> Result<Option<Self>, TokenError> {
        let hash = site.api.token_sha256.as_ref();
        hash.map(|hash| Digest::from_hex(hash).map(Self).map_err(|_| TokenError::Site)).transpose()
    }

    /// Whether `candidate` is the token. Takes the same time whatever the candidate is.
    pub fn opens(&self, candidate: &[u8]) -> bool {
        Digest::of(candidate).as_bytes().ct_eq(self.0.as_bytes()).into()
    }

    /// Whether `candidate` is the code, however it is written: in capitals or not, with its groups apart or not, with the
    /// letters O, I and L for the digits that they look like.
    pub fn opens_to_code(&self, candidate: &str) -> bool {
        candidate.len() <= MAX_CODE && self.opens(plain(candidate).as_bytes())
    }
}

/// A token: 256 random bits in thirteen groups of four digits.
///
/// # Errors
/// [`TokenError::Random`].
pub fn make() -> Result<String, TokenError> {
    Ok(digits(&random::<TOKEN_LEN>()?))
}

/// A code, 80 random bits in four groups of four digits, and the hash by which it is known again.
///
/// # Errors
/// [`TokenError::Random`].
pub fn make_code() -> Result<(String, TokenHash), TokenError> {
    let code = digits(&random::<CODE_LEN>()?);
    let hash = TokenHash::of(&plain(&code));
    Ok((code, hash))
}

fn random<const LEN: usize>() -> Result<[u8; LEN], TokenError> {
    let mut bytes = [0; LEN];
    ring::default_provider().secure_random.fill(&mut bytes).map_err(|_| TokenError::Random)?;
    Ok(bytes)
}

/// Groups of four digits, five bits each; the last digit is filled up with zeros.
fn digits(bytes: &[u8]) -> String {
    let mut digits = String::new();
    let (mut bits, mut held, mut count) = (0_u32, 0_u32, 0_usize);
    let mut put = |digit: u32| {
        if count > 0 && count.is_multiple_of(4) {
            digits.push('-');
        }
        count = count.saturating_add(1);
        let index = usize::try_from(digit & 31).unwrap_or(0);
        digits.push(char::from(DIGITS.get(index).copied().unwrap_or(b'0')));
    };
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            put(bits >> held);
        }
    }
    if held > 0 {
        put(bits << (5 - held));
    }
    digits
}

/// A code without what is between its groups, as Crockford's base 32 is to be read.
fn plain(code: &str) -> String {
    let digits = code.chars().filter(|c| !c.is_whitespace() && *c != '-');
    digits
        .map(|c| match c.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_token_has_256_bits_in_groups() {
        let token = make().unwrap();
        assert_eq!(token.len(), 52 + 12, "{token}");
        assert!(token.split('-').all(|group| group.len() == 4));
        assert_ne!(token, make().unwrap());
    }

    #[test]
    fn a_code_is_known_again_however_it_is_typed() {
        let (code, hash) = make_code().unwrap();
        assert_eq!(code.len(), 16 + 3, "{code}");
        assert!(code.split('-').all(|group| group.len() == 4));
        let sloppy = code.replace('0', "O").replace('1', "l").replace('-', " ").to_uppercase();
        for typed in [code.clone(), sloppy, code.replace('-', ""), format!(" {code}\n")] {
            assert!(hash.opens_to_code(&typed), "{typed}");
        }
        let other = make_code().unwrap().0;
        for wrong in ["", "----", &code[1..], &other, &format!("{code}{}", " ".repeat(64))] {
            assert!(!hash.opens_to_code(wrong), "{wrong}");
        }
    }

    #[test]
    fn digits_are_those_of_crockfords_base_32() {
        assert_eq!(digits(&[0, 0, 0, 0, 0]), "0000-0000");
        assert_eq!(digits(&[0xff, 0xff, 0xff, 0xff, 0xff]), "zzzz-zzzz");
        // Five bits each: 00001 00010 00011 00100 | 00101 00110 00111 01000.
        assert_eq!(digits(&[0x08, 0x86, 0x42, 0x98, 0xe8]), "1234-5678");
        assert_eq!(digits(&[0x08]), "10");
    }

    #[test]
    fn the_site_configuration_names_a_token_or_none() {
        let mut site = SiteConfig::default();
        assert!(TokenHash::of_site(&site).unwrap().is_none());
        site.api.token_sha256 = Some(Digest::of(b"secret").to_hex());
        let hash = TokenHash::of_site(&site).unwrap().unwrap();
        assert!(hash.opens(b"secret") && !hash.opens(b"Secret"));
        site.api.token_sha256 = Some("no hash".into());
        assert!(matches!(TokenHash::of_site(&site), Err(TokenError::Site)));
    }
}
