//! The OpenAPI document: the routes, and the types that their handlers take and give.
//!
//! `openapi.base.json` holds what is written by hand: the title, the shapes of `/v1/system`, the common refusals. This
//! adds an operation for each further route, with schemas that follow from the types. `openapi.json` is the result; a
//! test compares, and says how to renew it.

use super::{
    Needs, ROUTES, Route,
    access::{AuditQuery, AuditView, CreateToken, TokenView},
    answers::{List, PageQuery},
    claim::ClaimAppliance,
    files::{Deleted, FileView, FilesQuery},
    fine_tuning::{CheckpointView, EventView, FineTuningQuery, FineTuningView},
    jobs::{JobView, JobsQuery},
    models::{ModelView, Models},
    outputs::{LogQuery, LogView, Outputs},
    promotions::{CreatePromotion, PromotionView, PromotionsQuery},
    release::StorageView,
    terminal,
    uploads::{CompleteUpload, CreateUpload, PartView, UploadState, UploadView},
};
use crate::work::submit::{CreateDebug, CreateFineTuning, CreateJob, CreateSelfTest};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// What is written by hand.
const BASE: &str = include_str!("openapi.base.json");

/// What an operation takes and gives.
struct Operation {
    summary: &'static str,
    query: Option<Value>,
    body: Option<Value>,
    answer: Value,
}

/// The whole document.
///
/// # Errors
/// When the part that is written by hand is no JSON.
#[allow(clippy::indexing_slicing, reason = "of values that are made here or by hand; a test makes the document")]
pub fn document() -> Result<Value, serde_json::Error> {
    let mut document: Value = serde_json::from_str(BASE)?;
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut types = settings.into_generator();
    for route in ROUTES {
        let Some(described) = describe(route.operation, &mut types) else { continue };
        // A `*` says to the router that the last part may hold slashes.
        document["paths"][route.path.replace("{*", "{")][route.method] = operation(&route, described);
    }
    let schemas = types.take_definitions(true);
    if let Some(all) = document["components"]["schemas"].as_object_mut() {
        for (name, schema) in schemas {
            all.entry(name).or_insert(schema);
        }
    }
    bound(&mut document);
    Ok(sorted(document))
}

/// Says of each integer what its format can hold, for readers who do not know the format.
fn bound(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let (least, most) = match map.get("format").and_then(Value::as_str) {
                Some("uint32") => (json!(0), json!(u32::MAX)),
                Some("int32") => (json!(i32::MIN), json!(i32::MAX)),
                Some("uint64" | "uint") => (json!(0), json!(u64::MAX)),
                Some("int64") => (json!(i64::MIN), json!(i64::MAX)),
                _ => (Value::Null, Value::Null),
            };
            if !most.is_null() {
                map.entry("minimum").or_insert(least);
                map.entry("maximum").or_insert(most);
            }
            map.values_mut().for_each(bound);
        }
        Value::Array(values) => values.iter_mut().for_each(bound),
        _ => {}
    }
}

/// The text of the document as it is checked in.
///
/// # Errors
/// As for [`document`].
pub fn text() -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(&document()?)? + "\n")
}

/// Keys in the order of the alphabet, whatever keeps the maps.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|one, other| one.0.cmp(&other.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[allow(clippy::indexing_slicing, reason = "of values that are made here or by hand; a test makes the document")]
fn operation(route: &Route, described: Operation) -> Value {
    let Operation { summary, query, body, answer } = described;
    let mut parameters: Vec<Value> = names_in(route.path)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    if let Some(Value::Object(query)) = query.map(|mut query| query["properties"].take()) {
        for (name, mut schema) in query {
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            without_null(&mut schema);
            let mut parameter = json!({"name": name, "in": "query", "required": false, "schema": schema});
            if let Some(description) = description {
                parameter["description"] = description;
            }
            parameters.push(parameter);
        }
    }
    let refused = |description: &str| json!({"description": description, "content": {"application/json": {"schema": reference("Error")}}});
    let mut responses = Map::new();
    responses.insert("200".into(), json!({"description": "Done.", "content": answer}));
    for (status, description) in [
        ("400", "The request says something that cannot be."),
        ("403", "The token's role does not allow it."),
        ("404", "There is no such thing."),
        ("409", "The state of what it is about does not take it."),
        ("500", "The appliance failed to answer."),
        ("503", "What it needs is not there yet."),
        ("507", "There is no room for it."),
    ] {
        responses.insert(status.into(), refused(description));
    }
    for (status, name) in
        [("401", "Unauthorized"), ("408", "BodyTooSlow"), ("413", "BodyTooLong"), ("429", "LockedOut")]
    {
        responses.insert(status.into(), json!({"$ref": format!("#/components/responses/{name}")}));
    }
    if route.operation == "jobTerminal" {
        let protocol = json!({"type": "string", "enum": [terminal::PROTOCOL]});
        parameters.push(json!({"name": "Upgrade", "in": "header", "required": true, "schema": protocol}));
        responses.remove("200");
        responses.insert("101".into(), json!({"description": "From now on the connection is the terminal."}));
    }
    let mut operation = json!({
        "operationId": route.operation,
        "summary": summary,
        "responses": responses,
    });
    match route.needs {
        Needs::Role(role) => operation["x-role"] = role.name().into(),
        Needs::Nothing | Needs::Code => operation["security"] = json!([]),
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = body {
        operation["requestBody"] = json!({"required": true, "content": body});
    }
    operation
}

/// What a query leaves out is not there; there is no null in it.
fn without_null(schema: &mut Value) {
    for key in ["type", "enum"] {
        if let Some(Value::Array(kinds)) = schema.get_mut(key) {
            kinds.retain(|kind| !kind.is_null() && kind != "null");
        }
    }
}

/// Names between braces in a path.
fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| name.trim_start_matches('*'))
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn typed<T: JsonSchema>(types: &mut SchemaGenerator) -> Value {
    json!({"application/json": {"schema": types.subschema_for::<T>()}})
}

