//! Certificates that a user names instead of those that the system trusts.

use super::HttpError;
use std::path::Path;
use ureq::tls::{PemItem, RootCerts, parse_pem};

/// The certificates in the PEM file at `path`, as the only ones that are trusted.
///
/// # Errors
/// [`HttpError::Route`] if it cannot be read or holds none.
pub(super) fn roots(path: &Path) -> Result<RootCerts, HttpError> {
    let bad = |reason: String| HttpError::Route { what: format!("the certificate file `{}`", path.display()), reason };
    let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| bad(error.to_string()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        Err(bad("it holds no certificate".to_owned()))
    } else {
        Ok(RootCerts::new_with_certs(&found))
    }
}
