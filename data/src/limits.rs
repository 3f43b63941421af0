//! How much of a hostile input is taken.

/// Bounds on what is read. Memory follows from them: a few rows of the longest length, and about 130 bytes for each
/// example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one row: a line of JSON Lines, a record of CSV, a page of Parquet, a document of text.
    pub row_bytes: usize,
    /// Rows of all inputs together, at most 2³² − 1.
    pub rows: u32,
    /// Problems that are kept with their place; further ones are counted by kind.
    pub problems: usize,
    /// Places of personal data that are kept for each kind; further ones are counted.
    pub places: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { row_bytes: 16 << 20, rows: 50_000_000, problems: 100, places: 20 }
    }
}
