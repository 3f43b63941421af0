//! Handing a finished report to standard output.

use serde::Serialize;
use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

/// The value as indented JSON in plain ASCII with a line break at the end: text from an artifact can neither command a
/// terminal nor change the order in which it is read.
pub fn ascii_json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string_pretty(value)?;
    let mut ascii = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        if character.is_ascii() && character != '\u{7f}' {
            ascii.push(character);
            continue;
        }
        // JSON escapes UTF-16 code units (RFC 8259, section 7).
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(ascii, "\\u{unit:04x}");
        }
    }
    ascii.push('\n');
    Ok(ascii)
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
///
/// # Errors
/// What the system said.
pub fn print(text: &str) -> io::Result<()> {
    print_bytes(text.as_bytes())
}

/// Writes to standard output, as [`print`] does.
///
/// # Errors
/// What the system said.
pub fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_ascii_and_means_the_same() {
        let value = serde_json::json!({ "name": "a\u{1b}[2J\u{7f}\u{9b}\u{202e}é😀" });
        let text = ascii_json(&value).unwrap();
        assert!(text.bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
