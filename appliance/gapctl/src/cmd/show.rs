//! What people read: tables and lists of names with values.

use jiff::Timestamp;

/// Prints rows below their headings, each column as wide as it has to be. The last column is not filled up.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) {
    print!("{}", layout(headings, rows));
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
        println!("{name:width$}  {}", plain(value.clone()));
    }
}

/// Text from the appliance as a terminal may have it: control characters would move its cursor or worse.
pub fn plain(text: String) -> String {
    if text.chars().any(char::is_control) {
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    } else {
        text
    }
}

/// The same for text of several lines.
pub fn plain_lines(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
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
        assert_eq!(plain_lines("a\nb\u{7}"), "a\nb\u{fffd}");
    }
}
