//! A key and its certificate in a file that nobody but root reads, so that clients see the same ones again.

use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Longest file that is read, in bytes.
const MAX_LEN: u64 = 64 << 10;
/// Version of the file.
const VERSION: u32 = 1;

/// What lies in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    /// Names and addresses that the certificate is for.
    names: BTreeSet<String>,
    /// When it ends, in seconds since 1970.
    ends_at: i64,
    /// The certificate (DER), in hexadecimal.
    certificate: String,
    /// Its key (PKCS#8), in hexadecimal.
    key: String,
}

/// A certificate of our own, and what it was made from.
pub(super) struct Kept {
    /// Names and addresses that it is for.
    pub names: BTreeSet<String>,
    /// When it ends, in seconds since 1970.
    pub ends_at: i64,
    /// The certificate (DER).
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: KeyPair,
}

impl Kept {
    /// What lies in this file; nothing where there is none. What cannot be read or understood counts as none too: another
    /// one takes its place.
    pub fn read(path: &Path) -> Option<Self> {
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(MAX_LEN).read_to_end(&mut bytes).ok()?;
        let content: Content =
            serde_json::from_slice(&bytes).ok().filter(|content: &Content| content.version == VERSION)?;
        Some(Self {
            key: KeyPair::try_from(hex::decode(content.key).ok()?).ok()?,
            certificate: hex::decode(content.certificate).ok()?,
            names: content.names,
            ends_at: content.ends_at,
        })
    }

    /// The same once more.
    pub fn again(&self) -> Result<Self, rcgen::Error> {
        Ok(Self {
            names: self.names.clone(),
            ends_at: self.ends_at,
            certificate: self.certificate.clone(),
            key: KeyPair::try_from(self.key.serialize_der())?,
        })
    }

    /// Puts it into this file, which is whole or as it was whenever the power fails.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let content = Content {
            version: VERSION,
            names: self.names.clone(),
            ends_at: self.ends_at,
            certificate: hex::encode(&self.certificate),
            key: hex::encode(self.key.serialize_der()),
        };
        let beside = path.with_extension("new");
        drop(fs::remove_file(&beside));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec(&content)?)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}
