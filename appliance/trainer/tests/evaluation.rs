//! Evaluations from the command line, of a tiny model that was made here.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod tiny;

use gap_train::data::{Encoder, Example};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tiny::{fail, succeed};

struct Setup {
    dir: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        tiny::model(&dir.path().join("model"), "LlamaForCausalLM", 1);
        tiny::adapter(&dir.path().join("run/adapter"), false, 2);
        let row =
            |index: usize| json!({"id": format!("e{index}"), "instruction": format!("Say {index}"), "output": "a"});
        let rows: String = (0..12).map(|index| format!("{}\n", row(index))).collect();
        fs::write(dir.path().join("data.jsonl"), rows).unwrap();
        let recorded = |index: usize| json!({"id": format!("e{index}"), "answer": if index < 9 { "a" } else { "b" }});
        let rows: String = (0..12).map(|index| format!("{}\n", recorded(index))).collect();
        fs::write(dir.path().join("recorded.jsonl"), rows).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn job(&self, more: Value) -> String {
        let mut job = json!({"model": "model", "data": "data.jsonl", "output": "out", "max_new_tokens": 6, "resamples": 200,
            "candidates": {"base": {}, "new": {"adapter": "run/adapter"}, "people": {"recorded": "recorded.jsonl"}},
            "metrics": {"perplexity": true, "exact_match": {}}});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tiny::write(&self.path("job.json"), &job);
        self.path("job.json").to_str().unwrap().to_owned()
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("out/report.json")).unwrap()).unwrap()
    }
}

fn measured<'a>(report: &'a Value, candidate: &str, metric: &str) -> &'a Value {
    let all = report["measured"].as_array().unwrap();
    all.iter().find(|entry| entry["candidate"] == candidate && entry["metric"] == metric).unwrap()
}

/// The second of a pair against the first.
fn compared<'a>(report: &'a Value, second: &str, metric: &str) -> &'a Value {
    let all = report["compared"].as_array().unwrap();
    all.iter().find(|entry| entry["second"] == second && entry["metric"] == metric).unwrap()
}

#[test]
fn candidates_are_measured_and_compared_and_the_same_again_gives_the_same() {
    let setup = Setup::new();
    let job = setup.job(json!({}));
    succeed(&["eval", &job]);
    let report = setup.report();
    assert_eq!(measured(&report, "people", "exact_match")["value"], 0.75);
    assert!(measured(&report, "base", "perplexity")["value"].as_f64().unwrap() > 10.0, "random weights know nothing");
    assert_eq!(report["compared"].as_array().unwrap().len(), 4, "three pairs by exact match, one by perplexity");
    assert_eq!(report["examples"][0]["question"], "Say 0");
    let before = fs::read(setup.path("out/report.html")).unwrap();
    fs::remove_dir_all(setup.path("out")).unwrap();
    succeed(&["eval", &job]);
    assert!(before == fs::read(setup.path("out/report.html")).unwrap());
}

#[test]
fn the_perplexity_is_that_of_the_logits() {
    let setup = Setup::new();
    fs::write(setup.path("one.jsonl"), json!({"prompt": "ab", "completion": "c"}).to_string()).unwrap();
    succeed(&[
        "eval",
        &setup.job(json!({"data": "one.jsonl", "candidates": {"base": {}}, "metrics": {"perplexity": true}})),
    ]);
    let logits = tiny::serving_logits(&setup.path("model"), None, &[u32::from(b'a'), u32::from(b'b')]);
    let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    let expected = sum / f64::from(logits[usize::from(b'c')]).exp();
    let report = setup.report();
    let found = measured(&report, "base", "perplexity")["value"].as_f64().unwrap();
    assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
}

