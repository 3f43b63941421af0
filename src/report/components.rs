//! What layers are made of, told alike whatever kind of input it is: the ground of bill of materials, provenance and
//! licence report. One file a kind; each turns rows of the lock into [`Component`]s.

mod cargo;
mod dataset;
mod debian;
mod model;
mod wheels;

use super::purl::PackageUrl;
use crate::{
    lock::{Inputs, Lock, LockedLayer},
    recipe::{DatasetLayer, LayerKind, Recipe},
    source::licence::Licence,
};
use gap_format::Digest;

/// Something that was made elsewhere and pinned by the lock, or a program that was made of such things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Tells it from every other component of the release.
    pub id: ComponentId,
    /// Its name where it comes from.
    pub name: String,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// Where it is known by which name.
    pub purl: Option<PackageUrl>,
    /// Its name as a file.
    pub file: Option<String>,
    /// What pins it.
    pub pin: Pin,
    /// What its maker says may be done with it.
    pub licence: Licence,
    /// Where it was taken from, for people; never a host.
    pub origin: Option<String>,
    /// What it has to do with the layer.
    pub role: Role,
}

/// A component's identifier: letters, digits, `.` and `-`, as SPDX wants them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ComponentId(String);

/// What pins a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// SHA-256 of its file.
    File(Digest),
    /// SHA-256 over a source tree, in gapimage's own encoding.
    Sources(Digest),
    /// The commit that it was built from.
    Commit(String),
}

/// What a component has to do with the layer that its row of the lock belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It lies in the layer.
    Contained,
    /// It was compiled or linked into that component, which lies in the layer.
    BuiltInto(ComponentId),
    /// That component was made with it.
    ToolOf(ComponentId),
    /// It was resolved and pinned, but nothing of it is in the layer.
    Pinned,
}

impl ComponentId {
    /// An identifier that begins with the kind and the name, and ends with a hash over all of `parts`.
    pub fn new(kind: &str, name: &str, parts: &[&str]) -> Self {
        /// Enough that no two components of one release meet.
        const HASH: usize = 16;
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let mut hashed = format!("{kind}\0{name}");
        for part in parts {
            hashed.push('\0');
            hashed.push_str(part);
        }
        let hash = Digest::of(hashed.as_bytes()).to_hex();
        let name: String = name.chars().map(plain).collect();
        Self(format!("{kind}-{name}-{}", hash.get(..HASH).unwrap_or_default()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Role {
    /// Whether something of the component is in the layer.
    pub const fn is_in_layer(&self) -> bool {
        matches!(self, Self::Contained | Self::BuiltInto(_))
    }
}

/// What the rows of one layer stand for, in the order of the lock.
pub fn of_layer(recipe: &Recipe, lock: &Lock, locked: &LockedLayer) -> Vec<Component> {
    match (&locked.inputs, recipe.layer(&locked.name).map(|layer| &layer.kind)) {
        (Inputs::Debian(rows), _) => debian::components(lock, rows),
        (Inputs::Cargo(rows), Some(LayerKind::Cargo(layer))) => cargo::components(lock, layer, rows),
        (Inputs::Wheels(rows), _) => wheels::components(rows),
        (Inputs::Model(model), _) => model::components(model),
        (Inputs::Dataset(rows), Some(LayerKind::Dataset(layer))) => {
            dataset::components(DatasetLayer::name_of(&locked.name), layer, rows)
        }
        // The layer itself is what was made or taken: it is listed by its digest.
        (Inputs::Files(_) | Inputs::Run(_) | Inputs::Cargo(_) | Inputs::Dataset(_), _) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_plain_and_tell_look_alikes_apart() {
        let id = ComponentId::new("deb", "libstdc++6", &["amd64"]);
        assert!(id.as_str().starts_with("deb-libstdc--6-"), "{id:?}");
        assert!(id.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)), "{id:?}");
        assert_ne!(id, ComponentId::new("deb", "libstdc--6", &["amd64"]));
        assert_ne!(id, ComponentId::new("deb", "libstdc++6", &["i386"]));
        assert_ne!(ComponentId::new("deb", "a", &["bc", "d"]), ComponentId::new("deb", "a", &["b", "cd"]));
    }
}
