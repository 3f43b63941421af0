//! The program of a job and its arguments.

use super::{SubmitError, is_in_image, launch, offline};
use crate::work::{
    catalog::RunSettings,
    order::{ModelOrder, Order, inside},
};
use gap_handover::declared::{DeclaredJob, DeclaredKind};
use std::path::Path;

/// The trainer of the appliance.
pub const GAP_TRAIN: &str = "gap-train";
/// The server of the appliance.
const GAP_SERVE: &str = "gap-serve";

/// Where time zones lie.
const ZONES: &str = "/usr/share/zoneinfo";
/// What stands before the slash of media types and platforms, and owns nothing on a hub.
const NO_OWNERS: [&str; 10] =
    ["application", "audio", "font", "image", "linux", "message", "multipart", "text", "video", "windows"];

/// The program that a declared job runs: what the recipe says, else what its engine is started by, else the image's own;
/// with one process for each of so many GPUs, where it needs that.
pub fn of(
    declared: &DeclaredJob,
    settings: &RunSettings,
    model: Option<&ModelOrder>,
    gpus: u32,
) -> Result<Vec<String>, SubmitError> {
    let words = if !declared.run.is_empty() {
        declared.run.clone()
    } else {
        match (declared.kind, declared.engine.as_deref(), model) {
            (DeclaredKind::Train, Some(GAP_TRAIN), _) => [GAP_TRAIN, "run", "{job}"].map(str::to_owned).to_vec(),
            (DeclaredKind::Serve, Some(GAP_SERVE), Some(model)) => gap_serve(declared, model),
            _ => settings.entrypoint.iter().chain(&settings.cmd).cloned().collect(),
        }
    };
    if words.is_empty() {
        let message = format!("neither the job `{}` nor its image `{}` names a program", declared.name, declared.image);
        return Err(SubmitError::NotDeclared(message));
    }
    let words = launch::on(declared, gpus, words);
    Ok(words.iter().map(|word| filled(word, model).replace(launch::GPUS, &gpus.to_string())).collect())
}

fn gap_serve(declared: &DeclaredJob, model: &ModelOrder) -> Vec<String> {
    let mut words = vec![GAP_SERVE.to_owned()];
    let has_adapter = model.adapter().is_some();
    let base = if has_adapter { &model.base.name } else { &model.name };
    words.extend(["--model".to_owned(), format!("{base}={}", inside::MODEL)]);
    if has_adapter {
        words.extend(["--adapter".to_owned(), format!("{}={base}:{}", model.name, inside::ADAPTER)]);
    }
    words.extend(["--listen".to_owned(), format!("unix:{}", inside::SOCKET)]);
    if let Some(length) = declared.length {
        words.extend(["--context".to_owned(), length.to_string()]);
    }
    if let Some(concurrency) = declared.concurrency {
        words.extend(["--sequences".to_owned(), concurrency.to_string()]);
    }
    words
}

/// Puts the places of the job into a word of its command.
fn filled(word: &str, model: Option<&ModelOrder>) -> String {
    let name = model.map(|model| model.name.as_str()).unwrap_or_default();
    let places = [
        ("{job}", inside::JOB),
        ("{model}", inside::MODEL),
        ("{adapter}", inside::ADAPTER),
        ("{training}", inside::TRAINING),
        ("{validation}", inside::VALIDATION),
        ("{data}", inside::DATA),
        ("{output}", inside::OUTPUT),
        ("{cache}", inside::CACHE),
        ("{socket}", inside::SOCKET),
        ("{name}", name),
    ];
    places.iter().fold(word.to_owned(), |word, (place, path)| word.replace(place, path))
}

/// Looks through the words and variables of a job for what only a network could give.
pub fn check(root: &Path, order: &Order) -> Result<(), SubmitError> {
    let refused = |word: &str| {
        let message = format!(
            "`{word}` names something on a network, which a job does not have: name a model or data set of the release"
        );
        Err(SubmitError::field("run", message))
    };
    let granted = order.endpoints.values().copied().collect();
    let is_outside = |word: &str| offline::is_address(word) && !offline::is_granted(word, &granted);
    for word in order.command.iter().skip(1) {
        let value = word.split_once('=').map_or(word.as_str(), |(_, value)| value);
        let is_elsewhere = offline::is_hub_identifier(value) && !is_in_image(root, "/", value);
        if is_outside(word) || is_elsewhere {
            return refused(word);
        }
    }
    let is_elsewhere = |value: &str| offline::is_hub_identifier(value) && !is_something_else(root, value);
    match order.env.iter().find(|(_, value)| is_outside(value) || is_elsewhere(value)) {
        None => Ok(()),
        Some((name, value)) => {
            let message = format!(
                "`{name}={value}` names something on a network, which a job does not have: name a model or data set of the \
                 release, or give its path as /run/job/model"
            );
            Err(SubmitError::field("env", message))
        }
    }
}

