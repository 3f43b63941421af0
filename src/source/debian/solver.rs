//! Debian's package relations as a satisfiability problem for resolvo.
//!
//! A solvable is one version of a package; resolvo picks at most one per name. An alternative with
//! its providers unfolds into sets of solvables in order of preference, a conflict into the sets
//! that stay allowed.

use super::{
    index::Index,
    packages::{Package, Priority},
    relation::{self, Operator, Relation},
};
use resolvo::{
    Candidates, Condition, ConditionId, ConditionalRequirement, DenseIndex, Dependencies, DependencyProvider, Interner,
    KnownDependencies, NameId, Requirement, SolvableId, SolverCache, StringId, VersionSetId, VersionSetUnionId,
};
use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt::Display,
};

/// Rounds of propagation after which a problem counts as too hard; real ones need some thousands.
const ROUNDS_MAX: u64 = 20_000_000;

/// A set of versions of one package.
#[derive(Debug)]
struct Set {
    name: usize,
    /// Solvables in the set, sorted.
    allowed: Vec<usize>,
    /// How messages call it.
    text: String,
}

/// Tables that grow while the solver asks.
#[derive(Debug, Default)]
struct Tables {
    sets: Vec<Set>,
    unions: Vec<Vec<VersionSetId>>,
    clauses: BTreeMap<String, Requirement>,
    strings: Vec<String>,
    /// Names that no package has, numbered after those of the index and of the fixed packages.
    unknown: Vec<String>,
}

/// What the solver asks for packages, their relations and their order.
#[derive(Debug)]
pub(super) struct Provider<'i> {
    index: &'i Index<'i>,
    /// Fixed packages that the index does not hold; their solvables follow those of the index.
    foreign: Vec<Package<'i>>,
    /// Names of foreign packages that the index does not know; they follow those of the index.
    foreign_names: Vec<&'i str>,
    /// By name: the solvable that lower layers fixed.
    fixed: BTreeMap<usize, usize>,
    /// By name: what is taken where it will do; the solvable is missing where that version is no longer on offer.
    favored: BTreeMap<usize, Option<usize>>,
    tables: RefCell<Tables>,
    rounds: Cell<u64>,
}

impl<'i> Provider<'i> {
    /// Fixes `installed`: packages of lower layers, which are never changed.
    pub(super) fn new(index: &'i Index<'i>, installed: Vec<Package<'i>>) -> Self {
        let mut provider = Self {
            index,
            foreign: Vec::new(),
            foreign_names: Vec::new(),
            fixed: BTreeMap::new(),
            favored: BTreeMap::new(),
            tables: RefCell::default(),
            rounds: Cell::new(0),
        };
        for package in installed {
            provider.fix(package);
        }
        provider
    }

