//! What can only be checked when all parts of a recipe are known.

use super::{
    LayerKind,
    decode::{DATASETS, Draft, MODELS},
    problem::{Problems, nearest, suggestion},
};
use std::collections::BTreeSet;

/// Checks the parts of a recipe against each other.
pub(super) fn check(draft: &Draft, problems: &Problems) {
    mentions_exist(draft, problems);
    every_layer_is_used(draft, problems);
    build_roots_end(draft, problems);
    // A mistake elsewhere may be all that is wrong with these.
    if problems.is_empty() {
        one_image_boots(draft, problems);
    }
}

fn mentions_exist(draft: &Draft, problems: &Problems) {
    for mention in &draft.mentions {
        if draft.layers.contains_key(&mention.layer) {
            continue;
        }
        let (what, section, prefix) = section_of(&mention.layer);
        let name = mention.layer.strip_prefix(prefix).unwrap_or_default();
        let same_section = draft.layers.keys().filter(|layer| section_of(layer).1 == section);
        let help = match nearest(name, same_section.filter_map(|layer| layer.strip_prefix(prefix))) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add `[{section}.{name}]`"),
        };
        problems.add_with_help(&mention.at, format!("there is no {what} `{name}`"), help);
    }
}

/// What a layer is called, the section of the recipe that it is defined in, and what its name begins with.
fn section_of(layer: &str) -> (&'static str, &'static str, &'static str) {
    match layer {
        model if model.starts_with(MODELS) => ("model", "model", MODELS),
        dataset if dataset.starts_with(DATASETS) => ("data set", "dataset", DATASETS),
        _ => ("layer", "layer", ""),
    }
}

fn every_layer_is_used(draft: &Draft, problems: &Problems) {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    loop {
        let before = used.len();
        for mention in &draft.mentions {
            if mention.by_layer.as_deref().is_none_or(|layer| used.contains(layer)) {
                used.insert(&mention.layer);
            }
        }
        if used.len() == before {
            break;
        }
    }
    for (layer, at) in draft.layers.iter().filter(|(layer, _)| !used.contains(layer.as_str())) {
        let help = "name it in an image's `layers`, or take it out";
        problems.add_with_help(at, format!("nothing uses the layer `{layer}`"), help);
    }
}

fn build_roots_end(draft: &Draft, problems: &Problems) {
    for mention in &draft.mentions {
        let Some(start) = &mention.by_layer else { continue };
        if let Some(chain) = chain_back(draft, start, &mention.layer) {
            let help = "a layer is built on layers that stand before it";
            let message = format!("the layer `{start}` is built in itself: {}", chain.join(" → "));
            problems.add_with_help(&mention.at, message, help);
        }
        build_root_is_a_root(draft, start, mention, problems);
    }
}

/// The layers that lead from `start` over `next` back to `start`, if they do.
fn chain_back<'d>(draft: &'d Draft, start: &'d str, next: &'d str) -> Option<Vec<&'d str>> {
    let mut ahead = vec![vec![start, next]];
    let mut seen = BTreeSet::from([next]);
    while let Some(chain) = ahead.pop() {
        let last = chain.last().copied()?;
        if last == start {
            return Some(chain);
        }
        let needed = draft.mentions.iter().filter(|mention| mention.by_layer.as_deref() == Some(last));
        for mention in needed {
            if mention.layer == start || seen.insert(&mention.layer) {
                ahead.push(chain.iter().copied().chain([mention.layer.as_str()]).collect());
            }
        }
    }
    None
}

fn build_root_is_a_root(draft: &Draft, start: &str, mention: &super::decode::Mention, problems: &Problems) {
    let kind_of = |name: &str| draft.recipe.layers.get(name).map(|layer| &layer.kind);
    let (Some(LayerKind::Cargo(_)), Some(kind)) = (kind_of(start), kind_of(&mention.layer)) else { return };
    if !matches!(kind, LayerKind::Debian(_)) && mention.layer != start {
        let message = format!("`{}` is a {} layer and cannot be a build root", mention.layer, kind.name());
        let help = "a build root is a `debian` layer that holds compiler, linker and C library: gcc and libc6-dev";
        problems.add_with_help(&mention.at, message, help);
    }
}

fn one_image_boots(draft: &Draft, problems: &Problems) {
    if let [_, others @ ..] = draft.boots.as_slice() {
        for at in others {
            let help = "an appliance boots one image; jobs run in the others";
            problems.add_with_help(at, "a second image with `boot = true`", help);
        }
    }
    match (draft.boots.first(), &draft.boot) {
        (Some(at), None) => {
            let help = "add `[boot]` with `stub` and `init`, each naming a layer";
            problems.add_with_help(at, "an image boots, but the recipe has no `[boot]`", help);
        }
        (None, Some(at)) => {
            let names: Vec<&str> = draft.recipe.images.iter().map(|image| image.name.as_str()).collect();
            let help = match names.as_slice() {
                [only] => format!("add `boot = true` to `[image.{only}]`"),
                several => format!("add `boot = true` to one image; {}", suggestion("", several)),
            };
            problems.add_with_help(at, "the recipe has `[boot]`, but no image boots", help);
        }
        _ => {}
    }
}
