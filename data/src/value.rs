//! JSON values in the order in which they were written, with each key once.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};
use std::fmt;

/// A JSON value (RFC 8259). Unlike the usual maps it keeps the order of keys and refuses a repeated one: readers
/// disagree on which of two values counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(serde_json::Number),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

/// Why bytes are not one JSON value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Not UTF-8.
    #[error("a byte that is not UTF-8")]
    Encoding {
        /// Column in characters, from 1.
        column: u64,
    },
    /// Not JSON, or an object with a repeated key.
    #[error("{message}")]
    Syntax {
        /// Column in characters, from 1.
        column: u64,
        /// What the parser said.
        message: String,
    },
}

impl JsonFault {
    /// Column in characters, from 1.
    pub const fn column(&self) -> u64 {
        match self {
            Self::Encoding { column } | Self::Syntax { column, .. } => *column,
        }
    }
}

impl Json {
    /// Parses one value, at most 128 levels deep.
    ///
    /// # Errors
    /// [`JsonFault`] with the column.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonFault> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| JsonFault::Encoding { column: column(bytes, error.valid_up_to()) })?;
        serde_json::from_str(text).map_err(|error| JsonFault::Syntax {
            column: column(bytes, error.column().saturating_sub(1)),
            message: reason(&error),
        })
    }

    /// What a reader calls it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// Calls `change` with each text in it, keys and numbers among them: a telephone number may be either.
    pub(crate) fn each_text(&mut self, change: &mut dyn FnMut(&mut String)) {
        match self {
            Self::Null | Self::Bool(_) => {}
            Self::Number(number) => {
                let before = number.to_string();
                let mut text = before.clone();
                change(&mut text);
                if text != before {
                    *self = Self::Text(text);
                }
            }
            Self::Text(text) => change(text),
            Self::List(items) => items.iter_mut().for_each(|item| item.each_text(change)),
            Self::Object(entries) => entries.iter_mut().for_each(|(key, value)| {
                change(key);
                value.each_text(change);
            }),
        }
    }
}

/// The column in characters, from 1, of a byte of one line.
fn column(bytes: &[u8], at: usize) -> u64 {
    let before = bytes.get(..at.min(bytes.len())).unwrap_or_default();
    1 + before.iter().filter(|&&byte| byte & 0xc0 != 0x80).count() as u64
}

/// The parser's words without its position, which is that within the line.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason).to_owned()
}

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        serde_json::Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut entries: Vec<(String, Json)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = access.next_key::<String>()? {
            // The key itself may be anything, so it is not repeated in the message.
            if entries.len() < 8 && entries.iter().any(|(other, _)| *other == key) {
                return Err(de::Error::custom("an object has a key twice"));
            }
            if entries.len() >= 8 {
                if seen.is_empty() {
                    seen.extend(entries.iter().map(|(key, _)| key.clone()));
                }
                if !seen.insert(key.clone()) {
                    return Err(de::Error::custom("an object has a key twice"));
                }
            }
            entries.push((key, access.next_value()?));
        }
        Ok(Json::Object(entries))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => value.serialize(serializer),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fault(text: &[u8]) -> (u64, String) {
        let fault = Json::parse(text).unwrap_err();
        (fault.column(), fault.to_string())
    }

    #[test]
    fn order_is_kept_and_written_back() {
        let text = r#"{"b":[1,-2,2.5,null],"a":{"z":"ü\n","y":true}}"#;
        assert_eq!(serde_json::to_string(&Json::parse(text.as_bytes()).unwrap()).unwrap(), text);
    }

    #[test]
    fn a_repeated_key_is_refused_in_small_and_large_objects() {
        assert_eq!(fault(br#"{"a":1,"a":2}"#).1, "an object has a key twice");
        let many = (0..20).map(|n| format!("\"k{n}\":0,")).collect::<String>();
        assert!(Json::parse(format!("{{{many}\"x\":0}}").as_bytes()).is_ok());
        assert_eq!(fault(format!("{{{many}\"k3\":0}}").as_bytes()).1, "an object has a key twice");
    }

    #[test]
    fn faults_are_placed_in_characters() {
        assert_eq!(fault("{\"ü\": x}".as_bytes()).0, 7);
        assert_eq!(fault(b"{\"a\": \"\xff\"}"), (8, "a byte that is not UTF-8".to_owned()));
        // Half of a surrogate pair is no character.
        assert!(Json::parse(br#"{"a": "\ud800"}"#).is_err());
        assert!(Json::parse("[".repeat(100_000).as_bytes()).is_err());
        assert!(Json::parse(b"NaN").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(text in "\\PC{0,40}", number in any::<i64>()) {
            let value = Json::Object(vec![("k".into(), Json::List(vec![Json::Text(text), Json::Number(number.into())]))]);
            let line = serde_json::to_vec(&value).unwrap();
            prop_assert_eq!(Json::parse(&line), Ok(value));
        }

        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Json::parse(&bytes);
        }
    }
}
