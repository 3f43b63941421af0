//! The models that are served, by name, and how they are loaded.

use crate::{
    api::ApiError,
    codec::Codec,
    encoders::{Encoding, Head},
    engine::{Bounds, Engine},
    memory,
    metrics::Meters,
    options::{AdapterOption, ModelOption, Options},
};
use candle_core::Device;
use gap_lm::{
    chat_template::ChatTemplate,
    inference::{
        Adapter, BaseModel, Classifier, Decoder, DecoderConfig, Embedder, EncoderConfig, GgufFile, Kinship, KvCache,
        Lineage, LoadError, Loader, MAX_CONFIG, SafetensorsDirectory, TensorSource, read_json,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path, sync::Arc, time::UNIX_EPOCH};

/// Tokens of prompts that go through a model at once: large enough to be fast, small enough for running answers to go on.
const PROMPT_PIECE: usize = 512;

/// What is served.
#[derive(Debug)]
pub struct Catalogue {
    models: BTreeMap<String, Model>,
}

#[derive(Debug)]
struct Model {
    /// When its configuration was written, in seconds since 1970.
    created: u64,
    /// The base, if it is an adapter.
    parent: Option<String>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Generator(Generator),
    Encoder(Arc<Encoding>),
}

/// A model that generates text, or an adapter of one.
#[derive(Debug, Clone)]
pub struct Generator {
    /// The engine, which adapters share with their base.
    pub engine: Arc<Engine>,
    /// How chats are written for it.
    pub template: Option<Arc<ChatTemplate>>,
    /// The adapter that is applied.
    pub adapter: Option<Arc<Adapter>>,
    /// Tokens that the model has rows for.
    pub vocabulary: usize,
    /// What answers depend on beside the request.
    pub fingerprint: String,
    /// Shape, that adapters must fit.
    config: Arc<DecoderConfig>,
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// A model cannot be loaded.
    #[error("cannot load model `{name}`: {source}")]
    Model {
        /// Its name.
        name: String,
        /// Why.
        source: LoadError,
    },
    /// An adapter cannot be loaded.
    #[error("cannot load adapter `{name}`: {source}")]
    Adapter {
        /// Its name.
        name: String,
        /// Why.
        source: LoadError,
    },
    /// Two have the same name.
    #[error("there are two models called `{0}`; give each a name of its own")]
    TwiceNamed(String),
    /// An adapter's base is not served or generates no text.
    #[error("adapter `{name}` is for `{base}`, which is no model that generates text; name its base with `--model`")]
    NoBase {
        /// The adapter.
        name: String,
        /// Its base.
        base: String,
    },
    /// There is no memory for answers.
    #[error(
        "model `{name}` needs {needed} bytes for the keys and values of {positions} positions, but there are {available}; \
         give a smaller `--context` or `--cache`"
    )]
    NoMemory {
        /// The model.
        name: String,
        /// Bytes needed.
        needed: u64,
        /// Positions.
        positions: usize,
        /// Bytes there are.
        available: u64,
    },
    /// The system failed.
    #[error("cannot start the engine of model `{name}`: {source}")]
    Engine {
        /// The model.
        name: String,
        /// Why.
        source: std::io::Error,
    },
}

#[derive(Deserialize)]
struct Architecture {
    architectures: Option<Vec<String>>,
    #[serde(default)]
    model_type: String,
}

impl Catalogue {
    /// Loads everything.
    ///
    /// # Errors
    /// The first thing that cannot be loaded, and why.
    pub fn load(options: &Options, device: &Device, meters: &Arc<Meters>) -> Result<Self, CatalogueError> {
        let mut models = BTreeMap::new();
        let mut memory = Memory { device, promised: 0 };
        for option in &options.model {
            let model = load_model(option, options, &mut memory, meters)?;
            if models.insert(option.name.clone(), model).is_some() {
                return Err(CatalogueError::TwiceNamed(option.name.clone()));
            }
        }
        let bases: BTreeMap<&str, BaseModel> =
            options.model.iter().map(|model| (model.name.as_str(), BaseModel::new(&model.path))).collect();
        for option in &options.adapter {
            let model = load_adapter(option, &models, &bases, device)?;
            if models.insert(option.name.clone(), model).is_some() {
                return Err(CatalogueError::TwiceNamed(option.name.clone()));
            }
        }
        Ok(Self { models })
    }

    fn find(&self, name: &str) -> Result<&Kind, ApiError> {
        self.models.get(name).map(|model| &model.kind).ok_or_else(|| ApiError::NoSuchModel(name.to_owned()))
    }

