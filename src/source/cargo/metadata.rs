//! What `cargo metadata` says.

use super::{cargo, checkout::Checkout, error::CargoError, stage::Staged, toolchain::failed};
use crate::recipe::CargoLayer;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// The part of the answer that is used.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub packages: Vec<Package>,
    pub workspace_root: PathBuf,
    #[serde(default)]
    resolve: Option<Resolve>,
}

/// A package.
#[derive(Debug, Deserialize)]
pub(super) struct Package {
    pub id: String,
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    pub manifest_path: PathBuf,
    pub targets: Vec<Target>,
    pub dependencies: Vec<Dependency>,
    pub readme: Option<PathBuf>,
    pub license_file: Option<PathBuf>,
}

/// A library, binary, test, … of a package.
#[derive(Debug, Deserialize)]
pub(super) struct Target {
    pub kind: Vec<String>,
    pub name: String,
    pub src_path: PathBuf,
}

/// A dependency as a manifest declares it.
#[derive(Debug, Deserialize)]
pub(super) struct Dependency {
    /// `dev`, `build`, or nothing for a normal one.
    pub kind: Option<String>,
    pub path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDependency>,
}

#[derive(Debug, Deserialize)]
struct NodeDependency {
    pkg: String,
    dep_kinds: Vec<Dependency>,
}

impl Target {
    /// Whether a release build of a binary or library may need it.
    pub fn is_built(&self) -> bool {
        !self.kind.iter().any(|kind| matches!(kind.as_str(), "test" | "bench" | "example"))
    }
}

/// What Cargo resolves for one binary.
pub(super) struct Graph {
    /// The package of the binary.
    pub root: Root,
    /// All packages by name and version.
    pub packages: BTreeMap<(String, String), Resolved>,
}

/// The package of a binary.
pub(super) struct Root {
    pub version: String,
    pub license: Option<String>,
}

/// A package in the graph of one binary.
pub(super) struct Resolved {
    pub license: Option<String>,
    pub used: bool,
}

/// The members of the workspace; looks at manifests only.
pub(super) fn members(workspace: &Checkout) -> Result<Metadata, CargoError> {
    let manifest = workspace.dir().join("Cargo.toml");
    let manifest = std::path::absolute(&manifest).map_err(CargoError::io("looking for", &manifest))?;
    let mut arguments = ["metadata", "--format-version=1", "--no-deps", "--offline"].map(str::to_owned).to_vec();
    arguments.push(format!("--manifest-path={}", manifest.display()));
    run(workspace, &arguments)
}

/// Resolves the staged packages and says of each package, by name and version, whether the binary needs it on `target`.
/// The staged `Cargo.lock` is reduced to what they need.
pub(super) fn resolved_graph(
    layer: &CargoLayer,
    workspace: &Checkout,
    staged: &Staged,
    target: &str,
    offline: bool,
) -> Result<Graph, CargoError> {
    let manifest = staged.manifest().display().to_string();
    let mut arguments = vec!["metadata".to_owned(), "--format-version=1".to_owned()];
    arguments.extend([format!("--filter-platform={target}"), format!("--manifest-path={manifest}")]);
    if !layer.features.is_empty() {
        arguments.push(format!("--features={}", layer.features.join(",")));
    }
    if offline {
        arguments.push("--offline".to_owned());
    }
    let metadata = run(workspace, &arguments)?;
    let Some(root) = metadata.packages.iter().find(|package| Path::new(&package.manifest_path) == staged.manifest())
    else {
        let what = format!("it does not list `{}`", layer.package);
        return Err(CargoError::Answer { command: "cargo metadata", what });
    };
    let used = used(&root.id, metadata.resolve.as_ref());
    let described = metadata.packages.iter().map(|package| {
        let resolved = Resolved { license: package.license.clone(), used: used.contains(package.id.as_str()) };
        ((package.name.clone(), package.version.clone()), resolved)
    });
    let root = Root { version: root.version.clone(), license: root.license.clone() };
    Ok(Graph { root, packages: described.collect() })
}

/// Everything that is reached from `root` without passing through a dependency of tests.
fn used<'m>(root: &'m str, resolve: Option<&'m Resolve>) -> BTreeSet<&'m str> {
    let nodes: BTreeMap<&str, &Node> =
        resolve.iter().flat_map(|resolve| &resolve.nodes).map(|node| (node.id.as_str(), node)).collect();
    let mut used = BTreeSet::from([root]);
    let mut open = vec![root];
    while let Some(node) = open.pop().and_then(|id| nodes.get(id)) {
        for dependency in &node.deps {
            let is_built = dependency.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"));
            if is_built && used.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    used
}

fn run(workspace: &Checkout, arguments: &[String]) -> Result<Metadata, CargoError> {
    let output = cargo(workspace)?
        .args(arguments)
        .output()
        .map_err(|source| CargoError::NotInstalled { program: "cargo", source })?;
    if !output.status.success() {
        return Err(failed("cargo metadata".to_owned(), workspace, &output.stderr));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| CargoError::Answer { command: "cargo metadata", what: error.to_string() })
}
