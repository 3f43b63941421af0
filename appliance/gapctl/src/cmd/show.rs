//! What people read: tables and lists of names with values.

use jiff::Timestamp;
use serde_json::Value;
use std::{
    fmt::Write as _,
    io::{self, Write},
    mem, process,
};

/// How a program ends whose output nobody reads any more: as the signal SIGPIPE would have it.
const NOBODY_READS: i32 = 128 + 13;

/// Writes to standard output.
pub fn text(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        given_up(&error);
    }
}

/// The same with the end of a line.
pub fn line(text: impl Into<String>) {
    self::text(&(text.into() + "\n"));
}

/// Ends the program where standard output takes nothing more. Nobody reads any more (`| head`) is no mistake; a full disk is
/// one.
pub fn given_up(error: &io::Error) -> ! {
    if error.kind() != io::ErrorKind::BrokenPipe {
        eprintln!("writing to standard output: {error}");
        process::exit(1);
    }
    process::exit(NOBODY_READS);
}

/// Prints rows below their headings, each column as wide as it has to be. The last column is not filled up.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) {
    text(&layout(headings, rows));
}

fn layout<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let lines: Vec<[String; N]> =
        std::iter::once(headings.map(str::to_owned)).chain(rows.iter().map(|row| row.clone().map(plain))).collect();
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// Prints names with their values, those that have one.
pub fn values(pairs: &[(&str, String)]) {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        line(format!("{name:width$}  {}", plain(value.clone())));
    }
}

/// Whether a terminal does something for this character instead of showing it: moves its cursor, takes a new title or
/// clipboard, or shows what follows in another order.
fn commands(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text from the appliance as a terminal may have it, in one line.
pub fn plain(text: String) -> String {
    if text.chars().any(commands) {
        text.chars().map(|c| if commands(c) { '\u{fffd}' } else { c }).collect()
    } else {
        text
    }
}

/// The same for text of several lines.
pub fn plain_lines(text: &str) -> String {
    text.chars().map(|c| if commands(c) && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}

/// A value as one line of JSON that means the same, without characters that command a terminal.
pub fn json_line(value: &Value) -> String {
    let mut line = String::new();
    for c in value.to_string().chars() {
        // Outside of its texts JSON has no such character, and all of them are single UTF-16 units.
        let _ = if commands(c) { write!(line, "\\u{:04x}", u32::from(c)) } else { write!(line, "{c}") };
    }
    line
}

/// Hands on what is written to it as [`plain_lines`], wherever characters are cut.
pub struct Plain<W> {
    to: W,
    /// What has come of a character that is not whole.
    cut: Vec<u8>,
}

impl<W: Write> Plain<W> {
    /// To a terminal.
    pub const fn new(to: W) -> Self {
        Self { to, cut: Vec::new() }
    }
}

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.cut.extend_from_slice(piece);
        let whole = match str::from_utf8(&self.cut) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.cut.len(),
        };
        let rest = self.cut.split_off(whole);
        let shown = mem::replace(&mut self.cut, rest);
        self.to.write_all(plain_lines(&String::from_utf8_lossy(&shown)).as_bytes())?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Seconds since 1970 as a time of day (RFC 3339, UTC).
pub fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// A number of bytes.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows =
            [["a".to_owned(), "é".to_owned(), String::new()], ["long".to_owned(), "b".to_owned(), "c".to_owned()]];
        assert_eq!(layout(["ID", "X", "END"], &rows), "ID    X  END\na     é\nlong  b  c\n");
    }

    #[test]
    fn what_the_appliance_says_cannot_move_the_cursor() {
        assert_eq!(plain("a\u{1b}[2Jb\n".to_owned()), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(plain_lines("a\nb\u{7}\t\u{202e}"), "a\nb\u{fffd}\t\u{fffd}");
    }

    #[test]
    fn json_for_programs_means_the_same_and_commands_no_terminal() {
        let value = serde_json::json!({"error": "\u{1b}]0;x\u{7}\u{9b}\u{7f}\u{202e}é"});
        let line = json_line(&value);
        assert!(!line.chars().any(commands) && line.contains('é'), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }

    #[test]
    fn a_character_may_come_in_pieces() {
        let whole = "Grüß\u{1b}[2J €\u{9b}\n".as_bytes();
        for size in 1..=whole.len() {
            let mut out = Vec::new();
            let mut plain = Plain::new(&mut out);
            whole.chunks(size).for_each(|piece| plain.write_all(piece).unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), "Grüß\u{fffd}[2J €\u{fffd}\n", "{size}");
        }
    }
}
