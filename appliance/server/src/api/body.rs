//! Bodies of requests: JSON of bounded length, in bounded time.

use super::error::ApiError;
use axum::{
    body::to_bytes,
    extract::{FromRequest, Request},
    http::header,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::time::timeout;

/// Longest body, in bytes.
const MAX_BODY: usize = 8 << 20;
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

/// A body that was JSON and is what it should be.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: Fields, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::NotJson);
        }
        let body =
            timeout(ARRIVAL, to_bytes(request.into_body(), MAX_BODY)).await.map_err(|_| ApiError::BodyTooSlow)?;
        let body = body.map_err(|error| {
            let too_long =
                std::error::Error::source(&error).is_some_and(|error| error.to_string().contains("length limit"));
            if too_long { ApiError::BodyTooLong(MAX_BODY) } else { ApiError::BodyTooSlow }
        })?;
        parse(&body).map(Self)
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
    use serde::Deserialize;

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
