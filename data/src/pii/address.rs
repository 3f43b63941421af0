//! IP addresses. Those that name nobody (loopback, masks, the unspecified one) are none.

use super::{PatternError, around, context, pattern};
use regex::Regex;
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    ops::Range,
};

#[derive(Debug)]
pub(super) struct Addresses {
    four: Regex,
    six: Regex,
}

impl Addresses {
    pub fn new() -> Result<Self, PatternError> {
        Ok(Self {
            four: pattern(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")?,
            six: pattern(
                r"(?i)[0-9a-f]{0,4}:(?:[0-9a-f]{0,4}:){1,6}(?:[0-9a-f]{1,4}|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|:)?",
            )?,
        })
    }

    pub fn find(&self, text: &str) -> Vec<Range<usize>> {
        let six = self.six.find_iter(text).map(|found| found.range()).filter(|range| is_six(text, range));
        let four = self.four.find_iter(text).map(|found| found.range()).filter(|range| is_four(text, range));
        six.chain(four).collect()
    }
}

fn is_four(text: &str, range: &Range<usize>) -> bool {
    let (before, after) = around(text, range);
    let longer = |side: Option<char>| side.is_some_and(|side| side.is_alphanumeric() || side == '_');
    let goes_on = after == Some('.')
        && text.get(range.end + 1..).is_some_and(|rest| rest.starts_with(|next: char| next.is_alphanumeric()));
    if longer(before)
        || longer(after)
        || before == Some('.')
        || matches!(before, Some('-' | '=')) && after == Some('-')
        || goes_on
    {
        return false;
    }
    let Some(Ok(address)) = text.get(range.clone()).map(str::parse::<Ipv4Addr>) else { return false };
    // Versions have four numbers too, and small ones.
    let [first, ..] = address.octets();
    let names_nobody =
        address.is_loopback() || address.is_unspecified() || address.is_broadcast() || first == 255 || first == 0;
    !names_nobody && !is_version(&context(text, range.start, 24))
}

fn is_version(before: &str) -> bool {
    let before = before.trim_end_matches(|end: char| {
        end.is_whitespace() || matches!(end, ':' | '=' | '"' | '\'' | '(' | '>' | '<' | '~')
    });
    let word = before.rsplit(|character: char| !character.is_alphanumeric()).next().unwrap_or_default();
    matches!(
        word,
        "v" | "rv" | "ver" | "version" | "versions" | "release" | "section" | "chapter" | "firmware" | "build" | "oid"
    )
}

fn is_six(text: &str, range: &Range<usize>) -> bool {
    let (before, after) = around(text, range);
    let joined = |side: Option<char>| side.is_some_and(|side| side.is_alphanumeric() || matches!(side, ':' | '_'));
    if joined(before) || joined(after) {
        return false;
    }
    let candidate = text.get(range.clone()).unwrap_or_default();
    let Ok(address) = candidate.parse::<Ipv6Addr>() else { return false };
    // `abc::def` is code. What is given out begins with 2 or 3, f (unique local, link local, multicast) or ::ffff.
    let [first, ..] = address.segments();
    let given_out = (0x2000..0x4000).contains(&first) || first >= 0xfc00 || address.to_ipv4_mapped().is_some();
    let groups = candidate.split(':').filter(|group| !group.is_empty()).count();
    let whole = groups == 8;
    (given_out || whole) && groups >= 2 && candidate.bytes().any(|byte| byte.is_ascii_digit())
}
