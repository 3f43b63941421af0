//! Manifests, reduced to what a release build uses.

use super::error::CargoError;
use std::path::Path;
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, value};

/// Tables that only tests, benchmarks and examples need.
const NOT_BUILT: [&str; 4] = ["dev-dependencies", "test", "bench", "example"];
/// Tables of a root manifest that concern the whole workspace.
const OF_WORKSPACE: [&str; 4] = ["workspace", "profile", "patch", "replace"];

/// A member's manifest without what only tests need.
pub(super) fn reduce_member(text: &str, path: &Path) -> Result<String, CargoError> {
    let mut document = parse(text, path)?;
    drop_tests(document.as_table_mut());
    Ok(document.to_string())
}

/// The workspace's root manifest with only these members (directories relative to it, sorted), and without the root
/// package unless `with_package`.
pub(super) fn reduce_root(
    text: &str,
    path: &Path,
    members: &[String],
    with_package: bool,
) -> Result<String, CargoError> {
    let mut document = parse(text, path)?;
    let root = document.as_table_mut();
    match with_package {
        true => drop_tests(root),
        false => root.retain(|key, _| OF_WORKSPACE.contains(&key)),
    }
    if let Some(workspace) = root.get_mut("workspace").and_then(Item::as_table_like_mut) {
        workspace.remove("default-members");
        workspace.remove("exclude");
        workspace.insert("members", value(members.iter().collect::<Array>()));
    } else if !with_package || !members.is_empty() {
        let mut workspace = Table::new();
        workspace.insert("members", value(members.iter().collect::<Array>()));
        root.insert("workspace", Item::Table(workspace));
    }
    Ok(document.to_string())
}

/// A `rust-toolchain.toml` that asks for the compiler and nothing that only developers need.
pub(super) fn reduce_toolchain(text: &str, path: &Path) -> Result<String, CargoError> {
    let mut document = parse(text, path)?;
    if let Some(toolchain) = document.get_mut("toolchain").and_then(Item::as_table_like_mut) {
        toolchain.remove("components");
    }
    Ok(document.to_string())
}

/// The name of the toolchain that such a file, in either of rustup's two forms, asks for; none if it leaves that open.
///
/// # Errors
/// [`CargoError`] for one that names a directory: the programs in it would be run.
pub(super) fn channel(text: &str, path: &Path) -> Result<Option<String>, CargoError> {
    let named = match text.trim() {
        line if !line.contains(['[', '=', '\n']) => Some(line.to_owned()),
        _ => {
            let document = parse(text, path)?;
            let toolchain = document.get("toolchain").and_then(Item::as_table_like);
            let field = |name: &str| toolchain.and_then(|table| table.get(name)?.as_str()).map(str::to_owned);
            field("path").or_else(|| field("channel"))
        }
    };
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    match named {
        Some(name) if !is_name(&name) => Err(CargoError::Manifest {
            path: path.to_owned(),
            what: format!(
                "it asks for the toolchain `{}`, whose programs would be run: only one that rustup has by a name is taken",
                name.escape_debug()
            ),
        }),
        named => Ok(named),
    }
}

fn drop_tests(table: &mut Table) {
    for key in NOT_BUILT {
        table.remove(key);
    }
    if let Some(platforms) = table.get_mut("target").and_then(Item::as_table_like_mut) {
        for (_, platform) in platforms.iter_mut() {
            if let Some(platform) = platform.as_table_like_mut() {
                TableLike::remove(platform, "dev-dependencies");
            }
        }
    }
}

fn parse(text: &str, path: &Path) -> Result<DocumentMut, CargoError> {
    text.parse()
        .map_err(|error: toml_edit::TomlError| CargoError::Manifest { path: path.to_owned(), what: error.to_string() })
}
