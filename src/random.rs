//! Secrets: bytes that nobody can guess.

use std::{
    fs::File,
    io::{self, Read},
};
use zeroize::Zeroizing;

/// So many random bytes of the kernel, forgotten after use.
///
/// # Errors
/// What the system said.
pub fn bytes<const N: usize>() -> io::Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    File::open("/dev/urandom")?.read_exact(bytes.as_mut_slice())?;
    Ok(bytes)
}

/// A token for an API: 256 random bits in hexadecimal.
///
/// # Errors
/// What the system said.
pub fn token() -> io::Result<Zeroizing<String>> {
    Ok(Zeroizing::new(hex::encode(bytes::<32>()?.as_slice())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_comes_twice() {
        let token = token().unwrap();
        assert_eq!(token.len(), 64);
        assert_ne!(*token, *super::token().unwrap());
    }
}
