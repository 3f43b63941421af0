//! Examples side by side, without padding.

use std::fmt;

/// Several sequences one after the other, and which of their tokens count.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Batch {
    tokens: Vec<u32>,
    positions: Vec<usize>,
    bounds: Vec<usize>,
    counted: Vec<u32>,
    targets: Vec<u32>,
    /// Where the counted tokens of each sequence begin, and where the last ones end.
    counted_bounds: Vec<usize>,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} sequences, {} tokens, {} counted)", self.sequences(), self.tokens.len(), self.targets.len())
    }
}

impl Batch {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self { bounds: vec![0], counted_bounds: vec![0], ..Self::default() }
    }

    /// Adds a sequence; of each token is said whether it counts. The first never does, as nothing foretells it.
    pub fn push(&mut self, tokens: impl IntoIterator<Item = (u32, bool)>) {
        let first = self.tokens.len();
        for (token, counts) in tokens {
            let at = self.tokens.len();
            if counts && at > first {
                self.counted.push(u32::try_from(at - 1).unwrap_or(u32::MAX));
                self.targets.push(token);
            }
            self.positions.push(at - first);
            self.tokens.push(token);
        }
        self.bounds.push(self.tokens.len());
        self.counted_bounds.push(self.targets.len());
    }

    /// How many sequences there are.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    /// All tokens.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The position of each token in its sequence.
    #[must_use]
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// Where sequences begin, and where the last one ends.
    #[must_use]
    pub fn bounds(&self) -> &[usize] {
        &self.bounds
    }

    /// The rows whose next token counts.
    #[must_use]
    pub fn counted(&self) -> &[u32] {
        &self.counted
    }

    /// The tokens that count.
    #[must_use]
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// Where in [`Batch::targets`] those of each sequence begin, and where the last ones end.
    #[must_use]
    pub fn counted_bounds(&self) -> &[usize] {
        &self.counted_bounds
    }
}
