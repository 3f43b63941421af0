//! Debian packages as a layer.
//!
//! [`unconfigured`] only unpacks them, for images that need no maintainer scripts. [`configured`]
//! also does what dpkg would: it unpacks all packages, writes dpkg's database as if dpkg had, runs
//! `preinst` scripts in the order given and then `dpkg --configure` in the [sandbox](super::sandbox),
//! and takes what changed, [scrubbed](scrub) of clocks, logs and caches.

mod database;
mod scrub;
mod triggers;

use super::{
    sandbox::{Job, Sandbox, SandboxError, Scratch, Step, Writes},
    stack::{Stack, StackError, diff},
    tree::{Content, Meta, Node, PathError, Tree, TreePath},
};
use crate::source::debian::deb::Deb;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    time::Duration,
};

/// A package to install.
#[derive(Debug, Clone)]
pub struct PackageInput {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, or `all`.
    pub arch: String,
    /// Its `Multi-Arch` field; empty if it has none.
    pub multi_arch: String,
    /// Its `control` file.
    pub control_stanza: Vec<u8>,
    /// The other members of its `control.tar` by name.
    pub control_files: BTreeMap<String, Vec<u8>>,
    /// Its files.
    pub tree: Tree,
}

impl From<Deb> for PackageInput {
    fn from(deb: Deb) -> Self {
        let field = |name| deb.control.get(name).unwrap_or_default().to_owned();
        Self {
            name: field("Package"),
            version: field("Version"),
            arch: field("Architecture"),
            multi_arch: field("Multi-Arch"),
            control_stanza: deb.control.text().as_bytes().to_vec(),
            control_files: deb.control_files.into_iter().map(|(name, file)| (name, file.data)).collect(),
            tree: deb.tree,
        }
    }
}

impl PackageInput {
    /// The lines of one of its control files that are not empty.
    fn lines(&self, control_file: &str) -> impl Iterator<Item = &[u8]> {
        let data = self.control_files.get(control_file).map(Vec::as_slice).unwrap_or_default();
        data.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
    }

    /// Its configuration files; those marked for removal are left out.
    fn conffiles(&self) -> impl Iterator<Item = &[u8]> {
        self.lines("conffiles").filter(|line| line.starts_with(b"/"))
    }
}

/// Packages to install over a stack of layers.
#[derive(Debug)]
pub struct Installation<'a> {
    /// What lies below; hard links whole, no whiteouts (see [`Stack`]).
    pub lower: &'a Tree,
    /// What to install, each after what it needs to be unpacked and configured.
    pub packages: &'a [PackageInput],
    /// Time of everything that has none of its own, seconds since 1970.
    pub source_date: i64,
}

/// Where and for how long maintainer scripts run.
#[derive(Debug)]
pub struct Workplace<'a> {
    /// Runs them.
    pub sandbox: &'a Sandbox,
    /// An empty directory for roots too large for memory.
    pub scratch: &'a Path,
    /// How long all of them together may take.
    pub time_limit: Duration,
}

