//! Licences as SPDX expressions (SPDX 2.3, annex D).

use gap_format::Digest;
use spdx::{
    Expression,
    expression::{ExprNode, Operator},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Longest expression that is looked at, in bytes.
const EXPRESSION_MAX: usize = 4096;
/// Longest text that is kept, in characters: some registries hold whole licences in a field for their names.
const TEXT_MAX: usize = 64 << 10;

/// What may be done with a component, as its maker declares it: all of several conditions, each an SPDX expression without
/// a top-level `AND`; none if nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Licence {
    conditions: BTreeSet<String>,
    /// What stands behind each `LicenseRef-…` that was made here for a text that is no expression.
    texts: BTreeMap<String, String>,
}

impl Licence {
    /// Nobody says.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// From what a registry (`cargo`, `pypi`, …) has in its field for the licence.
    pub fn declared(registry: &str, text: Option<&str>) -> Self {
        Self::all_of(registry, text)
    }

    /// All of these licences at once.
    pub fn all_of(registry: &str, texts: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut licence = Self::default();
        for text in texts {
            licence.add(registry, text.as_ref().trim());
        }
        licence
    }

    fn add(&mut self, registry: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        match expression(text) {
            Some(expression) => self.conditions.extend(conditions(&expression)),
            None => {
                let id = reference(registry, text);
                self.texts.insert(id.clone(), text.chars().take(TEXT_MAX).collect());
                self.conditions.insert(id);
            }
        }
    }

    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        self.conditions.is_empty()
    }

    /// The conditions, sorted.
    pub fn conditions(&self) -> impl Iterator<Item = &str> {
        self.conditions.iter().map(String::as_str)
    }

    /// Each `LicenseRef-…` in it, with the text that stands behind it if that is no more than the name.
    pub fn references(&self) -> BTreeMap<&str, Option<&str>> {
        let words = self.conditions.iter().flat_map(|condition| condition.split([' ', '(', ')']));
        let references = words.filter(|word| is_reference(word));
        references.map(|word| (word, self.texts.get(word).map(String::as_str))).collect()
    }
}

/// The expression; nothing if nothing is known.
impl fmt::Display for Licence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&both(&self.conditions.iter().cloned().collect::<Vec<_>>()))
    }
}

/// Whether a word of an expression is no SPDX identifier but a name of somebody's own.
pub fn is_reference(word: &str) -> bool {
    word.starts_with("LicenseRef-")
}

/// The text as an expression, with the slips that registries let pass mended: `MIT/Apache-2.0`, `GPL-2.0+`.
fn expression(text: &str) -> Option<Expression> {
    if text.len() > EXPRESSION_MAX {
        return None;
    }
    let mended = Expression::canonicalize(text).ok()?;
    Expression::parse(mended.as_deref().unwrap_or(text)).ok()
}

/// The parts of an expression that must all hold.
fn conditions(expression: &Expression) -> Vec<String> {
    // The nodes come in postfix order; each entry of the stack is what must hold together so far.
    let mut stack: Vec<Vec<String>> = Vec::new();
    for node in expression.iter() {
        match node {
            ExprNode::Req(requirement) => stack.push(vec![requirement.req.to_string()]),
            ExprNode::Op(operator) => {
                let (right, left) = (stack.pop().unwrap_or_default(), stack.pop().unwrap_or_default());
                stack.push(match operator {
                    Operator::And => [left, right].concat(),
                    Operator::Or => vec![format!("{} OR {}", alternative(&left), alternative(&right))],
                });
            }
        }
    }
    stack.pop().unwrap_or_default()
}

fn alternative(conditions: &[String]) -> String {
    match conditions {
        [one] => one.clone(),
        several => format!("({})", both(several)),
    }
}

/// The conditions as one expression; `AND` binds more tightly than `OR`.
fn both(conditions: &[String]) -> String {
    match conditions {
        [one] => one.clone(),
        several => {
            let terms =
                several.iter().map(|term| if term.contains(" OR ") { format!("({term})") } else { term.clone() });
            terms.collect::<Vec<_>>().join(" AND ")
        }
    }
}

/// A name of our own for a text that is no expression; where the name cannot hold the text, it ends with a hash of it.
fn reference(registry: &str, text: &str) -> String {
    /// Longest part of the text that goes into the name.
    const NAME_MAX: usize = 64;
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '-' };
    let name: String = text.chars().take(NAME_MAX).map(plain).collect();
    if name == text {
        return format!("LicenseRef-{registry}-{name}");
    }
    let hash = Digest::of(text.as_bytes()).to_hex();
    format!("LicenseRef-{registry}-{}-{}", name.trim_matches('-'), hash.get(..8).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of_crate(text: &str) -> Licence {
        Licence::declared("cargo", Some(text))
    }

    #[test]
    fn expressions_of_registries_become_spdx() {
        for (text, expected) in [
            ("MIT", "MIT"),
            ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", "(MIT OR Apache-2.0) AND Unicode-3.0"),
            ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception"),
            ("GPL-2.0+", "GPL-2.0-or-later"),
            ("(MIT AND Zlib) OR ISC OR (BSD-3-Clause)", "(MIT AND Zlib) OR ISC OR BSD-3-Clause"),
            ("MIT AND ISC", "ISC AND MIT"),
        ] {
            assert_eq!(of_crate(text).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_becomes_a_reference_with_its_text() {
        let licence = of_crate("See LICENSE (ours)");
        let id = licence.to_string();
        assert!(id.starts_with("LicenseRef-cargo-See-LICENSE--ours-"), "{id}");
        assert_eq!(licence.references(), [(id.as_str(), Some("See LICENSE (ours)"))].into());
        assert_ne!(of_crate("See LICENSE [ours]").to_string(), id);
        assert!(Expression::parse(&licence.to_string()).is_ok());
    }

    #[test]
    fn several_licences_hold_at_once() {
        let licence = Licence::all_of("debian", ["MIT OR GPL-2.0-or-later", "LicenseRef-debian-x", "MIT"]);
        assert_eq!(licence.to_string(), "LicenseRef-debian-x AND MIT AND (MIT OR GPL-2.0-or-later)");
        assert_eq!(licence.references(), [("LicenseRef-debian-x", None)].into());
    }

    #[test]
    fn nothing_is_unknown() {
        assert!(Licence::declared("cargo", None).is_unknown());
        assert!(of_crate("  ").is_unknown());
        assert!(Licence::all_of("debian", [""; 0]).is_unknown());
    }

    proptest! {
        #[test]
        fn any_text_gives_nothing_or_a_valid_expression(text in "(MIT|ISC|GPL-2.0|AND|OR|WITH|[ ()/+]|[a-zé]){0,12}") {
            let licence = of_crate(&text);
            let shown = licence.to_string();
            prop_assert!(licence.is_unknown() || Expression::parse(&shown).is_ok(), "{shown}");
            prop_assert_eq!(of_crate(&shown).to_string(), shown);
        }
    }
}
