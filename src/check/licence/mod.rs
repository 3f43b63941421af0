//! What packages, models and data say of their licences, as SPDX expressions; and terms that gate or forbid commercial
//! use.

mod terms;

pub use terms::{Commercial, Terms, terms_of};

use crate::recipe::LicensePolicy;
use spdx::{Expression, LicenseReq, Licensee, ParseMode, identifiers::LICENSES};
use std::collections::BTreeSet;

/// What something says of its licence.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// An SPDX expression, or what stands for one.
    Expression(Box<Expression>),
    /// Words that no machine understands.
    Unknown(String),
    /// Nothing.
    Absent,
}

/// Longest text that is looked at; what is longer is a licence and not the name of one.
const MAX_NAME: usize = 200;

/// Names that publishers use for what SPDX calls otherwise, in lower case. Where a name leaves open which of several it
/// means, all of them must be allowed.
const NAMES: [(&str, &str); 38] = [
    ("3-clause bsd license", "BSD-3-Clause"),
    ("afl-3.0", "AFL-3.0"),
    ("agpl-3.0", "AGPL-3.0-only"),
    ("apache", "Apache-2.0"),
    ("apache 2", "Apache-2.0"),
    ("apache 2.0", "Apache-2.0"),
    ("apache 2.0 license", "Apache-2.0"),
    ("apache license", "Apache-2.0"),
    ("apache license 2.0", "Apache-2.0"),
    ("apache license, version 2.0", "Apache-2.0"),
    ("apache software license", "Apache-2.0"),
    ("apache software license 2.0", "Apache-2.0"),
    ("bsd", "BSD-2-Clause AND BSD-3-Clause"),
    ("bsd license", "BSD-2-Clause AND BSD-3-Clause"),
    ("bsd 3-clause", "BSD-3-Clause"),
    ("bsd 3-clause license", "BSD-3-Clause"),
    ("bsd-3-clause license", "BSD-3-Clause"),
    ("gpl-2.0", "GPL-2.0-only"),
    ("gpl-3.0", "GPL-3.0-only"),
    ("historical permission notice and disclaimer (hpnd)", "HPND"),
    ("isc license", "ISC"),
    ("isc license (iscl)", "ISC"),
    ("lgpl-2.1", "LGPL-2.1-only"),
    ("lgpl-3.0", "LGPL-3.0-only"),
    ("mit license", "MIT"),
    ("modified bsd license", "BSD-3-Clause"),
    ("mozilla public license 2.0 (mpl 2.0)", "MPL-2.0"),
    ("mpl 2.0", "MPL-2.0"),
    ("new bsd", "BSD-3-Clause"),
    ("new bsd license", "BSD-3-Clause"),
    ("nvidia proprietary software", "LicenseRef-NVIDIA-Proprietary"),
    ("other/proprietary license", "LicenseRef-Proprietary"),
    ("pdm-1.0", "CC-PDM-1.0"),
    ("psf", "PSF-2.0"),
    ("psf license", "PSF-2.0"),
    ("python software foundation license", "PSF-2.0"),
    ("the unlicense (unlicense)", "Unlicense"),
    ("zlib/libpng license", "Zlib"),
];
/// Words that say that the licence is told elsewhere, or nowhere.
const NOTHING: [&str; 7] = ["", "other", "unknown", "none", "see license", "license", "custom"];

/// Reads what something says of its licence: an SPDX expression, the name that a package index or a hub has for it, or a
/// name of its own, which becomes a `LicenseRef-…`.
pub fn read(text: Option<&str>) -> Reading {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Reading::Absent };
    let lower = text.to_ascii_lowercase();
    if NOTHING.contains(&lower.as_str()) || text.len() > MAX_NAME || text.contains('\n') {
        return Reading::Unknown(text.lines().next().unwrap_or_default().chars().take(60).collect());
    }
    let known = NAMES.iter().find(|(name, _)| *name == lower).map(|(_, expression)| *expression);
    let same = || LICENSES.iter().find(|license| license.name.eq_ignore_ascii_case(text)).map(|license| license.name);
    let parsed = known.or_else(same).unwrap_or(text);
    if let Ok(expression) = Expression::parse_mode(parsed, ParseMode::LAX) {
        return Reading::Expression(Box::new(expression));
    }
    match Expression::parse(&reference(text)) {
        Ok(expression) if terms::is_named(&lower) => Reading::Expression(Box::new(expression)),
        _ => Reading::Unknown(text.to_owned()),
    }
}

