//! Intervals by resampling: how far a number would move with other examples of the same kind.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Both ends of an interval that covers 95 % of the resamples.
pub type Interval = (f64, f64);

/// Draws resamples of `count` examples and computes `statistic` on the chosen indices of each.
///
/// The same seed gives the same interval. None where there are fewer than two examples, or a statistic that is not finite.
pub fn interval(count: usize, resamples: usize, seed: u64, statistic: impl Fn(&[usize]) -> f64) -> Option<Interval> {
    if count < 2 || resamples == 0 {
        return None;
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut indices = vec![0; count];
    let mut found = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        indices.iter_mut().for_each(|index| *index = random.gen_range(0..count));
        found.push(statistic(&indices));
    }
    found.sort_by(f64::total_cmp);
    let outside = resamples / 40;
    let ends = (*found.get(outside)?, *found.get(resamples - 1 - outside)?);
    (ends.0.is_finite() && ends.1.is_finite()).then_some(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64], indices: &[usize]) -> f64 {
        indices.iter().filter_map(|&index| values.get(index)).sum::<f64>() / indices.len() as f64
    }

    #[test]
    fn the_interval_of_a_coin_is_that_of_the_binomial() {
        let values: Vec<f64> = (0..400).map(|index| f64::from(index % 2)).collect();
        let (low, high) = interval(400, 2000, 7, |indices| mean(&values, indices)).unwrap();
        assert!((low - 0.451).abs() < 0.01 && (high - 0.549).abs() < 0.01, "{low} {high}");
    }

    #[test]
    fn the_seed_decides() {
        let values: Vec<f64> = (0..50).map(f64::from).collect();
        let with = |seed| interval(50, 500, seed, |indices| mean(&values, indices)).unwrap();
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }

    #[test]
    fn one_example_has_no_interval() {
        assert_eq!(interval(1, 100, 1, |_| 0.0), None);
    }
}
