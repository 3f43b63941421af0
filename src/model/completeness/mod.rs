//! Whether everything is there that loading a model without a network needs, and whether it is what it says.

mod pickles;
mod shards;
mod tensors;
#[cfg(test)]
mod tests;

use super::{Config, DescribedFile, Format, ModelDescription, ModelFiles, format_of, gguf, safetensors, tokenizer};
use crate::recipe::PicklePolicy;
use serde::Serialize;
use std::{collections::BTreeMap, fmt};

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The model cannot be used, or must not be trusted.
    Fail,
    /// A file is not here yet, so it could not be looked at.
    Unresolved,
    /// Something that may matter to somebody.
    Warn,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// The file that it is about; absent where it is about the whole.
    pub file: Option<String>,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "`{}`: ", file.escape_debug())?;
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// What came of looking at a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// What it is.
    pub description: ModelDescription,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

impl Inspection {
    /// What keeps the model from being used.
    pub fn failures(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.level == Level::Fail)
    }
}

/// Looks at the files of a model whose card names `licenses`. Files that are not here are told, not fetched.
pub fn inspect(files: &ModelFiles, licenses: &[String], pickle: &PicklePolicy) -> Inspection {
    let mut inspector = Inspector { files, findings: Vec::new(), description: ModelDescription::default() };
    inspector.describe_files(licenses);
    let config = inspector.config();
    let tensors = inspector.weights(config.as_ref());
    inspector.pickles(pickle);
    if let Some(config) = &config {
        inspector.shapes(config, &tensors);
        inspector.companions(config);
    }
    inspector.description.settle(config.as_ref());
    inspector.dtype(config.as_ref());
    let mut findings = inspector.findings;
    findings.sort();
    findings.dedup();
    Inspection { description: inspector.description, findings }
}

/// Tensors of safetensors files by file and name.
type Tensors = BTreeMap<String, safetensors::Header>;

struct Inspector<'f> {
    files: &'f ModelFiles,
    findings: Vec<Finding>,
    description: ModelDescription,
}