    /// Favours packages, by name and version: where there is a choice between packages, those of these names are taken,
    /// and of each the version given. Of two versions of one name, the first counts.
    pub(super) fn favour<'p>(&mut self, packages: impl IntoIterator<Item = (&'p str, &'p str)>) {
        for (name, version) in packages {
            let Some(name) = self.index.find(name) else { continue };
            let same = |&solvable: &usize| {
                self.index.offers().get(solvable).is_some_and(|offer| offer.package.version == version)
            };
            let solvable = self.index.names().get(name).and_then(|range| range.clone().find(same));
            self.favored.entry(name).or_insert(solvable);
        }
    }

    /// Whether a package is to be taken where there is a choice.
    pub(super) fn is_favored(&self, name: usize) -> bool {
        self.favored.contains_key(&name)
    }

    /// Of solvables of one package, in order of preference, the one to be taken.
    pub(super) fn best_of(&self, name: usize, solvables: &[usize]) -> Option<usize> {
        let favored = self.favored.get(&name).copied().flatten();
        favored.filter(|favored| solvables.contains(favored)).or_else(|| solvables.first().copied())
    }

    fn fix(&mut self, package: Package<'i>) {
        let name = self.index.find(package.name).unwrap_or_else(|| {
            let known = self.foreign_names.iter().position(|&name| name == package.name);
            self.index.names().len()
                + known.unwrap_or_else(|| {
                    self.foreign_names.push(package.name);
                    self.foreign_names.len() - 1
                })
        });
        let same = |&solvable: &usize| {
            self.index.offers().get(solvable).is_some_and(|offer| offer.package.version == package.version)
        };
        let solvable = self.index.names().get(name).and_then(|range| range.clone().find(same)).unwrap_or_else(|| {
            self.foreign.push(package);
            self.index.offers().len() + self.foreign.len() - 1
        });
        self.fixed.insert(name, solvable);
    }

    /// The package that a solvable is.
    pub(super) fn package(&self, solvable: SolvableId) -> Option<&Package<'i>> {
        let position = solvable.to_index();
        match self.index.offers().get(position) {
            Some(offer) => Some(&offer.package),
            None => self.foreign.get(position - self.index.offers().len()),
        }
    }

    /// Whether lower layers fixed a solvable.
    pub(super) fn is_fixed(&self, solvable: SolvableId) -> bool {
        self.fixed.values().any(|&fixed| fixed == solvable.to_index())
    }

    /// Requirements that keep all fixed packages in the solution.
    pub(super) fn fixed_requirements(&self) -> Vec<ConditionalRequirement> {
        let fixed: Vec<(usize, usize)> = self.fixed.iter().map(|(&name, &solvable)| (name, solvable)).collect();
        fixed
            .into_iter()
            .map(|(name, solvable)| {
                let text = self.name_text(name);
                ConditionalRequirement::from(self.add_set(Set { name, allowed: vec![solvable], text }))
            })
            .collect()
    }

    /// The requirement of what was asked for: the package of that name, where there is one, else one that provides it.
    pub(super) fn wanted(&self, relation: &Relation<'_>) -> Requirement {
        let own = self.known_position(relation.name);
        match self.satisfying(relation).into_iter().next() {
            Some((name, allowed)) if Some(name) == own => {
                Requirement::Single(self.add_set(Set { name, allowed, text: relation.to_string() }))
            }
            _ => self.requirement(std::slice::from_ref(relation)),
        }
    }

    /// The requirement that one of the alternatives holds; in order of preference.
    pub(super) fn requirement(&self, alternatives: &[Relation<'_>]) -> Requirement {
        let text = alternatives.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
        if let Some(&known) = self.tables.borrow().clauses.get(&text) {
            return known;
        }
        let mut sets: Vec<VersionSetId> = alternatives.iter().flat_map(|relation| self.unfold(relation)).collect();
        if sets.is_empty() {
            let name = alternatives.first().map_or("", |relation| relation.name);
            sets.push(self.add_set(Set { name: self.name_position(name), allowed: Vec::new(), text: text.clone() }));
        }
        // The sort is stable: what is not favoured keeps its place.
        sets.sort_by_key(|&set| !self.with_set(set, |set| self.is_favored(set.name)));
        let mut tables = self.tables.borrow_mut();
        let requirement = match sets.as_slice() {
            [single] => Requirement::Single(*single),
            _ => {
                tables.unions.push(sets);
                Requirement::Union(VersionSetUnionId::from_index(tables.unions.len() - 1))
            }
        };
        tables.clauses.insert(text, requirement);
        requirement
    }

    /// The solvables that satisfy a relation, grouped by package: the package of that name, then
    /// its providers, favoured ones first, by priority and name.
    pub(super) fn satisfying(&self, relation: &Relation<'_>) -> Vec<(usize, Vec<usize>)> {
        let native = relation
            .qualifier
            .is_none_or(|qualifier| matches!(qualifier, "any" | "native") || qualifier == self.index.arch());
        if !native {
            return Vec::new();
        }
        let own = self.known_position(relation.name);
        let mut groups = Vec::new();
        if let Some(name) = own {
            let admits = |&solvable: &usize| {
                let version = self.package(SolvableId::from_index(solvable)).map_or("", |package| package.version);
                relation.constraint.is_none_or(|constraint| constraint.admits(version))
            };
            let solvables: Vec<usize> = self.solvables_of(name).into_iter().filter(admits).collect();
            if !solvables.is_empty() {
                groups.push((name, solvables));
            }
        }
        let mut providers: BTreeMap<(bool, Priority, &str, usize), Vec<usize>> = BTreeMap::new();
        for solvable in self.index.providers(relation).chain(self.foreign_providers(relation)) {
            let Some(package) = self.package(SolvableId::from_index(solvable)) else { continue };
            let Some(name) = self.known_position(package.name).filter(|&name| Some(name) != own) else { continue };
            let other = !self.is_favored(name);
            providers.entry((other, package.priority, package.name, name)).or_default().push(solvable);
        }
        groups.extend(providers.into_iter().map(|((.., name), solvables)| (name, solvables)));
        groups
    }

    fn foreign_providers(&self, relation: &Relation<'_>) -> Vec<usize> {
        let provides = |package: &Package<'_>| {
            relation::parse(package.provides, self.index.arch()).unwrap_or_default().iter().flatten().any(|provided| {
                provided.name == relation.name
                    && relation.constraint.is_none_or(|constraint| {
                        provided.constraint.is_some_and(|given| {
                            given.operator == Operator::Exactly && constraint.admits(given.version)
                        })
                    })
            })
        };
        let offset = self.index.offers().len();
        let foreign = self.foreign.iter().enumerate();
        foreign.filter(|(_, package)| provides(package)).map(|(position, _)| offset + position).collect()
    }

    fn unfold(&self, relation: &Relation<'_>) -> Vec<VersionSetId> {
        let groups = self.satisfying(relation);
        groups
            .into_iter()
            .map(|(name, allowed)| {
                let own = self.name_text(name);
                let text = match own == relation.name {
                    true => relation.to_string(),
                    false => format!("{own} (which provides {relation})"),
                };
                self.add_set(Set { name, allowed, text })
            })
            .collect()
    }

    /// What stays allowed of every package that `package` conflicts with or breaks.
    fn constraints(&self, package: &Package<'_>) -> Result<Vec<VersionSetId>, relation::RelationError> {
        let mut sets = Vec::new();
        for (field, verb) in [(package.conflicts, "conflicts with"), (package.breaks, "breaks")] {
            for relation in relation::parse(field, self.index.arch())?.into_iter().flatten() {
                for (name, forbidden) in self.satisfying(&Relation { qualifier: None, ..relation.clone() }) {
                    if self.known_position(package.name) == Some(name) {
                        continue;
                    }
                    let mut allowed = self.solvables_of(name);
                    allowed.retain(|solvable| !forbidden.contains(solvable));
                    sets.push(self.add_set(Set { name, allowed, text: format!("{verb} {relation}") }));
                }
            }
        }
        Ok(sets)
    }

    fn solvables_of(&self, name: usize) -> Vec<usize> {
        let mut solvables: Vec<usize> = self.index.names().get(name).cloned().into_iter().flatten().collect();
        // A fixed version that the index does not hold is one more candidate.
        solvables.extend(self.fixed.get(&name).filter(|&&fixed| fixed >= self.index.offers().len()));
        solvables
    }

    fn known_position(&self, name: &str) -> Option<usize> {
        self.index.find(name).or_else(|| {
            let position = self.foreign_names.iter().position(|&known| known == name)?;
            Some(self.index.names().len() + position)
        })
    }

    fn name_position(&self, name: &str) -> usize {
        if let Some(position) = self.known_position(name) {
            return position;
        }
        let mut tables = self.tables.borrow_mut();
        let position = tables.unknown.iter().position(|known| known == name).unwrap_or_else(|| {
            tables.unknown.push(name.to_owned());
            tables.unknown.len() - 1
        });
        self.index.names().len() + self.foreign_names.len() + position
    }

    fn name_text(&self, name: usize) -> String {
        let known = self.index.names().len();
        if let Some(offer) = self.index.names().get(name).and_then(|range| self.index.offers().get(range.start)) {
            return offer.package.name.to_owned();
        }
        match self.foreign_names.get(name - known) {
            Some(name) => (*name).to_owned(),
            None => {
                let position = name - known - self.foreign_names.len();
                self.tables.borrow().unknown.get(position).cloned().unwrap_or_default()
            }
        }
    }

    fn add_set(&self, set: Set) -> VersionSetId {
        let sets = &mut self.tables.borrow_mut().sets;
        sets.push(set);
        VersionSetId::from_index(sets.len() - 1)
    }

    fn add_string(&self, text: String) -> StringId {
        let strings = &mut self.tables.borrow_mut().strings;
        strings.push(text);
        StringId::from_index(strings.len() - 1)
    }

    fn with_set<T: Default>(&self, set: VersionSetId, get: impl FnOnce(&Set) -> T) -> T {
        self.tables.borrow().sets.get(set.to_index()).map(get).unwrap_or_default()
    }

    fn relations_of(&self, package: &Package<'_>) -> Result<KnownDependencies, relation::RelationError> {
        let mut known = KnownDependencies { constrains: self.constraints(package)?, ..KnownDependencies::default() };
        for field in [package.pre_depends, package.depends] {
            for clause in relation::parse(field, self.index.arch())? {
                known.requirements.push(self.requirement(&clause).into());
            }
        }
        Ok(known)
    }
}

