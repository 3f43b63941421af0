//! The sentiment classifier: without a network, the image answers as unmodified Transformers do on the connected side.

use crate::{
    connected::Connected,
    shipped::{Shipped, json_lines},
};

const REPO: &str = "distilbert/distilbert-base-uncased-finetuned-sst-2-english";
const TEXTS: [&str; 4] =
    ["This is a great day!", "What a terrible idea.", "the weather was lovely", "quite something else"];

/// Label and score of each text.
fn answers(printed: &str) -> Vec<(String, f64)> {
    let answer =
        |answer: serde_json::Value| (answer["label"].as_str().unwrap().to_owned(), answer["score"].as_f64().unwrap());
    json_lines(printed).into_iter().map(answer).collect()
}

#[test]
#[ignore = "takes minutes, in `make test-all`; the two recipes beside it go the same ways"]
fn the_image_answers_as_unmodified_transformers_do() {
    let connected = Connected::new();
    connected.python("tests/recipes/make_classifier.py", &[], &["model"]);
    let expected = answers(&connected.python("recipes/sentiment/classify.py", &["MODEL=model"], &TEXTS));
    assert_eq!(expected.len(), TEXTS.len());
    assert_ne!(expected[0].0, expected[1].0, "the labels differ: {expected:?}");

    let shipped = Shipped::new("sentiment");
    shipped.publish(REPO, "apache-2.0", &connected.files("model"));
    shipped.build(&[("imports", "app"), ("by-name", "app"), ("by-path", "app")]);
    for model in [REPO, "/models/sentiment"] {
        let variable = format!("MODEL={model}");
        let command = ["env", &variable, "python3", "/opt/app/classify.py"];
        let found = answers(&shipped.run("app", &[&command[..], &TEXTS].concat()));
        assert_eq!(found.len(), expected.len());
        for ((label, score), (wanted, wanted_score)) in found.iter().zip(&expected) {
            assert_eq!(label, wanted);
            assert!((score - wanted_score).abs() < 1e-5, "{found:?} {expected:?}");
        }
    }
    shipped.build_again_offline();
    shipped.sign_and_verify();
}
