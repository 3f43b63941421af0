//! Where the parts of a wheel go in an image.

use super::InstallError;
use crate::{layer::tree::TreePath, source::wheels::target::Python};

/// Longest path of an interpreter: longer ones are cut off by some kernels when a script names them.
const INTERPRETER_MAX: usize = 100;

/// The directories of one Python installation (`sysconfig`'s install scheme).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheme {
    /// Modules: `purelib` and `platlib`.
    pub site: TreePath,
    /// Programs.
    pub scripts: TreePath,
    /// Other data.
    pub data: TreePath,
    /// Headers; each project has a directory of its own there.
    pub headers: TreePath,
    /// The interpreter that programs name.
    pub interpreter: String,
    /// What tells its bytecode from that of others (PEP 3147).
    pub cache_tag: String,
}

impl Scheme {
    /// The scheme of this Python: without `environment` Debian's for what the administrator installs (`posix_local`),
    /// which goes before what Debian's own packages bring; else that of the virtual environment at this path.
    ///
    /// # Errors
    /// [`InstallError::Environment`] if the path is too long for the first line of a script, or has blanks.
    pub fn new(python: Python, environment: Option<&TreePath>) -> Result<Self, InstallError> {
        let series = python.series();
        let cache_tag = format!("cpython-3{}", python.minor);
        let bad = |reason: &str| InstallError::Environment {
            path: environment.cloned().unwrap_or_default(),
            reason: reason.to_owned(),
        };
        let path = |text: String| TreePath::new(text).map_err(|error| bad(&error.to_string()));
        let Some(environment) = environment else {
            return Ok(Self {
                site: path(format!("usr/local/lib/python{series}/dist-packages"))?,
                scripts: path("usr/local/bin".to_owned())?,
                data: path("usr/local".to_owned())?,
                headers: path(format!("usr/local/include/python{series}"))?,
                interpreter: format!("/usr/bin/python{series}"),
                cache_tag,
            });
        };
        let root = std::str::from_utf8(environment.as_bytes()).map_err(|_| bad("it is not UTF-8"))?;
        let interpreter = format!("/{root}/bin/python{series}");
        if interpreter.len() > INTERPRETER_MAX || interpreter.contains(char::is_whitespace) {
            return Err(bad("it is too long for the first line of a script, or has blanks"));
        }
        Ok(Self {
            site: path(format!("{root}/lib/python{series}/site-packages"))?,
            scripts: path(format!("{root}/bin"))?,
            data: environment.clone(),
            headers: path(format!("{root}/include/site/python{series}"))?,
            interpreter,
            cache_tag,
        })
    }

    /// Directories of the installation itself, which its owner made or which are implied; those below belong to wheels.
    pub(super) fn is_own_directory(&self, path: &TreePath) -> bool {
        [&self.site, &self.scripts, &self.data, &self.headers].into_iter().any(|own| own.is_within(path))
    }

    /// Where the bytecode of a source goes.
    pub(super) fn compiled(&self, source: &TreePath) -> Option<TreePath> {
        let stem = source.name().strip_suffix(b".py")?;
        let name = [b"__pycache__/", stem, b".", self.cache_tag.as_bytes(), b".pyc"].concat();
        source.parent()?.join(name).ok()
    }

    /// A path as it is written in `RECORD`: from the directory of modules.
    pub(super) fn recorded(&self, path: &TreePath) -> String {
        let text = |path: &TreePath| String::from_utf8_lossy(path.as_bytes()).into_owned();
        let (site, path) = (text(&self.site), text(path));
        let mut from: Vec<&str> = site.split('/').collect();
        let mut to: Vec<&str> = path.split('/').collect();
        let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
        from.drain(..common);
        to.drain(..common.min(to.len()));
        let up = vec![".."; from.len()];
        up.into_iter().chain(to).collect::<Vec<_>>().join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    #[test]
    fn debians_python_finds_what_is_installed() {
        let scheme = Scheme::new("3.13.5".parse().unwrap(), None).unwrap();
        assert_eq!(scheme.site, path("/usr/local/lib/python3.13/dist-packages"));
        assert_eq!(scheme.interpreter, "/usr/bin/python3.13");
        assert_eq!(scheme.recorded(&path("/usr/local/lib/python3.13/dist-packages/a/b.py")), "a/b.py");
        assert_eq!(scheme.recorded(&path("/usr/local/bin/a")), "../../../bin/a");
        assert!(scheme.is_own_directory(&path("/usr/local/lib")));
        assert!(!scheme.is_own_directory(&path("/usr/local/lib/python3.13/dist-packages/a")));
        assert!(!scheme.is_own_directory(&path("/usr/local/share")));
    }

    #[test]
    fn an_environment_has_everything_below_one_directory() {
        let scheme = Scheme::new("3.13.5".parse().unwrap(), Some(&path("/opt/train"))).unwrap();
        assert_eq!(scheme.interpreter, "/opt/train/bin/python3.13");
        assert_eq!(scheme.recorded(&path("/opt/train/bin/a")), "../../../bin/a");
        assert!(Scheme::new("3.13.5".parse().unwrap(), Some(&path(&"x/".repeat(60)))).is_err());
        assert!(Scheme::new("3.13.5".parse().unwrap(), Some(&path("/opt/a b"))).is_err());
    }
}
