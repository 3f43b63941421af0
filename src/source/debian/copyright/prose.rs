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
    let mut parts = text.split(COMMON);
    let mut before = parts.next().unwrap_or_default();
    for part in parts {
        let end = part.find(|c: char| !(c.is_ascii_alphanumeric() || ".-+".contains(c))).unwrap_or(part.len());
        let (name, after) = part.split_at(end);
        let name = name.trim_end_matches(['.', '-']);
        if !name.is_empty() {
            found.push(common(name, before));
        }
        before = after;
    }
    found
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

/// Whether the sentences grant a version and all later ones.
fn may_be_later(text: &str, number: &str) -> bool {
    let words: Vec<String> = text
        .split(|c: char| c.is_whitespace() || c == '*' || c == '#')
        .map(|word| word.trim_matches([',', ';', '(', ')', '"', ':']).trim_end_matches('.').to_ascii_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    let has = |phrase: &[&str]| words.windows(phrase.len()).any(|window| window.iter().eq(phrase));
    let dotted = if number.contains('.') { number.to_owned() } else { format!("{number}.0") };
    let version = [number, &dotted].iter().any(|number| has(&["version", number]) || has(&["v", number]));
    !number.is_empty() && version && (has(&["any", "later", "version"]) || has(&["or", "later"]))
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
    fn each_reference_is_read_with_its_own_sentences() {
        let text = "version 2 or later: /usr/share/common-licenses/LGPL-2. Parts: /usr/share/common-licenses/LGPL-2, \
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