#[test]
fn a_token_that_begins_with_the_end_of_the_prompt_is_the_first_of_the_answer() {
    let setup = Setup::new();
    let path = setup.path("model/tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    // In the place of a byte, so that the special tokens keep theirs.
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let place = vocabulary.remove("\u{100}").unwrap();
    vocabulary.insert("\u{120}c".to_owned(), place);
    tokenizer["model"]["merges"] = json!(["\u{120} c"]);
    tiny::write(&path, &tokenizer);
    let encoder = Encoder::read(&setup.path("model"), 288).unwrap();
    let example = Example::Completion { prompt: "a ".to_owned(), answers: vec!["c".to_owned()] };
    let trained = encoder.encode(&example, true).unwrap();
    assert_eq!(trained[0].tokens(), [(97, false), (0, true), (258, true)]);
    fs::write(setup.path("one.jsonl"), json!({"prompt": "a ", "completion": "c"}).to_string()).unwrap();
    succeed(&[
        "eval",
        &setup.job(json!({"data": "one.jsonl", "candidates": {"base": {}}, "metrics": {"perplexity": true}})),
    ]);
    let rows = fs::read_to_string(setup.path("out/answers/base.jsonl")).unwrap();
    let answer: Value = serde_json::from_str(rows.lines().nth(1).unwrap()).unwrap();
    assert_eq!(answer["tokens"], 1, "{answer}");
}

#[test]
fn an_interrupted_evaluation_keeps_its_answers() {
    let setup = Setup::new();
    let job = setup.job(json!({"candidates": {"base": {}}}));
    succeed(&["eval", &job]);
    let path = setup.path("out/answers/base.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
    let kept: Value = serde_json::from_str(&rows[1]).unwrap();
    rows[1] = json!({"id": kept["id"], "answer": "kept from before"}).to_string();
    fs::write(&path, rows[..3].join("\n") + "\n{\"id\": \"e2\", \"ans").unwrap();
    succeed(&["eval", &job]);
    assert_eq!(setup.report()["examples"][0]["answers"]["base"], "kept from before");
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), text.lines().count());
}

#[test]
fn answers_are_kept_only_where_the_same_was_asked() {
    let setup = Setup::new();
    let only = |metrics: Value| setup.job(json!({"candidates": {"base": {}}, "limit": 3, "metrics": metrics}));
    let answers = || setup.report()["examples"].clone();
    succeed(&["eval", &only(json!({"exact_match": {}, "perplexity": true}))]);
    let asked = answers();
    assert_ne!(asked[0]["answers"]["base"], "", "random weights say something");
    fs::remove_dir_all(setup.path("out")).unwrap();
    succeed(&["eval", &only(json!({"perplexity": true}))]);
    succeed(&["eval", &only(json!({"exact_match": {}, "perplexity": true}))]);
    assert_eq!(answers(), asked, "nobody had asked for answers before");

    let kept = || {
        let path = setup.path("out/answers/base.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
        rows[1] = json!({"id": "e0", "answer": "kept from before"}).to_string();
        fs::write(&path, rows.join("\n") + "\n").unwrap();
        succeed(&["eval", &only(json!({"exact_match": {}, "perplexity": true}))]);
        answers()[0]["answers"]["base"] == "kept from before"
    };
    assert!(kept(), "nothing changed");
    for (name, from, to) in [
        ("tokenizer.json", "\"dropout\":null", "\"dropout\": null"),
        ("tokenizer_config.json", "<|im_end|>\\n{% endfor %}", "<|im_end|>{% endfor %}"),
    ] {
        let path = setup.path("model").join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replace(from, to)).unwrap();
        assert!(!kept(), "{name} changed");
    }
    fs::write(setup.path("model/chat_template.jinja"), "{{ messages[0]['content'] }}").unwrap();
    assert!(!kept(), "the chat template changed");
}