/// Why packages cannot become a layer.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// Its files clash with what is there.
    #[error("cannot unpack {package}: {source}")]
    Unpack {
        /// Name and version.
        package: String,
        /// Why.
        source: StackError,
    },
    /// A path in its control files is not acceptable.
    #[error("cannot unpack {package}: it names the path `{path}`: {source}")]
    Path {
        /// Name and version.
        package: String,
        /// The path, escaped.
        path: String,
        /// Why.
        source: PathError,
    },
    /// A package is there already.
    #[error("{package} is already installed in a layer below; leave it out of this one")]
    Installed {
        /// Its name.
        package: String,
    },
    /// No dpkg to run.
    #[error(
        "`configure = true` runs the packages' scripts with dpkg, which is in none of the layers so far; \
         add the package `dpkg` (and those marked essential), or set `configure = false`"
    )]
    NoDpkg,
    /// The layers below were unpacked only.
    #[error(
        "`configure = true` needs dpkg's database, but the layers below were unpacked with `configure = false`; \
         use the same setting in all Debian layers of an image"
    )]
    Unconfigured,
    /// A maintainer script failed, or the sandbox did.
    #[error("cannot configure the packages: {0}")]
    Sandbox(#[from] SandboxError),
    /// dpkg was content but a package is not installed.
    #[error("after `dpkg --configure`, these packages are not installed: {packages}")]
    Incomplete {
        /// Their names and states.
        packages: String,
    },
    /// What the scripts made does not fit together.
    #[error("cannot take over what the packages' scripts made: {0}")]
    Changes(#[from] StackError),
    /// A file could not be read.
    #[error("cannot read a file of the layer: {0}")]
    Io(#[from] io::Error),
}

/// Where services are kept from starting (`invoke-rc.d(8)`).
const POLICY: &str = "usr/sbin/policy-rc.d";
/// Directories that became links into `/usr`.
const MERGED: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"];

/// The layer that unpacks the packages and leaves their control files where scanners of images
/// look for them, in `/var/lib/dpkg/status.d` (as distroless images do).
///
/// # Errors
/// [`ConfigureError`] if their files clash.
pub fn unconfigured(installation: &Installation<'_>) -> Result<Tree, ConfigureError> {
    let mut stack = unpacked(installation)?;
    for package in installation.packages {
        let status = database::status_d(package, installation.source_date);
        stack.install(&status).map_err(|source| unpack_error(package, source))?;
    }
    Ok(diff(installation.lower, stack.tree())?)
}

/// The layer that installs the packages and runs their scripts.
///
/// # Errors
/// [`ConfigureError`]; a script's output is part of the message.
pub fn configured(installation: &Installation<'_>, workplace: &Workplace<'_>) -> Result<Tree, ConfigureError> {
    let Installation { lower, packages, source_date } = *installation;
    database::check(lower, packages)?;
    let mut stack = unpacked(installation)?;
    if !stack.contains_file("usr/bin/dpkg")? {
        return Err(ConfigureError::NoDpkg);
    }
    keep_changed_conffiles(&mut stack, installation)?;
    stack.install(&database::write(lower, packages, source_date)?)?;
    let had_policy = stack.contains_file(POLICY)?;
    if !had_policy {
        stack.install(&policy(source_date))?;
    }
    let job = Job {
        root: stack.tree(),
        scratch: Scratch::for_size(stack.tree().file_bytes(), workplace.scratch),
        binds: Vec::new(),
        steps: steps(packages),
        source_date,
        time_limit: workplace.time_limit,
        writes: Writes::Anywhere,
    };
    let outcome = workplace.sandbox.run(&job)?;
    stack.apply(&outcome.changes)?;
    if !had_policy {
        stack.apply(&[(stack.place(&path(POLICY)?)?, Node::Whiteout)].into_iter().collect())?;
    }
    database::check_installed(stack.tree())?;
    let mut tree = stack.into_tree();
    scrub::scrub(&mut tree, lower, source_date)?;
    Ok(diff(lower, &tree)?)
}

/// All packages unpacked over what lies below, `/usr` merged.
fn unpacked(installation: &Installation<'_>) -> Result<Stack, ConfigureError> {
    let mut stack = Stack::new(installation.lower)?;
    let root = Node::Directory { meta: Meta::root_owned(0o755, installation.source_date), opaque: false };
    stack.install(&[(TreePath::root(), root)].into_iter().collect())?;
    stack.install(&merged_usr(installation))?;
    for package in installation.packages {
        stack.install(&package.tree).map_err(|source| unpack_error(package, source))?;
    }
    Ok(stack)
}

fn unpack_error(package: &PackageInput, source: StackError) -> ConfigureError {
    ConfigureError::Unpack { package: format!("{} {}", package.name, package.version), source }
}

/// The links into `/usr` for those of [`MERGED`] that a package uses and that are not there yet.
/// They come first, as every Debian installer makes them, because packages may still ship `/lib/x`.
fn merged_usr(installation: &Installation<'_>) -> Tree {
    let meta = |mode| Meta::root_owned(mode, installation.source_date);
    let mut links = Tree::new();
    for name in MERGED {
        let (Ok(link), Ok(target)) = (TreePath::new(name), TreePath::new(format!("usr/{name}"))) else { continue };
        let used = installation.packages.iter().any(|package| package.tree.get(&link).is_some());
        if used && installation.lower.get(&link).is_none() {
            links.insert(link, Node::Symlink { meta: meta(0o777), target: target.as_bytes().to_vec() });
            links.insert(target, Node::Directory { meta: meta(0o755), opaque: false });
        }
    }
    if let (false, Ok(usr)) = (links.is_empty(), TreePath::new("usr")) {
        links.insert(usr, Node::Directory { meta: meta(0o755), opaque: false });
    }
    links
}

/// Configuration files as dpkg finds them: the new one waits as `NAME.dpkg-new`; in place is what the
/// layers below have, else the new one too, because scripts of other packages may need it before its
/// own package is configured.
fn keep_changed_conffiles(stack: &mut Stack, installation: &Installation<'_>) -> Result<(), ConfigureError> {
    let before = Stack::new(installation.lower)?;
    let mut waiting = Tree::new();
    let mut kept = Tree::new();
    for package in installation.packages {
        for raw in package.conffiles() {
            let path = TreePath::new(raw).map_err(|source| path_error(package, raw, source))?;
            let Some(new @ Node::File { .. }) = package.tree.get(&path) else { continue };
            let aside =
                TreePath::new([raw, b".dpkg-new"].concat()).map_err(|source| path_error(package, raw, source))?;
            waiting.insert(stack.place(&aside)?, new.clone());
            let place = before.place(&path)?;
            if let Some(old @ Node::File { .. }) = installation.lower.get(&place) {
                kept.insert(place, old.clone());
            }
        }
    }
    stack.install(&waiting)?;
    stack.install(&kept)?;
    Ok(())
}

fn path_error(package: &PackageInput, raw: &[u8], source: PathError) -> ConfigureError {
    let package = format!("{} {}", package.name, package.version);
    ConfigureError::Path { package, path: raw.escape_ascii().to_string(), source }
}

fn path(raw: &str) -> Result<TreePath, StackError> {
    TreePath::new(raw).map_err(|problem| StackError::Path { path: TreePath::root(), problem })
}

/// Keeps services from starting.
fn policy(source_date: i64) -> Tree {
    let meta = Meta::root_owned(0o755, source_date);
    let script = Node::File { meta, content: Content::bytes(*b"#!/bin/sh\nexit 101\n") };
    TreePath::new(POLICY).into_iter().map(|path| (path, script.clone())).collect()
}

/// `preinst` scripts in order, then dpkg for all the rest.
fn steps(packages: &[PackageInput]) -> Vec<Step> {
    let quiet = |step: Step| {
        step.with("DEBIAN_FRONTEND", "noninteractive")
            .with("DEBCONF_NONINTERACTIVE_SEEN", "true")
            .with("DEBCONF_NOWARNINGS", "true")
    };
    let dpkg_version = packages.iter().find(|package| package.name == "dpkg").map(|package| package.version.as_str());
    let with_preinst = packages.iter().filter(|package| package.control_files.contains_key("preinst"));
    let preinsts = with_preinst.map(|package| {
        let script = format!("/var/lib/dpkg/info/{}.preinst", database::info_name(package));
        quiet(Step::new([&script, "install"]))
            .with("DPKG_MAINTSCRIPT_PACKAGE", &package.name)
            .with("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1")
            .with("DPKG_MAINTSCRIPT_ARCH", &package.arch)
            .with("DPKG_MAINTSCRIPT_NAME", "preinst")
            .with("DPKG_MAINTSCRIPT_DEBUG", "0")
            .with("DPKG_RUNNING_VERSION", dpkg_version.unwrap_or("1.22"))
            .with("DPKG_ADMINDIR", "/var/lib/dpkg")
            .with("DPKG_ROOT", "")
    });
    let dpkg = ["dpkg", "--force-confdef", "--force-confold", "--force-unsafe-io", "--configure"].map(str::to_owned);
    let mut named = Step { command: dpkg.to_vec(), ..Step::default() };
    named.command.extend(in_order_of_importance(packages).map(database::info_name));
    let mut pending = Step { command: dpkg.to_vec(), ..Step::default() };
    pending.command.push("--pending".to_owned());
    preinsts.chain([quiet(named), quiet(pending)]).collect()
}

/// Essential packages and those of priority `required` first, as Debian's installers configure them:
/// other packages' scripts rely on `passwd` and the like without depending on it.
fn in_order_of_importance(packages: &[PackageInput]) -> impl Iterator<Item = &PackageInput> {
    let is_required = |package: &&PackageInput| {
        let text = String::from_utf8_lossy(&package.control_stanza);
        text.lines().any(|line| matches!(line, "Priority: required" | "Essential: yes"))
    };
    let rest = packages.iter().filter(move |package| !is_required(package));
    packages.iter().filter(is_required).chain(rest)
}

impl Stack {
    /// Whether there is a regular file (or another name of one) at `raw`, links on the way followed.
    fn contains_file(&self, raw: &str) -> Result<bool, StackError> {
        let place = self.place(&path(raw)?)?;
        Ok(matches!(self.tree().get(&place), Some(Node::File { .. } | Node::HardLink { .. })))
    }
}

/// The names of packages in dpkg's database that lies in `tree`, with their states.
fn states(tree: &Tree) -> io::Result<BTreeSet<(String, String)>> {
    let status = TreePath::new(database::STATUS).ok().and_then(|path| tree.get(&path).cloned());
    let Some(Node::File { content, .. }) = status else { return Ok(BTreeSet::new()) };
    let text = String::from_utf8_lossy(&content.read()?).into_owned();
    let stanzas = text.split("\n\n").filter(|stanza| !stanza.trim().is_empty());
    let field = |stanza: &str, name: &str| {
        let line = stanza.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned()).unwrap_or_default()
    };
    Ok(stanzas.map(|stanza| (field(stanza, "Package:"), field(stanza, "Status:"))).collect())
}

#[cfg(test)]
mod tests;
