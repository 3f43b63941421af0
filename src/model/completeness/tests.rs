use super::*;
use crate::model::ModelFile;
use std::{fs, path::Path};
use tempfile::TempDir;

const CONFIG: &str = r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":8,
    "num_attention_heads":2,"num_key_value_heads":1,"num_hidden_layers":1,"intermediate_size":16,"vocab_size":32,
    "max_position_embeddings":64,"torch_dtype":"float32","tie_word_embeddings":true}"#;

/// Names and shapes of the tensors that [`CONFIG`] asks for.
fn tensors() -> Vec<(String, Vec<u64>)> {
    let config = Config::parse(CONFIG.as_bytes()).unwrap();
    let expected = crate::model::Family::Llama.expected(&config, 9).into_iter().filter(|tensor| tensor.required);
    let shape = |shape: Vec<Option<u64>>| shape.into_iter().map(Option::unwrap).collect();
    expected.map(|tensor| (format!("model.{}", tensor.name), shape(tensor.shape))).collect()
}

fn safetensors(tensors: &[(String, Vec<u64>)]) -> Vec<u8> {
    let (mut rows, mut at) = (Vec::new(), 0);
    for (name, shape) in tensors {
        let end = at + 4 * shape.iter().product::<u64>();
        rows.push(format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{at},{end}]}}"#));
        at = end;
    }
    let header = format!("{{{}}}", rows.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + at as usize, 0);
    file
}

struct Model(TempDir);

