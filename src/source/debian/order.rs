//! The order in which packages are unpacked and configured: what is needed comes first.

use super::{packages::Package, relation, relation::Relation};
use petgraph::{algo::tarjan_scc, graph::DiGraph};
use std::collections::{BTreeMap, BTreeSet};

/// Positions of `packages` in an order in which dependencies precede what needs them. Where they
/// form a cycle, only pre-dependencies are heeded, then names.
pub(super) fn install_order(packages: &[&Package<'_>], arch: &str) -> Vec<usize> {
    let names = Names::new(packages, arch);
    let hard: Vec<BTreeSet<usize>> = packages.iter().map(|package| names.needed(package.pre_depends)).collect();
    let mut graph = DiGraph::<(), ()>::new();
    let nodes: Vec<_> = packages.iter().map(|_| graph.add_node(())).collect();
    for (position, package) in packages.iter().enumerate() {
        let needed = names.needed(package.depends);
        for &target in needed.iter().chain(hard.iter().skip(position).take(1).flatten()) {
            if let (Some(&from), Some(&to)) = (nodes.get(position), nodes.get(target)) {
                graph.update_edge(from, to, ());
            }
        }
    }
    // Tarjan's components come out with what is needed first.
    let mut order = Vec::with_capacity(packages.len());
    for component in tarjan_scc(&graph) {
        let members: BTreeSet<usize> = component.into_iter().map(|node| node.index()).collect();
        order.extend(within_cycle(members, &hard));
    }
    order
}

/// Members by position (that is, by name), each after its pre-dependencies among them.
fn within_cycle(mut members: BTreeSet<usize>, hard: &[BTreeSet<usize>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(members.len());
    while let Some(&first) = members.first() {
        let ready = members.iter().copied().find(|member| {
            hard.get(*member)
                .is_none_or(|needed| needed.iter().all(|other| other == member || !members.contains(other)))
        });
        let next = ready.unwrap_or(first);
        members.remove(&next);
        order.push(next);
    }
    order
}

/// Which of the packages answers to which real or virtual name.
struct Names<'a> {
    arch: &'a str,
    by_name: BTreeMap<&'a str, Vec<(usize, Option<&'a str>)>>,
}

impl<'a> Names<'a> {
    fn new(packages: &[&Package<'a>], arch: &'a str) -> Self {
        let mut by_name: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (position, package) in packages.iter().enumerate() {
            by_name.entry(package.name).or_default().push((position, Some(package.version)));
            for provided in relation::parse(package.provides, arch).unwrap_or_default().into_iter().flatten() {
                let version = provided.constraint.map(|constraint| constraint.version);
                by_name.entry(provided.name).or_default().push((position, version));
            }
        }
        Self { arch, by_name }
    }

    /// The packages that satisfy the clauses of a field; for each the first alternative that is there.
    fn needed(&self, field: &str) -> BTreeSet<usize> {
        let clauses = relation::parse(field, self.arch).unwrap_or_default();
        clauses.iter().filter_map(|clause| clause.iter().find_map(|relation| self.answering(relation))).collect()
    }

    fn answering(&self, relation: &Relation<'_>) -> Option<usize> {
        let candidates = self.by_name.get(relation.name)?;
        let admits = |version: Option<&str>| match relation.constraint {
            None => true,
            Some(constraint) => version.is_some_and(|version| constraint.admits(version)),
        };
        candidates.iter().find(|(_, version)| admits(*version)).map(|&(position, _)| position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::debian::{index::Index, index::tests::index_file};

    fn order(lines: &str) -> Vec<String> {
        let files = [index_file(lines)];
        let index = Index::parse(&files, "amd64").unwrap();
        let packages: Vec<&Package<'_>> = index.offers().iter().map(|offer| &offer.package).collect();
        install_order(&packages, "amd64").into_iter().map(|position| packages[position].name.to_owned()).collect()
    }

    #[test]
    fn what_is_needed_comes_first() {
        let order = order("a 1 ; Depends: v, b (>= 1)\nb 1 ; Pre-Depends: c\nc 1\nd 1 ; Provides: v");
        let place = |name: &str| order.iter().position(|other| other == name).unwrap();
        assert!(place("c") < place("b") && place("b") < place("a") && place("d") < place("a"), "{order:?}");
    }

    #[test]
    fn a_cycle_is_broken_but_not_at_a_pre_dependency() {
        let order = order("a 1 ; Pre-Depends: b\nb 1 ; Depends: c\nc 1 ; Depends: a");
        let place = |name: &str| order.iter().position(|other| other == name).unwrap();
        assert!(place("b") < place("a"), "{order:?}");
        assert_eq!(order.len(), 3);
    }
}