    /// A model that generates text.
    ///
    /// # Errors
    /// Where there is none of that name, or it does something else.
    pub fn generator(&self, name: &str) -> Result<&Generator, ApiError> {
        match self.find(name)? {
            Kind::Generator(generator) => Ok(generator),
            Kind::Encoder(_) => Err(ApiError::OtherUse(format!("{name:?} generates no text"))),
        }
    }

    /// A model that embeds.
    ///
    /// # Errors
    /// As [`Catalogue::generator`].
    pub fn embedder(&self, name: &str) -> Result<(&Arc<Encoding>, &Embedder), ApiError> {
        if let Kind::Encoder(encoding) = self.find(name)?
            && let Head::Embedder(embedder) = encoding.head()
        {
            return Ok((encoding, embedder));
        }
        Err(ApiError::OtherUse(format!("{name:?} makes no embeddings")))
    }

    /// A model that classifies.
    ///
    /// # Errors
    /// As [`Catalogue::generator`].
    pub fn classifier(&self, name: &str) -> Result<(&Arc<Encoding>, &Classifier), ApiError> {
        if let Kind::Encoder(encoding) = self.find(name)?
            && let Head::Classifier(classifier) = encoding.head()
        {
            return Ok((encoding, classifier));
        }
        Err(ApiError::OtherUse(format!("{name:?} does not classify")))
    }

    /// All models as OpenAI lists them.
    pub fn list(&self) -> Vec<Value> {
        self.models.iter().map(|(name, model)| model.describe(name)).collect()
    }

    /// One model as OpenAI shows it.
    pub fn describe(&self, name: &str) -> Option<Value> {
        self.models.get(name).map(|model| model.describe(name))
    }

    /// Whether every engine runs.
    pub fn is_alive(&self) -> bool {
        self.models.values().all(|model| match &model.kind {
            Kind::Generator(generator) => generator.engine.is_alive(),
            Kind::Encoder(_) => true,
        })
    }
}

impl Model {
    fn describe(&self, name: &str) -> Value {
        let (task, longest) = match &self.kind {
            Kind::Generator(generator) => ("generate", generator.engine.longest()),
            Kind::Encoder(encoding) => match encoding.head() {
                Head::Embedder(embedder) => ("embed", embedder.longest()),
                Head::Classifier(classifier) => ("classify", classifier.config().longest()),
            },
        };
        json!({
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "local",
            "parent": self.parent,
            "task": task,
            "max_model_len": longest,
        })
    }
}

fn load_model(
    option: &ModelOption,
    options: &Options,
    memory: &mut Memory<'_>,
    meters: &Arc<Meters>,
) -> Result<Model, CatalogueError> {
    let device = memory.device;
    let failed = |source| CatalogueError::Model { name: option.name.clone(), source };
    let created = written(&option.path);
    if option.path.extension().is_some_and(|extension| extension == "gguf") {
        let file = GgufFile::open(&option.path).map_err(failed)?;
        let config = file.config().map_err(failed)?;
        let tokenizer = file.tokenizer().map_err(failed)?;
        let codec = Codec::new(tokenizer, config.vocabulary, &option.path).map_err(failed)?;
        let template = file.chat_template().map_err(failed)?;
        let generator = load_generator(option, config, codec, template, &file, options, memory, meters)?;
        return Ok(Model { created, parent: None, kind: Kind::Generator(generator) });
    }
    let config = option.path.join("config.json");
    let architecture: Architecture = read_json(&config, MAX_CONFIG).map_err(failed)?;
    let source = SafetensorsDirectory::open(&option.path).map_err(failed)?;
    let encoders = ["bert", "distilbert", "roberta", "xlm-roberta"];
    if !encoders.contains(&architecture.model_type.as_str()) {
        let config = DecoderConfig::read(&option.path).map_err(failed)?;
        let codec = Codec::read(&option.path, config.vocabulary).map_err(failed)?;
        let template = ChatTemplate::read(&option.path).map_err(failed)?;
        let generator = load_generator(option, config, codec, template, &source, options, memory, meters)?;
        return Ok(Model { created, parent: None, kind: Kind::Generator(generator) });
    }
    let config = EncoderConfig::read(&option.path).map_err(failed)?;
    let codec = Codec::read(&option.path, config.vocabulary).map_err(failed)?;
    let loader = Loader { source: &source, precision: options.weights.precision(), device };
    let classifies =
        architecture.architectures.iter().flatten().any(|name| name.ends_with("ForSequenceClassification"));
    let head = if classifies {
        Head::Classifier(Classifier::load(config, loader).map_err(failed)?)
    } else {
        Head::Embedder(Embedder::load(&option.path, config, loader).map_err(failed)?)
    };
    let encoding = Encoding::new(head, codec, options.requests(), meters.clone());
    Ok(Model { created, parent: None, kind: Kind::Encoder(Arc::new(encoding)) })
}

