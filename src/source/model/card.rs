//! What a model card says in its YAML front matter: the licence.

use granit_parser::{Event, Parser};

/// Longest front matter that is read, in bytes.
const FRONT_MAX: usize = 256 << 10;
/// Longest licence that is taken over, in characters.
const LICENSE_MAX: usize = 200;

/// The licences that a card (`README.md`) names, sorted; none if it names none or cannot be read.
pub fn licenses(card: &str) -> Vec<String> {
    let Some(front) = front_matter(card) else { return Vec::new() };
    let found = top_level(front, &["license", "license_name", "license_link"]);
    let of = |name: &'static str| found.iter().filter(move |(key, _)| *key == name).map(|(_, value)| value.as_str());
    settle(of("license").collect(), of("license_name").next(), of("license_link").next())
}

/// One form for what a card says: the hub's identifiers, and for `other` the licence's own name and where it is.
pub(super) fn settle(named: Vec<&str>, name: Option<&str>, link: Option<&str>) -> Vec<String> {
    let other = || match (name, link) {
        (Some(name), Some(link)) => format!("{name} ({link})"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "other".to_owned(),
    };
    let clean = |text: String| text.chars().filter(|c| !c.is_control()).take(LICENSE_MAX).collect::<String>();
    let mut licenses: Vec<String> =
        named.into_iter().map(|text| clean(if text == "other" { other() } else { text.to_owned() })).collect();
    licenses.retain(|license| !license.is_empty());
    licenses.sort();
    licenses.dedup();
    licenses
}

/// What stands between the first two lines of `---`.
fn front_matter(card: &str) -> Option<&str> {
    let card = card.strip_prefix('\u{feff}').unwrap_or(card);
    let rest = card.strip_prefix("---\n").or_else(|| card.strip_prefix("---\r\n"))?;
    let end = rest.find("\n---")?;
    rest.get(..end + 1).filter(|front| front.len() <= FRONT_MAX)
}

/// Values of some keys at the top of a document, in their order: a text, or each text of a list. Aliases are not
/// followed, so a document cannot grow.
fn top_level(yaml: &str, keys: &[&'static str]) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let (mut depth, mut key) = (0_usize, None);
    for event in Parser::new_from_str(yaml) {
        let Ok((event, _)) = event else { break };
        match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => depth += 1,
            Event::MappingEnd | Event::SequenceEnd => {
                depth = depth.saturating_sub(1);
                if depth == 1 {
                    key = None;
                }
            }
            Event::Scalar(text, ..) => match (depth, key) {
                (1, None) => key = Some(keys.iter().copied().find(|known| *known == text.as_ref())),
                (1, Some(known)) => {
                    found.extend(known.map(|known| (known, text.into_owned())));
                    key = None;
                }
                (2, Some(Some(known))) => found.push((known, text.into_owned())),
                _ => {}
            },
            Event::Alias(_) if depth == 1 => key = None,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(front: &str) -> Vec<String> {
        licenses(&format!("---\n{front}\n---\n# Model\nlicense: wrong\n"))
    }

    #[test]
    fn the_licence_is_found_among_other_things() {
        assert_eq!(
            of("language:\n- en\n- de\nlicense: apache-2.0\ntags: [a, license]\nmodel-index:\n- license: no"),
            ["apache-2.0"]
        );
        assert_eq!(of("license:\n- mit\n- apache-2.0"), ["apache-2.0", "mit"]);
        assert_eq!(
            of("license: other\nlicense_name: llama3.1\nlicense_link: https://x.example"),
            ["llama3.1 (https://x.example)"]
        );
        assert_eq!(of("a: &a {license: mit}\nb: *a"), [""; 0]);
    }

    #[test]
    fn a_card_without_front_matter_names_none() {
        for card in ["", "# Model", "---\nlicense: mit", "---\n: : :\n---\n", "text\n---\nlicense: mit\n---\n"] {
            assert_eq!(licenses(card), [""; 0], "{card:?}");
        }
    }
}
