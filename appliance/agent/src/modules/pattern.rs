//! The shell patterns of `modules.alias`: `*`, `?` and `[…]`.

/// Whether `text` as a whole matches `pattern`.
///
/// Takes time in proportion to the product of both lengths, whatever the pattern.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at_pattern, mut at_text) = (pattern, text);
    // Where to go on when a later part fails: behind the last star, with one more byte swallowed by it.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        let advanced = match at_pattern.split_first() {
            Some((b'*', rest)) => {
                retry = Some((rest, at_text));
                Some((rest, at_text))
            }
            Some((&first, rest)) => at_text.split_first().and_then(|(&byte, text)| {
                let rest = match_one(first, rest, byte)?;
                Some((rest, text))
            }),
            None if at_text.is_empty() => return true,
            None => None,
        };
        (at_pattern, at_text) = match (advanced, retry) {
            (Some(next), _) => next,
            (None, Some((rest, swallowed))) => {
                let Some((_, fewer)) = swallowed.split_first() else { return false };
                retry = Some((rest, fewer));
                (rest, fewer)
            }
            (None, None) => return false,
        };
    }
}

/// Matches one byte against the element that begins with `first`; returns the pattern behind the element.
fn match_one(first: u8, rest: &[u8], byte: u8) -> Option<&[u8]> {
    match first {
        b'?' => Some(rest),
        b'[' => {
            let end = rest.iter().position(|&b| b == b']')?;
            let (set, behind) = rest.split_at_checked(end)?;
            in_set(set, byte).then(|| behind.get(1..).unwrap_or_default())
        }
        _ => (first == byte).then_some(rest),
    }
}

/// Whether the byte is one of a set such as `0-9a-f`.
fn in_set(mut set: &[u8], byte: u8) -> bool {
    while let Some((&low, rest)) = set.split_first() {
        let (high, behind) = match rest {
            [b'-', high, behind @ ..] => (*high, behind),
            _ => (low, rest),
        };
        if (low..=high).contains(&byte) {
            return true;
        }
        set = behind;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_the_shells_do() {
        for (pattern, text, expected) in [
            ("pci:v00001AF4d00001000sv*sd*bc*sc*i*", "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", true),
            ("pci:v00001AF4d00001001sv*sd*bc*sc*i*", "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", false),
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("usb:v0B95p*d00[0-2][0-9]dc*", "usb:v0B95p7720d0019dcFF", true),
            ("usb:v0B95p*d00[0-2][0-9]dc*", "usb:v0B95p7720d0039dcFF", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b", "aXbc", false),
            ("?", "", false),
            ("*", "", true),
            ("", "", true),
            ("[", "[", false),
            ("a[]b", "ab", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_full_of_stars_takes_no_exponential_time() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(4000).as_bytes()));
    }
}
