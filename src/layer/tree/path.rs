//! Paths inside a tree.

use std::{
    fmt,
    ops::Bound,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Longest path accepted, in bytes (Linux `PATH_MAX`).
pub const PATH_MAX: usize = 4096;
/// Longest single name accepted, in bytes (Linux `NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// A path inside a tree: relative, `/`-separated, without empty, `.` or `..` components and without
/// NUL. The empty path is the root. Bytes, because names need not be UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreePath(Vec<u8>);

/// Why some bytes are not a [`TreePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path climbs with `..`.
    #[error("the path climbs out with `..`")]
    Climbs,
    /// The path holds a NUL byte.
    #[error("the path holds a NUL byte")]
    Nul,
    /// The path or a component is longer than Linux allows.
    #[error("the path or one of its names is too long")]
    TooLong,
}

impl TreePath {
    /// The root of the tree.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Normalises `raw`: a leading `/` or `./`, doubled slashes and `.` components vanish.
    ///
    /// # Errors
    /// [`PathError`] if it climbs, holds NUL or is too long.
    pub fn new(raw: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let mut path = Vec::with_capacity(raw.as_ref().len());
        for component in raw.as_ref().split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(PathError::Climbs),
                _ if component.contains(&0) => return Err(PathError::Nul),
                _ if component.len() > NAME_MAX => return Err(PathError::TooLong),
                _ => {}
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(component);
        }
        if path.len() >= PATH_MAX {
            return Err(PathError::TooLong);
        }
        Ok(Self(path))
    }

    /// The bytes, without leading slash; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The containing directory; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        Some(Self(self.0.get(..cut).unwrap_or_default().to_vec()))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// This path with `name` (one or more components) appended.
    ///
    /// # Errors
    /// [`PathError`] as for [`TreePath::new`].
    pub fn join(&self, name: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let mut raw = self.0.clone();
        raw.push(b'/');
        raw.extend_from_slice(name.as_ref());
        Self::new(raw)
    }

    /// Whether `self` is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        other.is_root()
            || self.0.strip_prefix(other.0.as_slice()).is_some_and(|rest| rest.first().is_none_or(|&byte| byte == b'/'))
    }

    /// What lies between this path and the first that is neither it nor below it, without either: the paths below it.
    pub(super) fn below(&self) -> (Bound<Self>, Bound<Self>) {
        if self.is_root() {
            return (Bound::Excluded(self.clone()), Bound::Unbounded);
        }
        // `/` + 1 = `0`: all that begins with `path/` lies between these two.
        let with = |last: u8| Bound::Excluded(Self([self.0.as_slice(), &[last]].concat()));
        (with(b'/'), with(b'0'))
    }

    /// The same path on a real file system, below `root`.
    pub fn under(&self, root: &Path) -> PathBuf {
        root.join(std::ffi::OsStr::from_bytes(&self.0))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_confined_and_have_one_spelling() {
        for raw in ["./usr//bin/sh", "/usr/bin/sh", "usr/./bin/sh/"] {
            assert_eq!(TreePath::new(raw).unwrap().as_bytes(), b"usr/bin/sh");
        }
        assert_eq!(TreePath::new("usr/../etc"), Err(PathError::Climbs));
        assert_eq!(TreePath::new(b"a\0b"), Err(PathError::Nul));
        assert_eq!(TreePath::new("x".repeat(256)), Err(PathError::TooLong));
        assert!(TreePath::new("./").unwrap().is_root());
    }

    #[test]
    fn within_means_below_a_whole_name() {
        let usr = TreePath::new("usr").unwrap();
        assert!(TreePath::new("usr/bin").unwrap().is_within(&usr));
        assert!(!TreePath::new("usrlocal").unwrap().is_within(&usr));
        assert_eq!(TreePath::new("usr").unwrap().parent(), Some(TreePath::root()));
    }
}
