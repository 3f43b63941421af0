//! What the agent says on the consoles: single lines that begin with `gapd: `.

use std::{
    fmt,
    io::{self, Write},
};

/// Says one line on the consoles, which are the standard output that PID 1 gave.
///
/// Everything but plain text in it is escaped. A console that fails is no reason to stop.
pub fn say(line: impl fmt::Display) {
    let line = format!("gapd: {}\n", Printable(&line.to_string()));
    drop(io::stdout().lock().write_all(line.as_bytes()));
}

/// Text from outside, with everything escaped that could move a cursor, hide or reorder what is shown.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            let plain = c == ' ' || c.is_alphanumeric() || c.is_ascii_graphic();
            if plain { write!(f, "{c}")? } else { write!(f, "{}", c.escape_unicode())? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_write_a_line_of_its_own() {
        assert_eq!(Printable("eth0\ngapd: fine\x1b[2J").to_string(), "eth0\\u{a}gapd: fine\\u{1b}[2J");
    }
}
