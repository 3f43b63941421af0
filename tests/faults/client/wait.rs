//! Waiting for what takes its time: the appliance, a file's check, a job.

use super::{Client, ClientError};
use serde_json::Value;
use std::{
    thread,
    time::{Duration, Instant},
};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest that one look at an appliance that may not be up takes: its network may swallow what is sent too early.
const LOOK: Duration = Duration::from_secs(3);
/// Longest that an appliance may be unreachable while something on it is waited for.
const UNREACHABLE: Duration = Duration::from_secs(300);

/// Why what was waited for did not come.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// A request failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It took too long.
    #[error("{what} within {} s", limit.as_secs())]
    TooLong {
        /// What did not happen.
        what: &'static str,
        /// How long it was given.
        limit: Duration,
    },
}

impl Client {
    /// Waits until the appliance answers and takes jobs. Returns its answer.
    ///
    /// # Errors
    /// [`WaitError`].
    pub fn wait_until_ready(&self, limit: Duration) -> Result<Value, WaitError> {
        let until = Instant::now() + limit;
        loop {
            match self.get_within("/healthz", LOOK) {
                Ok(health) if health.get("jobs").and_then(Value::as_str) != Some("starting") => return Ok(health),
                Ok(_) => {}
                Err(error) if error.is_passing() => {}
                Err(error) => return Err(error.into()),
            }
            if Instant::now() >= until {
                return Err(WaitError::TooLong { what: "the appliance did not become ready", limit });
            }
            thread::sleep(PAUSE);
        }
    }

    /// Looks at a path until `wanted` gives something for the answer, over an appliance that starts again meanwhile.
    ///
    /// # Errors
    /// [`WaitError`].
    pub fn wait_for<T>(
        &self,
        path: &str,
        limit: Option<Duration>,
        mut wanted: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T, WaitError> {
        let (begun, mut answered) = (Instant::now(), Instant::now());
        loop {
            match self.get(path) {
                Ok(value) => {
                    answered = Instant::now();
                    if let Some(found) = wanted(&value) {
                        return Ok(found);
                    }
                }
                Err(error) if error.is_passing() && answered.elapsed() < UNREACHABLE => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(limit) = limit.filter(|limit| begun.elapsed() >= *limit) {
                return Err(WaitError::TooLong { what: "what was waited for did not happen", limit });
            }
            thread::sleep(PAUSE);
        }
    }
}
