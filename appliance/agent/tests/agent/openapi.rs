//! The checked-in description and the server agree: same paths, same methods, same guard, same answers.

use crate::machine::{Machine, TOKEN};
use gap_agent::{
    api::{Needs, OPENAPI, ROUTES},
    server::Limits,
};
use serde_json::Value;
use std::collections::BTreeSet;

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

fn described() -> BTreeSet<(String, String, bool)> {
    let mut all = BTreeSet::new();
    for (path, methods) in document()["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let is_open = operation["security"].as_array().is_some_and(Vec::is_empty);
            all.insert((path.clone(), method.clone(), is_open));
        }
    }
    all
}

#[test]
fn the_description_lists_exactly_the_routes() {
    let routes = ROUTES
        .map(|route| (route.path.replace("{*", "{"), route.method.to_owned(), !matches!(route.needs, Needs::Role(_))));
    assert_eq!(described(), BTreeSet::from(routes));
    assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn the_server_takes_what_is_described_and_nothing_else() {
    let machine = Machine::start(Limits::default());
    let all = described();
    for (path, method, is_open) in &all {
        // Whatever stands for a name in a path.
        let place = path.replace(['{', '}', '*'], "");
        for tried in ["get", "post", "put", "delete", "patch"] {
            let answer = machine.ask(&tried.to_uppercase(), &place, Some(TOKEN)).await;
            let is_route = all.iter().any(|(other, method, _)| other == path && method == tried);
            assert_eq!(answer.status == 405, !is_route, "{tried} {path}: {answer:?}");
            assert_ne!(answer.body["error"]["code"], "unknown_path", "{tried} {path}");
        }
        let without_token = machine.ask(&method.to_uppercase(), &place, None).await.status;
        assert_eq!(without_token == 401, !is_open, "{method} {path}");
    }
}

#[tokio::test]
async fn answers_are_as_described() {
    let machine = Machine::start(Limits::default());
    let document = document();
    for (path, method, _) in described() {
        // What needs the data volume is tried where there is one.
        let tokens = if path.starts_with("/v1/") && !path.starts_with("/v1/system") {
            vec![None]
        } else {
            vec![None, Some(TOKEN)]
        };
        for token in tokens {
            let place = path.replace(['{', '}', '*'], "");
            let answer = machine.ask(&method.to_uppercase(), &place, token).await;
            let operation = &document["paths"][&path][&method];
            let response = resolve(&document, &operation["responses"][answer.status.to_string()]);
            let Some(content) = response["content"].get("application/json") else {
                assert_eq!((answer.status, path.as_str()), (200, "/metrics"), "all else is JSON");
                continue;
            };
            let schema = &content["schema"];
            check(&document, schema, &answer.body, &format!("{method} {path} {}", answer.status));
        }
    }
    check(
        &document,
        &document["components"]["schemas"]["Range"],
        &serde_json::json!({"offset": 1, "length": 2}),
        "range",
    );
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

/// The part of JSON Schema that the description uses.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = resolve(document, schema);
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        other => panic!("{at}: the schema has no type: {other}"),
    };
    assert!(allowed.contains(&kind), "{at}: {value} is none of {allowed:?}");
    if let Some(names) = schema["enum"].as_array() {
        assert!(names.contains(value), "{at}: {value} is none of {names:?}");
    }
    if let (Value::Object(fields), Some(properties)) = (value, schema["properties"].as_object()) {
        assert_eq!(fields.keys().collect::<BTreeSet<_>>(), properties.keys().collect(), "{at}");
        for (name, field) in fields {
            check(document, &properties[name], field, &format!("{at}.{name}"));
        }
    }
    for item in value.as_array().into_iter().flatten() {
        check(document, &schema["items"], item, &format!("{at}[]"));
    }
}
