//! Distributions of lengths.

use serde::Serialize;

/// A distribution of lengths. Percentiles are by nearest rank: each is the length of an example.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// The sum of all lengths.
    pub total: u64,
    /// The shortest.
    pub least: u32,
    /// The average, rounded down.
    pub mean: u64,
    /// Half are not longer.
    pub median: u32,
    /// 90 % are not longer.
    pub p90: u32,
    /// 99 % are not longer.
    pub p99: u32,
    /// The longest.
    pub most: u32,
    /// Numbers of examples up to powers of two.
    pub buckets: Vec<Bucket>,
}

/// Examples of similar length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// The longest that is counted here; those before it count shorter ones.
    pub up_to: u64,
    /// How many there are.
    pub examples: u64,
}

impl Histogram {
    pub(super) fn of(mut lengths: Vec<u32>) -> Self {
        lengths.sort_unstable();
        let total: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
        let rank = |percent: usize| {
            let rank = (lengths.len() * percent).div_ceil(100).max(1) - 1;
            lengths.get(rank).copied().unwrap_or_default()
        };
        Self {
            total,
            least: rank(0),
            mean: total.checked_div(lengths.len() as u64).unwrap_or_default(),
            median: rank(50),
            p90: rank(90),
            p99: rank(99),
            most: rank(100),
            buckets: buckets(&lengths),
        }
    }
}

fn buckets(sorted: &[u32]) -> Vec<Bucket> {
    let mut rest = sorted;
    let mut buckets = Vec::new();
    let mut up_to = 16u64;
    while !rest.is_empty() {
        let count = rest.partition_point(|&length| u64::from(length) <= up_to);
        buckets.push(Bucket { up_to, examples: count as u64 });
        rest = rest.get(count..).unwrap_or_default();
        up_to *= 2;
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_summed_up() {
        let histogram = Histogram::of((1..=100).rev().collect());
        assert_eq!(
            (histogram.least, histogram.median, histogram.p90, histogram.p99, histogram.most),
            (1, 50, 90, 99, 100)
        );
        assert_eq!((histogram.total, histogram.mean), (5050, 50));
        let buckets: Vec<_> = histogram.buckets.iter().map(|bucket| (bucket.up_to, bucket.examples)).collect();
        assert_eq!(buckets, [(16, 16), (32, 16), (64, 32), (128, 36)]);
        assert_eq!(Histogram::of(vec![]), Histogram::default());
        assert_eq!(Histogram::of(vec![u32::MAX]).buckets.last().unwrap().up_to, 1 << 32);
    }
}
