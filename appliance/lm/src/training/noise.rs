//! Random numbers that follow from a key and a place alone, so that they can be made again in any order.

/// A key of its own for each thing (a step, a layer) that needs noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x6761_7069_6d61_6765))
    }

    /// The key of part `index`.
    #[must_use]
    pub const fn part(self, index: u64) -> Self {
        Self(mix(self.0 ^ mix(index.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    /// Evenly distributed bits.
    #[must_use]
    pub const fn bits(self, place: u64) -> u64 {
        mix(self.0.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Evenly distributed from 0 to below 1.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "24 bits fit")]
    pub fn unit(self, place: u64) -> f32 {
        (self.bits(place) >> 40) as f32 / 16_777_216.0
    }

    /// Normally distributed with mean 0 and deviation 1 (Box–Muller).
    #[must_use]
    pub fn normal(self, place: u64) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit(2 * place)).ln()).sqrt();
        radius * (std::f32::consts::TAU * self.unit(2 * place + 1)).cos()
    }
}

/// `SplitMix64`'s finaliser.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn numbers_are_spread_as_they_say() {
        let key = Key::new(7).part(3);
        let count = 100_000;
        let mean = |of: fn(f32) -> f32, draw: &dyn Fn(u64) -> f32| {
            (0..count).map(|at| f64::from(of(draw(at)))).sum::<f64>() / count as f64
        };
        assert!((mean(|x| x, &|at| key.unit(at)) - 0.5).abs() < 0.005);
        assert!(mean(|x| x, &|at| key.normal(at)).abs() < 0.01);
        assert!((mean(|x| x * x, &|at| key.normal(at)) - 1.0).abs() < 0.02);
        assert_ne!(key.bits(0), Key::new(7).part(4).bits(0));
    }
}
