//! Models whose words begin with a space of their own, and whose tokens may be parts of characters.

use crate::{
    process::{Server, write_chat_model},
    reference::sentence_piece,
};
use serde_json::{Value, json};
use std::fs;

fn server() -> Server {
    let directory = tempfile::tempdir().unwrap();
    write_chat_model("llama", directory.path());
    fs::write(directory.path().join("tokenizer.json"), sentence_piece().to_string()).unwrap();
    Server::with_model("chat", directory.path())
}

/// A request for some tokens that are all the same.
fn repeated(name: &str, count: usize, more: Value) -> Value {
    let token = sentence_piece()["model"]["vocab"][name].clone();
    let mut request =
        json!({"model": "chat", "temperature": 0, "max_tokens": count, "logit_bias": {token.to_string(): 100}});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[test]
fn a_completion_goes_on_with_its_prompt() {
    let server = server();
    let ask = |more: Value| {
        let mut request = repeated("▁world", 3, json!({"prompt": "Hello", "logprobs": 5}));
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    for (echo, text, offsets) in
        [(false, " world world world", json!([0, 6, 12])), (true, "Hello world world world", json!([5, 11, 17]))]
    {
        let whole = server.ask("/v1/completions", &ask(json!({"echo": echo})))["choices"][0].clone();
        assert_eq!(whole["text"], text);
        assert_eq!(whole["logprobs"]["text_offset"], offsets);
        assert_eq!(whole["logprobs"]["tokens"], json!([" world", " world", " world"]));
        // Many tokens are parts of characters, and each has a name of its own.
        for best in whole["logprobs"]["top_logprobs"].as_array().unwrap() {
            assert_eq!(best.as_object().unwrap().len(), 5, "{best}");
        }
        let pieces = server.post("/v1/completions", &ask(json!({"echo": echo, "stream": true}))).pieces();
        let choices: Vec<&Value> = pieces.iter().map(|piece| &piece["choices"][0]).collect();
        let streamed: String = choices.iter().map(|choice| choice["text"].as_str().unwrap()).collect();
        assert_eq!(streamed, text);
        let found: Vec<&Value> =
            choices.iter().filter_map(|choice| choice["logprobs"]["text_offset"].as_array()).flatten().collect();
        assert_eq!(json!(found), offsets);
    }
}

#[test]
fn a_part_of_a_character_is_told_by_its_bytes() {
    let server = server();
    let more = json!({"messages": [{"role": "user", "content": "x"}], "logprobs": true, "top_logprobs": 3});
    let answer = server.ask("/v1/chat/completions", &repeated("<0xE6>", 2, more));
    let tokens = &answer["choices"][0]["logprobs"]["content"];
    for token in tokens.as_array().unwrap() {
        assert_eq!((&token["bytes"], &token["token"]), (&json!([0xE6]), &json!("bytes:\\xe6")), "{answer}");
    }
}
