//! Data sets of a hub: pinned to a commit, fetched as models are, prepared; and hubs that do not behave.

use crate::{
    build::{build, command, keeps_the_token_from_a_hub_that_only_the_recipe_names, unpack},
    fixture::{Project, fail_with, said, succeed},
    hub::{Behaviour, Hub},
};
use std::{fs, process::Command};

const REPO: &str = "datasets/org/rows";
const RECIPE: &str = "[image.main]\nlayers = [\"files\"]\ndatasets = [\"rows\"]\n\
    [layer.files]\nfiles = [{ path = \"site\", to = \"/srv\" }]\n[dataset.rows]\nhub = \"org/rows\"\n";

/// Rows that resemble none of the others.
fn rows(seed: u32) -> Vec<u8> {
    let row = |n: u32| {
        let words: String = (0..12).map(|word| format!("w{} ", seed + n * 100 + word)).collect();
        format!("{{\"instruction\":\"{words}\",\"output\":\"answer {n}\"}}\n")
    };
    (0..60).map(row).collect::<String>().into_bytes()
}

/// The same as Parquet.
fn parquet(seed: u32) -> Vec<u8> {
    use parquet::{
        column::writer::ColumnWriter,
        data_type::ByteArray,
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };
    let schema = "message m { required binary instruction (UTF8); required binary output (UTF8); }";
    let schema = std::sync::Arc::new(parse_message_type(schema).unwrap());
    let properties = std::sync::Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let text = String::from_utf8(rows(seed)).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for name in ["instruction", "output"] {
        let mut column = group.next_column().unwrap().unwrap();
        let ColumnWriter::ByteArrayColumnWriter(typed) = column.untyped() else { panic!("not text") };
        let values: Vec<ByteArray> = lines.iter().map(|line| ByteArray::from(line[name].as_str().unwrap())).collect();
        typed.write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.into_inner().unwrap()
}

fn project(more: &str) -> (Project, Hub) {
    let project = Project::new(&[("note", b"hello")]);
    project.recipe(&format!("{RECIPE}{more}"));
    let hub = Hub::start();
    put(&hub, 0);
    (project, hub)
}

/// A repository with the same rows in two forms, and what is no data.
fn put(hub: &Hub, seed: u32) -> gapimage::source::model::GitId {
    hub.put(
        REPO,
        &[
            (".gitattributes", b"*.parquet filter=lfs\n"),
            ("README.md", b"---\nlicense: mit\n---\n# Rows\n"),
            ("dataset_infos.json", b"{}"),
            ("rows.py", b"raise SystemExit('it was run')\n"),
            ("data/train-00000-of-00001.parquet", &parquet(seed)),
            ("raw/rows.jsonl", &rows(seed)),
        ],
    )
}

fn lock_text(project: &Project) -> String {
    fs::read_to_string(project.path().join("recipe.lock")).unwrap()
}

#[test]
fn the_lock_pins_the_commit_and_the_rows_of_one_form_are_prepared() {
    let (project, hub) = project("");
    let commit = put(&hub, 0);
    succeed(&mut command(&project, &hub, "lock"));
    assert_eq!(hub.downloads(), [""; 0], "large files are not fetched to be locked");
    // The branch moves on; what was locked is what is built.
    put(&hub, 7_000_000);
    succeed(&mut build(&project, &hub));
    let text = lock_text(&project);
    assert!(text.contains(&format!("commit = \"{commit}\"")) && text.contains("licenses = [\"mit\"]"), "{text}");
    assert!(text.contains("train-00000-of-00001.parquet") && !text.contains("raw/rows.jsonl"), "{text}");
    assert!(!text.contains("127.0.0.1"), "{text}");
    let directory = unpack(&project.path().join("a.gap"), "main", project.path()).join("data/rows");
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    let all = read("train.jsonl") + &read("validation.jsonl") + &read("test.jsonl");
    assert_eq!(all.lines().count(), 60);
    assert!(all.contains("w100 ") && !all.contains("w7000000 "), "{all}");
    let provenance = said(&succeed(
        crate::fixture::gapimage().arg("inspect").arg(project.path().join("a.gap")).args(["--document", "provenance"]),
    ));
    assert!(provenance.contains(&format!("{{\"gitCommit\":\"{commit}\"}}")), "{provenance}");
    // Everything was fetched.
    let first = fs::read(project.path().join("a.gap")).unwrap();
    fs::remove_file(project.path().join("a.gap")).unwrap();
    hub.behave(Some(Behaviour::Fail(500)));
    succeed(build(&project, &hub).arg("--offline"));
    assert!(first == fs::read(project.path().join("a.gap")).unwrap());
    hub.behave(None);
    succeed(command(&project, &hub, "lock").arg("--update"));
    assert!(!lock_text(&project).contains(&commit.to_string()));
}

#[test]
fn globs_choose_another_form() {
    let (project, hub) = project("include = [\"raw/*.jsonl\"]\n");
    succeed(&mut build(&project, &hub));
    assert!(lock_text(&project).contains("raw/rows.jsonl"), "{}", lock_text(&project));
    assert_eq!(said(&succeed(&mut build(&project, &hub))).lines().next().unwrap().split(' ').next(), Some("up"));
    project.recipe(&format!("{RECIPE}include = [\"*.arrow\"]\n"));
    let refused = fail_with(1, &mut command(&project, &hub, "lock"));
    assert!(refused.contains("`include` and `exclude` leave no file"), "{refused}");
}

#[test]
fn a_gated_data_set_asks_for_the_token_and_keeps_it_nowhere() {
    const SECRET: &str = "hf_averysecrettoken";
    let (project, hub) = project("");
    hub.gate(REPO, SECRET);
    let refused = fail_with(1, &mut build(&project, &hub));
    assert!(refused.contains("HF_TOKEN") && refused.contains("unresolved"), "{refused}");
    let output = succeed(build(&project, &hub).env("HF_TOKEN", SECRET));
    assert!(!said(&output).contains(SECRET));
    assert_eq!(hub.leaked_tokens(), [""; 0]);
    let found = Command::new("grep").args(["-rlF", SECRET]).arg(project.path()).output().unwrap();
    assert_eq!(said(&found), "");
    assert!(lock_text(&project).contains("gated = true"));
}

#[test]
fn the_token_goes_to_no_hub_that_only_the_recipe_of_a_data_set_names() {
    let (project, hub) = project("");
    hub.gate(REPO, "hf_averysecrettoken");
    keeps_the_token_from_a_hub_that_only_the_recipe_names(&project, &hub, RECIPE);
}
