//! The patterns of module aliases: `*`, `?` and `[…]` of glob(7), where `*` matches everything, `/` too.

/// Whether `text` matches `pattern`. Takes at most the product of the two lengths in steps.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.as_bytes(), text.as_bytes());
    // What comes after the last star, and the text that it was last tried on.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some(rest) = pattern.strip_prefix(b"*") {
            retry = Some((rest, text));
            pattern = rest;
            continue;
        }
        let step = match text.split_first() {
            None if pattern.is_empty() => return true,
            None => return false,
            Some((byte, rest)) => one(pattern, *byte).map(|pattern| (pattern, rest)),
        };
        if let Some((next_pattern, next_text)) = step {
            (pattern, text) = (next_pattern, next_text);
            continue;
        }
        let Some((after_star, tried)) = retry else { return false };
        let Some((_, longer)) = tried.split_first() else { return false };
        retry = Some((after_star, longer));
        (pattern, text) = (after_star, longer);
    }
}

/// What is left of a pattern once its first part has matched a byte.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (first, rest) = pattern.split_first()?;
    match first {
        b'?' => Some(rest),
        b'[' => set(rest, byte),
        b'\\' => rest.split_first().filter(|(literal, _)| **literal == byte).map(|(_, rest)| rest),
        literal => (*literal == byte).then_some(rest),
    }
}

/// A set after its opening bracket: bytes and ranges, all others when it begins with `!`.
fn set(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut rest) = match pattern.strip_prefix(b"!") {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (mut found, mut first) = (false, true);
    loop {
        let (low, after) = rest.split_first()?;
        if *low == b']' && !first {
            return (found != negated).then_some(after);
        }
        let (high, after) = match after {
            [b'-', high, after @ ..] if *high != b']' => (high, after),
            _ => (low, after),
        };
        found |= (low..=high).contains(&&byte);
        (rest, first) = (after, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_of_real_modules_match_real_devices() {
        let disk = "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01";
        assert!(matches("pci:v*d*sv*sd*bc01sc06i01*", disk));
        assert!(!matches("pci:v*d*sv*sd*bc01sc08i02*", disk));
        assert!(matches("virtio:d00000002v*", "virtio:d00000002v00001AF4"));
        assert!(matches("usb:v0419pAACEd010[0-9]dc*", "usb:v0419pAACEd0103dc08"));
        assert!(matches("acpi*:LNXPWRBN:*", "acpi:LNXPWRBN:"));
    }

    #[test]
    fn sets_hold_bytes_and_ranges() {
        assert!(matches("a[1-3x]c", "a2c") && matches("a[1-3x]c", "axc") && !matches("a[1-3x]c", "a4c"));
        assert!(matches("a[!1]c", "a2c") && !matches("a[!1]c", "a1c"));
        assert!(matches("[]]", "]") && !matches("[", "["));
    }

    #[test]
    fn stars_match_anything_and_nothing() {
        assert!(matches("*", "") && matches("a*", "a") && matches("*a*b", "xxaxxb") && !matches("*a*b", "xxaxx"));
        assert!(!matches("a?", "a") && !matches("", "a") && matches("", ""));
    }

    #[test]
    fn a_pattern_of_many_stars_ends_soon() {
        assert!(!matches(&"a*".repeat(40), &format!("{}b", "a".repeat(38))));
    }
}
