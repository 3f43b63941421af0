//! Runs in MLflow's form.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod tiny;

use rusqlite::Connection;
use std::fs;
use tiny::{fail, succeed};

#[test]
fn a_run_has_its_parameters_metrics_tags_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let (one, out) = (dir.path().join("one"), dir.path().join("mlflow"));
    tiny::run(&one);
    succeed(&["mlflow", one.to_str().unwrap(), "-o", out.to_str().unwrap(), "--experiment", "tickets"]);
    let database = Connection::open(out.join("mlflow.db")).unwrap();
    let one_value = |sql: &str| database.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(one_value("SELECT value FROM params WHERE key = 'lora.r'"), "4");
    assert_eq!(one_value("SELECT status FROM runs"), "FINISHED");
    assert_eq!(one_value("SELECT name FROM experiments WHERE experiment_id = 1"), "tickets");
    let losses = "SELECT group_concat(step || ':' || value || ':' || timestamp) FROM metrics WHERE key = 'train_loss'";
    assert_eq!(one_value(losses), "1:3.0:1002000,2:2.0:1003000,3:1.0:1004000");
    let place = one_value("SELECT artifact_uri FROM runs");
    assert!(out.join(&place).join("adapter/adapter_model.safetensors").is_file());
    assert!(out.join(place).join("lineage.json").is_file());
    let said = fail(&["mlflow", one.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    assert!(said.contains("is there already"), "{said}");
}

#[test]
fn the_same_runs_give_the_same_database() {
    let dir = tempfile::tempdir().unwrap();
    let one = dir.path().join("one");
    tiny::run(&one);
    let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
    for out in [&first, &second] {
        succeed(&["mlflow", one.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    }
    assert!(fs::read(first.join("mlflow.db")).unwrap() == fs::read(second.join("mlflow.db")).unwrap());
}
