//! Debian version numbers: syntax and order (Debian Policy 5.6.12, deb-version(7)).

use std::cmp::Ordering;

/// Why a text is not a Debian version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a Debian version: expected [epoch:]upstream[-revision], such as 1:2.36-9+deb12u4")]
pub struct InvalidVersion(pub String);

/// Refuses what deb-version(7) does not allow.
///
/// # Errors
/// [`InvalidVersion`] naming the text.
pub fn validate(version: &str) -> Result<(), InvalidVersion> {
    let invalid = || InvalidVersion(version.chars().take(80).collect());
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (Some(epoch), rest),
        None => (None, version),
    };
    if let Some(epoch) = epoch
        && (epoch.is_empty() || !epoch.bytes().all(|b| b.is_ascii_digit()) || epoch.parse::<i32>().is_err())
    {
        return Err(invalid());
    }
    let (upstream, revision) = match rest.rsplit_once('-') {
        Some((upstream, revision)) => (upstream, Some(revision)),
        None => (rest, None),
    };
    let upstream_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-' | b'~' | b':');
    let revision_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'~');
    if upstream.is_empty() || !upstream.bytes().all(upstream_ok) {
        return Err(invalid());
    }
    if revision.is_some_and(|text| text.is_empty() || !text.bytes().all(revision_ok)) {
        return Err(invalid());
    }
    Ok(())
}

/// Compares two versions as dpkg does. Total on any text: what is not a valid version still has a
/// place in the order, so that hostile input cannot make sorting misbehave.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left_epoch, left_rest) = split_epoch(left);
    let (right_epoch, right_rest) = split_epoch(right);
    let (left_upstream, left_revision) = split_revision(left_rest);
    let (right_upstream, right_revision) = split_revision(right_rest);
    compare_digits(left_epoch.as_bytes(), right_epoch.as_bytes())
        .then_with(|| compare_part(left_upstream.as_bytes(), right_upstream.as_bytes()))
        .then_with(|| compare_part(left_revision.as_bytes(), right_revision.as_bytes()))
}

fn split_epoch(version: &str) -> (&str, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) if epoch.bytes().all(|b| b.is_ascii_digit()) => (epoch, rest),
        _ => ("", version),
    }
}

fn split_revision(rest: &str) -> (&str, &str) {
    rest.rsplit_once('-').unwrap_or((rest, ""))
}

/// The weight of one byte in the non-digit parts: `~` before the end, the end (and digits, which
/// end the part) before letters, letters before everything else.
fn weight(byte: Option<u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(b) if b.is_ascii_digit() => 0,
        Some(b) if b.is_ascii_alphabetic() => i32::from(b),
        Some(b) => i32::from(b) + 256,
    }
}

fn compare_part(mut left: &[u8], mut right: &[u8]) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        loop {
            let (l, r) = (left.first().copied(), right.first().copied());
            let at_text = |b: Option<u8>| b.is_some_and(|b| !b.is_ascii_digit());
            if !at_text(l) && !at_text(r) {
                break;
            }
            let order = weight(l).cmp(&weight(r));
            if order != Ordering::Equal {
                return order;
            }
            left = left.get(1..).unwrap_or_default();
            right = right.get(1..).unwrap_or_default();
        }
        let (left_digits, left_rest) = take_digits(left);
        let (right_digits, right_rest) = take_digits(right);
        let order = compare_digits(left_digits, right_digits);
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

fn take_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// Compares two numbers of any length without converting them.
fn compare_digits(left: &[u8], right: &[u8]) -> Ordering {
    let strip = |digits: &[u8]| digits.iter().position(|&b| b != b'0').unwrap_or(digits.len());
    let left = left.get(strip(left)..).unwrap_or_default();
    let right = right.get(strip(right)..).unwrap_or_default();
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn the_order_is_that_of_policy() {
        let ascending = [
            "1.0~~", "1.0~~a", "1.0~", "1.0", "1.0-0", "1.0-0+b1", "1.0a", "1.0+b", "1.0.1", "1.2", "1.10", "0:2",
            "1:0.1",
        ];
        for (i, left) in ascending.iter().enumerate() {
            for (j, right) in ascending.iter().enumerate() {
                let expected = if (*left == "1.0" && *right == "1.0-0") || (*left == "1.0-0" && *right == "1.0") {
                    Ordering::Equal
                } else {
                    i.cmp(&j)
                };
                assert_eq!(compare(left, right), expected, "{left} against {right}");
            }
        }
    }

    #[test]
    fn malformed_versions_are_refused() {
        for bad in ["", ":1", "a:1", "1:", "1-", "-1", "1 2", "1_2", "99999999999:1", "1-a_b"] {
            assert!(validate(bad).is_err(), "{bad:?}");
        }
        for good in ["1", "1:2-3-4", "6.12.94-1", "1:2:3-4", "0~git2024", "1.0+dfsg-1~bpo12+1"] {
            assert!(validate(good).is_ok(), "{good:?}");
        }
    }

    fn version() -> impl Strategy<Value = String> {
        proptest::string::string_regex("([0-2]:)?[0-9][0-9a-cA-C.+~]{0,6}(-[0-9a-c.+~]{1,4})?").unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]
        #[test]
        fn the_order_is_that_of_dpkg(left in version(), right in version()) {
            let ask = |operator: &str| {
                Command::new("dpkg").args(["--compare-versions", &left, operator, &right]).status().map(|s| s.success())
            };
            let Ok(less) = ask("lt") else { return Ok(()) };
            let expected = match (less, ask("eq").unwrap()) {
                (true, _) => Ordering::Less,
                (_, true) => Ordering::Equal,
                _ => Ordering::Greater,
            };
            prop_assert_eq!(compare(&left, &right), expected, "{} against {}", left, right);
        }
    }

    proptest! {
        #[test]
        fn the_order_is_antisymmetric_on_any_text(left in ".{0,12}", right in ".{0,12}") {
            prop_assert_eq!(compare(&left, &right), compare(&right, &left).reverse());
        }
    }
}