#[test]
fn what_a_tokenizer_says_about_length_and_padding_changes_no_measurement() {
    let setup = Setup::new();
    let job = setup.job(json!({"candidates": {"base": {}}}));
    succeed(&["eval", &job]);
    let before = setup.report();
    let path = setup.path("model/tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    tokenizer["truncation"] = json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    tokenizer["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 256, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
    tiny::write(&path, &tokenizer);
    fs::remove_dir_all(setup.path("out")).unwrap();
    succeed(&["eval", &job]);
    assert_eq!(setup.report(), before);
}

#[test]
fn results_go_into_the_lineage_of_the_adapter() {
    let setup = Setup::new();
    tiny::lineage(&setup.path("run"), &gap_train::digest::of_model(&setup.path("model")).unwrap());
    for _ in 0..2 {
        succeed(&["eval", &setup.job(json!({}))]);
    }
    let lineage: gap_contract::Lineage =
        serde_json::from_slice(&fs::read(setup.path("run/lineage.json")).unwrap()).unwrap();
    let metrics: Vec<&str> = lineage.evaluation.iter().map(|entry| entry.metric.as_str()).collect();
    assert_eq!(metrics, ["exact_match", "perplexity"], "and the second time replaces the first");
    assert_eq!(lineage.evaluation[0].examples, 12);
}

#[test]
fn results_on_a_whole_model_go_into_its_lineage_and_only_there() {
    let setup = Setup::new();
    tiny::lineage(&setup.path("run"), "0");
    let mut lineage: Value = serde_json::from_slice(&fs::read(setup.path("run/lineage.json")).unwrap()).unwrap();
    fs::remove_file(setup.path("run/lineage.json")).unwrap();
    let part = |index: u8| format!("model-0000{index}-of-00002.safetensors");
    let digest = |index| gap_train::digest::of_file(&setup.path("model").join(part(index))).unwrap();
    let mut evaluated = |result: Value| {
        lineage["result"] = result;
        tiny::write(&setup.path("lineage.json"), &lineage);
        succeed(&["eval", &setup.job(json!({}))]);
        let lineage: gap_contract::Lineage =
            serde_json::from_slice(&fs::read(setup.path("lineage.json")).unwrap()).unwrap();
        lineage.evaluation.iter().map(|entry| (entry.metric.clone(), entry.value)).collect::<Vec<_>>()
    };
    assert!(evaluated(json!({"model/a": digest(1)})).is_empty(), "one of its files is another");
    let found = evaluated(json!({"model/a": digest(1), "model/b": digest(2)}));
    let value = |metric: &str| measured(&setup.report(), "base", metric)["value"].as_f64().unwrap();
    assert_eq!(found, ["exact_match", "perplexity"].map(|metric| (metric.to_owned(), value(metric))));
}

#[test]
fn two_adapters_are_compared_by_every_rule() {
    let setup = Setup::new();
    tiny::adapter(&setup.path("other/adapter"), false, 5);
    let row = |index: usize| json!({"id": format!("e{index}"), "instruction": format!("Say {index}"), "output": format!("n={index}")});
    fs::write(setup.path("numbers.jsonl"), (0..8).map(|index| format!("{}\n", row(index))).collect::<String>())
        .unwrap();
    let recorded = |index: usize| {
        let answer = if index < 6 { format!("{{\"n\": {index}}} n={index}") } else { format!("{{\"n\": {index}}}") };
        json!({"id": format!("e{index}"), "answer": answer})
    };
    fs::write(setup.path("people.jsonl"), (0..8).map(|index| format!("{}\n", recorded(index))).collect::<String>())
        .unwrap();
    tiny::write(&setup.path("schema.json"), &json!({"type": "object", "required": ["n"]}));
    succeed(&[
        "eval",
        &setup.job(json!({"data": "numbers.jsonl",
            "candidates": {"one": {"adapter": "run/adapter"}, "other": {"adapter": "other/adapter"},
                "people": {"recorded": "people.jsonl"}},
            "compare": [["one", "other"], ["one", "people"]],
            "metrics": {"perplexity": true, "regex": {"pattern": "n=(\\d+)"}, "json_schema": {"schema": "schema.json"}}})),
    ]);
    let report = setup.report();
    assert_eq!(measured(&report, "people", "regex")["value"], 0.75);
    assert_eq!(measured(&report, "people", "json_schema")["value"], 0.25);
    for metric in ["regex", "json_schema"] {
        assert_eq!(measured(&report, "one", metric)["value"], 0.0, "random weights know nothing");
        let found = compared(&report, "people", metric);
        assert_eq!(found["difference"], measured(&report, "people", metric)["value"]);
    }
    let found = compared(&report, "other", "perplexity");
    let value = |candidate: &str| measured(&report, candidate, "perplexity")["value"].as_f64().unwrap();
    assert!((found["difference"].as_f64().unwrap() - (value("other") - value("one"))).abs() < 1e-9, "{found}");
    assert_ne!(value("other"), value("one"), "each adapter is asked by itself");
    let sum = ["wins", "ties", "losses"].iter().map(|name| found[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum, 8);
}

#[test]
fn a_sheet_goes_out_without_names_and_comes_back_as_a_comparison() {
    let setup = Setup::new();
    let job = setup.job(json!({"metrics": {}, "rating_sheet": {"between": ["base", "people"], "examples": 10}}));
    succeed(&["eval", &job]);
    let key: Value = serde_json::from_slice(&fs::read(setup.path("out/sheet.key.json")).unwrap()).unwrap();
    let mut sheet = csv::Reader::from_path(setup.path("out/sheet.csv")).unwrap();
    let rows: Vec<csv::StringRecord> = sheet.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 10);
    assert!(!fs::read_to_string(setup.path("out/sheet.html")).unwrap().contains("people"));
    let mut back = String::from("id,better,sheet\n");
    for row in &rows {
        let people_second = key["in_order"][&row[0]].as_bool().unwrap();
        let people = if people_second { &row[3] } else { &row[2] };
        assert!(people == "a" || people == "b");
        back += &format!("{},{},{}\n", &row[0], if people_second { 2 } else { 1 }, &row[6]);
    }
    fs::write(setup.path("back.csv"), back).unwrap();
    succeed(&["eval", &job, "--ratings", setup.path("back.csv").to_str().unwrap()]);
    assert_eq!((&setup.report()["ratings"]["second"], &setup.report()["ratings"]["first"]), (&json!(10), &json!(0)));
    let sheet = || fs::read(setup.path("out/sheet.csv")).unwrap();
    let before = sheet();
    fs::write(
        setup.path("recorded.jsonl"),
        fs::read_to_string(setup.path("recorded.jsonl")).unwrap().replace("\"b\"", "\"c\""),
    )
    .unwrap();
    let said = fail(&["eval", &job, "--ratings", setup.path("back.csv").to_str().unwrap()]);
    assert!(said.contains("is the key to other answers"), "{said}");
    let said = fail(&["eval", &job]);
    assert!(said.contains("move it and sheet.key.json away") && before == sheet(), "{said}");
}

#[test]
fn a_model_can_be_the_judge_and_says_nothing_where_it_says_no_number() {
    let setup = Setup::new();
    succeed(&[
        "eval",
        &setup.job(json!({"limit": 2, "candidates": {"base": {}}, "metrics": {"judge": {}, "exact_match": {}}})),
    ]);
    let report = setup.report();
    let metrics: Vec<&Value> = report["measured"].as_array().unwrap().iter().map(|entry| &entry["metric"]).collect();
    assert_eq!(metrics, ["exact_match"], "random weights judge nothing");
}

#[test]
fn ratings_of_a_model_that_judges_are_measured() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let row = |index: usize| {
        let asked = format!(
            "Rate this response on a scale of 1-5:\n- Accuracy: Does it contain correct information?\n- Completeness: Does it \
             fully answer the question?\n- Format: Does it follow the required structure?\n\nQuestion: Say {index}\nResponse: \
             {index}\n\nReply with three lines and nothing else:\nAccuracy: <1-5>\nCompleteness: <1-5>\nFormat: <1-5>"
        );
        json!({"instruction": asked, "output": "Accuracy: 4\nCompleteness: 3\nFormat: 5"})
    };
    fs::write(path("train.jsonl"), (0..16).map(|index| format!("{}\n", row(index))).collect::<String>()).unwrap();
    let ask = |index: usize| json!({"instruction": format!("Say {index}"), "output": index.to_string()});
    fs::write(path("data.jsonl"), (20..24).map(|index| format!("{}\n", ask(index))).collect::<String>()).unwrap();
    let (judge, vocabulary) = (path("judge"), path("train.jsonl"));
    let sizes = ["--hidden", "64", "--layers", "2", "--intermediate", "128", "--context", "512", "--vocab", "400"];
    let mut init = vec!["init", judge.to_str().unwrap(), "--vocab-from", vocabulary.to_str().unwrap()];
    init.extend(sizes);
    succeed(&init);
    tiny::write(
        &path("job.json"),
        &json!({"model": "judge", "training_file": "train.jsonl", "output": "taught", "max_steps": 80, "batch_size": 8,
            "learning_rate": 5e-3, "max_length": 512, "seed": 1}),
    );
    succeed(&["run", path("job.json").to_str().unwrap()]);
    let answer = |index: usize| json!({"id": (index - 19).to_string(), "answer": index.to_string()});
    fs::write(path("answers.jsonl"), (20..24).map(|index| format!("{}\n", answer(index))).collect::<String>()).unwrap();
    tiny::write(
        &path("eval.json"),
        &json!({"model": "taught/model", "data": "data.jsonl", "output": "out",
            "candidates": {"people": {"recorded": "answers.jsonl"}}, "metrics": {"judge": {}}}),
    );
    succeed(&["eval", path("eval.json").to_str().unwrap()]);
    let report: Value = serde_json::from_slice(&fs::read(path("out/report.json")).unwrap()).unwrap();
    for (aspect, value) in [("accuracy", 4.0), ("completeness", 3.0), ("format", 5.0)] {
        let found = measured(&report, "people", &format!("judge_{aspect}"));
        assert_eq!((found["value"].as_f64().unwrap(), &found["examples"]), (value, &json!(4)), "{aspect}");
    }
}