impl Model {
    /// One that lacks nothing.
    fn good() -> Self {
        let model = Self(TempDir::new().unwrap());
        model.put("config.json", CONFIG);
        model.put("model.safetensors", safetensors(&tensors()));
        model.put("tokenizer.json", "{}");
        model.put("tokenizer_config.json", r#"{"chat_template":"{{ messages }}"}"#);
        model.put("generation_config.json", "{}");
        model
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn take(&self, name: &str) -> &Self {
        fs::remove_file(self.0.path().join(name)).unwrap();
        self
    }

    fn files(&self) -> ModelFiles {
        fn walk(dir: &Path, root: &Path, found: &mut Vec<(String, ModelFile)>) {
            for entry in fs::read_dir(dir).unwrap() {
                let real = entry.unwrap().path();
                if real.is_dir() {
                    walk(&real, root, found);
                } else {
                    let size = real.metadata().unwrap().len();
                    found.push((
                        real.strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
                        ModelFile::alone(real, size),
                    ));
                }
            }
        }
        let mut found = Vec::new();
        walk(self.0.path(), self.0.path(), &mut found);
        found.into_iter().collect()
    }

    fn look(&self, policy: &PicklePolicy) -> Inspection {
        inspect(&self.files(), &["mit".to_owned()], policy)
    }

    /// Everything that was found, level and text.
    fn found(&self) -> Vec<String> {
        self.look(&PicklePolicy::Refuse).findings.iter().map(|found| format!("{:?} {found}", found.level)).collect()
    }

    /// The one thing that was found.
    #[track_caller]
    fn only(&self, says: &str) {
        let found = self.found();
        assert!(found.len() == 1 && found[0].contains(says), "{says}: {found:#?}");
    }
}

#[test]
fn a_whole_model_is_described_and_nothing_is_found() {
    let inspection = Model::good().look(&PicklePolicy::Refuse);
    assert_eq!(inspection.findings, []);
    let description = inspection.description;
    assert!(description.is_complete);
    assert_eq!(description.parameters, Some(tensors().iter().map(|(_, shape)| shape.iter().product::<u64>()).sum()));
    assert_eq!((description.dtype.as_deref(), description.kv_heads), (Some("F32"), Some(1)));
    assert_eq!((description.hidden, description.layers, description.vocab), (Some(8), Some(1), Some(32)));
}

#[test]
fn what_is_missing_is_named_and_optional_things_only_warn() {
    Model::good().take("tokenizer.json").only("Fail there is no tokenizer");
    Model::good().take("generation_config.json").only("Warn there is no generation_config.json");
    Model::good().take("tokenizer_config.json").only("Warn there is no chat template");
    Model::good().take("model.safetensors").only("Fail there are no weights");
    Model::good().take("config.json").only("Fail there is no config.json");
    Model::good().put("config.json", "<html>").only("Fail `config.json`: it is not JSON");
}

#[test]
fn a_model_that_sees_needs_a_processor() {
    let model = Model::good();
    model.put("config.json", CONFIG.replacen('{', r#"{"vision_config":{},"#, 1));
    model.only("Fail LlamaForCausalLM takes in vision, but there is no processor");
    assert_eq!(model.put("preprocessor_config.json", "{}").found(), [""; 0]);
}

fn sharded() -> Model {
    let model = Model::good();
    model.take("model.safetensors");
    let all = tensors();
    let (first, second) = all.split_at(3);
    model.put("model-00001-of-00002.safetensors", safetensors(first));
    model.put("model-00002-of-00002.safetensors", safetensors(second));
    let entry =
        |number| move |(name, _): &(String, Vec<u64>)| format!(r#""{name}":"model-0000{number}-of-00002.safetensors""#);
    let map: Vec<String> = first.iter().map(entry(1)).chain(second.iter().map(entry(2))).collect();
    model.put("model.safetensors.index.json", format!(r#"{{"metadata":{{}},"weight_map":{{{}}}}}"#, map.join(",")));
    model
}

#[test]
fn every_shard_that_the_index_names_must_be_there_with_its_tensors() {
    assert_eq!(sharded().found(), [""; 0]);
    let found = sharded().take("model-00002-of-00002.safetensors").found();
    assert!(found.iter().any(|line| line.contains("names the shard `model-00002-of-00002.safetensors`")), "{found:#?}");
    assert!(found.iter().any(|line| line.contains("1 of 2 shards are missing")), "{found:#?}");
    sharded().take("model.safetensors.index.json").only("several shards, but no index");
    let model = sharded();
    model.put("model-00001-of-00002.safetensors", safetensors(&tensors()[..2]));
    let found = model.found();
    assert!(found.iter().any(|line| line.contains("which the index says that it has")), "{found:#?}");
    let climbing = sharded();
    climbing.put("model.safetensors.index.json", r#"{"weight_map":{"a":"../../etc/passwd"}}"#);
    assert!(climbing.found().iter().any(|line| line.starts_with("Fail") && line.contains("../../etc/passwd")));
}

#[test]
fn shapes_layers_and_types_are_compared_with_the_configuration() {
    let config = |from: &str, to: &str| {
        let model = Model::good();
        model.put("config.json", CONFIG.replace(from, to));
        model.found()
    };
    let wrong = config("\"vocab_size\":32", "\"vocab_size\":33");
    assert!(
        wrong.len() == 1 && wrong[0].contains("has the shape [32, 8], but config.json asks for [33, 8]"),
        "{wrong:#?}"
    );
    let more = config("\"num_hidden_layers\":1", "\"num_hidden_layers\":2");
    assert!(more.len() == 1 && more[0].contains("9 tensors are missing"), "{more:#?}");
    let fewer = config("\"num_hidden_layers\":1", "\"num_hidden_layers\":0");
    assert!(fewer.len() == 1 && fewer[0].contains("a layer of number 0"), "{fewer:#?}");
    let untied = config("\"tie_word_embeddings\":true", "\"tie_word_embeddings\":false");
    assert!(untied.len() == 1 && untied[0].contains("`lm_head.weight`"), "{untied:#?}");
    let other = config("\"float32\"", "\"bfloat16\"");
    assert!(other.len() == 1 && other[0].starts_with("Warn") && other[0].contains("BF16"), "{other:#?}");
    let unknown = config("\"model_type\":\"llama\"", "\"model_type\":\"new\"");
    assert!(unknown.len() == 1 && unknown[0].contains("`new` are not known"), "{unknown:#?}");
}

#[test]
fn weights_that_lie_are_refused_and_absent_ones_are_unresolved() {
    let model = Model::good();
    let mut lies = safetensors(&tensors());
    lies.pop();
    model.put("model.safetensors", lies).only("Fail `model.safetensors`: its tensors take");
    let files: ModelFiles = Model::good()
        .files()
        .iter()
        .map(|(path, file)| (path.to_owned(), ModelFile::alone("/nowhere".into(), file.size)))
        .collect();
    let inspection = inspect(&files, &["mit".to_owned()], &PicklePolicy::Refuse);
    assert_eq!(inspection.failures().count(), 0);
    assert!(!inspection.description.is_complete);
}

#[test]
fn pickles_are_refused_unless_allowed_and_dangerous_ones_always() {
    let model = |pickle: &[u8]| {
        let model = Model::good();
        model.take("model.safetensors").put("pytorch_model.bin", pickle);
        model
    };
    let allow = |names: &[&str]| PicklePolicy::Allow(names.iter().map(|&name| name.to_owned()).collect());
    let harmless = model(b"\x80\x02ccollections\nOrderedDict\n)R.");
    harmless.only("it imports collections.OrderedDict");
    assert_eq!(harmless.look(&allow(&[])).failures().count(), 0);
    let unknown = model(b"\x80\x02cmine\nThing\n)R.");
    assert_eq!(unknown.look(&allow(&[])).failures().count(), 1);
    assert_eq!(unknown.look(&allow(&["mine.Thing"])).failures().count(), 0);
    let evil = model(b"cos\nsystem\n(S'true'\ntR.");
    for policy in [PicklePolicy::Refuse, allow(&["os.system"])] {
        let text = evil.look(&policy).failures().next().unwrap().to_string();
        assert!(text.contains("runs code") && text.contains("os.system"), "{text}");
    }
    model(b"\x80\x02\xff").only("a pickle that cannot be followed");
}

#[test]
fn code_of_other_repositories_is_refused_and_own_code_is_told() {
    let model = Model::good();
    model.put("config.json", CONFIG.replacen('{', r#"{"auto_map":{"AutoModel":"modeling_x.X"},"#, 1));
    model.only("Fail `modeling_x.py`: config.json asks for this code");
    model.put("modeling_x.py", "").only("Warn `modeling_x.py`: the model brings code");
    model.put("config.json", CONFIG.replacen('{', r#"{"auto_map":{"AutoModel":"org/repo--modeling_x.X"},"#, 1));
    model.only("fetches the code `org/repo--modeling_x.X` from another repository");
}
