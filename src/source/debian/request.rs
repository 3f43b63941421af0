//! What a recipe asks for: `name`, `name=1.2-3`, `name>=1.2`.

use super::{
    relation::{Constraint, Operator, Relation, is_package_name},
    version,
};

/// Why an entry of a package list cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the package `{text}`: {problem}; write `name`, `name=1.2-3` or `name>=1.2`")]
pub struct RequestError {
    /// The entry.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Reads one entry of a package list. Operators are `=`, `>=`, `<=`, `>>` and `<<`.
///
/// # Errors
/// [`RequestError`].
pub fn parse(text: &str) -> Result<Relation<'_>, RequestError> {
    let error = |problem| RequestError { text: text.chars().take(120).collect(), problem };
    let trimmed = text.trim();
    let end = trimmed.find(['=', '<', '>', '(', ' ']).unwrap_or(trimmed.len());
    let (name, rest) = trimmed.split_at(end);
    if !is_package_name(name) {
        return Err(error("that is not a package name"));
    }
    let rest = rest.trim();
    let rest = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(rest).trim();
    if rest.is_empty() {
        return Ok(Relation { name, qualifier: None, constraint: None });
    }
    let single = |sign: char| {
        rest.starts_with(sign)
            && !rest.starts_with(&format!("{sign}{sign}"))
            && !rest.get(1..).is_some_and(|rest| rest.starts_with('='))
    };
    if single('<') || single('>') {
        return Err(error("`<` and `>` alone are ambiguous in Debian, use `<<` or `<=`, `>>` or `>=`"));
    }
    let (operator, version) = Operator::split(rest).ok_or_else(|| error("one of = >= <= >> << was expected"))?;
    let version = version.trim();
    version::validate(version).map_err(|_| error("that is not a Debian version"))?;
    Ok(Relation { name, qualifier: None, constraint: Some(Constraint { operator, version }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_pins_are_read() {
        for (text, read) in [
            ("linux-image-6.12.94+deb13-amd64", "linux-image-6.12.94+deb13-amd64"),
            ("bash=5.2-1", "bash (= 5.2-1)"),
            (" bash >= 5.2 ", "bash (>= 5.2)"),
            ("bash (<< 1:6~)", "bash (<< 1:6~)"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), read);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "=1", "bash=", "bash>5", "bash<5", "bash 5", "ba/sh", "bash=1 2"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
