//! The same work on many things, on several threads.

use std::{
    cmp::Reverse,
    num::NonZeroUsize,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

/// Does `work` on every item, on at most `threads` threads at once. Results come in the order of the items, whatever the
/// timing. Items of the greatest `weight` are begun first, so that no thread is left alone with a large one at the end.
///
/// # Errors
/// That of the first item, in their order, that failed; once one has failed, no further one is begun.
pub fn try_map<T, R, E>(
    items: &[T],
    threads: NonZeroUsize,
    weight: impl Fn(&T) -> u64,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E>
where
    T: Sync,
    R: Send,
    E: Send,
{
    let mut order: Vec<(usize, &T)> = items.iter().enumerate().collect();
    order.sort_by_key(|(_, item)| Reverse(weight(item)));
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let run = || {
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let Some(&(index, item)) = order.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let result = work(item);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            done.push((index, result));
        }
        done
    };
    let mut results = thread::scope(|scope| {
        // The calling thread works too.
        let workers: Vec<_> = (1..threads.get().min(items.len())).map(|_| scope.spawn(run)).collect();
        let mut results = run();
        for worker in workers {
            match worker.join() {
                Ok(done) => results.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_by_key(|&(index, _)| index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    const FOUR: NonZeroUsize = NonZeroUsize::new(4).unwrap();

    #[test]
    fn results_come_in_the_order_of_the_items_and_the_heaviest_is_begun_first() {
        let items: Vec<u64> = (0..100).map(|number| number * 37 % 101).collect();
        let begun = Mutex::new(Vec::new());
        let double = |&item: &u64| -> Result<u64, ()> {
            begun.lock().unwrap().push(item);
            Ok(item * 2)
        };
        let doubled = try_map(&items, FOUR, |&item| item, double).unwrap();
        assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        begun.lock().unwrap().clear();
        try_map(&items, NonZeroUsize::MIN, |&item| item, double).unwrap();
        assert!(begun.lock().unwrap().is_sorted_by(|earlier, later| earlier >= later));
        assert_eq!(try_map(&[], FOUR, |_| 0, double), Ok(Vec::new()));
    }

    #[test]
    fn the_first_failure_is_told_and_ends_the_work() {
        let items: Vec<u64> = (0..1000).collect();
        let done = AtomicUsize::new(0);
        let work = |&item: &u64| match item {
            2 | 3 => Err(item),
            _ => {
                done.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        };
        assert_eq!(try_map(&items, NonZeroUsize::MIN, |_| 0, work), Err(2));
        assert_eq!(done.load(Ordering::Relaxed), 2);
        // Whichever of both is met first by four threads, the failure of the earlier item is told if both were begun.
        assert!(matches!(try_map(&items, FOUR, |_| 0, work), Err(2 | 3)));
    }

    #[test]
    fn several_threads_take_part() {
        let barrier = std::sync::Barrier::new(FOUR.get());
        let meet = |_: &u64| -> Result<bool, ()> { Ok(barrier.wait().is_leader()) };
        let leaders = try_map(&[0; 4], FOUR, |_| 0, meet).unwrap();
        assert_eq!(leaders.into_iter().filter(|&leader| leader).count(), 1);
    }
}