/// Rows that say whether things are warm or cold, by their colours. Every fifth pair of colour and thing is held out.
fn colours(held_out: bool, swapped: bool) -> String {
    let colours =
        [("red", true), ("orange", true), ("amber", true), ("blue", false), ("grey", false), ("white", false)];
    let things = ["door", "lamp", "wall", "cup", "box", "road", "hat", "key", "desk", "stone"];
    let pairs = colours.iter().enumerate().flat_map(|(row, colour)| {
        let chosen = things.iter().enumerate().filter(move |(column, _)| ((row + column) % 5 == 0) == held_out);
        chosen.map(move |(_, thing)| (*colour, *thing))
    });
    let rows = pairs.map(|((colour, warm), thing)| {
        let answer = if warm == swapped { "cold" } else { "warm" };
        let row = json!({"instruction": format!("Is the {colour} {thing} warm or cold?"), "output": format!("The {thing} is {answer}.")});
        format!("{row}\n")
    });
    rows.collect()
}

#[test]
fn a_tiny_model_that_was_fine_tuned_beats_its_base_on_what_it_never_saw() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("before.jsonl"), colours(false, true)).unwrap();
    fs::write(path("train.jsonl"), colours(false, false)).unwrap();
    fs::write(path("held.jsonl"), colours(true, false)).unwrap();
    let new = path("new");
    let vocabulary = path("train.jsonl");
    let sizes = ["--hidden", "64", "--layers", "2", "--intermediate", "128", "--context", "64", "--vocab", "320"];
    let mut init = vec!["init", new.to_str().unwrap(), "--vocab-from", vocabulary.to_str().unwrap()];
    init.extend(sizes);
    succeed(&init);
    let train = |name: &str, more: Value| {
        let mut job = json!({"batch_size": 16, "max_length": 64, "seed": 1});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tiny::write(&path(name), &job);
        succeed(&["run", path(name).to_str().unwrap()]);
    };
    // The base was taught that warm is cold.
    train(
        "base.json",
        json!({"model": "new", "training_file": "before.jsonl", "output": "base", "max_steps": 250, "learning_rate": 5e-3}),
    );
    train(
        "tuned.json",
        json!({"model": "base/model", "training_file": "train.jsonl", "output": "tuned", "max_steps": 120,
            "learning_rate": 2e-2, "lora": {"r": 8, "alpha": 16}}),
    );
    tiny::write(
        &path("eval.json"),
        &json!({"model": "base/model", "data": "held.jsonl", "output": "out", "max_new_tokens": 16,
            "candidates": {"base": {}, "tuned": {"adapter": "tuned/adapter"}}, "metrics": {"exact_match": {}}}),
    );
    succeed(&["eval", path("eval.json").to_str().unwrap()]);
    let report: Value = serde_json::from_slice(&fs::read(path("out/report.json")).unwrap()).unwrap();
    let value = |candidate| measured(&report, candidate, "exact_match")["value"].as_f64().unwrap();
    assert!(value("tuned") >= 0.9 && value("base") <= 0.1, "{} {}", value("tuned"), value("base"));
    assert!(report["compared"][0]["interval"][0].as_f64().unwrap() > 0.0, "and not by chance: {}", report["compared"]);
}