fn query<T: JsonSchema>(types: &mut SchemaGenerator) -> Option<Value> {
    let inline = types.root_schema_for::<T>();
    Some(inline.into())
}

fn bytes(kind: &str) -> Value {
    json!({kind: {}})
}

/// A form with one file and texts.
fn form(file: &str, texts: &[(&str, Value)]) -> Value {
    let mut properties = Map::from_iter([(file.to_owned(), json!({"type": "string", "format": "binary"}))]);
    properties.extend(texts.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())));
    let required: Vec<&str> = std::iter::once(file).chain(texts.iter().map(|(name, _)| *name)).collect();
    // Whatever else a client sends along is passed over; its name has to fit into the head of its part.
    let names = json!({"pattern": "^[A-Za-z0-9_.\\[\\]-]{1,64}$"});
    let schema = json!({"type": "object", "properties": properties, "required": required, "propertyNames": names,
        "additionalProperties": {"type": "string"}});
    json!({"multipart/form-data": {"schema": schema}})
}

/// A request to a model: its shape is OpenAI's and the server's business; here only the model's name counts.
fn prompt() -> Value {
    let schema = json!({
        "type": "object",
        "properties": {"model": {"type": "string", "description": "A model that is served."}},
        "required": ["model"],
    });
    json!({"application/json": {"schema": schema}})
}

