//! Finding what would send a program to the network: addresses, and identifiers of models and data sets on a hub.
//!
//! A job has no network, so such a word could only fail, late and with an unclear message. It is refused at submission.

use serde_json::Value;
use std::{collections::BTreeSet, num::NonZeroU16};

/// Fields whose values libraries look up on a hub when they are no path.
const NAMING: [&str; 10] = [
    "adapter",
    "dataset",
    "dataset_name",
    "datasets",
    "model",
    "model_id",
    "model_name",
    "model_name_or_path",
    "tokenizer",
    "tokenizer_name",
];

/// Whether a text is or holds an address: a scheme, `://`.
pub fn is_address(text: &str) -> bool {
    let mut schemes = text.match_indices("://").filter_map(|(at, _)| text.get(..at));
    schemes.any(|before| {
        let scheme: String =
            before.chars().rev().take_while(|c| c.is_ascii_alphanumeric() || "+.-".contains(*c)).collect();
        scheme.chars().next_back().is_some_and(|first| first.is_ascii_alphabetic())
    })
}

/// Whether all addresses in a text are those of the job's own loopback on these ports, where endpoints of the site are:
/// `http://127.0.0.1:5000/…`, with or without a user.
pub fn is_granted(text: &str, ports: &BTreeSet<NonZeroU16>) -> bool {
    text.split("://").skip(1).all(|rest| {
        let authority = rest.split(['/', '?', '#', ' ', '"', '\'', ',', ';']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        host.split_once(':').is_some_and(|(host, port)| {
            ["127.0.0.1", "localhost"].contains(&host) && port.parse().is_ok_and(|port| ports.contains(&port))
        })
    })
}

/// Whether a text has the form of a repository on a hub: `OWNER/NAME`.
pub fn is_hub_identifier(text: &str) -> bool {
    let is_part = |part: &str| {
        part.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
            && part.len() <= 96
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    text.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name))
}

/// The first place in `value` that names something on a network, as `field: text`.
pub fn find(value: &Value) -> Option<String> {
    look(value, "")
}

fn look(value: &Value, field: &str) -> Option<String> {
    match value {
        Value::String(text) => {
            let is_named = NAMING.contains(&field.rsplit('.').next().unwrap_or(field));
            let is_one = is_address(text) || (is_named && is_hub_identifier(text));
            is_one.then(|| format!("{field}: {text}"))
        }
        Value::Array(values) => values.iter().find_map(|value| look(value, field)),
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let path = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
            look(value, &path)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_are_found_wherever_they_stand() {
        for text in ["https://example.org/x", "s3://bucket/x", "--from=hf://a/b", "file:///etc/passwd"] {
            assert!(is_address(text), "{text}");
        }
        for text in ["a: //b", "/run/job/model", "1://", "std::fs", ""] {
            assert!(!is_address(text), "{text}");
        }
    }

    #[test]
    fn addresses_of_granted_endpoints_are_told_from_all_others() {
        let ports = [5000, 5432].into_iter().filter_map(NonZeroU16::new).collect();
        for text in ["http://127.0.0.1:5000", "--db=postgres://me@localhost:5432/x", "http://127.0.0.1:5000/a?b"] {
            assert!(is_granted(text, &ports), "{text}");
        }
        for text in [
            "http://127.0.0.1:5001",
            "http://127.0.0.1",
            "http://127.0.0.1:5000.evil",
            "http://127.0.0.1:5000@evil:5000",
            "http://10.0.0.3:5000",
            "http://127.0.0.1:5000,http://evil",
            "a://b://127.0.0.1:5000",
        ] {
            assert!(!is_granted(text, &ports), "{text}");
        }
    }

    #[test]
    fn identifiers_of_a_hub_are_told_from_paths() {
        for text in ["Qwen/Qwen2.5-7B-Instruct", "google-bert/bert-base"] {
            assert!(is_hub_identifier(text), "{text}");
        }
        for text in ["/models/qwen", "./x/y", "a/b/c", "model", "../x", "a/", "ft:tiny:x:1"] {
            assert!(!is_hub_identifier(text), "{text}");
        }
    }

    #[test]
    fn a_configuration_is_searched_to_its_bottom() {
        assert_eq!(find(&json!({"a": [{"b": "ftp://x"}]})), Some("a.b: ftp://x".into()));
        assert_eq!(find(&json!({"x": {"model_name_or_path": "o/n"}})), Some("x.model_name_or_path: o/n".into()));
        assert_eq!(find(&json!({"output": "o/n", "steps": 3})), None);
    }
}