/// Reads all licences of something at once: their sum.
pub fn read_all(texts: &[String]) -> Reading {
    let mut sum: Option<String> = None;
    for text in texts {
        match read(Some(text)) {
            Reading::Expression(expression) => {
                let one = expression.to_string();
                sum = Some(sum.map_or_else(|| one.clone(), |sum| format!("({sum}) AND ({one})")));
            }
            other => return other,
        }
    }
    let Some(sum) = sum else { return Reading::Absent };
    Expression::parse_mode(&sum, ParseMode::LAX)
        .map_or_else(|_| Reading::Unknown(sum.clone()), |expression| Reading::Expression(Box::new(expression)))
}

/// `LicenseRef-…` for a name that SPDX does not have.
fn reference(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '-' };
    format!("LicenseRef-{}", name.chars().map(safe).collect::<String>())
}

/// The licences of an expression that stand in the way of `name`; none if the policy allows it.
pub fn refused(policy: &LicensePolicy, name: &str, expression: &Expression) -> BTreeSet<String> {
    let exceptions = policy.exceptions.get(name).map(Vec::as_slice).unwrap_or_default();
    let allowed: Vec<Licensee> =
        policy.allow.iter().chain(exceptions).filter_map(|text| Licensee::parse(text).ok()).collect();
    let is_allowed = |wanted: &LicenseReq| allowed.iter().any(|licensee| licensee.satisfies(wanted));
    match expression.evaluate_with_failures(is_allowed) {
        Ok(()) => BTreeSet::new(),
        Err(failures) => failures.into_iter().map(|failure| failure.req.to_string()).collect(),
    }
}

/// Whether the policy allows a licence by itself, for `name`.
pub fn is_allowed(policy: &LicensePolicy, name: &str, license: &str) -> bool {
    match Expression::parse_mode(license, ParseMode::LAX) {
        Ok(expression) => refused(policy, name, &expression).is_empty(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match read(Some(text)) {
            Reading::Expression(expression) => expression.to_string(),
            Reading::Unknown(text) => format!("? {text}"),
            Reading::Absent => "-".to_owned(),
        }
    }

    #[test]
    fn names_of_indexes_and_hubs_become_expressions() {
        for (text, expression) in [
            ("MIT", "MIT"),
            ("Apache-2.0 OR BSD-3-Clause", "Apache-2.0 OR BSD-3-Clause"),
            ("apache-2.0", "Apache-2.0"),
            ("Apache Software License", "Apache-2.0"),
            ("BSD License", "BSD-2-Clause AND BSD-3-Clause"),
            ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
            ("NVIDIA Proprietary Software", "LicenseRef-NVIDIA-Proprietary"),
            ("llama3.1", "LicenseRef-llama3.1"),
            ("gemma", "LicenseRef-gemma"),
            ("other", "? other"),
            ("Do what I say", "? Do what I say"),
            (" ", "-"),
        ] {
            assert_eq!(shown(text), expression, "{text}");
        }
        assert_eq!(read(None), Reading::Absent);
    }

    #[test]
    fn several_licences_add_up() {
        let all = |texts: &[&str]| read_all(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let Reading::Expression(sum) = all(&["MIT OR Apache-2.0", "BSD License"]) else { panic!("no sum") };
        assert_eq!(sum.requirements().count(), 4);
        assert_eq!(all(&["MIT", "other"]), Reading::Unknown("other".to_owned()));
        assert_eq!(all(&[]), Reading::Absent);
    }

    #[test]
    fn a_choice_is_met_by_one_and_a_sum_by_all() {
        let policy = LicensePolicy {
            allow: vec!["MIT".to_owned(), "LicenseRef-gemma".to_owned()],
            exceptions: [("glibc".to_owned(), vec!["LGPL-2.1-only".to_owned()])].into(),
            ..LicensePolicy::default()
        };
        let refused = |name: &str, text: &str| {
            let all = super::refused(&policy, name, &Expression::parse(text).unwrap());
            all.into_iter().collect::<Vec<_>>()
        };
        assert!(refused("a", "MIT OR GPL-3.0-only").is_empty());
        assert_eq!(refused("a", "MIT AND GPL-3.0-only"), ["GPL-3.0-only"]);
        assert!(refused("a", "LicenseRef-gemma").is_empty());
        assert_eq!(refused("a", "LGPL-2.1-only"), ["LGPL-2.1-only"]);
        assert!(refused("glibc", "LGPL-2.1-only").is_empty());
    }
}
