//! How many files the agent may have open: connections of clients and of jobs are files too.

use crate::console;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for all that is bounded elsewhere, many times over.
const WANTED: u64 = 65_536;

/// Raises the limit to what is wanted, or as far as the system lets it be. The kernel begins with 1024, for programs of old.
pub fn raise() {
    let mut refused = None;
    for limit in ways(getrlimit(Resource::Nofile)) {
        match setrlimit(Resource::Nofile, limit) {
            Ok(()) => return,
            Err(error) => refused = Some(error),
        }
    }
    if let Some(error) = refused {
        console::say(format_args!("the limit of open files is not raised: {error}"));
    }
}

/// The limits to try, the best first; none where there is nothing to raise.
fn ways(found: Rlimit) -> Vec<Rlimit> {
    let is_enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= WANTED);
    if is_enough(found.current) {
        return Vec::new();
    }
    let within = Rlimit { current: Some(found.maximum.map_or(WANTED, |maximum| maximum.min(WANTED))), ..found };
    let beyond = Rlimit { current: Some(WANTED), maximum: Some(WANTED) };
    if is_enough(found.maximum) { vec![within] } else { vec![beyond, within] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_within_the_hard_one_or_both_where_that_is_low_and_never_lowered() {
        let limit = |current, maximum| Rlimit { current, maximum };
        let ways = |current, maximum| {
            let ways = ways(limit(current, maximum)).into_iter();
            ways.map(|way| (way.current, way.maximum)).collect::<Vec<_>>()
        };
        assert_eq!(ways(Some(1024), Some(1 << 20)), [(Some(WANTED), Some(1 << 20))]);
        assert_eq!(ways(Some(1024), None), [(Some(WANTED), None)]);
        assert_eq!(ways(Some(1024), Some(4096)), [(Some(WANTED), Some(WANTED)), (Some(4096), Some(4096))]);
        assert_eq!(ways(Some(1 << 20), Some(1 << 20)), []);
        assert_eq!(ways(None, None), []);
    }
}
