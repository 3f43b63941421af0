//! Why packages cannot be installed together, in sentences.

use super::{index::Index, relation::is_package_name, solver::Provider};
use resolvo::{
    Interner, Requirement, SolvableId, Solver,
    conflict::{Conflict, ConflictCause, ConflictEdge, ConflictNode},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Sentences shown; a conflict can involve hundreds of packages, of which the nearest to the
/// request tell the most.
const SENTENCES_MAX: usize = 20;
/// Names and versions listed in one sentence.
const LISTED_MAX: usize = 5;

/// The chain of requirements that lead from what was asked for to what cannot be.
pub(super) fn explain(conflict: &Conflict, solver: &Solver<Provider<'_>>, index: &Index<'_>) -> Vec<String> {
    let graph = conflict.graph(solver);
    let provider = solver.provider();
    // Breadth first from the request; edges sorted by text, because the graph's order is not fixed.
    let mut sentences = Vec::new();
    let mut seen = BTreeSet::from([graph.root_node]);
    let mut queue = VecDeque::from([graph.root_node]);
    while let Some(node) = queue.pop_front() {
        let Some(source) = graph.graph.node_weight(node) else { continue };
        let mut said = BTreeMap::new();
        for edge in graph.graph.raw_edges().iter().filter(|edge| edge.source() == node) {
            let Some(target) = graph.graph.node_weight(edge.target()) else { continue };
            if let Some(sentence) = sentence(provider, index, source, &edge.weight, target) {
                said.entry(sentence).or_insert_with(Vec::new).push((describe(provider, target), edge.target()));
            }
        }
        for (sentence, mut targets) in said {
            sentences.push(sentence);
            targets.sort();
            queue.extend(targets.into_iter().map(|(_, target)| target).filter(|&target| seen.insert(target)));
        }
    }
    let mut unique = BTreeSet::new();
    sentences.retain(|sentence| unique.insert(sentence.clone()));
    let more = sentences.len().saturating_sub(SENTENCES_MAX);
    sentences.truncate(SENTENCES_MAX);
    if more > 0 {
        sentences.push(format!("… and {more} more"));
    }
    sentences
}

fn describe(provider: &Provider<'_>, node: &ConflictNode<SolvableId>) -> String {
    match node {
        ConflictNode::Root | ConflictNode::UnresolvedDependency => String::new(),
        ConflictNode::Solvable(solvable) => provider.display_solvable(*solvable).to_string(),
        ConflictNode::Excluded(reason) => provider.display_string(*reason).to_string(),
    }
}

fn sentence(
    provider: &Provider<'_>,
    index: &Index<'_>,
    source: &ConflictNode<SolvableId>,
    edge: &ConflictEdge<SolvableId>,
    target: &ConflictNode<SolvableId>,
) -> Option<String> {
    let from = describe(provider, source);
    let to = describe(provider, target);
    Some(match (source, edge) {
        (ConflictNode::Root, ConflictEdge::Requires(requirement)) => {
            if let ConflictNode::Solvable(solvable) = target
                && provider.is_fixed(*solvable)
            {
                return Some(format!("a lower layer holds {to}"));
            }
            match target {
                ConflictNode::UnresolvedDependency => {
                    format!(
                        "{} was asked for, but {}",
                        text(provider, requirement),
                        missing(provider, index, requirement)
                    )
                }
                _ => format!("{} was asked for", text(provider, requirement)),
            }
        }
        (_, ConflictEdge::Requires(requirement)) => match target {
            ConflictNode::UnresolvedDependency => {
                format!("{from} needs {}, but {}", text(provider, requirement), missing(provider, index, requirement))
            }
            _ => format!("{from} needs {}", text(provider, requirement)),
        },
        (_, ConflictEdge::Conflict(ConflictCause::Constrains(set))) => {
            format!("{from} {}, so {to} cannot be installed with it", provider.display_version_set(*set))
        }
        (_, ConflictEdge::Conflict(ConflictCause::Locked(fixed))) => {
            let fixed = provider.display_solvable(*fixed).to_string();
            format!("{to} cannot be installed, because a lower layer holds {fixed}")
        }
        (_, ConflictEdge::Conflict(ConflictCause::ForbidMultipleInstances)) => {
            format!("{from} and {to} cannot be installed together")
        }
        (_, ConflictEdge::Conflict(ConflictCause::Excluded)) => format!("{from} cannot be used: {to}"),
    })
}

fn text(provider: &Provider<'_>, requirement: &Requirement) -> String {
    let sets: Vec<String> = match requirement {
        Requirement::Single(set) => vec![provider.display_version_set(*set).to_string()],
        Requirement::Union(union) => {
            provider.version_sets_in_union(*union).map(|set| provider.display_version_set(set).to_string()).collect()
        }
    };
    shorten(sets, " | ")
}

/// What there is instead of a requirement without candidates.
fn missing(provider: &Provider<'_>, index: &Index<'_>, requirement: &Requirement) -> String {
    let text = text(provider, requirement);
    let names = text.split(['|', ' ', '(', ')', ':']).filter(|word| is_package_name(word));
    let mut offers: Vec<String> = names
        .flat_map(|name| index.named(name))
        .map(|offer| format!("{} {}", offer.package.name, offer.package.version))
        .collect();
    offers.dedup();
    match offers.is_empty() {
        true => "no package of that name is on offer".to_owned(),
        false => format!("only {} is on offer", shorten(offers, ", ")),
    }
}

fn shorten(mut texts: Vec<String>, separator: &str) -> String {
    let more = texts.len().saturating_sub(LISTED_MAX);
    texts.truncate(LISTED_MAX);
    if more > 0 {
        texts.push(format!("{more} more"));
    }
    texts.join(separator)
}
