//! Looking through the layers of a plan; what was looked through before is remembered by the layer's key.

use super::{GatherError, built::files_of};
use crate::{
    check::{
        facts::Layer,
        secrets::{FORMAT, Finding, Found, Origin, scan_tree},
    },
    plan::{Plan, PlannedLayer, Wanted},
    recipe::LayerKind,
    store::{KeyBuilder, Store},
};
use std::{collections::BTreeSet, fs, io, io::Write, path::Path};
use tempfile::NamedTempFile;

/// Largest list of findings that is read back, in bytes.
const MAX_LEN: u64 = 4 << 20;

/// What a scan of each layer in an image found, without what the recipe allows; nothing of those that are `unlocked`.
pub(super) fn layers(plan: &Plan<'_>, store: &Store, unlocked: &BTreeSet<String>) -> Result<Vec<Layer>, GatherError> {
    let named: BTreeSet<&String> = plan.recipe.images.iter().flat_map(|image| &image.layers).collect();
    let unseen = named.into_iter().filter(|name| unlocked.contains(*name));
    let mut layers: Vec<Layer> = unseen.map(|name| Layer { name: name.clone(), secrets: None }).collect();
    let allowed = |path: &str| is_allowed(&plan.recipe.secrets.allow, path);
    for planned in plan.numbered(&plan.in_images()) {
        let secrets = found(planned, store, &allowed)?.map(|mut found| {
            found.findings.retain(|finding| !allowed(&finding.path));
            found
        });
        layers.push(Layer { name: planned.name(), secrets });
    }
    Ok(layers)
}

fn is_allowed(allowed: &[String], path: &str) -> bool {
    allowed.iter().any(|allowed| path == allowed || (allowed.ends_with('/') && path.starts_with(allowed.as_str())))
}

/// What is in a layer; `None` if it is neither built nor made of files that are here.
fn found(
    planned: &PlannedLayer<'_>,
    store: &Store,
    allowed: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Option<Found>, GatherError> {
    let key = KeyBuilder::new("secrets", FORMAT).digest("layer", planned.key.digest()).finish();
    let memory = store.cache_dir("secrets", &key)?.join("findings.json");
    if let Some(findings) = remembered(&memory) {
        return Ok(Some(Found { findings, is_cut: false }));
    }
    let failed = |source| GatherError::Layer { layer: planned.name(), source };
    // What it was built of may be gone by now.
    let built = files_of(planned, store)?;
    // Of weights that are yet to be fetched nothing is known.
    let is_here = |source: &Wanted| store.has_source(&source.sha256, Some(source.size));
    let laid_out = planned.tree.as_ref().filter(|_| planned.sources.iter().all(is_here));
    let scan = |tree| {
        let found = scan_tree(tree, origin(planned), &|_| false)?;
        if found.is_cut {
            // What the recipe allows must not stand for what was left out; other recipes allow other things.
            return scan_tree(tree, origin(planned), allowed);
        }
        remember(&memory, &found.findings)?;
        Ok(found)
    };
    built.as_ref().or(laid_out).map(scan).transpose().map_err(failed)
}

const fn origin(planned: &PlannedLayer<'_>) -> Origin {
    match planned.place.layer.kind {
        LayerKind::Debian(_) | LayerKind::Wheels(_) => Origin::Packages,
        LayerKind::Cargo(_) | LayerKind::Files(_) | LayerKind::Run(_) | LayerKind::Model(_) | LayerKind::Dataset(_) => {
            Origin::Owner
        }
    }
}

fn remembered(path: &Path) -> Option<Vec<Finding>> {
    let meta = fs::symlink_metadata(path).ok().filter(|meta| meta.is_file() && meta.len() <= MAX_LEN)?;
    let text = fs::read(path).ok().filter(|text| text.len() as u64 == meta.len())?;
    serde_json::from_slice(&text).ok()
}

fn remember(path: &Path, findings: &[Finding]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = NamedTempFile::new_in(dir)?;
    file.write_all(&serde_json::to_vec(findings)?)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