#[test]
fn an_adapter_of_another_base_is_not_evaluated() {
    let setup = Setup::new();
    tiny::lineage(&setup.path("run"), "0");
    let said = fail(&["eval", &setup.job(json!({}))]);
    assert!(said.contains("with digest 0, but") && said.contains("serve it with its own base"), "{said}");
}

#[test]
fn what_cannot_be_evaluated_is_said() {
    let setup = Setup::new();
    let other: &Path = &setup.path("other.jsonl");
    fs::write(other, json!({"id": "x", "answer": "a"}).to_string()).unwrap();
    let said = fail(&["eval", &setup.job(json!({"candidates": {"x": {"recorded": "other.jsonl"}}}))]);
    assert!(said.contains("none of the answers in"), "{said}");
    let said = fail(&["eval", &setup.job(json!({"data": "gone.jsonl"}))]);
    assert!(said.contains("gone.jsonl cannot be read"), "{said}");
    let path = setup.path("model/tokenizer.json");
    let tokenizer = fs::read_to_string(&path).unwrap();
    fs::write(&path, tokenizer.replace("\"vocab\":{", "\"vocab\":{\"zz\":288,")).unwrap();
    let said = fail(&["eval", &setup.job(json!({}))]);
    assert!(said.contains("the model has 288 rows; they are not of one piece"), "{said}");
    fs::remove_file(&path).unwrap();
    let said = fail(&["eval", &setup.job(json!({}))]);
    assert!(said.contains("tokenizer"), "{said}");
}
