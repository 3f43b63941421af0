//! What is remembered of an appliance: where it is, how it is recognised, and the token. One file for each, which only its
//! owner can read.

use crate::client::{Client, ClientError, Fingerprint, FingerprintError, Identity, Trust};
use miette::Diagnostic;
use serde::{Deserialize, Serialize};
use std::{
    env, fmt, fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// What is remembered of an appliance.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// `https://HOST:PORT`.
    pub server: String,
    /// SHA-256 of its certificate.
    pub fingerprint: Option<String>,
    /// PEM file of the authorities that vouch for its certificate.
    pub authorities: Option<PathBuf>,
    /// What shows it who this is, where the site wants to see it.
    pub identity: Option<Identity>,
    /// Opens its API.
    pub token: Option<String>,
}

impl fmt::Debug for Profile {
    /// Without the token.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Profile({}, {:?}, {:?})", self.server, self.fingerprint, self.authorities)
    }
}

/// Why nothing is remembered.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ProfileError {
    /// It is not known yet.
    #[error("there is no appliance `{0}` here")]
    #[diagnostic(help("`gapctl login https://HOST:PORT` makes it known"))]
    Unknown(String),
    /// The name cannot be that of a file.
    #[error("`{0}` is no name for an appliance: letters, digits, `.`, `-` and `_`")]
    Name(String),
    /// Nowhere to keep it.
    #[error("neither XDG_CONFIG_HOME nor HOME is set, so there is nowhere to keep what is known of appliances")]
    Nowhere,
    /// The file.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read the token.
    #[error("{} can be read by others, and a token is in it", .0.display())]
    #[diagnostic(help("chmod 600 it, and get another token: `gapctl token create`"))]
    Open(PathBuf),
    /// It does not say what it should.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Nothing says how the server is recognised.
    #[error("nothing says how {0} is recognised")]
    #[diagnostic(help("give --fingerprint or --ca, or `gapctl login` to it once"))]
    NoTrust(String),
    /// The fingerprint is none.
    #[error(transparent)]
    Fingerprint(#[from] FingerprintError),
    /// The client cannot be made.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Client(#[from] ClientError),
}

impl Profile {
    /// What was remembered under this name.
    ///
    /// # Errors
    /// [`ProfileError`] when there is nothing, or it is not to be used.
    pub fn load(name: &str) -> Result<Self, ProfileError> {
        Self::read(&place(name)?, name)
    }

    fn read(path: &Path, name: &str) -> Result<Self, ProfileError> {
        let failed = |source| ProfileError::File { path: path.to_owned(), source };
        let metadata = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ProfileError::Unknown(name.to_owned()));
            }
            other => other.map_err(failed)?,
        };
        let wrong = |reason: String| ProfileError::Content { path: path.to_owned(), reason };
        if metadata.len() > MAX_FILE {
            return Err(wrong(format!("it is longer than {MAX_FILE} bytes")));
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
        let profile: Self = toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        if profile.token.is_some() && metadata.permissions().mode() & 0o077 != 0 {
            return Err(ProfileError::Open(path.to_owned()));
        }
        Ok(profile)
    }

    /// Remembers it under this name and says where.
    ///
    /// # Errors
    /// [`ProfileError`] when it cannot be written.
    pub fn store(&self, name: &str) -> Result<PathBuf, ProfileError> {
        let path = place(name)?;
        self.write(&path).map_err(|source| ProfileError::File { path: path.clone(), source })?;
        Ok(path)
    }

    /// Whether something can be remembered under this name; nothing is changed.
    ///
    /// # Errors
    /// As for [`Profile::store`].
    pub fn try_place(name: &str) -> Result<(), ProfileError> {
        let path = place(name)?;
        new_file(&path).map(drop).map_err(|source| ProfileError::File { path, source })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let text = Zeroizing::new(toml::to_string(self).map_err(io::Error::other)?);
        let mut file = new_file(path)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }

    /// Forgets it.
    ///
    /// # Errors
    /// [`ProfileError`] when it is not there or cannot be deleted.
    pub fn forget(name: &str) -> Result<(), ProfileError> {
        let path = place(name)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ProfileError::Unknown(name.to_owned())),
            other => other.map_err(|source| ProfileError::File { path, source }),
        }
    }

    /// How the server is recognised.
    ///
    /// # Errors
    /// [`ProfileError`] when nothing says so.
    pub fn trust(&self) -> Result<Trust, ProfileError> {
        match (&self.fingerprint, &self.authorities) {
            (Some(fingerprint), _) => Ok(Trust::Pinned(fingerprint.parse()?)),
            (None, Some(path)) => Ok(Trust::Authorities(path.clone())),
            (None, None) => Err(ProfileError::NoTrust(self.server.clone())),
        }
    }

    /// The connection to it.
    ///
    /// # Errors
    /// [`ProfileError`] when something of it cannot be used.
    pub fn client(&self) -> Result<Client, ProfileError> {
        Ok(Client::new(&self.server, &self.trust()?, self.identity.as_ref(), self.token.clone().map(Zeroizing::new))?)
    }

    /// Nothing but where it is.
    #[must_use]
    pub const fn of(server: String) -> Self {
        Self { server, fingerprint: None, authorities: None, identity: None, token: None }
    }

    /// With the fingerprint as the only way to recognise it.
    #[must_use]
    pub fn pinned(server: String, fingerprint: Fingerprint) -> Self {
        Self { fingerprint: Some(fingerprint.to_string()), ..Self::of(server) }
    }
}

/// A file beside this one, for its owner alone; it is gone unless it is put in its place.
fn new_file(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    tempfile::NamedTempFile::new_in(directory)
}

fn place(name: &str) -> Result<PathBuf, ProfileError> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_good) {
        return Err(ProfileError::Name(name.to_owned()));
    }
    Ok(directory("XDG_CONFIG_HOME", ".config").ok_or(ProfileError::Nowhere)?.join(format!("{name}.toml")))
}

/// Our own directory below one of the XDG base directories.
pub fn directory(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))?;
    Some(base.join("gapctl"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gapctl/rack4.toml");
        let profile = Profile {
            token: Some("secret".to_owned()),
            ..Profile::pinned("https://rack4:8443".to_owned(), Fingerprint::of(b"x"))
        };
        profile.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Profile::read(&path, "rack4").unwrap(), profile);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Profile::read(&path, "rack4"), Err(ProfileError::Open(_))));
        assert!(matches!(Profile::read(&directory.path().join("no"), "no"), Err(ProfileError::Unknown(_))));
    }

    #[test]
    fn a_name_is_no_path() {
        for bad in ["", "../x", "a/b", ".hidden", "a b"] {
            assert!(matches!(place(bad), Err(ProfileError::Name(_))), "{bad}");
        }
    }
}
