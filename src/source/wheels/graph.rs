//! Which project needs which: requirements with their markers decided for the target.

use super::{
    metadata::{Metadata, plain},
    name::ProjectName,
    target::Target,
};
use pep508_rs::{ExtraName, MarkerEnvironment, MarkerEnvironmentBuilder, Requirement, VerbatimUrl};
use std::collections::{BTreeMap, BTreeSet};

/// Requirements of projects, by project.
pub(super) type Requires = BTreeMap<ProjectName, Vec<Requirement<VerbatimUrl>>>;

/// What an interpreter on the target says of itself (PEP 508, "Environment Markers").
pub(super) fn environment(target: &Target) -> Option<MarkerEnvironment> {
    let full = target.python.to_string();
    MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
        implementation_name: "cpython",
        implementation_version: &full,
        os_name: "posix",
        platform_machine: target.arch.name(),
        platform_python_implementation: "CPython",
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: &full,
        python_version: &target.python.series(),
        sys_platform: "linux",
    })
    .ok()
}

/// What each project needs on the target, as `NAME[EXTRAS]SPECIFIERS`, sorted. `roots` is what was asked for: extras
/// are those that anything reached from there asks for.
pub(super) fn edges(
    projects: &Requires,
    roots: &[Requirement<VerbatimUrl>],
    environment: &MarkerEnvironment,
) -> BTreeMap<ProjectName, Vec<String>> {
    let mut extras: BTreeMap<ProjectName, BTreeSet<ExtraName>> = BTreeMap::new();
    let mut open: Vec<&Requirement<VerbatimUrl>> =
        roots.iter().filter(|root| root.evaluate_markers(environment, &[])).collect();
    while let Some(requirement) = open.pop() {
        let Ok(name) = ProjectName::new(requirement.name.as_ref()) else { continue };
        let is_new = !extras.contains_key(&name);
        let known = extras.entry(name.clone()).or_default();
        let before = known.len();
        known.extend(requirement.extras.iter().cloned());
        if is_new || known.len() > before {
            let active: Vec<ExtraName> = known.iter().cloned().collect();
            let needs = projects.get(&name).into_iter().flatten();
            open.extend(needs.filter(|needed| needed.evaluate_markers(environment, &active)));
        }
    }
    let needs = projects.iter().map(|(name, requires)| {
        let active: Vec<ExtraName> = extras.get(name).into_iter().flatten().cloned().collect();
        let needed = requires.iter().filter(|needed| needed.evaluate_markers(environment, &active));
        let needed: BTreeSet<String> = needed.map(plain).collect();
        (name.clone(), needed.into_iter().collect())
    });
    needs.collect()
}

/// What a project needs on the target without any of its extras, as `NAME[EXTRAS]SPECIFIERS`.
pub fn needed(metadata: &Metadata, target: &Target) -> BTreeSet<String> {
    let Some(environment) = environment(target) else { return BTreeSet::new() };
    let needed = metadata.requires.iter().filter(|needed| needed.evaluate_markers(&environment, &[]));
    needed.map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::target::tests::trixie, *};
    use std::str::FromStr;

    fn requirements(lines: &[&str]) -> Vec<Requirement<VerbatimUrl>> {
        lines.iter().map(|line| Requirement::from_str(line).unwrap()).collect()
    }

    #[test]
    fn extras_spread_and_markers_are_decided() {
        let projects: Requires = [
            ("app", &["torch>=2.2; extra == 'torch'", "numpy>=1.17", "old; python_version < '3.10'"] as &[_]),
            ("torch", &["sympy>=1.13; python_version >= '3.9'", "app[vision]", "win; sys_platform == 'win32'"]),
            ("extra", &["pillow; extra == 'x'"]),
            ("numpy", &["direct @ https://user:SECRET@host/x.whl"]),
        ]
        .into_iter()
        .map(|(name, lines)| (ProjectName::new(name).unwrap(), requirements(lines)))
        .collect();
        let projects = {
            let mut with = projects;
            let app = ProjectName::new("app").unwrap();
            with.get_mut(&app).unwrap().extend(requirements(&["pillow<12; extra == 'vision'"]));
            with
        };
        let environment = environment(&trixie()).unwrap();
        let edges = edges(&projects, &requirements(&["app[torch]", "no; os_name == 'nt'"]), &environment);
        let of = |name: &str| edges[&ProjectName::new(name).unwrap()].join(" ");
        assert_eq!(of("app"), "numpy>=1.17 pillow<12 torch>=2.2");
        assert_eq!(of("torch"), "app[vision] sympy>=1.13");
        assert_eq!(of("extra"), "");
        assert_eq!(of("numpy"), "direct", "no host is kept");
    }
}
