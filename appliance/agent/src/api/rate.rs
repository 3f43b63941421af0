//! How many requests are taken: a bucket of them for each token, and one for each address of who shows none.
//!
//! A bucket is kept as the one time at which it is full again (the generic cell rate algorithm, ITU-T I.371), so that a
//! bucket that is full takes no memory.

use super::lockout::network_of;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Most buckets that are not full at once; above that the fullest one is forgotten.
const MAX_BUCKETS: usize = 8192;

/// How often something may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Looking at things and changing them.
    Usual,
    /// Talking to models, and bringing files in parts.
    Bulk,
}

impl Pace {
    /// Requests a second in the long run, and how many at once before that counts.
    const fn limits(self) -> (u32, u32) {
        match self {
            Self::Usual => (50, 500),
            Self::Bulk => (500, 5000),
        }
    }

    /// How long it takes until one more request may come.
    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.limits().0
    }
}

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sender {
    /// Who shows no token: the address, or the /64 of IPv6.
    Address(IpAddr),
    /// The token of this name for machines.
    Token(String),
}

/// The buckets that are not full.
#[derive(Debug, Default)]
pub struct RateLimits(Mutex<BTreeMap<(Sender, Pace), Instant>>);

impl RateLimits {
    /// Counts a request.
    ///
    /// # Errors
    /// How long the sender has to wait, when it was one too many; that one does not count.
    pub fn take(&self, sender: Sender, pace: Pace, now: Instant) -> Result<(), Duration> {
        let sender = match sender {
            Sender::Address(address) => Sender::Address(network_of(address)),
            token @ Sender::Token(_) => token,
        };
        let key = (sender, pace);
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = buckets.get(&key).copied().filter(|at| *at > now).unwrap_or(now);
        let (_, burst) = pace.limits();
        let interval = pace.interval();
        let ahead = full_at.saturating_duration_since(now).saturating_add(interval);
        let wait = ahead.saturating_sub(interval.saturating_mul(burst));
        if !wait.is_zero() {
            return Err(wait);
        }
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&key) {
            forget(&mut buckets, now);
        }
        buckets.insert(key, full_at + interval);
        Ok(())
    }
}

/// Makes room: buckets that are full go, and if there are none, the one that is full soonest.
fn forget(buckets: &mut BTreeMap<(Sender, Pace), Instant>, now: Instant) {
    buckets.retain(|_, full_at| *full_at > now);
    if buckets.len() >= MAX_BUCKETS {
        let soonest = buckets.iter().min_by_key(|(_, full_at)| **full_at).map(|(key, _)| key.clone());
        soonest.and_then(|key| buckets.remove(&key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str) -> Sender {
        Sender::Token(name.to_owned())
    }

    #[test]
    fn a_burst_is_taken_and_then_only_as_many_as_come_back() {
        let (limits, now) = (RateLimits::default(), Instant::now());
        let (rate, burst) = Pace::Usual.limits();
        for n in 0..burst {
            assert_eq!(limits.take(token("a"), Pace::Usual, now), Ok(()), "{n}");
        }
        let wait = limits.take(token("a"), Pace::Usual, now).unwrap_err();
        assert_eq!(wait, Duration::from_secs(1) / rate);
        assert_eq!(limits.take(token("b"), Pace::Usual, now), Ok(()), "another token has a bucket of its own");
        assert_eq!(limits.take(token("a"), Pace::Bulk, now), Ok(()), "another kind of work as well");
        let later = now + Duration::from_secs(1);
        let taken = (0..burst).filter(|_| limits.take(token("a"), Pace::Usual, later).is_ok()).count();
        assert_eq!(taken, usize::try_from(rate).unwrap());
        let rested = later + Duration::from_secs(u64::from(burst));
        assert_eq!((0..burst).filter(|_| limits.take(token("a"), Pace::Usual, rested).is_ok()).count(), 500);
    }

    #[test]
    fn an_ipv6_network_has_one_bucket() {
        let (limits, now) = (RateLimits::default(), Instant::now());
        let mut refused = 0;
        for n in 0..600 {
            let address = format!("2001:db8::{n:x}").parse().unwrap();
            refused += u32::from(limits.take(Sender::Address(address), Pace::Usual, now).is_err());
        }
        assert_eq!(refused, 100);
    }

    #[test]
    fn many_senders_do_not_fill_the_memory() {
        let (limits, now) = (RateLimits::default(), Instant::now());
        for n in 0..9000_u32 {
            limits.take(Sender::Address(IpAddr::from(n.to_be_bytes())), Pace::Usual, now).unwrap();
        }
        assert_eq!(limits.0.lock().unwrap().len(), MAX_BUCKETS);
        limits.take(token("a"), Pace::Usual, now + Duration::from_secs(60)).unwrap();
        assert_eq!(limits.0.lock().unwrap().len(), 1, "full ones are forgotten");
    }
}
