//! Dependency fields: `a (>= 1) | b:any, c [amd64]` (Debian Policy 7.1, deb-control(5)).

use super::version;
use std::{cmp::Ordering, fmt};

/// How a version must stand to the one named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// `<<`, strictly earlier.
    Earlier,
    /// `<=`, earlier or equal.
    AtMost,
    /// `=`, exactly.
    Exactly,
    /// `>=`, later or equal.
    AtLeast,
    /// `>>`, strictly later.
    Later,
}

impl Operator {
    /// The operator as Debian writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Earlier => "<<",
            Self::AtMost => "<=",
            Self::Exactly => "=",
            Self::AtLeast => ">=",
            Self::Later => ">>",
        }
    }

    /// Splits a leading operator off. The obsolete `<` and `>` mean what dpkg takes them for,
    /// `<=` and `>=`.
    pub fn split(text: &str) -> Option<(Self, &str)> {
        [
            ("<<", Self::Earlier),
            ("<=", Self::AtMost),
            (">>", Self::Later),
            (">=", Self::AtLeast),
            ("=", Self::Exactly),
            ("<", Self::AtMost),
            (">", Self::AtLeast),
        ]
        .into_iter()
        .find_map(|(written, operator)| text.strip_prefix(written).map(|rest| (operator, rest)))
    }

    fn admits(self, order: Ordering) -> bool {
        match self {
            Self::Earlier => order == Ordering::Less,
            Self::AtMost => order != Ordering::Greater,
            Self::Exactly => order == Ordering::Equal,
            Self::AtLeast => order != Ordering::Less,
            Self::Later => order == Ordering::Greater,
        }
    }
}

/// A version constraint, such as `>= 2.36`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Constraint<'a> {
    /// How the version must stand to the one named.
    pub operator: Operator,
    /// The version named.
    pub version: &'a str,
}

impl Constraint<'_> {
    /// Whether `candidate` satisfies the constraint.
    pub fn admits(&self, candidate: &str) -> bool {
        self.operator.admits(version::compare(candidate, self.version))
    }
}

impl fmt::Display for Constraint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operator.as_str(), self.version)
    }
}

/// One alternative: a package name, perhaps for an architecture, perhaps with a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relation<'a> {
    /// Package name, real or virtual.
    pub name: &'a str,
    /// Architecture qualifier after `:`, such as `any`.
    pub qualifier: Option<&'a str>,
    /// Version constraint in parentheses.
    pub constraint: Option<Constraint<'a>>,
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(qualifier) = self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        if let Some(constraint) = &self.constraint {
            write!(f, " ({constraint})")?;
        }
        Ok(())
    }
}

/// Why a dependency field cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the dependency `{clause}`: {reason}")]
pub struct RelationError {
    /// The clause, shortened.
    pub clause: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Whether `name` is a package name (Policy 5.6.1; upper case is tolerated in relations).
pub fn is_package_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_'))
}

/// Parses a dependency field: clauses that must all hold, each a list of alternatives in order of
/// preference. Alternatives for other architectures than `arch` vanish, and a clause whose
/// alternatives all vanish does too, as the field's semantics demand.
///
/// # Errors
/// [`RelationError`] with the clause that cannot be read.
pub fn parse<'a>(field: &'a str, arch: &str) -> Result<Vec<Vec<Relation<'a>>>, RelationError> {
    let mut clauses = Vec::new();
    for clause in field.split(',').map(str::trim).filter(|clause| !clause.is_empty()) {
        let mut alternatives = Vec::new();
        for alternative in clause.split('|') {
            if let Some(relation) = parse_alternative(alternative, arch)? {
                alternatives.push(relation);
            }
        }
        if !alternatives.is_empty() {
            clauses.push(alternatives);
        }
    }
    Ok(clauses)
}

fn parse_alternative<'a>(text: &'a str, arch: &str) -> Result<Option<Relation<'a>>, RelationError> {
    let error = |reason| RelationError { clause: text.trim().chars().take(120).collect(), reason };
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_whitespace() || matches!(c, '(' | '[' | '<')).unwrap_or(text.len());
    let (head, mut rest) = text.split_at(end);
    let (name, qualifier) = match head.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (head, None),
    };
    if !is_package_name(name) {
        return Err(error("a package name was expected"));
    }
    if qualifier.is_some_and(|q| q.is_empty() || !q.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')) {
        return Err(error("an architecture was expected after `:`"));
    }
    let mut constraint = None;
    let mut wanted = true;
    loop {
        rest = rest.trim_start();
        if let Some(inner) = rest.strip_prefix('(') {
            let (inside, after) = inner.split_once(')').ok_or_else(|| error("`)` is missing"))?;
            if constraint.is_some() {
                return Err(error("there is more than one version"));
            }
            let (operator, version) =
                Operator::split(inside.trim()).ok_or_else(|| error("one of << <= = >= >> was expected"))?;
            let version = version.trim();
            version::validate(version).map_err(|_| error("the version is malformed"))?;
            constraint = Some(Constraint { operator, version });
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('[') {
            let (inside, after) = inner.split_once(']').ok_or_else(|| error("`]` is missing"))?;
            wanted &= restriction_admits(inside, arch);
            rest = after;
        } else if rest.is_empty() {
            break;
        } else {
            return Err(error("text after the package name is not understood"));
        }
    }
    Ok(wanted.then_some(Relation { name, qualifier, constraint }))
}

/// `[amd64 arm64]` names the architectures for which a relation counts, `[!i386]` those for which
/// it does not (Policy 7.1).
fn restriction_admits(list: &str, arch: &str) -> bool {
    let matches = |pattern: &str| {
        let cpu = arch.rsplit('-').next().unwrap_or(arch);
        pattern == arch
            || matches!(pattern, "any" | "linux-any")
            || pattern.strip_prefix("any-").is_some_and(|wanted| wanted == cpu)
    };
    let mut negated = false;
    for pattern in list.split_ascii_whitespace() {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches(pattern) => return false,
            Some(_) => negated = true,
            None if matches(pattern) => return true,
            None => {}
        }
    }
    negated
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(field: &str) -> String {
        parse(field, "amd64")
            .unwrap()
            .iter()
            .map(|clause| clause.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "))
            .collect::<Vec<_>>()
            .join(", ")
    }

    #[test]
    fn alternatives_versions_and_qualifiers_are_read() {
        assert_eq!(
            written("libc6 (>= 2.36),  default-mta|mail-transport-agent , python3:any(<<3.14~)"),
            "libc6 (>= 2.36), default-mta | mail-transport-agent, python3:any (<< 3.14~)"
        );
    }

    #[test]
    fn other_architectures_vanish() {
        assert_eq!(written("a [i386], b [amd64 arm64], c [!amd64], d [!i386] | e [linux-any]"), "b, d | e");
    }

    #[test]
    fn malformed_fields_are_refused() {
        for bad in ["a (", "a (2)", "a (>= )", "(>= 2)", "a b", "a [amd64", "a:", "a (>= 1) (<< 2)", "a | | b"] {
            assert!(parse(bad, "amd64").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn constraints_use_the_debian_order() {
        let relations = parse("a (<< 2.0)", "amd64").unwrap();
        let constraint = relations[0][0].constraint.unwrap();
        assert!(constraint.admits("2.0~rc1"));
        assert!(!constraint.admits("2.0"));
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(field in ".{0,60}") {
            let _ = parse(&field, "amd64");
        }
    }
}
