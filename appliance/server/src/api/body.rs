//! Bodies of requests: JSON of bounded length, in bounded time, and in bounded memory together.

use super::{Served, error::ApiError};
use crate::metrics::Meters;
use axum::{
    extract::{FromRequest, Request},
    http::header,
};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Longest body, in bytes.
const MAX_BODY: usize = 8 << 20;
/// Most bytes of all bodies that are held at once: a request has no place before its body was read, and what is made of a body
/// takes many times its length.
const MAX_HELD: usize = 64 << 20;
/// Of each body so many bytes count among the beginnings of all, which have [`MAX_BEGINNINGS`] for themselves: long bodies that
/// stop arriving keep no short ones out.
const BEGINNING: usize = 64 << 10;
/// Most bytes of beginnings that are held at once; part of [`MAX_HELD`].
const MAX_BEGINNINGS: usize = 16 << 20;
/// Time for a body to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

/// Above this, numbers with fractions have no last digit before the point.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// Fields with values of the client's own, which reach the model as they were written.
const FREE: [&str; 5] = ["messages", "tools", "response_format", "chat_template_kwargs", "metadata"];

/// A request whose fields are all known: one that is misspelt must not be passed over.
pub trait Fields: DeserializeOwned {
    /// Their names.
    const KNOWN: &'static [&'static [&'static str]];
}

/// A body that was JSON and is what it should be, and its room. Whoever is done with the request drops both.
#[derive(Debug)]
pub struct Body<T>(pub T, pub Held);

/// Room that a body takes among all that are held; dropped, it is free again.
#[derive(Debug)]
pub struct Held {
    _beginning: OwnedSemaphorePermit,
    _rest: OwnedSemaphorePermit,
}

/// The room for bodies.
#[derive(Debug, Clone)]
pub struct Bodies {
    beginnings: Arc<Semaphore>,
    rests: Arc<Semaphore>,
    meters: Arc<Meters>,
}

impl Bodies {
    /// With nothing in it.
    pub fn new(meters: Arc<Meters>) -> Self {
        let room = |bytes| Arc::new(Semaphore::new(bytes));
        Self { beginnings: room(MAX_BEGINNINGS), rests: room(MAX_HELD - MAX_BEGINNINGS), meters }
    }

    /// Receives a body. It takes room only for what has arrived, so that who is slow keeps nobody out.
    async fn receive(&self, body: axum::body::Body) -> Result<(Vec<u8>, Held), ApiError> {
        let no_room = |_| {
            self.meters.refused.inc();
            ApiError::NoRoom { retry_after: self.meters.typical_seconds() }
        };
        let take = |room: &Arc<Semaphore>, bytes: usize| {
            let bytes = u32::try_from(bytes).map_err(|_| ApiError::BodyTooLong(MAX_BODY))?;
            room.clone().try_acquire_many_owned(bytes).map_err(no_room)
        };
        let (mut beginning, mut rest) = (take(&self.beginnings, 0)?, take(&self.rests, 0)?);
        let mut received = Vec::new();
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| ApiError::BodyTooSlow)?;
            if received.len() + piece.len() > MAX_BODY {
                return Err(ApiError::BodyTooLong(MAX_BODY));
            }
            let begun = piece.len().min(BEGINNING.saturating_sub(received.len()));
            beginning.merge(take(&self.beginnings, begun)?);
            rest.merge(take(&self.rests, piece.len() - begun)?);
            received.extend_from_slice(&piece);
        }
        Ok((received, Held { _beginning: beginning, _rest: rest }))
    }
}

impl<T: Fields> FromRequest<Served> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, served: &Served) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::NotJson);
        }
        let body = timeout(ARRIVAL, served.bodies.receive(request.into_body()));
        let (body, held) = body.await.map_err(|_| ApiError::BodyTooSlow)??;
        Ok(Self(parse(&body)?, held))
    }
}

