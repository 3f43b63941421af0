//! Files and directories beside the recipe, as a tree that depends on nothing but their names,
//! contents and executable bits.

use super::debian::data_tar::stays_inside;
use crate::layer::tree::{Content, Meta, Node, PathError, Tree, TreePath};
use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

/// One entry of a recipe's `files`.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The directory that the recipe lies in.
    pub base: &'a Path,
    /// File or directory, relative to it.
    pub path: &'a Path,
    /// Where it goes in the image; a trailing `/` puts a file into that directory under its own name.
    pub to: &'a str,
    /// Permission bits of files instead of 0644 or 0755; directories get the matching search bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time of everything, seconds since 1970.
    pub mtime: i64,
}

/// Why files cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// Reading failed.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The destination or a name cannot be used.
    #[error("{path}: {source}")]
    Name {
        /// The path.
        path: String,
        /// Why.
        source: PathError,
    },
    /// Permission bits beyond `7777`.
    #[error("mode {0:o} is not within 7777 (octal)")]
    Mode(u32),
    /// A link that leads out of the directory that is taken.
    #[error(
        "the symbolic link {path} leads out of the directory, to `{target}`; take its target too, or link to an absolute path of the image"
    )]
    LeadsOut {
        /// The link.
        path: String,
        /// Where it points.
        target: String,
    },
    /// A link on the way leads out of the recipe's directory.
    #[error(
        "{path} leads out of the directory of the recipe through a symbolic link, to `{target}`; copy it beside the recipe, or put \
         the recipe above both"
    )]
    Outside {
        /// The path.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// A socket, device or pipe.
    #[error("{0} is neither a file, a directory nor a symbolic link")]
    Special(String),
    /// A file placed at the root itself.
    #[error("{0} is a file and cannot become the root directory; end `to` with its name")]
    Root(String),
}

/// Takes a file or a whole directory. Symbolic links are kept, save `path` itself and what is on the way to it: these are
/// followed as far as they stay within the base.
/// Contents stay where they are ([`Content::Path`]); directories above the destination get no node.
///
/// # Errors
/// [`FilesError`].
pub fn collect(request: &Request<'_>) -> Result<Tree, FilesError> {
    if let Some(mode) = request.mode.filter(|mode| *mode > 0o7777) {
        return Err(FilesError::Mode(mode));
    }
    let source = request.base.join(request.path);
    let metadata = fs::metadata(&source).map_err(|error| unreadable(&source, error))?;
    stays_below(request.base, &source)?;
    let name_error = |source| FilesError::Name { path: request.to.to_owned(), source };
    let mut to = TreePath::new(request.to).map_err(name_error)?;
    let mut collector = Collector { request, tree: Tree::new() };
    if metadata.is_dir() {
        collector.directory(&source, &TreePath::root(), &to)?;
        return Ok(collector.tree);
    }
    if request.to.ends_with('/') {
        let name = source.file_name().unwrap_or_default();
        to = to.join(name.as_bytes()).map_err(name_error)?;
    }
    if to.is_root() {
        return Err(FilesError::Root(shown(&source)));
    }
    collector.file(&source, &metadata, to)?;
    Ok(collector.tree)
}

/// A recipe is given to others together with its directory, and takes nothing of their machines from elsewhere.
fn stays_below(base: &Path, source: &Path) -> Result<(), FilesError> {
    let real = |path: &Path| path.canonicalize().map_err(|error| unreadable(path, error));
    // A recipe in the current directory has no words before its name.
    let base = if base.as_os_str().is_empty() { Path::new(".") } else { base };
    let target = real(source)?;
    if target.starts_with(real(base)?) {
        return Ok(());
    }
    Err(FilesError::Outside { path: shown(source), target: shown(&target) })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn unreadable(path: &Path, source: io::Error) -> FilesError {
    FilesError::Read { path: shown(path), source }
}

struct Collector<'a> {
    request: &'a Request<'a>,
    tree: Tree,
}

