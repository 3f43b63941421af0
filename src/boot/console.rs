//! The serial console of a machine, read as lines of text.
//!
//! What a guest writes is hostile: escape sequences and control characters are taken out before
//! anybody sees it, and lines have a longest length.

/// Longest line kept, in characters; a longer one is broken.
const MAX_LINE: usize = 1024;

/// How `gap-init` says that it will not start what it found.
const NOT_TRUSTED: &str = "gap-init: not trusted: ";
/// How `gap-init` says that it could not start.
const FAILED: &str = "gap-init: failed: ";
/// How the kernel says that it gave up.
const PANIC: &str = "Kernel panic - not syncing: ";

/// Why a boot came to its end, in the console's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The release was refused.
    NotTrusted(String),
    /// Something went wrong.
    Failed(String),
}

impl Stop {
    /// What `line` says, if it tells of an end.
    pub fn of_line(line: &str) -> Option<Self> {
        if let Some(reason) = line.strip_prefix(NOT_TRUSTED) {
            return Some(Self::NotTrusted(reason.to_owned()));
        }
        if let Some(reason) = line.strip_prefix(FAILED) {
            return Some(Self::Failed(reason.to_owned()));
        }
        let (_, reason) = line.split_once(PANIC)?;
        Some(Self::Failed(format!("kernel panic: {reason}")))
    }
}

/// Where in an escape sequence (ECMA-48) the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    Escape,
    ControlSequence,
}

/// Turns the bytes of a console into lines.
#[derive(Debug)]
pub struct Lines {
    state: State,
    line: Vec<u8>,
}

impl Default for Lines {
    fn default() -> Self {
        Self { state: State::Text, line: Vec::new() }
    }
}

impl Lines {
    /// Takes bytes in and gives the lines that they complete, without what does not print.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut complete = Vec::new();
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (_, 0x1b) => State::Escape,
                (State::Escape, b'[') => State::ControlSequence,
                (State::ControlSequence, 0x20..=0x3f) => State::ControlSequence,
                (State::Escape | State::ControlSequence, _) => State::Text,
                (State::Text, b'\n') => {
                    complete.push(self.take());
                    State::Text
                }
                (State::Text, b'\t' | b' '..) => {
                    self.line.push(byte);
                    if self.line.len() >= MAX_LINE {
                        complete.push(self.take());
                    }
                    State::Text
                }
                (State::Text, _) => State::Text,
            };
        }
        complete
    }

    /// The line that has no end yet.
    pub fn take(&mut self) -> String {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        text.chars().filter(|&character| !character.is_control() || character == '\t').collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        let mut lines = Lines::default();
        assert_eq!(
            lines.push(b"\x1b[2J\x1b[01;01Hone\r\n\x1b]0;title\x07two\n\xc2\x9b31mx\n"),
            ["one", "0;titletwo", "31mx"]
        );
        assert_eq!(lines.push(b"half"), Vec::<String>::new());
        assert_eq!(lines.push(b" line\n"), ["half line"]);
    }

    #[test]
    fn an_endless_line_is_broken() {
        assert_eq!(Lines::default().push(&[b'x'; 3000]).len(), 2);
    }

    #[test]
    fn the_end_of_a_boot_is_told_apart() {
        let not_trusted = Stop::of_line("gap-init: not trusted: the key k1 is revoked");
        assert_eq!(not_trusted, Some(Stop::NotTrusted("the key k1 is revoked".into())));
        assert_eq!(Stop::of_line("gap-init: failed: no medium"), Some(Stop::Failed("no medium".into())));
        let panic = "[    2.5] Kernel panic - not syncing: Attempted to kill init!";
        assert_eq!(Stop::of_line(panic), Some(Stop::Failed("kernel panic: Attempted to kill init!".into())));
        assert_eq!(Stop::of_line("echo gap-init: not trusted: no"), None);
    }
}
