//! dpkg's database (`/var/lib/dpkg`) as it is when packages are unpacked and not yet configured.

use super::{ConfigureError, PackageInput, states, triggers};
use crate::layer::tree::{Content, Meta, Node, Tree, TreePath};
use std::{collections::BTreeSet, io};

/// The file with all packages and their states.
pub(super) const STATUS: &str = "var/lib/dpkg/status";
const DIRECTORY: &str = "var/lib/dpkg";
/// Where images without scripts keep one control file a package.
const STATUS_D: &str = "var/lib/dpkg/status.d";
/// What dpkg notes as the digest of a configuration file that it has yet to install.
const NEW_CONFFILE: &[u8] = b"newconffile";

/// Checks that the packages can be added to the database in `lower`.
pub(super) fn check(lower: &Tree, packages: &[PackageInput]) -> Result<(), ConfigureError> {
    let status_d = TreePath::new(STATUS_D).is_ok_and(|path| lower.below(&path).next().is_some());
    let installed: BTreeSet<String> = states(lower)?.into_iter().map(|(name, _)| name).collect();
    if status_d && installed.is_empty() {
        return Err(ConfigureError::Unconfigured);
    }
    match packages.iter().find(|package| installed.contains(&package.name)) {
        Some(package) => Err(ConfigureError::Installed { package: package.name.clone() }),
        None => Ok(()),
    }
}

/// Checks that dpkg has finished with every package.
pub(super) fn check_installed(tree: &Tree) -> Result<(), ConfigureError> {
    let unfinished = states(tree)?.into_iter().filter(|(_, state)| state != "install ok installed");
    let packages: Vec<_> = unfinished.map(|(name, state)| format!("{name} ({state})")).collect();
    if packages.is_empty() { Ok(()) } else { Err(ConfigureError::Incomplete { packages: packages.join(", ") }) }
}

/// The name of a package in `/var/lib/dpkg/info`.
pub(super) fn info_name(package: &PackageInput) -> String {
    let PackageInput { name, arch, .. } = package;
    if package.multi_arch == "same" { format!("{name}:{arch}") } else { name.clone() }
}

/// The control file of a package for scanners, in an image that has no full database.
pub(super) fn status_d(package: &PackageInput, source_date: i64) -> Tree {
    let mut files = Files { tree: Tree::new(), source_date };
    files.put(&format!("{STATUS_D}/{}", package.name), 0o644, &package.control_stanza);
    if let Some(sums) = package.control_files.get("md5sums") {
        files.put(&format!("{STATUS_D}/{}.md5sums", package.name), 0o644, sums);
    }
    files.tree
}

/// The database with `packages` added as unpacked.
pub(super) fn write(lower: &Tree, packages: &[PackageInput], source_date: i64) -> io::Result<Tree> {
    let mut files = Files { tree: Tree::new(), source_date };
    for name in ["alternatives", "info", "parts", "triggers", "updates"] {
        files.directory(&format!("{DIRECTORY}/{name}"));
    }
    let mut status = read(lower, STATUS)?;
    for package in packages {
        if !status.is_empty() && !status.ends_with(b"\n\n") {
            status.push(b'\n');
        }
        status.extend(stanza(package));
        let name = format!("{DIRECTORY}/info/{}", info_name(package));
        files.put(&format!("{name}.list"), 0o644, &list(package));
        for (kind, data) in &package.control_files {
            let is_script = matches!(kind.as_str(), "preinst" | "postinst" | "prerm" | "postrm" | "config");
            files.put(&format!("{name}.{kind}"), if is_script { 0o755 } else { 0o644 }, data);
        }
    }
    files.put(STATUS, 0o644, &status);
    files.put(&format!("{DIRECTORY}/info/format"), 0o644, b"1\n");
    for (name, data) in triggers::files(packages, |name| read(lower, &format!("{DIRECTORY}/triggers/{name}")))? {
        files.put(&format!("{DIRECTORY}/triggers/{name}"), 0o644, &data);
    }
    Ok(files.tree)
}

/// The package's paragraph in `status`: its control file, its state, its configuration files.
fn stanza(package: &PackageInput) -> Vec<u8> {
    let mut out = package.control_stanza.trim_ascii_end().to_vec();
    out.extend_from_slice(b"\nStatus: install ok unpacked\n");
    let conffiles: Vec<_> = package.lines("conffiles").collect();
    if !conffiles.is_empty() {
        out.extend_from_slice(b"Conffiles:\n");
        for line in conffiles {
            // `remove-on-upgrade PATH` has its flag behind the digest here.
            let (flag, path) = match line.iter().position(|&byte| byte == b' ') {
                Some(space) if !line.starts_with(b"/") => line.split_at(space),
                _ => (b"".as_slice(), line),
            };
            let gap: &[u8] = if flag.is_empty() { b"" } else { b" " };
            out.extend([b" ", path.trim_ascii_start(), b" ", NEW_CONFFILE, gap, flag, b"\n"].concat());
        }
    }
    out.push(b'\n');
    out
}

/// All paths of the package, one a line; the root is `/.`.
fn list(package: &PackageInput) -> Vec<u8> {
    let line = |(path, _): (&TreePath, &Node)| match path.as_bytes() {
        b"" => b"/.\n".to_vec(),
        path => [b"/", path, b"\n"].concat(),
    };
    package.tree.iter().flat_map(line).collect()
}

fn read(tree: &Tree, raw: &str) -> io::Result<Vec<u8>> {
    match TreePath::new(raw).ok().and_then(|path| tree.get(&path)) {
        Some(Node::File { content, .. }) => content.read(),
        _ => Ok(Vec::new()),
    }
}

/// A tree of root-owned files under construction.
struct Files {
    tree: Tree,
    source_date: i64,
}

impl Files {
    fn put(&mut self, raw: &str, mode: u32, data: &[u8]) {
        let Ok(path) = TreePath::new(raw) else { return };
        if let Some(parent) = path.parent() {
            self.make(parent);
        }
        let meta = Meta::root_owned(mode, self.source_date);
        self.tree.insert(path, Node::File { meta, content: Content::bytes(data) });
    }

    fn directory(&mut self, raw: &str) {
        if let Ok(path) = TreePath::new(raw) {
            self.make(path);
        }
    }

    fn make(&mut self, path: TreePath) {
        if path.is_root() || self.tree.get(&path).is_some() {
            return;
        }
        if let Some(parent) = path.parent() {
            self.make(parent);
        }
        let meta = Meta::root_owned(0o755, self.source_date);
        self.tree.insert(path, Node::Directory { meta, opaque: false });
    }
}