impl Collector<'_> {
    /// `within` is the directory's path below the one that was asked for.
    fn directory(&mut self, source: &Path, within: &TreePath, to: &TreePath) -> Result<(), FilesError> {
        if !to.is_root() {
            let mode = self.request.mode.map_or(0o755, |mode| mode & 0o777 | (mode & 0o444) >> 2);
            self.tree.insert(to.clone(), Node::Directory { meta: self.meta(mode), opaque: false });
        }
        for entry in fs::read_dir(source).map_err(|error| unreadable(source, error))? {
            let entry = entry.map_err(|error| unreadable(source, error))?;
            self.entry(&entry.path(), &entry.file_name(), within, to)?;
        }
        Ok(())
    }

    fn entry(&mut self, source: &Path, name: &OsStr, within: &TreePath, to: &TreePath) -> Result<(), FilesError> {
        let name_error = |error| FilesError::Name { path: shown(source), source: error };
        let within = within.join(name.as_bytes()).map_err(name_error)?;
        let to = to.join(name.as_bytes()).map_err(name_error)?;
        let metadata = fs::symlink_metadata(source).map_err(|error| unreadable(source, error))?;
        if metadata.is_dir() {
            return self.directory(source, &within, &to);
        }
        if !metadata.is_symlink() {
            return self.file(source, &metadata, to);
        }
        let target = fs::read_link(source).map_err(|error| unreadable(source, error))?.into_os_string();
        if !stays_inside(&within, target.as_bytes()) {
            return Err(FilesError::LeadsOut { path: shown(source), target: target.display().to_string() });
        }
        self.tree.insert(to, Node::Symlink { meta: self.meta(0o777), target: target.as_bytes().to_vec() });
        Ok(())
    }

    fn file(&mut self, source: &Path, metadata: &fs::Metadata, to: TreePath) -> Result<(), FilesError> {
        if !metadata.is_file() {
            return Err(FilesError::Special(shown(source)));
        }
        // Only the owner's executable bit is content; the others follow the umask of a checkout.
        let usual = if metadata.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
        let meta = self.meta(self.request.mode.unwrap_or(usual));
        let content = Content::Path { path: source.into(), len: metadata.len() };
        self.tree.insert(to, Node::File { meta, content });
        Ok(())
    }

    fn meta(&self, mode: u32) -> Meta {
        let Request { uid, gid, mtime, .. } = *self.request;
        Meta { uid, gid, ..Meta::root_owned(mode, mtime) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn request<'a>(base: &'a Path, path: &'a str, to: &'a str) -> Request<'a> {
        Request { base, path: Path::new(path), to, mode: None, uid: 0, gid: 0, mtime: 7 }
    }

    fn site() -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        let site = base.path().join("site");
        fs::create_dir_all(site.join("bin")).unwrap();
        fs::write(site.join("motd"), "hello").unwrap();
        fs::write(site.join("bin/run"), "#!").unwrap();
        fs::set_permissions(site.join("bin/run"), PermissionsExt::from_mode(0o700)).unwrap();
        fs::set_permissions(site.join("motd"), PermissionsExt::from_mode(0o600)).unwrap();
        symlink("../motd", site.join("bin/link")).unwrap();
        symlink("/usr/bin/env", site.join("absolute")).unwrap();
        base
    }

    fn listing(tree: &Tree) -> Vec<String> {
        tree.iter()
            .map(|(path, node)| match node {
                Node::Directory { meta, .. } => format!("{path} d{:o} {}", meta.mode, meta.mtime),
                Node::File { meta, content } => format!("{path} f{:o} {}", meta.mode, content.len()),
                Node::Symlink { target, .. } => format!("{path} -> {}", target.escape_ascii()),
                _ => unreachable!(),
            })
            .collect()
    }

    #[test]
    fn a_directory_is_taken_whole_with_settled_modes() {
        let base = site();
        let tree = collect(&request(base.path(), "site", "/etc/site")).unwrap();
        let expected = [
            "/etc/site d755 7",
            "/etc/site/absolute -> /usr/bin/env",
            "/etc/site/bin d755 7",
            "/etc/site/bin/link -> ../motd",
            "/etc/site/bin/run f755 2",
            "/etc/site/motd f644 5",
        ];
        assert_eq!(listing(&tree), expected);
        fs::remove_file(base.path().join("site/bin/link")).unwrap();
        let with_mode = Request { mode: Some(0o640), ..request(base.path(), "site/bin", "/b") };
        assert_eq!(listing(&collect(&with_mode).unwrap()), ["/b d750 7", "/b/run f640 2"]);
    }

    #[test]
    fn a_file_goes_where_it_is_told() {
        let base = site();
        let one = |to: &str| listing(&collect(&request(base.path(), "site/motd", to)).unwrap());
        assert_eq!(one("/etc/motd"), ["/etc/motd f644 5"]);
        assert_eq!(one("/etc/"), ["/etc/motd f644 5"]);
        assert!(matches!(collect(&request(base.path(), "site/motd", "..")), Err(FilesError::Name { .. })));
        assert!(matches!(collect(&request(base.path(), "none", "/x")), Err(FilesError::Read { .. })));
        let set = Request { mode: Some(0o4755), uid: 5, ..request(base.path(), "site/motd", "/m") };
        assert_eq!(listing(&collect(&set).unwrap()), ["/m f4755 5"]);
    }

    #[test]
    fn links_that_lead_out_and_special_files_are_refused() {
        let base = site();
        symlink("../../../etc/passwd", base.path().join("site/bin/out")).unwrap();
        let error = collect(&request(base.path(), "site", "/deep/er/x")).unwrap_err();
        assert!(matches!(error, FilesError::LeadsOut { .. }), "{error}");
        let _socket = std::os::unix::net::UnixListener::bind(base.path().join("socket")).unwrap();
        assert!(matches!(collect(&request(base.path(), "socket", "/x")), Err(FilesError::Special(_))));
    }

    #[test]
    fn a_path_that_a_link_leads_out_of_the_recipes_directory_is_refused() {
        let (base, elsewhere) = (site(), tempfile::tempdir().unwrap());
        fs::write(elsewhere.path().join("secret"), "s").unwrap();
        symlink(elsewhere.path(), base.path().join("way")).unwrap();
        symlink(elsewhere.path().join("secret"), base.path().join("file")).unwrap();
        symlink("site/bin", base.path().join("within")).unwrap();
        for path in ["way", "way/secret", "file"] {
            let error = collect(&request(base.path(), path, "/x")).unwrap_err();
            assert!(matches!(error, FilesError::Outside { .. }), "{path}: {error}");
        }
        assert_eq!(listing(&collect(&request(base.path(), "within/run", "/x")).unwrap()), ["/x f755 2"]);
    }
}
