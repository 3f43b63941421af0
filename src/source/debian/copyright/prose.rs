//! Copyright files in free form: which of Debian's common licences they refer to.
//!
//! A reference says which text applies. Whether later versions of a GNU licence may be chosen stands in the sentences before
//! it; where they do not say so in the usual words, the answer is a reference without that claim.

use super::{
    UNREADABLE,
    name::{gnu_id, reference, spdx},
};

/// Where Debian keeps texts that many packages refer to.
const COMMON: &str = "/usr/share/common-licenses/";

/// The licences that are referred to, and [`UNREADABLE`] for all that nobody understood.
pub(super) fn expressions(text: &str) -> Vec<String> {
    let mut found = vec![UNREADABLE.to_owned()];
    // The sentences that a reference belongs to begin after the paragraph of the one before it.
    let mut before = String::new();
    let mut parts = text.split(COMMON);
    before.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find(|c: char| !(c.is_ascii_alphanumeric() || ".-+".contains(c))).unwrap_or(part.len());
        let (name, after) = part.split_at(end);
        let name = name.trim_end_matches(['.', '-']);
        if !name.is_empty() {
            found.push(common(name, &before));
        }
        match after_paragraph(after) {
            Some(next) => before = next.to_owned(),
            None => before.push_str(after),
        }
    }
    found
}

/// What follows the first empty line.
fn after_paragraph(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some((_, next)) = rest.split_once('\n') {
        if next.lines().next().is_some_and(|line| line.trim().is_empty()) {
            return Some(next);
        }
        rest = next;
    }
    None
}

/// A file of `/usr/share/common-licenses`, and the sentences before it.
fn common(name: &str, before: &str) -> String {
    let (family, number) = name.split_once('-').unwrap_or((name, ""));
    match family {
        "GPL" | "LGPL" | "GFDL" => {
            let later = may_be_later(before, number).then(|| gnu_id(family, number, "or-later")).flatten();
            later.unwrap_or_else(|| reference(name))
        }
        // The licence of the University of California, which is all that this file holds.
        "BSD" => "BSD-3-Clause".to_owned(),
        _ => spdx(name),
    }
}

/// Whether the sentences grant this version and all later ones, in one breath: `version 2 of the License, or (at your
/// option) any later version`.
fn may_be_later(text: &str, number: &str) -> bool {
    /// Words from the version to the grant of later ones.
    const BREATH: usize = 14;
    let words: Vec<String> = text
        .split(|c: char| c.is_whitespace() || c == '*' || c == '#')
        .map(|word| word.trim_matches([',', ';', '(', ')', '"', ':']).trim_end_matches('.').to_ascii_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    let dotted = if number.contains('.') { number.to_owned() } else { format!("{number}.0") };
    let has = |words: &[String], phrase: &[&str]| words.windows(phrase.len()).any(|window| window.iter().eq(phrase));
    words.windows(2).enumerate().any(|(at, pair)| {
        let version = matches!(pair, [word, version] if word == "version" && (version == number || *version == dotted));
        let next = words.get(at..).unwrap_or_default();
        let next = next.get(..BREATH).unwrap_or(next);
        version && (has(next, &["any", "later", "version"]) || has(next, &["or", "later"]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(text: &str) -> Vec<String> {
        expressions(text).into_iter().filter(|name| name != UNREADABLE).collect()
    }

    #[test]
    fn later_versions_count_where_the_text_says_so() {
        let usual = "you can redistribute it under the terms of the GNU General Public License as published by the Free\n\
                     * Software Foundation; either version 2 of the License, or (at your option) any later version.\n\
                     On Debian systems, the text can be found in `/usr/share/common-licenses/GPL-2'.";
        assert_eq!(named(usual), ["GPL-2.0-or-later"]);
        assert_eq!(named(&usual.replace("any later version", "no other")), ["LicenseRef-debian-GPL-2"]);
        assert_eq!(named(&usual.replace("GPL-2", "GPL-3")), ["LicenseRef-debian-GPL-3"], "another version");
        assert_eq!(named(&usual.replace("GPL-2", "GPL")), ["LicenseRef-debian-GPL"], "no version");
    }

    #[test]
    fn references_of_one_paragraph_share_its_sentences() {
        let text = "either version 3, or (at your option) any later version.\n\nOn Debian systems, the text is in \
                    `/usr/share/common-licenses/GPL', version 3 of it in `/usr/share/common-licenses/GPL-3'.\n\n\
                    Parts are under /usr/share/common-licenses/GPL-3 only; version 3 it is.\n";
        assert_eq!(named(text), ["LicenseRef-debian-GPL", "GPL-3.0-or-later", "LicenseRef-debian-GPL-3"]);
        let text = "version 2 or any later version: /usr/share/common-licenses/GPL-2; version 2.1 of the other one: \
                    /usr/share/common-licenses/LGPL-2.1";
        assert_eq!(named(text), ["GPL-2.0-or-later", "LicenseRef-debian-LGPL-2.1"]);
    }

    #[test]
    fn each_reference_is_read_with_its_own_sentences() {
        let text = "version 2 or later: /usr/share/common-licenses/LGPL-2.\n \nParts: /usr/share/common-licenses/LGPL-2, \
                    /usr/share/common-licenses/Artistic, /usr/share/common-licenses/Apache-2.0.\n\
                    /usr/share/common-licenses/BSD /usr/share/common-licenses/";
        assert_eq!(
            named(text),
            ["LGPL-2.0-or-later", "LicenseRef-debian-LGPL-2", "Artistic-1.0-Perl", "Apache-2.0", "BSD-3-Clause"]
        );
    }

    proptest! {
        #[test]
        fn any_text_gives_valid_names(text in "(/usr/share/common-licenses/|GPL-2|[a-zé.\\-+ ]){0,12}") {
            for name in expressions(&text) {
                prop_assert!(spdx::Expression::parse(&name).is_ok(), "{name}");
            }
        }
    }
}