/// Whether the value of a variable that has the form of a hub's identifier is known to be none: a path or a time zone of
/// the image, a media type (RFC 6838), a platform, a fraction.
fn is_something_else(root: &Path, value: &str) -> bool {
    let (first, second) = value.split_once('/').unwrap_or((value, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    NO_OWNERS.contains(&first)
        || (is_number(first) && is_number(second))
        || is_in_image(root, "/", value)
        || is_in_image(root, ZONES, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gap_handover::declared::Place;
    use gap_jobs::JobId;
    use std::collections::BTreeMap;

    fn declared(kind: DeclaredKind, engine: &str, run: &[&str]) -> DeclaredJob {
        DeclaredJob {
            name: "x".into(),
            kind,
            image: "os".into(),
            run: run.iter().map(|&word| word.to_owned()).collect(),
            engine: Some(engine.into()),
            gpus: 0,
            model: None,
            datasets: Vec::new(),
            parameters: serde_json::Map::new(),
            length: Some(128),
            concurrency: Some(2),
            endpoints: BTreeMap::new(),
        }
    }

    fn trained() -> ModelOrder {
        let base = Place { name: "tiny".into(), image: "tiny".into(), path: "/models/tiny".into() };
        ModelOrder { name: "ft:tiny:x:1".into(), base, trained: Some(JobId::new(JobId::TRAINING)), whole: None }
    }

    #[test]
    fn variables_that_name_a_hub_are_refused_and_those_that_only_look_so_are_not() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["usr/share/zoneinfo/Europe", "opt/app"] {
            std::fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        std::fs::write(directory.path().join("usr/share/zoneinfo/Europe/Berlin"), "TZif").unwrap();
        let order = |value: &str| Order {
            declared: "x".into(),
            command: vec!["/app".into()],
            image: "os".into(),
            env: [("NAME".to_owned(), value.to_owned())].into(),
            datasets: Vec::new(),
            endpoints: BTreeMap::new(),
            training: None,
            validation: None,
            job: None,
            asked: crate::work::order::Asked::default(),
            model: None,
            has_terminal: false,
        };
        let check = |value: &str| check(directory.path(), &order(value));
        for value in ["Qwen/Qwen2.5-7B-Instruct", "google-bert/bert-base", "https://example.org", "Asia/Berlin"] {
            let refused = check(value).unwrap_err();
            assert!(matches!(&refused, SubmitError::Field { param, .. } if param == "env"), "{refused}");
            assert!(refused.to_string().contains(&format!("`NAME={value}`")), "{refused}");
        }
        for value in [
            "Europe/Berlin",
            "application/json",
            "text/plain",
            "linux/amd64",
            "1/2",
            "0.5/2",
            "opt/app",
            "/models/tiny",
            "./a/b",
            "200",
            "",
        ] {
            check(value).unwrap();
        }
    }

    #[test]
    fn the_appliances_own_programs_are_known() {
        let train = of(&declared(DeclaredKind::Train, "gap-train", &[]), &RunSettings::default(), None, 0).unwrap();
        assert_eq!(train, ["gap-train", "run", "/run/job/job.json"]);
        let serve = |model: &ModelOrder| {
            let declared = declared(DeclaredKind::Serve, "gap-serve", &[]);
            of(&declared, &RunSettings::default(), Some(model), 0).unwrap().join(" ")
        };
        let rest = "--listen unix:/run/job/sockets/http.sock --context 128 --sequences 2";
        let with_adapter = "gap-serve --model tiny=/run/job/model --adapter ft:tiny:x:1=tiny:/run/job/adapter";
        let (adapter, job) = (trained(), JobId::new(JobId::TRAINING));
        assert_eq!(serve(&adapter), format!("{with_adapter} {rest}"));
        let on_whole = ModelOrder { whole: Some(job), ..trained() };
        assert_eq!(serve(&on_whole), format!("{with_adapter} {rest}"));
        let whole = ModelOrder { whole: adapter.trained.clone(), ..adapter };
        assert_eq!(serve(&whole), format!("gap-serve --model ft:tiny:x:1=/run/job/model {rest}"));
    }

    #[test]
    fn the_recipe_comes_first_then_the_image_and_nothing_is_refused() {
        let settings =
            RunSettings { entrypoint: vec!["/app".into()], cmd: vec!["go".into()], ..RunSettings::default() };
        let mine = declared(DeclaredKind::Run, "other", &["python3", "--out={output}"]);
        assert_eq!(of(&mine, &settings, None, 0).unwrap(), ["python3", "--out=/run/job/output"]);
        let images = declared(DeclaredKind::Run, "other", &[]);
        assert_eq!(of(&images, &settings, None, 0).unwrap(), ["/app", "go"]);
        assert!(of(&images, &RunSettings::default(), None, 0).is_err());
        let counting = declared(DeclaredKind::Serve, "vllm", &["vllm", "--tensor-parallel-size={gpus}"]);
        assert_eq!(of(&counting, &settings, None, 4).unwrap(), ["vllm", "--tensor-parallel-size=4"]);
    }
}
