//! What the program carries for recipes that say `builtin`: the sources of the appliance's own programs, and the layer
//! definitions of `layers/`. With them a recipe needs no checkout of gapimage.

include!(concat!(env!("OUT_DIR"), "/builtin.rs"));

/// Files of the Cargo workspace that holds the appliance's programs, by path below its root, sorted. The root manifest
/// is that of gapimage's whole workspace.
pub fn workspace() -> &'static [(&'static str, &'static [u8])] {
    WORKSPACE
}

/// Directories of the workspace's packages, below its root, sorted.
pub fn packages() -> &'static [&'static str] {
    PACKAGES
}

/// The text of the layer definition of this name.
pub fn definition(name: &str) -> Option<&'static str> {
    DEFINITIONS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The names of all layer definitions, sorted.
pub fn definitions() -> impl Iterator<Item = &'static str> {
    DEFINITIONS.iter().map(|(name, _)| *name)
}
