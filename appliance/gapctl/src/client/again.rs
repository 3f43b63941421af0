//! Trying again what may succeed soon.

use super::ClientError;
use std::{thread, time::Duration};

/// The first pause before another try; each further one is twice as long, up to [`LONGEST_OWN_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_OWN_PAUSE: Duration = Duration::from_secs(15);
/// The appliance asks for no longer pause than this, or its answer is taken for the end.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Tries so many times in all, with pauses that grow, as long as what went wrong [may pass](ClientError::is_passing).
///
/// # Errors
/// What the last try gave, or the first that will not pass.
pub fn patiently<T>(tries: u32, mut attempt: impl FnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
    let mut pause = PAUSE;
    for _ in 1..tries {
        match attempt() {
            Err(error) if error.is_passing() => {
                let wished = match error {
                    ClientError::Refused { retry_after: Some(wish), .. } if wish > LONGEST_PAUSE => return Err(error),
                    ClientError::Refused { retry_after: Some(wish), .. } => wish,
                    _ => pause,
                };
                thread::sleep(wished);
                pause = (pause * 2).min(LONGEST_OWN_PAUSE);
            }
            other => return other,
        }
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn refused(status: u16) -> ClientError {
        ClientError::Refused { status, message: String::new(), code: String::new(), retry_after: Some(Duration::ZERO) }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        const TRIES: u32 = 5;
        let tries = Cell::new(0);
        let attempt = |status: u16, until: u32| {
            tries.set(0);
            patiently(TRIES, || {
                tries.set(tries.get() + 1);
                if tries.get() < until { Err(refused(status)) } else { Ok(()) }
            })
        };
        assert!(attempt(503, 3).is_ok() && tries.get() == 3);
        assert!(attempt(429, TRIES + 1).is_err() && tries.get() == TRIES);
        assert!(attempt(400, 2).is_err() && tries.get() == 1);
    }
}
