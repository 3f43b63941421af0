//! Any text as the configuration of a job or of a model, and as the contents of a layer: it is judged, the same each time.
#![no_main]

use gapimage::check::{
    Facts, check,
    facts::{Config, Layer, Model},
    gather::parse_config,
    secrets::{Origin, scan_tree},
};
use gapimage::layer::tree::{Content, Meta, Node, Tree, TreePath};
use gapimage::recipe::{Adapter, Job, Method, Optimizer, Precision, Sharding, Target, Trainer, Training, Work};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut tree = Tree::new();
    let path = TreePath::new("root/.netrc").expect("a path");
    tree.insert(path, Node::File { meta: Meta::root_owned(0o644, 0), content: Content::bytes(text.as_bytes().to_vec()) });
    let secrets = scan_tree(&tree, Origin::Owner).expect("memory can be read");
    for name in ["a.json", "a.yaml", "a.toml"] {
        let content = parse_config(name, text);
        let config = content.as_ref().ok().cloned();
        let training = Training {
            model: "m".to_owned(),
            datasets: Vec::new(),
            trainer: if name == "a.json" { Trainer::GapTrain } else { Trainer::Trl },
            method: Method::Lora(Adapter { rank: u64::from(u32::MAX), alpha: Some(u64::MAX), targets: Vec::new() }),
            precision: Precision::Bf16,
            batch: u64::from(u32::MAX),
            length: u64::from(u32::MAX),
            accumulate: u64::from(u32::MAX),
            checkpointing: false,
            optimizer: Optimizer::AdamW,
            sharding: Sharding::Fsdp,
            learning_rate: None,
            epochs: Some(u64::MAX),
        };
        let job = Job {
            name: "j".to_owned(),
            image: "i".to_owned(),
            work: Work::Train(training),
            run: Vec::new(),
            configs: Vec::new(),
            gpus: None,
            endpoints: Default::default(),
        };
        let target = Target {
            gpu: gapimage::recipe::Gpu::named("A100-80GB"),
            count: 8,
            nodes: u32::MAX,
            driver: None,
            memory: None,
            disk: None,
        };
        let facts = Facts {
            target: Some(target),
            models: vec![Model { name: "m".to_owned(), config, ..Model::default() }],
            jobs: vec![job],
            configs: vec![Config { owner: "job j".to_owned(), path: name.to_owned(), content }],
            layers: vec![Layer { name: "l".to_owned(), secrets: Some(secrets.clone()) }],
            ..Facts::default()
        };
        let shown = check(&facts).to_string();
        assert!(shown.is_ascii());
        assert_eq!(shown, check(&facts).to_string());
    }
});
