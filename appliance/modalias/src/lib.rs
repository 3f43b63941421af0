//! Patterns of kernel module aliases: which device, or which name, asks for which module.
//!
//! They are those of `modules.alias` (modules.alias(5) does not spell them out; kmod matches with fnmatch(3) and no
//! flags): `*` matches any bytes, `/` too, `?` one byte, `[…]` one of a set, which begins with `!` when it is one of
//! all others. Outside of sets, `-` and `_` are one byte to the kernel's tools, and so they are here: a module calls its
//! device `scsi:t-0x00*` where another program's table has `scsi:t_0x00*`.

/// Whether `name` as a whole matches `pattern`.
///
/// Takes time in proportion to the product of both lengths, whatever the pattern.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.as_bytes(), name.as_bytes());
    // Where to go on when a later part fails: behind the last star, with one more byte swallowed by it.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        let advanced = match (pattern.split_first(), name.split_first()) {
            (Some((b'*', rest)), _) => {
                retry = Some((rest, name));
                Some((rest, name))
            }
            (Some((&first, rest)), Some((&byte, behind))) => match_one(first, rest, byte).map(|rest| (rest, behind)),
            (None, None) => return true,
            (Some(_), None) | (None, Some(_)) => None,
        };
        (pattern, name) = match (advanced, retry) {
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
        b'[' => match_set(rest, byte),
        b'-' | b'_' => matches!(byte, b'-' | b'_').then_some(rest),
        _ => (first == byte).then_some(rest),
    }
}

/// Matches one byte against a set such as `0-9a-f]`, from behind its opening bracket; returns the pattern behind it.
fn match_set(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut rest) = match pattern.strip_prefix(b"!") {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (mut found, mut empty) = (false, true);
    loop {
        let (&low, behind) = rest.split_first()?;
        // A bracket that comes first is a member.
        if low == b']' && !empty {
            return (found != negated).then_some(behind);
        }
        let (high, behind) = match behind {
            [b'-', high, behind @ ..] if *high != b']' => (*high, behind),
            _ => (low, behind),
        };
        found |= (low..=high).contains(&byte);
        (rest, empty) = (behind, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, name, expected) in [
            ("pci:v00001AF4d00001000sv*sd*bc*sc*i*", "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", true),
            ("pci:v00001AF4d00001001sv*sd*bc*sc*i*", "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", false),
            ("pci:v*d*sv*sd*bc01sc08i02*", "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02", true),
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("usb:v0B95p*d00[0-2][0-9]dc*", "usb:v0B95p7720d0019dcFF", true),
            ("usb:v0B95p*d00[0-2][0-9]dc*", "usb:v0B95p7720d0039dcFF", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b", "aXbc", false),
            ("*", "a/b", true),
            ("?", "", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("[!a-c]", "d", true),
            ("[!a-c]", "b", false),
            ("[]a]", "]", true),
            ("[a-]", "-", true),
            ("[", "[", false),
            ("a[]b", "ab", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn hyphens_are_underscores_but_not_in_sets() {
        assert!(matches("scsi:t-0x00*", "scsi:t-0x00"));
        assert!(matches("scsi:t_0x00*", "scsi:t-0x00"));
        assert!(matches("fs-ext4", "fs_ext4"));
        assert!(!matches("[_]", "-"));
    }

    #[test]
    fn a_pattern_full_of_stars_takes_no_exponential_time() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(&pattern, &"a".repeat(4000)));
    }
}
