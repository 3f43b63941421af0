//! Counting wrong tokens and codes by the address that they come from.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Wrong tokens and codes that an address may send within [`WINDOW`].
const ALLOWED: u32 = 10;
/// The time in which they are counted, from the first one on.
const WINDOW: Duration = Duration::from_secs(60);
/// Most addresses that are remembered at once.
const MAX_ADDRESSES: usize = 4096;

/// Who sent wrong tokens or codes lately.
#[derive(Debug, Default)]
pub struct Lockout(Mutex<BTreeMap<IpAddr, Count>>);

#[derive(Debug, Clone, Copy)]
struct Count {
    since: Instant,
    wrong: u32,
}

impl Lockout {
    /// How long this address has to wait, when it has to. A right token is not looked at either until then: else
    /// guessing could go on.
    pub fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&network_of(address))?;
        let left = WINDOW.checked_sub(now.saturating_duration_since(count.since))?;
        (count.wrong >= ALLOWED).then_some(left)
    }

    /// This address sent a wrong token or code.
    pub fn wrong(&self, address: IpAddr, now: Instant) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |count: &Count| now.saturating_duration_since(count.since) > WINDOW;
        let address = network_of(address);
        if counts.len() >= MAX_ADDRESSES && !counts.contains_key(&address) {
            counts.retain(|_, count| !is_over(count));
            if counts.len() >= MAX_ADDRESSES {
                // Forget who began first: it is free soonest anyway.
                let oldest = counts.iter().min_by_key(|(_, count)| count.since).map(|(address, _)| *address);
                oldest.and_then(|oldest| counts.remove(&oldest));
            }
        }
        let count = counts.entry(address).or_insert(Count { since: now, wrong: 0 });
        if is_over(count) {
            *count = Count { since: now, wrong: 0 };
        }
        count.wrong = count.wrong.saturating_add(1);
    }
}

/// What one attacker has at least: an IPv4 address, or a whole /64 of IPv6.
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_wrong_tokens_lock_an_address_out_for_the_rest_of_the_minute() {
        let lockout = Lockout::default();
        let began = Instant::now();
        let (bad, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for n in 0..10 {
            assert_eq!(lockout.wait(bad, began), None, "{n}");
            lockout.wrong(bad, began);
        }
        assert_eq!(lockout.wait(bad, began + Duration::from_secs(15)), Some(Duration::from_secs(45)));
        assert_eq!(lockout.wait("::ffff:192.0.2.1".parse().unwrap(), began), Some(WINDOW));
        assert_eq!(lockout.wait(other, began), None);
        assert_eq!(lockout.wait(bad, began + Duration::from_secs(61)), None);
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let lockout = Lockout::default();
        let now = Instant::now();
        for n in 0..10 {
            lockout.wrong(format!("2001:db8::{n}").parse().unwrap(), now);
        }
        assert!(lockout.wait("2001:db8::ffff".parse().unwrap(), now).is_some());
        assert!(lockout.wait("2001:db8:0:1::1".parse().unwrap(), now).is_none());
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory() {
        let lockout = Lockout::default();
        let now = Instant::now();
        for n in 0..10_000_u32 {
            lockout.wrong(IpAddr::from(n.to_be_bytes()), now);
        }
        assert_eq!(lockout.0.lock().unwrap().len(), MAX_ADDRESSES);
    }
}
