//! The instructions of pickle, protocols 0 to 5 (Python's `pickletools`).

/// What follows an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Argument {
    None,
    /// So many bytes.
    Fixed(u64),
    /// A line.
    Line,
    /// Two lines: module and name.
    TwoLines,
    /// A length of so many bytes, and so many bytes as it says.
    Counted(u8),
}

/// What an instruction does to the stack and the memo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Takes so many, puts so many that nothing is known of.
    Replace(usize, usize),
    /// Puts its argument as a text.
    Text,
    /// Puts a mark.
    Mark,
    /// Takes everything down to the mark, and puts so many.
    ToMark(usize),
    Duplicate,
    /// Notes the top under the number in its argument, or under the next free one.
    Put,
    Memoize,
    /// Puts what was noted.
    Get,
    /// Imports what its argument names.
    Global,
    /// The same, then takes everything down to the mark.
    Instance,
    /// Imports what the two texts on top name.
    StackGlobal,
    /// Imports by a number that the loading program has registered.
    Extension,
    Stop,
}

/// Argument and effect of an instruction; `None` if there is no such one.
pub(super) const fn meaning(opcode: u8) -> Option<(Argument, Effect)> {
    use Argument::{Counted, Fixed, Line, None as Nothing, TwoLines};
    use Effect::{
        Duplicate, Extension, Get, Global, Instance, Mark, Memoize, Put, Replace, StackGlobal, Stop, Text, ToMark,
    };
    Some(match opcode {
        b'(' => (Nothing, Mark),
        b'.' => (Nothing, Stop),
        b'0' => (Nothing, Replace(1, 0)),
        b'1' => (Nothing, ToMark(0)),
        b'2' => (Nothing, Duplicate),
        b'F' | b'I' | b'L' | b'P' => (Line, Replace(0, 1)),
        b'S' | b'V' => (Line, Text),
        b'J' => (Fixed(4), Replace(0, 1)),
        b'K' => (Fixed(1), Replace(0, 1)),
        b'M' => (Fixed(2), Replace(0, 1)),
        b'G' => (Fixed(8), Replace(0, 1)),
        b'N' | b']' | b'}' | b')' | 0x88 | 0x89 | 0x8f | 0x97 => (Nothing, Replace(0, 1)),
        b'Q' | 0x85 | 0x98 => (Nothing, Replace(1, 1)),
        b'R' | 0x81 | 0x86 => (Nothing, Replace(2, 1)),
        0x87 | 0x92 => (Nothing, Replace(3, 1)),
        b'T' | b'X' => (Counted(4), Text),
        b'U' | 0x8c => (Counted(1), Text),
        0x8d => (Counted(8), Text),
        b'B' | 0x8b => (Counted(4), Replace(0, 1)),
        b'C' | 0x8a => (Counted(1), Replace(0, 1)),
        0x8e | 0x96 => (Counted(8), Replace(0, 1)),
        b'a' | b'b' => (Nothing, Replace(2, 1)),
        b's' => (Nothing, Replace(3, 1)),
        b'd' | b'l' | b't' | b'o' | 0x91 => (Nothing, ToMark(1)),
        b'e' | b'u' | 0x90 => (Nothing, ToMark(0)),
        b'c' => (TwoLines, Global),
        b'i' => (TwoLines, Instance),
        b'g' => (Line, Get),
        b'h' => (Fixed(1), Get),
        b'j' => (Fixed(4), Get),
        b'p' => (Line, Put),
        b'q' => (Fixed(1), Put),
        b'r' => (Fixed(4), Put),
        0x80 => (Fixed(1), Replace(0, 0)),
        0x82 => (Fixed(1), Extension),
        0x83 => (Fixed(2), Extension),
        0x84 => (Fixed(4), Extension),
        0x93 => (Nothing, StackGlobal),
        0x94 => (Nothing, Memoize),
        0x95 => (Fixed(8), Replace(0, 0)),
        _ => return None,
    })
}