impl Interner for Provider<'_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, solvable: SolvableId) -> impl Display + '_ {
        self.package(solvable).map(|package| format!("{} {}", package.name, package.version)).unwrap_or_default()
    }

    fn display_name(&self, name: NameId) -> impl Display + '_ {
        self.name_text(name.to_index())
    }

    fn display_version_set(&self, version_set: VersionSetId) -> impl Display + '_ {
        self.with_set(version_set, |set| set.text.clone())
    }

    fn display_string(&self, string_id: StringId) -> impl Display + '_ {
        self.tables.borrow().strings.get(string_id.to_index()).cloned().unwrap_or_default()
    }

    fn version_set_name(&self, version_set: VersionSetId) -> NameId {
        NameId::from_index(self.with_set(version_set, |set| set.name))
    }

    fn solvable_name(&self, solvable: SolvableId) -> NameId {
        let name = self.package(solvable).and_then(|package| self.known_position(package.name));
        NameId::from_index(name.unwrap_or_default())
    }

    fn version_sets_in_union(&self, union: VersionSetUnionId) -> impl Iterator<Item = VersionSetId> {
        self.tables.borrow().unions.get(union.to_index()).cloned().unwrap_or_default().into_iter()
    }

    fn resolve_condition(&self, _condition: ConditionId) -> Condition {
        // No requirement here is conditional, so no condition is ever asked for.
        Condition::Requirement(VersionSetId::from_index(0))
    }
}

