//! The first line of a `License` field: short names with `and` and `or` between them (copyright-format 1.0, "Syntax").

use super::name::spdx;

/// Words of the synopsis; an operator remembers whether a comma stands before it.
enum Word<'a> {
    Name(&'a str),
    And { after_comma: bool },
    Or { after_comma: bool },
}

/// The synopsis as an SPDX expression. `and` binds more tightly than `or`, and both more tightly than those behind a comma:
/// `A or B, and C` is `(A OR B) AND C`.
pub(super) fn expression(synopsis: &str) -> String {
    let words = words(synopsis);
    let mut whole: Option<String> = None;
    let mut operator = "AND";
    for group in
        words.split_inclusive(|word| matches!(word, Word::And { after_comma: true } | Word::Or { after_comma: true }))
    {
        let (names, next) = match group.split_last() {
            Some((Word::And { after_comma: true }, names)) => (names, "AND"),
            Some((Word::Or { after_comma: true }, names)) => (names, "OR"),
            _ => (group, "AND"),
        };
        let found = alternatives(names);
        whole = match whole {
            Some(before) if !found.is_empty() => Some(format!("({before}) {operator} ({found})")),
            None if !found.is_empty() => Some(found),
            before => before,
        };
        operator = next;
    }
    whole.unwrap_or_default()
}

fn words(synopsis: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut after_comma = false;
    for word in synopsis.split_ascii_whitespace() {
        let bare = word.trim_end_matches([',', ';']);
        match bare {
            "" => {}
            "and" => words.push(Word::And { after_comma }),
            "or" | "and/or" => words.push(Word::Or { after_comma }),
            // A list with commas alone means all of it.
            name => {
                if after_comma {
                    words.push(Word::And { after_comma });
                }
                words.push(Word::Name(name));
            }
        }
        after_comma = bare != word;
    }
    words
}

/// Groups of names with `or` between them.
fn alternatives(words: &[Word<'_>]) -> String {
    let groups = words.split(|word| matches!(word, Word::Or { .. })).map(together);
    groups.filter(|group| !group.is_empty()).collect::<Vec<_>>().join(" OR ")
}

/// Names with `and` between them; a name may have several words.
fn together(words: &[Word<'_>]) -> String {
    let names = words.split(|word| matches!(word, Word::And { .. })).map(|words| {
        let words = words.iter().filter_map(|word| match word {
            Word::Name(name) => Some(*name),
            _ => None,
        });
        words.collect::<Vec<_>>().join(" ")
    });
    names.filter(|name| !name.is_empty()).map(|name| spdx(&name)).collect::<Vec<_>>().join(" AND ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::licence::Licence;
    use proptest::prelude::*;

    #[test]
    fn commas_bind_least_and_and_binds_most() {
        for (synopsis, expected) in [
            ("Expat", "MIT"),
            ("GPL-2+ or Artistic", "GPL-2.0-or-later OR Artistic-1.0-Perl"),
            ("GPL-2+ or Artistic and Expat", "GPL-2.0-or-later OR (Artistic-1.0-Perl AND MIT)"),
            ("GPL-2+ or Artistic, and Expat", "(GPL-2.0-or-later OR Artistic-1.0-Perl) AND MIT"),
            ("ISC, Expat", "ISC AND MIT"),
            ("ISC and/or Expat", "ISC OR MIT"),
            ("GPL-2+ with link exception, and ISC", "ISC AND LicenseRef-debian-GPL-2--with-link-exception"),
            ("", ""),
            ("and or,", ""),
        ] {
            assert_eq!(Licence::all_of("debian", [expression(synopsis)]).to_string(), expected, "{synopsis}");
        }
    }

    proptest! {
        #[test]
        fn any_synopsis_gives_nothing_or_a_valid_expression(text in "(and|or|and/or|GPL-2\\+|Expat|[a-zé()]|,| ){0,16}") {
            let found = expression(&text);
            prop_assert!(found.is_empty() || spdx::Expression::parse(&found).is_ok(), "{found}");
        }
    }
}
