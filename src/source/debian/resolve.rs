//! From a list of packages to everything that must be installed, deterministically.

use super::{
    LockedPackage,
    explain::explain,
    index::{Index, Offer},
    order::install_order,
    packages::{MultiArch, Package, Priority},
    relation::{self, Relation},
    request::{self, RequestError},
    solver::Provider,
};
use gap_format::Digest;
use resolvo::{ConditionalRequirement, DenseIndex, Problem, SolvableId, Solver, UnsolvableOrCancelled};
use std::{collections::BTreeSet, fmt};

/// What to resolve.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    /// Packages asked for: `name`, `name=1.2-3`, `name>=1.2`.
    pub packages: &'a [String],
    /// Packages of lower layers: they satisfy dependencies and are never changed.
    pub installed: &'a [LockedPackage],
    /// Packages that were chosen before: their versions are taken again where they are still on offer and will do, and
    /// they themselves where there is a choice. Of two versions of one name, the first counts. They add nothing.
    pub preferred: &'a [&'a LockedPackage],
    /// Whether what the packages depend on is taken too.
    pub dependencies: bool,
    /// Whether what they recommend is taken too, where it can be.
    pub recommends: bool,
    /// Whether all packages marked `Essential: yes` are taken too.
    pub essential: bool,
}

impl<'a> Query<'a> {
    /// These packages with all they depend on.
    pub const fn new(packages: &'a [String]) -> Self {
        Self { packages, installed: &[], preferred: &[], dependencies: true, recommends: false, essential: false }
    }
}

/// The sentences of [`ResolveError::Unsolvable`], one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain(pub Vec<String>);

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|sentence| write!(f, "\n  {sentence}"))
    }
}

/// Why packages cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// An entry of the list cannot be read.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// No suite has a package of that name.
    #[error("there is no package `{name}` in {suites}{}", near_text(.near))]
    NoPackage {
        /// The name.
        name: String,
        /// Where it was looked for.
        suites: String,
        /// Names that are spelled alike.
        near: Vec<String>,
    },
    /// The package exists, but not in that version.
    #[error("there is no version of `{wanted}` in {suites}; on offer: {}", .offered.join(", "))]
    NoVersion {
        /// Name and constraint.
        wanted: String,
        /// Where it was looked for.
        suites: String,
        /// Versions on offer.
        offered: Vec<String>,
    },
    /// The packages cannot be installed together.
    #[error("the packages cannot be installed together:{0}")]
    Unsolvable(Chain),
    /// The solver gave up.
    #[error("the dependencies are too entangled to resolve; pin some versions or ask for fewer packages at once")]
    TooHard,
}

fn near_text(near: &[String]) -> String {
    match near.is_empty() {
        true => "; check the spelling, suites and components".to_owned(),
        false => format!("; did you mean {}?", near.join(", ")),
    }
}

/// Resolves a query. The result holds what must be installed in addition to `query.installed`,
/// sorted by name.
///
/// # Errors
/// [`ResolveError`].
pub fn resolve(index: &Index<'_>, query: &Query<'_>) -> Result<Vec<LockedPackage>, ResolveError> {
    let requests = query.packages.iter().map(|text| request::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let mut provider = Provider::new(index, query.installed.iter().map(installed_package).collect());
    provider.favour(query.preferred.iter().map(|package| (package.name.as_str(), package.version.as_str())));
    for request in &requests {
        check_exists(index, &provider, request)?;
    }
    let essential = index.names().iter().filter_map(|range| index.offers().get(range.start));
    let essential: Vec<Relation<'_>> = match query.essential {
        true => essential.filter(|offer| offer.package.essential).map(|offer| named(offer.package.name)).collect(),
        false => Vec::new(),
    };
    let wanted: Vec<Relation<'_>> = essential.into_iter().chain(requests).collect();
    let chosen = match query.dependencies {
        true => solve(index, provider, &wanted, query.recommends)?,
        false => pick(&provider, &wanted),
    };
    Ok(lock(index, &chosen))
}

const fn named(name: &str) -> Relation<'_> {
    Relation { name, qualifier: None, constraint: None }
}

fn installed_package(locked: &LockedPackage) -> Package<'_> {
    Package {
        name: &locked.name,
        version: &locked.version,
        architecture: &locked.arch,
        depends: "",
        pre_depends: "",
        recommends: "",
        provides: &locked.provides,
        conflicts: &locked.conflicts,
        breaks: "",
        replaces: "",
        essential: false,
        priority: Priority::Optional,
        section: "",
        size: locked.size,
        sha256: locked.sha256,
        filename: &locked.path,
        multi_arch: MultiArch::No,
        installed_size: locked.installed_size,
    }
}

fn check_exists(index: &Index<'_>, provider: &Provider<'_>, request: &Relation<'_>) -> Result<(), ResolveError> {
    if !provider.satisfying(request).is_empty() {
        return Ok(());
    }
    let suites: BTreeSet<&str> = index.offers().iter().map(|offer| offer.file.suite.as_str()).collect();
    let suites = suites.into_iter().collect::<Vec<_>>().join(", ");
    let offered: Vec<String> = index.named(request.name).iter().map(|offer| offer.package.version.to_owned()).collect();
    Err(match offered.is_empty() {
        true => ResolveError::NoPackage { name: request.name.to_owned(), suites, near: near(index, request.name) },
        false => ResolveError::NoVersion { wanted: request.to_string(), suites, offered },
    })
}

