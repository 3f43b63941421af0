//! What is answered.

use crate::{
    process::{Server, write_chat_model, write_encoder},
    reference::{difference, numbers, recorded, write_tensors},
};
use serde_json::{Value, json};
use std::{fs, path::Path, thread};

fn completion(prompt: &Value) -> Value {
    json!({"model": "chat", "prompt": prompt, "max_tokens": 24, "temperature": 0, "ignore_eos": true})
}

fn chat(text: &str, more: Value) -> Value {
    let mut request = json!({"model": "chat", "messages": [{"role": "user", "content": text}], "max_tokens": 20});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

/// The whole API where there is no network, behind the server's own filter.
#[test]
fn every_path_answers_without_a_network() {
    let server = Server::with_everything(&[]);
    assert_eq!(server.get("/health").json(), json!({"status": "ok"}));
    let models = server.get("/v1/models").json();
    let names: Vec<&str> =
        models["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["chat", "classify", "embed", "tuned"]);
    assert_eq!(server.get("/v1/models/tuned").json()["parent"], "chat");
    assert_eq!(server.get("/openapi.json").json()["openapi"], "3.1.0");

    let answer = server.ask("/v1/chat/completions", &chat("Hello", json!({"temperature": 0})));
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    let answer = server.ask("/v1/completions", &completion(&json!("Hello")));
    assert_eq!(answer["usage"]["completion_tokens"], 24);

    let rows = recorded("bert");
    let texts: Vec<&Value> = rows["rows"].as_array().unwrap().iter().take(5).map(|row| &row["tokens"]).collect();
    let found = server.ask("/v1/embeddings", &json!({"model": "embed", "input": texts}));
    for (index, found) in found["data"].as_array().unwrap().iter().enumerate() {
        assert!(difference(&numbers(&found["embedding"]), &numbers(&rows["rows"][index]["mean"])) < 1e-5);
    }
    let rows = recorded("distilbert");
    let found = server.ask("/v1/classify", &json!({"model": "classify", "input": rows["rows"][0]["tokens"]}));
    assert_eq!(found["data"][0]["label"], "LABEL_1");
    let scores = numbers(&rows["rows"][0]["logits"]);
    let sum: f32 = scores.iter().map(|score| score.exp()).sum();
    let expected: Vec<f32> = scores.iter().map(|score| score.exp() / sum).collect();
    assert!(difference(&numbers(&found["data"][0]["probs"]), &expected) < 1e-5);
    assert!(server.measured("gap_serve_encoder_tokens_total") > 0);
}

#[test]
fn greedy_texts_are_those_of_transformers_for_all_prompts_at_once() {
    let server = Server::with_chat("mistral", &["--sequences=8"]);
    let recorded = recorded("mistral");
    thread::scope(|scope| {
        for row in recorded["rows"].as_array().unwrap() {
            let server = &server;
            scope.spawn(move || {
                let answer = server.ask("/v1/completions", &completion(&row["prompt"]));
                assert_eq!(answer["choices"][0]["text"], row["text"], "after {}", row["prompt"]);
                let streamed = server.post("/v1/completions", &{
                    let mut request = completion(&row["prompt"]);
                    request["stream"] = json!(true);
                    request
                });
                let text: String = streamed
                    .pieces()
                    .iter()
                    .map(|piece| piece["choices"][0]["text"].as_str().unwrap().to_owned())
                    .collect();
                assert_eq!(text, row["text"].as_str().unwrap());
            });
        }
    });
}

#[test]
fn a_seed_gives_the_same_answer_alone_and_under_load() {
    let server = Server::with_chat("llama", &[]);
    let ask = |seed: u64| {
        let request = chat("Tell me", json!({"seed": seed, "temperature": 1.5, "max_tokens": 40}));
        server.ask("/v1/chat/completions", &request)["choices"][0]["message"]["content"].clone()
    };
    let alone: Vec<Value> = (0..6).map(ask).collect();
    assert_ne!(alone[0], alone[1]);
    let together: Vec<Value> = thread::scope(|scope| {
        let running: Vec<_> = (0..6).map(|seed| scope.spawn(move || ask(seed))).collect();
        running.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn an_adapter_answers_otherwise_and_beside_its_base() {
    let server = Server::with_everything(&[]);
    let ask = |model: &str| {
        let mut request = completion(&json!("The quick brown fox"));
        request["model"] = json!(model);
        server.ask("/v1/completions", &request)["choices"][0]["text"].clone()
    };
    let (base, tuned) = (ask("chat"), ask("tuned"));
    assert_ne!(base, tuned);
    thread::scope(|scope| {
        let running = [scope.spawn(|| ask("chat")), scope.spawn(|| ask("tuned")), scope.spawn(|| ask("chat"))];
        assert_eq!(running.map(|answer| answer.join().unwrap()), [base.clone(), tuned.clone(), base.clone()]);
    });
}

#[test]
fn a_stream_begins_with_a_role_and_ends_with_the_numbers_of_tokens() {
    let server = Server::with_chat("llama", &[]);
    let request = chat("Hello", json!({"stream": true, "stream_options": {"include_usage": true}, "seed": 1, "n": 2}));
    let reply = server.post("/v1/chat/completions", &request);
    assert!(reply.head.contains("text/event-stream"), "{reply:?}");
    let pieces = reply.pieces();
    assert_eq!(pieces[0]["choices"][0]["delta"]["role"], "assistant");
    let last = pieces.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    let whole = server.ask("/v1/chat/completions", &chat("Hello", json!({"seed": 1, "n": 2})));
    assert_eq!(last["usage"], whole["usage"]);
    for choice in 0..2 {
        let of_choice = |piece: &&Value| piece["choices"][0]["index"] == choice;
        let text: String = (pieces.iter().filter(of_choice))
            .filter_map(|piece| piece["choices"][0]["delta"]["content"].as_str().map(ToOwned::to_owned))
            .collect();
        assert_eq!(text, whole["choices"][choice]["message"]["content"].as_str().unwrap());
    }
}

#[test]
fn a_stop_text_ends_the_answer_before_it() {
    let server = Server::with_chat("mistral", &[]);
    let recorded = recorded("mistral");
    let row = recorded["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["text"].as_str().unwrap().chars().filter(char::is_ascii_alphanumeric).count() > 8);
    let row = row.unwrap();
    let text = row["text"].as_str().unwrap();
    let letter = text.chars().rev().find(char::is_ascii_alphanumeric).unwrap().to_string();
    let mut request = completion(&row["prompt"]);
    request["stop"] = json!([letter]);
    let answer = server.ask("/v1/completions", &request);
    assert_eq!(answer["choices"][0]["text"], text.split(&letter).next().unwrap());
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[test]
fn probabilities_are_told_and_sum_to_less_than_one() {
    let server = Server::with_chat("llama", &[]);
    let request = chat("Hello", json!({"logprobs": true, "top_logprobs": 3, "temperature": 0, "max_tokens": 5}));
    let answer = server.ask("/v1/chat/completions", &request);
    let tokens = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert!(!tokens.is_empty());
    for token in tokens {
        let best = token["top_logprobs"].as_array().unwrap();
        assert_eq!(best.len(), 3);
        assert_eq!(best[0]["logprob"], token["logprob"], "the likeliest was chosen");
        let sum: f64 = best.iter().map(|token| token["logprob"].as_f64().unwrap().exp()).sum();
        assert!(sum <= 1.0 + 1e-6, "{sum}");
    }
    let request = json!({"model": "chat", "prompt": "Hello", "logprobs": 2, "max_tokens": 3, "ignore_eos": true});
    let answer = server.ask("/v1/completions", &request);
    assert_eq!(answer["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 3);
}

#[test]
fn an_answer_follows_a_schema_whatever_the_model_would_say() {
    let server = Server::with_chat("qwen3", &[]);
    let schema = json!({
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["mood", "count"],
        "additionalProperties": false,
    });
    let format = json!({"type": "json_schema", "json_schema": {"name": "mood", "schema": schema}});
    for seed in 0..4 {
        let more = json!({"response_format": format, "seed": seed, "temperature": 1.3, "max_tokens": 150});
        let answer = server.ask("/v1/chat/completions", &chat("How are you?", more));
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        let found: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {answer}"));
        assert!(["good", "bad"].contains(&found["mood"].as_str().unwrap()));
        assert!(found["count"].as_u64().unwrap() < 100);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }
}

#[test]
fn several_answers_follow_one_grammar() {
    let server = Server::with_chat("qwen3", &[]);
    let schema = json!({"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"],
        "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "mood", "schema": schema}});
    let more = json!({"response_format": format, "n": 4, "seed": 3, "temperature": 1.5, "max_tokens": 100});
    let answer = server.ask("/v1/chat/completions", &chat("How are you?", more));
    for choice in answer["choices"].as_array().unwrap() {
        let found: Value = serde_json::from_str(choice["message"]["content"].as_str().unwrap()).unwrap();
        assert!(["good", "bad"].contains(&found["mood"].as_str().unwrap()));
    }
    assert_eq!(server.measured("gap_serve_grammars_total"), 1);
}

/// Leaves a classifier so many of its classes.
fn keep_classes(at: &Path, count: usize) {
    let path = at.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let found = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensors = found.iter().map(|(name, view)| {
        let mut values: Vec<f32> = view.data().as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        let mut shape = view.shape().to_vec();
        if name.starts_with("classifier.") {
            shape[0] = count;
            values.truncate(shape.iter().product());
        }
        (name.to_owned(), (shape, values))
    });
    write_tensors(&path, &tensors.collect());
}

#[test]
fn scores_of_classes_become_what_transformers_makes_of_them() {
    let recorded = recorded("distilbert");
    let logits = numbers(&recorded["rows"][0]["logits"]);
    let sigmoid: Vec<f32> = logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect();
    for (classes, problem, expected) in [
        (1, Value::Null, &sigmoid[..1]),
        (1, json!("single_label_classification"), &sigmoid[..1]),
        (3, json!("multi_label_classification"), &sigmoid[..]),
        (1, json!("regression"), &logits[..1]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        write_encoder("distilbert", "DistilBertForSequenceClassification", directory.path());
        keep_classes(directory.path(), classes);
        let path = directory.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let labels: serde_json::Map<String, Value> =
            (0..classes).map(|class| (class.to_string(), json!(format!("LABEL_{class}")))).collect();
        config["id2label"] = Value::Object(labels);
        config["problem_type"] = problem.clone();
        fs::write(path, config.to_string()).unwrap();
        let server = Server::with_model("classify", directory.path());
        let found = server.ask("/v1/classify", &json!({"model": "classify", "input": recorded["rows"][0]["tokens"]}));
        let found = numbers(&found["data"][0]["probs"]);
        assert!(difference(&found, expected) < 1e-5, "{classes} {problem}: {found:?} {expected:?}");
    }
}

#[test]
fn a_required_tool_is_called_with_arguments_by_its_schema() {
    let server = Server::with_chat("qwen3", &[]);
    let parameters = json!({
        "type": "object",
        "properties": {"unit": {"enum": ["C", "F"]}},
        "required": ["unit"],
        "additionalProperties": false,
    });
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": parameters}}]);
    let more = json!({"tools": tools, "tool_choice": "required", "parallel_tool_calls": false, "max_tokens": 70});
    let answer = server.ask("/v1/chat/completions", &chat("Weather?", more.clone()));
    let call = &answer["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "weather", "{answer}");
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(["C", "F"].contains(&arguments["unit"].as_str().unwrap()));
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");

    let mut request = chat("Weather?", more);
    request["stream"] = json!(true);
    let pieces = server.post("/v1/chat/completions", &request).pieces();
    let calls: Vec<&Value> =
        pieces.iter().filter(|piece| piece["choices"][0]["delta"]["tool_calls"].is_array()).collect();
    assert_eq!(calls.len(), 1, "{pieces:?}");
    assert_eq!(pieces.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");

    let followed = json!({
        "model": "chat",
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "21"},
        ],
        "tools": tools,
        "max_tokens": 4,
    });
    server.ask("/v1/chat/completions", &followed);
}

#[test]
fn schemas_of_required_tools_may_refer_to_their_own_parts() {
    let directory = tempfile::tempdir().unwrap();
    write_chat_model("qwen3", directory.path());
    // Such schemas are longer than the small models' context.
    let path = directory.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = json!(2048);
    fs::write(path, config.to_string()).unwrap();
    let server = Server::with_model("chat", directory.path());
    // As `openai.pydantic_function_tool` writes nested models; two tools call different things by the same name.
    let tool = |name: &str, units: Value| {
        let parameters = json!({
            "$defs": {
                "Unit": {"enum": units, "title": "Unit", "type": "string"},
                "Place": {"properties": {"unit": {"$ref": "#/$defs/Unit"}}, "required": ["unit"], "title": "Place",
                    "type": "object", "additionalProperties": false},
            },
            "properties": {"place": {"$ref": "#/$defs/Place", "description": "where"}},
            "required": ["place"], "title": name, "type": "object", "additionalProperties": false,
        });
        json!({"type": "function", "function": {"name": name, "strict": true, "parameters": parameters}})
    };
    let tools = json!([tool("weather", json!(["C", "F"])), tool("distance", json!(["km", "mi"]))]);
    for (name, units) in [("weather", ["C", "F"]), ("distance", ["km", "mi"])] {
        let named = json!({"type": "function", "function": {"name": name}});
        for choice in [json!("required"), named.clone()] {
            let more = json!({"tools": tools, "tool_choice": choice, "parallel_tool_calls": false, "max_tokens": 100});
            let answer = server.ask("/v1/chat/completions", &chat("How?", more));
            let call = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
            let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
            let unit = arguments["place"]["unit"].as_str().unwrap();
            if choice == named {
                assert!(call["name"] == name && units.contains(&unit), "{answer}");
            } else {
                let own = if call["name"] == "weather" { ["C", "F"] } else { ["km", "mi"] };
                assert!(own.contains(&unit), "{answer}");
            }
        }
    }
}

#[test]
fn embeddings_come_as_numbers_and_as_base64() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let server = Server::with_everything(&[]);
    let request = |format: &str| json!({"model": "embed", "input": ["one", "two three"], "encoding_format": format});
    let plain = server.ask("/v1/embeddings", &request("float"));
    let coded = server.ask("/v1/embeddings", &request("base64"));
    for index in 0..2 {
        let bytes = STANDARD.decode(coded["data"][index]["embedding"].as_str().unwrap()).unwrap();
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        assert_eq!(values, numbers(&plain["data"][index]["embedding"]));
    }
    assert_eq!(plain["usage"], coded["usage"]);
}
