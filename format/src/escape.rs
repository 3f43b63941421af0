//! Showing text from an artifact to a person without letting it command their terminal.

/// The text with everything but printable ASCII written as an escape (`\n`, `\u{1b}`).
///
/// Nothing that comes from an artifact may be printed without this, unless its alphabet was checked.
pub fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_ascii_graphic() || c == ' ' { vec![c] } else { c.escape_default().collect() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_lookalikes_become_escapes() {
        assert_eq!(escaped("a b\u{1b}[2J\n\u{202e}é"), "a b\\u{1b}[2J\\n\\u{202e}\\u{e9}");
    }
}
