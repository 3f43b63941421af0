//! What happens to a request before a model sees it: templates, tokens, grammars. It takes memory that is many times the
//! text's, so that only a few requests are prepared at once, whatever the number of connections.

use super::error::ApiError;
use tokio::sync::Semaphore;

/// Requests that are prepared at once.
const AT_ONCE: usize = 2;

/// The queue before that work.
#[derive(Debug)]
pub struct Preparing(Semaphore);

impl Default for Preparing {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

impl Preparing {
    /// Does such work when its turn comes; other requests go on meanwhile.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn run<T>(&self, work: impl FnOnce() -> Result<T, ApiError>) -> Result<T, ApiError> {
        let _turn = self.0.acquire().await.map_err(|error| ApiError::Internal(error.to_string()))?;
        tokio::task::block_in_place(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
        time::Duration,
    };

    #[test]
    fn only_a_few_requests_are_prepared_at_once() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(8).build().unwrap();
        let (preparing, now, most) =
            (Arc::new(Preparing::default()), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        runtime.block_on(async {
            let each = (0..8).map(|_| {
                let (preparing, now, most) = (preparing.clone(), now.clone(), most.clone());
                tokio::spawn(async move {
                    let work = || {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(30));
                        now.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    };
                    preparing.run(work).await.unwrap();
                })
            });
            futures::future::join_all(each).await.into_iter().for_each(Result::unwrap);
        });
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
    }
}