impl DependencyProvider for Provider<'_> {
    async fn filter_candidates(&self, candidates: &[SolvableId], set: VersionSetId, inverse: bool) -> Vec<SolvableId> {
        let within = |candidate: &&SolvableId| {
            self.with_set(set, |set| set.allowed.binary_search(&candidate.to_index()).is_ok()) != inverse
        };
        candidates.iter().filter(within).copied().collect()
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates> {
        let name = name.to_index();
        let candidates: Vec<SolvableId> = self.solvables_of(name).into_iter().map(SolvableId::from_index).collect();
        let locked = self.fixed.get(&name).copied().map(SolvableId::from_index);
        let favored = self.favored.get(&name).copied().flatten().map(SolvableId::from_index);
        (!candidates.is_empty()).then(|| Candidates { candidates, favored, locked, ..Candidates::default() })
    }

    async fn sort_candidates(&self, _solver: &SolverCache<Self>, solvables: &mut [SolvableId]) {
        // The index already has them in order of preference.
        solvables.sort_unstable();
    }

    async fn get_dependencies(&self, solvable: SolvableId) -> Dependencies {
        let Some(package) = self.package(solvable) else {
            return Dependencies::Unknown(self.add_string("it is not known".to_owned()));
        };
        let relations = match self.is_fixed(solvable) {
            // What a lower layer holds was resolved there.
            true => self.constraints(package).map(|constrains| KnownDependencies { constrains, ..Default::default() }),
            false => self.relations_of(package),
        };
        match relations {
            Ok(known) => Dependencies::Known(known),
            Err(error) => Dependencies::Unknown(self.add_string(error.to_string())),
        }
    }

    fn should_cancel_with_value(&self) -> Option<Box<dyn Any>> {
        self.rounds.set(self.rounds.get() + 1);
        (self.rounds.get() > ROUNDS_MAX).then(|| Box::new(()) as Box<dyn Any>)
    }
}
