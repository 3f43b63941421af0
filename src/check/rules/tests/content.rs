//! Defects of data, models, licences, and secrets.

use super::*;

#[test]
fn a_token_in_a_layer() {
    let scan = |came_with_package, count, is_cut| {
        let kind = "Hugging Face token".to_owned();
        let finding = Finding { path: "/srv/.env".to_owned(), line: 3, kind, came_with_package };
        Some(Found { findings: vec![finding; count], is_cut })
    };
    let found = only_fail(|facts| facts.layers[0].secrets = scan(false, 1, false));
    assert_eq!(found, "secrets layer site: /srv/.env:3 looks like a Hugging Face token");
    let mut facts = good();
    facts.layers[0].secrets = scan(false, 1000, true);
    let told = serde_json::to_string(&check(&facts)).unwrap();
    assert!(told.contains("at least 980 places more look like secrets"), "{told}");
    facts.layers[0].secrets = scan(true, 1, false);
    assert!(!check(&facts).has_failed());
}

#[test]
fn data_that_is_personal_of_no_form_or_not_split() {
    let card = |change: fn(&mut DataCard)| only_fail(|facts| change(facts.datasets[0].card.as_mut().unwrap()));
    assert_starts(&card(|card| card.personal = Some(7)), "data dataset tickets: 7 places hold personal data");
    assert_starts(&card(|card| card.format = "xml".to_owned()), "data dataset tickets: its records are `xml`");
    let no_train = card(|card| {
        card.splits.remove("train");
    });
    assert_starts(&no_train, "splits dataset tickets: no part of it is to be trained on");
}

#[test]
fn a_model_that_is_not_whole() {
    let found = |part, what: &str| {
        let finding =
            ModelFinding { part, status: Status::Fail, what: what.to_owned(), remedy: "take it too".to_owned() };
        only_fail(|facts| facts.models[0].findings = Some(vec![finding]))
    };
    let shard = "model-00002-of-00004.safetensors is missing";
    assert_eq!(found(ModelPart::Weights, shard), format!("weights model base: {shard}"));
    assert_eq!(found(ModelPart::Tokenizer, "there is none"), "tokenizer model base: there is none");
    assert_eq!(found(ModelPart::Configuration, "there is none"), "model-config model base: there is none");
}

#[test]
fn a_forbidden_licence_of_a_model_a_data_set_or_a_package() {
    let found = only_fail(|facts| facts.models[0].licenses = vec!["cc-by-nc-4.0".to_owned()]);
    assert_eq!(found, "licences model base: CC-BY-NC-4.0 is not allowed");
    let found = only_fail(|facts| facts.datasets[0].licenses = vec!["gpl-3.0".to_owned()]);
    assert_eq!(found, "licences dataset tickets: GPL-3.0-only is not allowed");
    let found =
        only_fail(|facts| replace_wheel(facts, "tqdm", |wheel| wheel.licenses = vec!["AGPL-3.0-only".to_owned()]));
    assert_eq!(found, "licences image train: AGPL-3.0-only is not allowed: tqdm");
    let found = only_fail(|facts| facts.images[0].debian[0].licenses.push("GPL-3.0-or-later".to_owned()));
    assert_eq!(found, "licences image train: GPL-3.0-or-later is not allowed: libc6");
}

#[test]
fn terms_on_commercial_use_are_named() {
    let mut facts = good();
    facts.models[0].licenses = vec!["llama3.1".to_owned()];
    facts.licenses.as_mut().unwrap().allow.push("LicenseRef-llama3.1".to_owned());
    let warned = lines(&facts, Status::Warn);
    assert!(!check(&facts).has_failed(), "{}", check(&facts));
    assert!(warned[0].reason.contains("gates commercial use: above 700 million users"), "{warned:#?}");
}

#[test]
fn what_is_tested_with_must_not_be_trained_on() {
    let found = only_fail(|facts| {
        facts.acceptance.as_mut().unwrap().test_set = Some("elsewhere".to_owned());
    });
    assert_starts(&found, "acceptance dataset elsewhere: it is the `test_set`, and the recipe has no such data set");
    let found = only_fail(|facts| {
        let card = facts.datasets[0].card.as_mut().unwrap();
        card.splits.remove("test");
    });
    assert_starts(&found, "acceptance dataset tickets: it is the `test_set`, a job trains on it");
}

#[test]
fn all_of_debian_s_main_can_be_allowed_and_nothing_else_with_it() {
    let package = |name: &str, is_main| DebianPackage {
        name: name.to_owned(),
        version: "1".to_owned(),
        licenses: vec!["LicenseRef-debian-X".to_owned(), "GPL-3.0-only".to_owned()],
        is_main,
    };
    let mut facts = good();
    facts.licenses.as_mut().unwrap().allow.push("LicenseRef-DFSG".to_owned());
    facts.images[0].debian.push(package("free", true));
    assert!(!check(&facts).has_failed(), "{}", check(&facts));
    facts.images[0].debian.push(package("unfree", false));
    let fails: Vec<String> = lines(&facts, Status::Fail).into_iter().map(|line| line.reason).collect();
    assert_eq!(fails, ["GPL-3.0-only is not allowed: unfree", "LicenseRef-debian-X is not allowed: unfree"]);
    // What only Debian has a name for is not refused by that name.
    let mut facts = good();
    facts.images[0].debian.push(package("free", true));
    let fails: Vec<String> = lines(&facts, Status::Fail).into_iter().map(|line| line.reason).collect();
    assert_eq!(fails, ["GPL-3.0-only is not allowed: free"]);
    assert!(lines(&facts, Status::Unresolved)[0].reason.ends_with("only Debian has a name for: free"));
}
