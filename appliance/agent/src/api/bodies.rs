//! Memory for bodies of requests, which wait in it as a whole until they are answered.

use super::{ApiError, MAX_BODY};
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Bytes of all long bodies together.
const ALL: usize = 256 << 20;
/// What is counted, in bytes.
const UNIT: usize = 1 << 10;

/// Room for long bodies. Those of the usual length are not counted: all connections together bring few bytes in them.
pub(super) struct Bodies(Arc<Semaphore>);

/// A body, and the room that it takes as long as this lives.
pub(super) struct Held {
    pub bytes: Bytes,
    room: Option<OwnedSemaphorePermit>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self::of(ALL)
    }
}

impl Bodies {
    fn of(all: usize) -> Self {
        Self(Arc::new(Semaphore::new(all / UNIT)))
    }

    /// Reads a body of at most `limit` bytes, as soon as there is room for it. Waits so long for room, and so long for the
    /// body.
    pub async fn read(&self, body: Body, limit: usize, patience: Duration) -> Result<Held, ApiError> {
        // Of one that does not say how long it is, everything may come.
        let most = body.size_hint().upper().map_or(limit, |most| usize::try_from(most).unwrap_or(usize::MAX));
        if most > limit {
            return Err(ApiError::BodyTooLong);
        }
        let mut room = None;
        if most > MAX_BODY {
            let wanted = Arc::clone(&self.0).acquire_many_owned(units(most));
            let granted = timeout(patience, wanted).await.map_err(|_| ApiError::Crowded)?;
            room = Some(granted.map_err(|_| ApiError::Internal)?);
        }
        let bytes = match timeout(patience, to_bytes(body, limit)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(_)) => return Err(ApiError::BodyTooLong),
            Err(_) => return Err(ApiError::BodyTooSlow),
        };
        if let Some(room) = &mut room {
            drop(room.split(room.num_permits().saturating_sub(units(bytes.len()) as usize)));
        }
        Ok(Held { bytes, room })
    }
}

impl Held {
    /// The body for its handler, and what to keep until it is answered.
    pub fn part(self) -> (Body, Option<OwnedSemaphorePermit>) {
        (Body::from(self.bytes), self.room)
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);
    const LONG: usize = 700 << 10;

    #[tokio::test]
    async fn long_bodies_wait_for_room_and_short_ones_do_not() {
        let bodies = Bodies::of(1 << 20);
        let read = async |len| bodies.read(Body::from(vec![0; len]), 1 << 20, PATIENCE).await;
        let first = read(LONG).await.unwrap();
        assert!(matches!(read(LONG).await, Err(ApiError::Crowded)));
        assert_eq!(read(MAX_BODY).await.unwrap().bytes.len(), MAX_BODY);
        let (body, room) = first.part();
        drop(body);
        assert!(read(LONG).await.is_err(), "it is not answered yet");
        drop(room);
        assert_eq!(read(LONG).await.unwrap().bytes.len(), LONG);
        assert!(matches!(read(2 << 20).await, Err(ApiError::BodyTooLong)));
    }

    #[tokio::test]
    async fn a_body_that_does_not_say_its_length_takes_what_it_has() {
        let bodies = Bodies::of(1 << 20);
        let pieces = || Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>(vec![0; LONG / 2])]));
        let read = async || bodies.read(pieces(), 1 << 20, PATIENCE).await;
        let first = read().await.unwrap();
        assert!(read().await.is_err(), "it may become as long as the limit");
        drop(first);
        let _first = read().await.unwrap();
        assert_eq!(bodies.0.available_permits(), (1 << 10) - LONG / 2 / UNIT);
    }
}
