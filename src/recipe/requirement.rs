//! Requirements and markers (PEP 508) as anybody may have written them.
//!
//! The parser fails by a panic where a name ends in punctuation, goes as deep as parentheses do, and joins conditions on
//! extras in a diagram that may double with each. What would be that is refused before it sees it.

use pep508_rs::{MarkerTree, Requirement, VerbatimUrl};
use std::str::FromStr;

/// Longest requirement, in bytes.
const MAX_LEN: usize = 16 << 10;
/// Deepest parentheses.
const MAX_DEPTH: usize = 64;
/// Most conditions on extras.
const MAX_EXTRAS: usize = 32;

/// Why a text is no requirement, or no marker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    /// It is longer than any that means something.
    #[error("it is longer than {MAX_LEN} bytes")]
    Long,
    /// Its parentheses are.
    #[error("its parentheses are more than {MAX_DEPTH} deep")]
    Deep,
    /// It has more conditions on extras than any that means something.
    #[error("its marker has more than {MAX_EXTRAS} conditions on extras")]
    Extras,
    /// A name of a project or of an extra.
    #[error("the name `{0}` does not end with a letter or a digit")]
    Name(String),
    /// What the parser said.
    #[error("{0}")]
    Parser(String),
}

/// Reads a requirement.
///
/// # Errors
/// [`RequirementError`].
pub fn requirement(text: &str) -> Result<Requirement<VerbatimUrl>, RequirementError> {
    bounded(text)?;
    let text_of_name = text.trim_start();
    let (name, rest) = text_of_name.split_at(text_of_name.find(|char| !in_name(char)).unwrap_or(text_of_name.len()));
    ends_well(name)?;
    if let Some((extras, _)) = rest.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        extras.split(|char| !in_name(char)).try_for_each(ends_well)?;
    }
    Requirement::from_str(text).map_err(|error| RequirementError::Parser(error.message.to_string()))
}

/// Reads a marker.
///
/// # Errors
/// [`RequirementError`].
pub fn marker(text: &str) -> Result<MarkerTree, RequirementError> {
    bounded(text)?;
    MarkerTree::from_str(text).map_err(|error| RequirementError::Parser(error.message.to_string()))
}

fn bounded(text: &str) -> Result<(), RequirementError> {
    if text.len() > MAX_LEN {
        return Err(RequirementError::Long);
    }
    let mut depth = 0_usize;
    for byte in text.bytes() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(RequirementError::Deep);
        }
    }
    if text.matches("extra").count() > MAX_EXTRAS {
        return Err(RequirementError::Extras);
    }
    Ok(())
}

const fn in_name(char: char) -> bool {
    matches!(char, 'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '-' | '_')
}

fn ends_well(name: &str) -> Result<(), RequirementError> {
    if name.ends_with(['.', '-', '_']) { Err(RequirementError::Name(name.to_owned())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_would_end_the_parser_is_refused() {
        let name = |text: &str| Err(RequirementError::Name(text.to_owned()));
        assert_eq!(requirement("d_ b[c]>1"), name("d_"));
        assert_eq!(requirement(" a-==1"), name("a-"));
        assert_eq!(requirement("a[b, c.]"), name("c."));
        assert_eq!(requirement(&format!("a; {}", "(".repeat(10_000))), Err(RequirementError::Deep));
        assert_eq!(marker(&"(".repeat(10_000)), Err(RequirementError::Deep));
        assert_eq!(requirement(&"a".repeat(MAX_LEN + 1)), Err(RequirementError::Long));
        let pairs: Vec<String> = (0..30).map(|n| format!("(extra == 'a{n}' and extra == 'b{n}')")).collect();
        assert_eq!(marker(&pairs.join(" or ")), Err(RequirementError::Extras));
        assert!(matches!(requirement("a b c"), Err(RequirementError::Parser(_))));
    }

    #[test]
    fn what_packages_ask_for_is_read() {
        for text in [
            "torch>=2.2",
            "a [b, c-d.e] (>=1,<2) ; (python_version < '3.10' or sys_platform == 'win32') and extra == 'x'",
            "pip @ https://example.org/pip_-1.zip",
            "a_.b; extra == 'c_'",
        ] {
            requirement(text).unwrap();
        }
        marker("((python_version >= '3.8'))").unwrap();
    }

    proptest! {
        #[test]
        fn nothing_ends_the_parser(text in r#"[ab]{1,2}[-_.]{0,2} ?(\[[ab,_. -]{0,6}\])?([<>=]=?[0-9.]{1,4})?( ?; ?[()a-z"'=< ]{0,24})?"#) {
            drop(requirement(&text));
        }
    }
}