/// What an operation takes and gives; nothing for those that are written by hand.
#[allow(clippy::indexing_slicing, reason = "of values that are made here; a test makes the document")]
fn describe(operation: &str, types: &mut SchemaGenerator) -> Option<Operation> {
    let look = |summary, answer| Operation { summary, query: None, body: None, answer };
    Some(match operation {
        "metrics" => {
            look("Metrics for Prometheus: GPUs under DCGM's names, jobs, the data volume", bytes("text/plain"))
        }
        "createFile" => {
            let purposes = json!({"type": "string", "enum": ["fine-tune", "evals", "user_data"]});
            let body = Some(form("file", &[("purpose", purposes)]));
            Operation {
                body,
                ..look("Bring a file; it is checked before it can be trained on", typed::<FileView>(types))
            }
        }
        "listFiles" => Operation {
            query: query::<FilesQuery>(types),
            ..look("Files, the last first", typed::<List<FileView>>(types))
        },
        "retrieveFile" => look("A file, and whether it was found good", typed::<FileView>(types)),
        "deleteFile" => look("Delete a file", typed::<Deleted>(types)),
        "downloadFile" => look("The bytes of a file as they came", bytes("application/octet-stream")),
        "fileReport" => look("What was found in a file: duplicates, personal data, lengths", bytes("application/json")),
        "createUpload" => Operation {
            body: Some(typed::<CreateUpload>(types)),
            ..look("Begin a file that comes in parts", typed::<UploadView>(types))
        },
        "addUploadPart" => {
            Operation { body: Some(form("data", &[])), ..look("Bring a part", typed::<PartView>(types)) }
        }
        "completeUpload" => Operation {
            body: Some(typed::<CompleteUpload>(types)),
            ..look("Make a file of the parts", typed::<UploadView>(types))
        },
        "cancelUpload" => look("Give an upload up", typed::<UploadView>(types)),
        "retrieveUpload" => {
            look("An upload: what has arrived, and the file that it became", typed::<UploadState>(types))
        }
        "createFineTuningJob" => Operation {
            body: Some(typed::<CreateFineTuning>(types)),
            ..look("Fine-tune a model", typed::<FineTuningView>(types))
        },
        "listFineTuningJobs" => Operation {
            query: query::<FineTuningQuery>(types),
            ..look("Fine-tuning jobs, the last first", typed::<List<FineTuningView>>(types))
        },
        "retrieveFineTuningJob" => look("A fine-tuning job", typed::<FineTuningView>(types)),
        "cancelFineTuningJob" => look("End a fine-tuning job for good", typed::<FineTuningView>(types)),
        "pauseFineTuningJob" => look("Write a checkpoint and stop for a while", typed::<FineTuningView>(types)),
        "resumeFineTuningJob" => look("Go on from the checkpoint", typed::<FineTuningView>(types)),
        "listFineTuningEvents" | "listJobEvents" => Operation {
            query: query::<PageQuery>(types),
            ..look("What happened to a job, the last first", typed::<List<EventView>>(types))
        },
        "listFineTuningCheckpoints" => Operation {
            query: query::<PageQuery>(types),
            ..look("The checkpoints of a job, the last first", typed::<List<CheckpointView>>(types))
        },
        "listModels" => look("Models of the release and those fine-tuned here", typed::<Models>(types)),
        "retrieveModel" => look("A model", typed::<ModelView>(types)),
        "createChatCompletion" => {
            Operation { body: Some(prompt()), ..look("Talk to a model that is served", bytes("application/json")) }
        }
        "createCompletion" => Operation {
            body: Some(prompt()),
            ..look("Have a served model go on with a text", bytes("application/json"))
        },
        "createEmbedding" => {
            Operation { body: Some(prompt()), ..look("Embeddings by a served model", bytes("application/json")) }
        }
        "declared" => look("Jobs, models and data sets that the release declares", bytes("application/json")),
        "storage" => look("The data volume, and what there is for jobs", typed::<StorageView>(types)),
        "createJob" => Operation {
            body: Some(typed::<CreateJob>(types)),
            ..look("Run a declared job: serve a model, measure, anything", typed::<JobView>(types))
        },
        "listJobs" => Operation {
            query: query::<JobsQuery>(types),
            ..look("Jobs of every kind, the last first", typed::<List<JobView>>(types))
        },
        "retrieveJob" => look("A job", typed::<JobView>(types)),
        "cancelJob" => look("End a job for good", typed::<JobView>(types)),
        "pauseJob" => look("Write a checkpoint and stop for a while", typed::<JobView>(types)),
        "resumeJob" => look("Go on from the checkpoint", typed::<JobView>(types)),
        "jobLog" => {
            let mut answer = typed::<LogView>(types);
            answer["application/jsonl"] = json!({});
            Operation { query: query::<LogQuery>(types), ..look("What a job printed", answer) }
        }
        "jobMetrics" => look("What each step of a job measured, a JSON object a line", bytes("application/jsonl")),
        "listOutputs" => look("Files that a job left behind, while it runs and after", typed::<Outputs>(types)),
        "deleteOutputs" => look("Delete what a job left behind; a model among it is gone", typed::<Deleted>(types)),
        "downloadOutput" => look("A file that a job left behind", bytes("application/octet-stream")),
        "createDebugJob" => Operation {
            body: Some(typed::<CreateDebug>(types)),
            ..look("Open a terminal inside of an image, for a while", typed::<JobView>(types))
        },
        "jobTerminal" => look(
            "The terminal of a debug job: with `Upgrade: gap-terminal` the connection becomes it (status 101)",
            bytes("application/octet-stream"),
        ),
        "createSelfTest" => Operation {
            body: Some(typed::<CreateSelfTest>(types)),
            ..look("Test memory and disk; the job leaves self-test.json", typed::<JobView>(types))
        },
        "createPromotion" => Operation {
            body: Some(typed::<CreatePromotion>(types)),
            ..look("Give a model a stable name, if it meets what the release demands", typed::<PromotionView>(types))
        },
        "listPromotions" => Operation {
            query: query::<PromotionsQuery>(types),
            ..look("Promotions, the last first; the last of a name decides", typed::<List<PromotionView>>(types))
        },
        "retrievePromotion" => look("A promotion", typed::<PromotionView>(types)),
        "claim" => Operation {
            body: Some(typed::<ClaimAppliance>(types)),
            ..look("Claim the first admin's token with the code that the console shows", typed::<TokenView>(types))
        },
        "listTokens" => look("Tokens that were claimed or made here", typed::<List<TokenView>>(types)),
        "createToken" => Operation {
            body: Some(typed::<CreateToken>(types)),
            ..look("Make a token; it is shown this once", typed::<TokenView>(types))
        },
        "revokeToken" => look("Revoke a token at once", typed::<Deleted>(types)),
        "audit" => Operation {
            query: query::<AuditQuery>(types),
            ..look("Who asked for which change, oldest first", typed::<AuditView>(types))
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set, it makes the test write the document instead of comparing.
    const RENEW: &str = "GAP_RENEW_OPENAPI";

    #[test]
    fn the_document_that_is_checked_in_is_the_one_that_the_routes_make() {
        let text = text().unwrap();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/openapi.json");
        if std::env::var_os(RENEW).is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap();
        assert!(kept == text, "the routes changed: run this test once with {RENEW}=1 and look at the difference");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn look(document: &Value, value: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(reference)) = map.get("$ref") {
                        let place = reference.strip_prefix('#').unwrap();
                        assert!(document.pointer(place).is_some(), "{reference}");
                    }
                    map.values().for_each(|value| look(document, value));
                }
                Value::Array(values) => values.iter().for_each(|value| look(document, value)),
                _ => {}
            }
        }
        let document = document().unwrap();
        look(&document, &document);
    }
}
