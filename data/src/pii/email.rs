//! E-mail addresses (RFC 5321, RFC 6531), also those written to be missed by machines.

use super::{PatternError, around, pattern};
use regex::Regex;
use std::ops::Range;

/// What follows the last dot of a file's name, not of a domain's: `icon@2x.png`.
const FILES: [&str; 16] =
    ["png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "js", "ts", "json", "html", "xml", "yaml", "yml", "pdf"];

#[derive(Debug)]
pub(super) struct Emails {
    plain: Regex,
    spelled: Regex,
}

impl Emails {
    pub fn new() -> Result<Self, PatternError> {
        let local = r"[\p{L}\p{N}!#$%&'*+/=?^_{|}~-]+(?:\.[\p{L}\p{N}!#$%&'*+/=?^_{|}~-]+)*";
        let label = r"[\p{L}\p{N}][\p{L}\p{N}\p{M}-]*";
        let top = r"(?:(?i:xn--)[A-Za-z0-9-]+|\p{L}[\p{L}\p{M}]+)";
        Ok(Self {
            plain: pattern(&format!(r"{local}[@＠](?:{label}\.)+{top}"))?,
            spelled: pattern(
                r"(?i)[a-z0-9][a-z0-9._+-]*\s?(?:\[at\]|\(at\)|\{at\}|<at>)\s?[a-z0-9-]+(?:\s?(?:\.|\[dot\]|\(dot\)|\{dot\}|<dot>)\s?[a-z0-9-]+)*\s?(?:\.|\[dot\]|\(dot\)|\{dot\}|<dot>)\s?[a-z]{2,24}",
            )?,
        })
    }

    pub fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        if text.contains(['@', '＠']) {
            found.extend(self.plain.find_iter(text).filter_map(|found| trimmed(text, found.range())));
        }
        if text.contains(['[', '(', '{', '<']) {
            found.extend(self.spelled.find_iter(text).map(|found| found.range()));
        }
        found
    }
}

/// The address without what stands before it as in `mailto:`, `'a@b.c'` or `x=a@b.c`; none if it is no address.
fn trimmed(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let address = text.get(range.clone())?;
    let last = address.rfind('=').map_or(0, |at| at + 1);
    let unquoted = address.get(last..)?.trim_start_matches(|character: char| "'`*_/={|~#!?&^".contains(character));
    let start = range.end - unquoted.len();
    let (local, domain) = unquoted.split_once(['@', '＠'])?;
    let end = domain.rsplit('.').next()?.to_lowercase();
    let (before, after) = around(text, &(start..range.end));
    // `user:password@host` in an address is a secret, `git@host:path` a login; a path is no domain.
    let is_address = !local.is_empty()
        && local.len() <= 64
        && domain.len() <= 253
        && domain.split('.').all(|label| label.len() <= 63 && !label.ends_with('-'))
        && !FILES.contains(&end.as_str())
        && before != Some('@')
        && after != Some('@')
        && !(local == "git" && after == Some(':'));
    is_address.then_some(start..range.end)
}
