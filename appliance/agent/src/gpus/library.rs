//! The driver's library, asked while GPUs work: by one at a time, and not waited for without end. A driver that hangs so
//! holds one thread, and nobody who wants to know.

use crate::{console, root::Root};
use gap_gpu::nvml::{Library, Sample};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Mutex, task::spawn_blocking, time::timeout};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The library, kept open from the first time that somebody asks on; `None` inside where it cannot be loaded.
#[derive(Default)]
pub struct Sampler(Alone<Option<Option<Library>>>);

impl Sampler {
    /// What every GPU measures now; nothing where there is no library or no driver. `None` where an answer does not come,
    /// or another one is waited for already.
    pub async fn samples(&self, root: &Root) -> Option<Vec<Sample>> {
        let root = root.clone();
        let ask = move |library: &mut Option<Option<Library>>| {
            let library = library.get_or_insert_with(|| Library::load(&root).map_err(console::say).ok());
            library.as_ref().map(Library::samples).unwrap_or_default()
        };
        self.0.ask(PATIENCE, ask).await
    }
}

/// Something that is asked by one at a time.
#[derive(Default)]
struct Alone<T>(Arc<Mutex<T>>);

impl<T: Send + 'static> Alone<T> {
    /// Asks on a thread of its own. `None` where that is not done after `patience`, or is still being asked.
    async fn ask<R: Send + 'static>(
        &self,
        patience: Duration,
        ask: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Option<R> {
        let mut turn = Arc::clone(&self.0).try_lock_owned().ok()?;
        // The turn ends with the answer, not with the patience.
        timeout(patience, spawn_blocking(move || ask(&mut turn))).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn what_hangs_is_asked_once_and_holds_nobody_up() {
        let alone = Alone::<u32>::default();
        let (go_on, wait) = mpsc::channel::<()>();
        let hang = move |asked: &mut u32| {
            *asked += 1;
            wait.recv().unwrap_or_default();
        };
        let short = Duration::from_millis(50);
        assert_eq!(alone.ask(short, hang).await, None);
        let count = |asked: &mut u32| {
            *asked += 1;
            *asked
        };
        assert_eq!(alone.ask(Duration::from_secs(60), count).await, None, "another one is waited for");
        drop(go_on);
        let answer = async {
            loop {
                if let Some(asked) = alone.ask(Duration::from_secs(60), count).await {
                    return asked;
                }
                tokio::time::sleep(short).await;
            }
        };
        assert_eq!(timeout(Duration::from_secs(60), answer).await, Ok(2), "once while it hung, and now");
    }
}
