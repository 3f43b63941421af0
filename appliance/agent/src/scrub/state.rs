//! What is known about each layer so far, shared between the scrubber and the API.

use super::Layer;
use serde::Serialize;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most ranges kept for one layer; further damage only lengthens the last one.
const MAX_RANGES: usize = 256;

/// How far the scrubber is with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerState {
    /// Its turn has not come; each read is checked all the same.
    Unread,
    /// It is being read.
    Checking,
    /// Every block was read and agreed with the verity root.
    Verified,
    /// At least one block could not be read or did not agree.
    Damaged,
}

/// A range of bytes of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// Progress on one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProgress {
    /// How far the scrubber is.
    pub state: LayerState,
    /// Bytes that were read, or were tried to be.
    pub checked_bytes: u64,
    /// What was found damaged, rising, neighbours joined.
    pub damaged: Vec<Range>,
}

/// Progress on all layers, in the order in which they are read.
#[derive(Debug)]
pub struct Board(Mutex<Vec<(Layer, LayerProgress)>>);

impl Board {
    /// A board on which no layer is read yet.
    pub fn new(layers: Vec<Layer>) -> Self {
        let board = Self(Mutex::default());
        board.add(layers);
        board
    }

    /// Further layers that are to be read.
    pub fn add(&self, layers: Vec<Layer>) {
        let unread = LayerProgress { state: LayerState::Unread, checked_bytes: 0, damaged: Vec::new() };
        self.lock().extend(layers.into_iter().map(|layer| (layer, unread.clone())));
    }

    /// A copy of everything known now.
    pub fn layers(&self) -> Vec<(Layer, LayerProgress)> {
        self.lock().clone()
    }

    /// Whether damage was found anywhere.
    pub fn is_damaged(&self) -> bool {
        self.lock().iter().any(|(_, progress)| !progress.damaged.is_empty())
    }

    /// The scrubber begins with a layer.
    pub fn begin(&self, number: usize) {
        self.change(number, |layer| layer.state = LayerState::Checking);
    }

    /// The layer was read up to this byte.
    pub fn checked(&self, number: usize, up_to: u64) {
        self.change(number, |layer| layer.checked_bytes = up_to);
    }

    /// A range is damaged. Ranges come rising; returns whether this one is not the mere continuation of the last.
    pub fn damage(&self, number: usize, range: Range) -> bool {
        let mut is_new = false;
        self.change(number, |layer| {
            layer.state = LayerState::Damaged;
            let is_full = layer.damaged.len() >= MAX_RANGES;
            match layer.damaged.last_mut() {
                Some(last) if is_full || last.offset.saturating_add(last.length) == range.offset => {
                    last.length = range.offset.saturating_add(range.length).saturating_sub(last.offset);
                }
                _ => {
                    layer.damaged.push(range);
                    is_new = true;
                }
            }
        });
        is_new
    }

    /// The scrubber is through with a layer.
    pub fn end(&self, number: usize) {
        self.change(number, |layer| {
            layer.state = if layer.damaged.is_empty() { LayerState::Verified } else { LayerState::Damaged };
        });
    }

    fn change(&self, number: usize, change: impl FnOnce(&mut LayerProgress)) {
        if let Some((_, progress)) = self.lock().get_mut(number) {
            change(progress);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Layer, LayerProgress)>> {
        // A thread that died while it held the lock left at worst a progress that is a step behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gap_format::Digest;

    #[test]
    fn endless_damage_does_not_fill_the_memory() {
        let digest = Digest::of(b"");
        let source = super::super::layers::Source::Device("/dev/dm-0".to_owned());
        let (image, name) = ("os".into(), "x".into());
        let board = Board::new(vec![Layer { image, name, digest, size: 1 << 40, verity_root: digest, source }]);
        for n in 0..10_000 {
            board.damage(0, Range { offset: n * 8192, length: 4096 });
        }
        let damaged = board.layers().remove(0).1.damaged;
        assert_eq!(damaged.len(), MAX_RANGES);
        assert_eq!(damaged.last().map(|r| r.offset + r.length), Some(9_999 * 8192 + 4096));
    }
}