impl Inspector<'_> {
    fn note(&mut self, level: Level, file: Option<&str>, what: impl Into<String>, remedy: impl Into<String>) {
        let file = file.map(str::to_owned);
        self.findings.push(Finding { level, file, what: what.into(), remedy: remedy.into() });
    }

    fn fail(&mut self, file: Option<&str>, what: impl Into<String>, remedy: impl Into<String>) {
        self.note(Level::Fail, file, what, remedy);
    }

    fn warn(&mut self, file: Option<&str>, what: impl Into<String>, remedy: impl Into<String>) {
        self.note(Level::Warn, file, what, remedy);
    }

    fn describe_files(&mut self, licenses: &[String]) {
        self.description.licenses = licenses.to_vec();
        self.description.files = self
            .files
            .iter()
            .map(|(path, file)| DescribedFile {
                path: path.to_owned(),
                size: file.size,
                weights: format_of(path).map(Format::name),
            })
            .collect();
        let weights = self.description.files.iter().filter(|file| file.weights.is_some());
        self.description.weight_bytes = weights.map(|file| file.size).fold(0, u64::saturating_add);
        self.description.is_complete = true;
        if licenses.is_empty() {
            let remedy = "find out under which terms it may be used, and say so in its README.md";
            self.warn(None, "the model's card names no licence", remedy);
        }
    }

    fn config(&mut self) -> Option<Config> {
        const NAME: &str = "config.json";
        let Some(found) = self.files.read(NAME) else {
            let speaks_for_itself = ["model_index.json", "adapter_config.json"].iter().any(|name| self.files.has(name))
                || self.files.paths().any(|path| format_of(path) == Some(Format::Gguf));
            if !speaks_for_itself {
                self.fail(None, "there is no config.json", "take it from where the weights are from");
            }
            return None;
        };
        if !self.files.is_here(NAME) {
            self.missing(NAME);
            return None;
        }
        match found.map_err(|error| error.to_string()).and_then(|json| Config::parse(&json).map_err(|e| e.to_string()))
        {
            Ok(config) => {
                self.description.read_config(&config);
                Some(config)
            }
            Err(error) => {
                self.fail(Some(NAME), error, "take it again from where the weights are from");
                None
            }
        }
    }

    /// Notes that a file is not here, so nothing can be said of it.
    fn missing(&mut self, path: &str) {
        self.description.is_complete = false;
        self.note(Level::Unresolved, Some(path), "it is not here yet", "run `gapimage build` or fetch the model");
    }

    /// Reads the headers of all weights.
    fn weights(&mut self, config: Option<&Config>) -> Tensors {
        let mut tensors = Tensors::new();
        let mut any = false;
        let paths: Vec<String> = self.files.paths().map(str::to_owned).collect();
        for path in &paths {
            let Some(format) = format_of(path) else { continue };
            any = true;
            if !self.files.is_here(path) {
                self.missing(path);
                continue;
            }
            match format {
                Format::Safetensors => tensors.extend(self.safetensors(path).map(|header| (path.clone(), header))),
                Format::Gguf => self.gguf(path),
                Format::Pickle => {}
                Format::Hdf5 | Format::MessagePack | Format::Onnx => {
                    let what =
                        format!("nothing is known of weights in {}, so they were not looked into", format.name());
                    self.warn(Some(path), what, "prefer safetensors, or leave the file out with `exclude`");
                }
            }
        }
        if !any {
            let remedy = "check `include` and `exclude`; a model without weights cannot be loaded";
            self.fail(None, "there are no weights", remedy);
        }
        self.shards(&tensors);
        let is_packed = config.is_some_and(|config| config.quantization().is_some());
        for tensor in tensors.values().flat_map(|header| header.tensors.values()) {
            self.description.add(format!("{:?}", tensor.dtype), tensor.elements());
        }
        if is_packed { Tensors::new() } else { tensors }
    }

    fn safetensors(&mut self, path: &str) -> Option<safetensors::Header> {
        let size = self.files.get(path)?.size;
        let read = self.files.open(path)?.map_err(Into::into).and_then(|file| safetensors::read_header(file, size));
        read.map_err(|error| self.damaged(path, &error)).ok()
    }

    fn gguf(&mut self, path: &str) {
        let Some(size) = self.files.get(path).map(|file| file.size) else { return };
        let Some(file) = self.files.open(path) else { return };
        match file.map_err(Into::into).and_then(|file| gguf::read_header(file, size)) {
            Ok(header) => {
                let unknown = header.tensors.values().find(|tensor| tensor.bytes.is_none()).map(|t| t.kind.name());
                if let Some(unknown) = unknown {
                    let what = format!("it stores tensors as {unknown}, whose length is not known");
                    self.warn(Some(path), what, "make sure that the server inside knows it");
                }
                if !header.has_tokenizer() && !tokenizer::is_there(self.files) && !path.contains("mmproj") {
                    self.fail(Some(path), "it holds no tokenizer, and none lies beside it", "take a file that has one");
                }
                self.description.read_gguf(&header);
            }
            Err(error) => self.damaged(path, &error),
        }
    }

    fn damaged(&mut self, path: &str, error: &dyn fmt::Display) {
        self.description.is_complete = false;
        self.fail(Some(path), error.to_string(), "the weights are damaged or lie: take them again from their source");
    }

    /// Says where the weights have another type than the configuration.
    fn dtype(&mut self, config: Option<&Config>) {
        let mut said = ModelDescription::default();
        config.into_iter().for_each(|config| said.read_config(config));
        let (Some(said), Some(stored)) = (said.dtype, self.description.dtype.clone()) else { return };
        if said != stored && self.description.quantization.is_none() {
            let what = format!("it says that the weights are {said}, but most of them are {stored}");
            self.warn(
                Some("config.json"),
                what,
                "loaders convert them; size memory for the type that they are loaded in",
            );
        }
    }

    /// What else has to lie beside the weights.
    fn companions(&mut self, config: &Config) {
        let class = config.architecture().unwrap_or_default().to_owned();
        let senses = config.other_senses();
        let is_text = config.vocab().is_some() || senses.is_empty();
        let has_gguf = self.files.paths().any(|path| format_of(path) == Some(Format::Gguf));
        if is_text && !has_gguf && !tokenizer::is_there(self.files) {
            let remedy = "take tokenizer.json, tokenizer.model, vocab.txt, or vocab.json with merges.txt";
            self.fail(None, "there is no tokenizer", remedy);
        }
        if !senses.is_empty()
            && !["preprocessor_config.json", "processor_config.json"].iter().any(|n| self.files.has(n))
        {
            let what = format!("{class} takes in {}, but there is no processor", senses.join(" and "));
            self.fail(None, what, "take preprocessor_config.json or processor_config.json");
        }
        let generates = class.ends_with("ForCausalLM") || class.ends_with("ForConditionalGeneration");
        if generates && !self.files.has("generation_config.json") {
            let remedy = "text is generated with general defaults; take the file if the model has one";
            self.warn(None, "there is no generation_config.json", remedy);
        }
        if class.ends_with("ForCausalLM") && !self.has_chat_template() {
            let remedy = "fine for a base model; a chat needs one: take chat_template.jinja or tokenizer_config.json";
            self.warn(None, "there is no chat template", remedy);
        }
        self.own_code(config);
    }

    fn has_chat_template(&self) -> bool {
        let own = ["chat_template.jinja", "chat_template.json"].iter().any(|name| self.files.has(name));
        own || self.files.read("tokenizer_config.json").and_then(Result::ok).is_some_and(|json| {
            let settings: serde_json::Value = serde_json::from_slice(&json).unwrap_or_default();
            settings.get("chat_template").is_some_and(|template| !template.is_null())
        })
    }

    /// Code that a loader would run, and where it would get it.
    fn own_code(&mut self, config: &Config) {
        for class in config.own_code() {
            if class.contains("--") {
                let what = format!("loading it fetches the code `{}` from another repository", class.escape_debug());
                self.fail(
                    Some("config.json"),
                    what,
                    "take that code into the model, and name it without the repository",
                );
                continue;
            }
            let module = class.rsplit_once('.').map_or(class.as_str(), |(module, _)| module);
            let path = format!("{}.py", module.replace('.', "/"));
            match self.files.has(&path) {
                true => {
                    let what = "the model brings code of its own, which runs with `trust_remote_code`";
                    self.warn(Some(&path), what, "read it before you allow it");
                }
                false => self.fail(Some(&path), "config.json asks for this code, and it is not there", "take the file"),
            }
        }
    }
}