/// Up to three names that differ little from `name`, nearest first.
fn near(index: &Index<'_>, name: &str) -> Vec<String> {
    let limit = 1 + name.len() / 4;
    let names =
        index.names().iter().filter_map(|range| index.offers().get(range.start)).map(|offer| offer.package.name);
    let mut near: Vec<(usize, &str)> = names
        .filter(|other| other.len().abs_diff(name.len()) <= limit)
        .map(|other| (strsim::osa_distance(name, other), other))
        .filter(|&(distance, _)| distance <= limit)
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// The best candidate of each relation, without what it depends on.
fn pick(provider: &Provider<'_>, wanted: &[Relation<'_>]) -> Vec<usize> {
    let best = |relation: &Relation<'_>| {
        let groups = provider.satisfying(relation);
        let (name, solvables) = groups.first()?;
        provider.best_of(*name, solvables)
    };
    let picked: BTreeSet<usize> = wanted
        .iter()
        .filter_map(best)
        .filter(|&solvable| !provider.is_fixed(SolvableId::from_index(solvable)))
        .collect();
    picked.into_iter().collect()
}

fn solve<'i>(
    index: &'i Index<'i>,
    provider: Provider<'i>,
    wanted: &[Relation<'_>],
    recommends: bool,
) -> Result<Vec<usize>, ResolveError> {
    let mut requirements = provider.fixed_requirements();
    requirements.extend(wanted.iter().map(|relation| ConditionalRequirement::from(provider.wanted(relation))));
    let mut solver = Solver::new(provider);
    let mut soft: Vec<SolvableId> = Vec::new();
    loop {
        let problem = Problem::new().requirements(requirements.clone()).soft_requirements(soft.clone());
        let mut solution = match solver.solve(problem) {
            Ok(solution) => solution,
            Err(UnsolvableOrCancelled::Unsolvable(conflict)) => {
                return Err(ResolveError::Unsolvable(Chain(explain(&conflict, &solver, index))));
            }
            Err(UnsolvableOrCancelled::Cancelled(_)) => return Err(ResolveError::TooHard),
        };
        solution.sort_unstable();
        // Each round may bring packages that recommend more; the list only ever grows.
        let more = match recommends {
            true => recommended(index, solver.provider(), &solution, &soft),
            false => Vec::new(),
        };
        if more.is_empty() {
            let provider = solver.provider();
            let new = solution.into_iter().filter(|&solvable| !provider.is_fixed(solvable));
            return Ok(new.map(DenseIndex::to_index).collect());
        }
        soft.extend(more);
    }
}

/// The best candidates of recommendations that the solution leaves open and that were not tried.
fn recommended(
    index: &Index<'_>,
    provider: &Provider<'_>,
    solution: &[SolvableId],
    tried: &[SolvableId],
) -> Vec<SolvableId> {
    let mut more = Vec::new();
    for package in solution.iter().filter_map(|&solvable| provider.package(solvable)) {
        for clause in relation::parse(package.recommends, index.arch()).unwrap_or_default() {
            let groups: Vec<(usize, Vec<usize>)> =
                clause.iter().flat_map(|relation| provider.satisfying(relation)).collect();
            let taken = |solvable: &usize| solution.binary_search(&SolvableId::from_index(*solvable)).is_ok();
            if groups.iter().any(|(_, solvables)| solvables.iter().any(taken)) {
                continue;
            }
            let group = groups.iter().find(|(name, _)| provider.is_favored(*name)).or_else(|| groups.first());
            let best = group.and_then(|(name, solvables)| provider.best_of(*name, solvables));
            if let Some(first) = best.map(SolvableId::from_index).filter(|first| !tried.contains(first))
                && !more.contains(&first)
            {
                more.push(first);
            }
        }
    }
    more
}

fn lock(index: &Index<'_>, chosen: &[usize]) -> Vec<LockedPackage> {
    let mut offers: Vec<&Offer<'_>> = chosen.iter().filter_map(|&position| index.offers().get(position)).collect();
    offers.sort_by_key(|offer| offer.package.name);
    let packages: Vec<&Package<'_>> = offers.iter().map(|offer| &offer.package).collect();
    let mut places = vec![0; packages.len()];
    for (place, position) in (0..).zip(install_order(&packages, index.arch())) {
        if let Some(slot) = places.get_mut(position) {
            *slot = place;
        }
    }
    offers.into_iter().zip(places).map(|(offer, order)| locked(offer, order)).collect()
}

fn locked(offer: &Offer<'_>, order: u32) -> LockedPackage {
    let package = &offer.package;
    let sha256: Digest = package.sha256;
    let conflicts: Vec<&str> =
        [package.conflicts, package.breaks].into_iter().filter(|field| !field.is_empty()).collect();
    LockedPackage {
        name: package.name.to_owned(),
        version: package.version.to_owned(),
        arch: package.architecture.to_owned(),
        size: package.size,
        sha256,
        path: package.filename.to_owned(),
        archive: offer.file.archive.clone(),
        installed_size: package.installed_size,
        order,
        provides: package.provides.to_owned(),
        conflicts: conflicts.join(", "),
        licenses: Vec::new(),
    }
}
