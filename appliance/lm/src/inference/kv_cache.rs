//! Keys and values of all running sequences, in blocks of one pool that is sized once, so that no sequence can ask for
//! memory that there is not.

use super::decoder_config::DecoderConfig;
use candle_core::{DType, Device, Result, Tensor, bail};

/// Positions of a block.
pub const BLOCK: usize = 32;

/// The pool.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<(Tensor, Tensor)>,
    free: Vec<u32>,
    blocks: usize,
}

/// The part of the pool that belongs to one sequence. It must go back with [`KvCache::release`].
#[derive(Debug, Default)]
pub struct Allocation {
    blocks: Vec<u32>,
}

impl KvCache {
    /// A pool of whole blocks for `positions` positions. Memory is touched only as it is used.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn new(config: &DecoderConfig, positions: usize, device: &Device) -> Result<Self> {
        let blocks = positions.div_ceil(BLOCK);
        let shape = (blocks * BLOCK, config.key_heads * config.head_width);
        let table = || Tensor::zeros(shape, DType::F32, device);
        let layers = (0..config.layers).map(|_| Ok((table()?, table()?))).collect::<Result<_>>()?;
        // Taken from the end: the first blocks first.
        let free = (0..u32::try_from(blocks).map_err(candle_core::Error::wrap)?).rev().collect();
        Ok(Self { layers, free, blocks })
    }

    /// Bytes that one position takes in all layers.
    pub const fn bytes_per_position(config: &DecoderConfig) -> usize {
        config.layers * config.key_heads * config.head_width * 2 * size_of::<f32>()
    }

    /// Positions of the whole pool.
    pub const fn capacity(&self) -> usize {
        self.blocks * BLOCK
    }

    /// Positions in blocks that belong to nobody.
    pub const fn free(&self) -> usize {
        self.free.len() * BLOCK
    }

    /// Makes room for `positions` positions in all; whether there was enough. If not, nothing changes.
    #[must_use]
    pub fn reserve(&mut self, allocation: &mut Allocation, positions: usize) -> bool {
        let missing = positions.div_ceil(BLOCK).saturating_sub(allocation.blocks.len());
        let Some(kept) = self.free.len().checked_sub(missing) else { return false };
        allocation.blocks.extend(self.free.drain(kept..).rev());
        true
    }

    /// Takes the blocks back.
    pub fn release(&mut self, allocation: &mut Allocation) {
        self.free.extend(allocation.blocks.drain(..).rev());
    }

    /// Keys and values of a layer, a row for each position of the pool.
    pub(super) fn layer(&self, index: usize) -> Result<&(Tensor, Tensor)> {
        match self.layers.get(index) {
            Some(layer) => Ok(layer),
            None => bail!("the cache has no layer {index}"),
        }
    }

    /// Stores rows of a layer for the positions from `start` on.
    pub(super) fn store(&self, layer: usize, at: &Allocation, start: usize, k: &Tensor, v: &Tensor) -> Result<()> {
        let (keys, values) = self.layer(layer)?;
        let count = k.dim(0)?;
        let mut done = 0;
        while done < count {
            let position = start + done;
            let Some(block) = at.blocks.get(position / BLOCK) else { bail!("position {position} was not reserved") };
            let row = *block as usize * BLOCK + position % BLOCK;
            let run = (BLOCK - position % BLOCK).min(count - done);
            keys.slice_set(&k.narrow(0, done, run)?, 0, row)?;
            values.slice_set(&v.narrow(0, done, run)?, 0, row)?;
            done += run;
        }
        Ok(())
    }
}

impl Allocation {
    /// The blocks, in the order of positions.
    pub(super) fn blocks(&self) -> &[u32] {
        &self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::decoder_config::{Family, Rope, Scaling};

    fn cache(positions: usize) -> KvCache {
        let config = DecoderConfig {
            family: Family::Llama,
            vocabulary: 8,
            hidden: 8,
            intermediate: 8,
            layers: 1,
            heads: 2,
            key_heads: 1,
            head_width: 4,
            norm_epsilon: 1e-6,
            rope: Rope { theta: 10_000.0, scaling: Scaling::None },
            context: 128,
            tied: true,
            windows: vec![None],
            ends: vec![],
        };
        KvCache::new(&config, positions, &Device::Cpu).unwrap()
    }

    #[test]
    fn what_is_released_can_be_reserved_again() {
        let mut cache = cache(3 * BLOCK);
        let (mut a, mut b) = (Allocation::default(), Allocation::default());
        assert!(cache.reserve(&mut a, BLOCK + 1));
        assert!(!cache.reserve(&mut b, BLOCK + 1));
        assert_eq!((a.blocks(), b.blocks(), cache.free()), (&[0, 1][..], &[][..], BLOCK));
        cache.release(&mut a);
        assert!(cache.reserve(&mut b, 3 * BLOCK));
        assert_eq!((b.blocks(), cache.free()), (&[0, 1, 2][..], 0));
    }

    #[test]
    fn rows_are_stored_across_blocks_that_do_not_follow_one_another() {
        let mut cache = cache(4 * BLOCK);
        let (mut a, mut b) = (Allocation::default(), Allocation::default());
        assert!(cache.reserve(&mut a, 1) && cache.reserve(&mut b, 1) && cache.reserve(&mut a, 2 * BLOCK));
        let rows = Tensor::arange(0f32, 16.0, &Device::Cpu).unwrap().reshape((4, 4)).unwrap();
        cache.store(0, &a, BLOCK - 2, &rows, &rows).unwrap();
        let found = cache.layer(0).unwrap().0.to_vec2::<f32>().unwrap();
        assert_eq!(found[BLOCK - 1], [4.0, 5.0, 6.0, 7.0]);
        assert_eq!(found[2 * BLOCK], [8.0, 9.0, 10.0, 11.0]);
        assert!(cache.store(0, &b, BLOCK, &rows, &rows).is_err());
    }
}