fn parse<T: Fields>(body: &[u8]) -> Result<T, ApiError> {
    let invalid = |message: String| ApiError::Invalid { message, param: None };
    let mut fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| invalid(format!("the body is no JSON object: {error}")))?;
    let known = |name: &String| T::KNOWN.iter().any(|names| names.contains(&name.as_str()));
    if let Some(name) = fields.keys().find(|name| !known(name)) {
        return Err(invalid(format!("{name:?} is none of the fields that this path takes; /openapi.json lists them")));
    }
    fields.iter_mut().filter(|(name, _)| !FREE.contains(&name.as_str())).for_each(|(_, value)| make_whole(value));
    T::deserialize(Value::Object(fields)).map_err(|error| invalid(format!("the body is not valid: {error}")))
}

/// Writes numbers such as `2.0` as `2`: in JSON Schema they are integers as well.
fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < EXACT);
            if let (true, Some(whole)) = (number.is_f64(), whole) {
                #[allow(clippy::cast_possible_truncation, reason = "it is whole, and small enough")]
                let whole = whole as i64;
                *number = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(make_whole),
        Value::Object(fields) => fields.iter_mut().for_each(|(_, value)| make_whole(value)),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body as Raw;
    use serde::Deserialize;

    #[test]
    fn bodies_beyond_the_room_are_refused_and_others_arrive() {
        let room = |bytes| Arc::new(Semaphore::new(bytes));
        let bodies = Bodies { beginnings: room(10), rests: room(MAX_BODY), meters: Arc::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (first, held) = bodies.receive(Raw::from("1234567")).await.unwrap();
            assert_eq!(first, b"1234567");
            let refused = bodies.receive(Raw::from("1234")).await.unwrap_err();
            assert_eq!(refused, ApiError::NoRoom { retry_after: 1 });
            assert_eq!(bodies.meters.refused.get(), 1);
            // What was refused takes no room, and what announces much and sends little takes little.
            let slow = futures::stream::once(async { Ok::<_, std::io::Error>("1") }).chain(futures::stream::pending());
            let slow = tokio::spawn({
                let (bodies, slow) = (bodies.clone(), Raw::from_stream(slow));
                async move { bodies.receive(slow).await.map(|_| ()) }
            });
            while bodies.beginnings.available_permits() != 2 {
                tokio::task::yield_now().await;
            }
            let (_, second) = bodies.receive(Raw::from("12")).await.unwrap();
            assert!(bodies.receive(Raw::from("1")).await.is_err());
            slow.abort();
            assert!(slow.await.unwrap_err().is_cancelled());
            drop((held, second));
            assert_eq!(bodies.beginnings.available_permits(), 10);
            // Nothing is left for long ones, and short ones arrive.
            let bodies = Bodies { beginnings: room(MAX_BEGINNINGS), rests: room(0), meters: Arc::default() };
            assert!(bodies.receive(Raw::from(vec![b'x'; BEGINNING + 1])).await.is_err());
            let (short, _held) = bodies.receive(Raw::from(vec![b'x'; BEGINNING])).await.unwrap();
            assert_eq!(short.len(), BEGINNING);
            let long = Raw::from(vec![b'x'; MAX_BODY + 1]);
            assert_eq!(bodies.receive(long).await.unwrap_err(), ApiError::BodyTooLong(MAX_BODY));
        });
    }

    #[derive(Debug, Deserialize)]
    struct Asked {
        n: i64,
        temperature: f32,
        tools: Value,
    }

    impl Fields for Asked {
        const KNOWN: &'static [&'static [&'static str]] = &[&["n", "temperature", "tools"]];
    }

    #[test]
    fn whole_numbers_may_have_a_point_and_tools_stay_as_they_were_written() {
        let read: Asked = parse(br#"{"n": 3.0, "temperature": 1.0, "tools": [{"default": 1.0}]}"#).unwrap();
        assert_eq!((read.n, read.temperature, read.tools.to_string().as_str()), (3, 1.0, r#"[{"default":1.0}]"#));
        assert!(parse::<Asked>(br#"{"n": 3.5, "temperature": 1, "tools": []}"#).is_err());
        assert!(parse::<Asked>(br#"{"n": 1e30, "temperature": 1, "tools": []}"#).is_err());
    }
}