#[allow(clippy::too_many_arguments, reason = "the parts of one model, from a directory or a file")]
fn load_generator(
    option: &ModelOption,
    mut config: DecoderConfig,
    codec: Codec,
    template: Option<ChatTemplate>,
    source: &dyn TensorSource,
    options: &Options,
    memory: &mut Memory<'_>,
    meters: &Arc<Meters>,
) -> Result<Generator, CatalogueError> {
    let device = memory.device;
    let failed = |source| CatalogueError::Model { name: option.name.clone(), source };
    if let Some(most) = options.context() {
        config.context = config.context.min(most);
    }
    if let Some(end) = config.ends.iter().find(|end| **end as usize >= codec.size()) {
        let reason = format!(
            "a text ends with token {end} (`eos_token_id`), but the tokenizer has {} tokens: they are not of one piece",
            codec.size()
        );
        return Err(failed(LoadError::damaged(&option.path, reason)));
    }
    if config.ends.is_empty() {
        let end = template.as_ref().and_then(|template| codec.token(template.special_token("eos_token")?));
        config.ends.extend(end);
    }
    let decoder =
        Decoder::load(config, Loader { source, precision: options.weights.precision(), device }).map_err(failed)?;
    let config = decoder.config().clone();
    let positions = memory.positions(option, &config, options)?;
    let cache = KvCache::new(&config, positions, device).map_err(|error| failed(error.into()))?;
    let vocabulary = config.vocabulary;
    let bounds = Bounds { running: options.sequences(), prompt_piece: PROMPT_PIECE };
    let engine = Engine::start(decoder, Arc::new(codec), cache, bounds, options.requests(), meters.clone());
    let engine = engine.map_err(|source| CatalogueError::Engine { name: option.name.clone(), source })?;
    Ok(Generator {
        engine: Arc::new(engine),
        template: template.map(Arc::new),
        adapter: None,
        vocabulary,
        fingerprint: format!("gap-serve-{}-{}", env!("CARGO_PKG_VERSION"), options.weights.word()),
        config: Arc::new(config),
    })
}

/// What models may take for keys and values.
struct Memory<'a> {
    device: &'a Device,
    /// Bytes of pools that have their size already, and are touched only as they are used.
    promised: u64,
}

impl Memory<'_> {
    /// How many positions the cache of a model gets.
    fn positions(
        &mut self,
        option: &ModelOption,
        config: &DecoderConfig,
        options: &Options,
    ) -> Result<usize, CatalogueError> {
        let each = KvCache::bytes_per_position(config) as u64;
        // A GPU's pools are taken when they are made.
        let promised = if self.device.is_cpu() { self.promised } else { 0 };
        let available = memory::available(self.device).saturating_sub(promised);
        let most = config.context.saturating_mul(options.sequences());
        let least = config.context.min(memory::LEAST_POSITIONS);
        let positions = memory::positions(each, options.cache, available, least, most).map_err(|positions| {
            let needed = each.saturating_mul(positions as u64);
            CatalogueError::NoMemory { name: option.name.clone(), needed, positions, available }
        })?;
        self.promised = self.promised.saturating_add(each.saturating_mul(positions as u64));
        Ok(positions)
    }
}

fn load_adapter(
    option: &AdapterOption,
    models: &BTreeMap<String, Model>,
    bases: &BTreeMap<&str, BaseModel>,
    device: &Device,
) -> Result<Model, CatalogueError> {
    let failed = |source| CatalogueError::Adapter { name: option.name.clone(), source };
    let no_base = || CatalogueError::NoBase { name: option.name.clone(), base: option.base.clone() };
    let Some(Model { kind: Kind::Generator(base), .. }) = models.get(&option.base) else { return Err(no_base()) };
    let base_model = bases.get(option.base.as_str()).ok_or_else(no_base)?;
    if let Kinship::Unproven { trained_on } = Lineage::check_with(&option.path, base_model).map_err(failed)? {
        eprintln!(
            "gap-serve: warning: adapter `{}` was trained on `{trained_on}`, and {} has no digest to compare: only the shapes \
             are",
            option.name,
            base_model.path().display()
        );
    }
    let adapter = Adapter::load(&option.path, &base.config, device).map_err(failed)?;
    Ok(Model {
        created: written(&option.path.join("adapter_config.json")),
        parent: Some(option.base.clone()),
        kind: Kind::Generator(Generator { adapter: Some(Arc::new(adapter)), ..base.clone() }),
    })
}

fn written(path: &Path) -> u64 {
    let modified = path.metadata().and_then(|data| data.modified()).ok();
    modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |time| time.as_secs())
}
