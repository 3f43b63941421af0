//! From a model directory to a GGUF file.

use super::{
    architecture::{Architecture, ArchitectureError},
    format::{self, Described, Stored, Value},
    vocabulary::{self, Files, VocabularyError},
};
use crate::shards::{ShardError, Shards};
use candle_core::{
    DType, Tensor,
    quantized::{GgmlDType, QTensor},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Version of the way in which GGUF files are quantised.
const QUANTIZATION_VERSION: u32 = 2;
const EMBEDDING: &str = "model.embed_tokens.weight";

/// How matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Quant {
    /// Blocks of 32 numbers of 8 bits and one scale.
    #[value(name = "q8_0")]
    Q8_0,
    /// 16-bit floats.
    #[value(name = "f16")]
    F16,
}

impl Quant {
    /// The number that stands for it in `general.file_type`.
    const fn file_type(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q8_0 => 7,
        }
    }

    /// How a tensor of this shape is stored: vectors stay, and rows that blocks do not divide become 16-bit floats.
    fn stored(self, shape: &[usize]) -> Stored {
        match (self, shape) {
            (_, [] | [_]) => Stored::F32,
            (Self::Q8_0, [.., row]) if row % 32 == 0 => Stored::Q8_0,
            _ => Stored::F16,
        }
    }
}

/// Why a model cannot be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A file of the model cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The result cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The configuration.
    #[error("the model in {} cannot be exported: {source}", dir.display())]
    Architecture {
        /// The model directory.
        dir: PathBuf,
        /// The reason.
        source: ArchitectureError,
    },
    /// The tokenizer.
    #[error("the tokenizer in {} cannot be exported: {source}", dir.display())]
    Vocabulary {
        /// The model directory.
        dir: PathBuf,
        /// The reason.
        source: VocabularyError,
    },
    /// The weights.
    #[error(transparent)]
    Weights(#[from] ShardError),
    /// A weight that is not a finite number, as stored or as a 16-bit float.
    #[error(
        "`{0}` has a number that is not finite in this format; the weights are damaged, or need q8_0 in place of f16"
    )]
    NotFinite(String),
    /// Computing failed.
    #[error("`{name}` cannot be converted: {source}")]
    Convert {
        /// The tensor.
        name: String,
        /// The reason.
        source: candle_core::Error,
    },
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Tensors.
    pub tensors: usize,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Writes a model directory as one GGUF file; whole or not at all.
///
/// # Errors
/// [`ExportError`].
pub fn export(model: &Path, to: &Path, quant: Quant) -> Result<Exported, ExportError> {
    let architecture = Architecture::read(&read(model, "config.json")?)
        .map_err(|source| ExportError::Architecture { dir: model.to_owned(), source })?;
    let shards = Shards::open(model)?;
    let mut plan = Plan::new(model, &architecture, &shards, quant)?;
    let metadata = metadata(model, &architecture, quant)?;
    let descriptions: Vec<Described> = plan.tensors.iter().map(|tensor| tensor.described.clone()).collect();

    let failed = |source| ExportError::Write { path: to.to_owned(), source };
    let readable = fs::Permissions::from_mode(0o644);
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".gguf-").permissions(readable).tempfile_in(dir).map_err(failed)?;
    let mut tensors = plan.tensors.drain(..);
    let mut writer = BufWriter::new(file.as_file_mut());
    let next = |_: &Described| match tensors.next() {
        Some(tensor) => tensor.bytes(&shards).map_err(Stop::Export),
        None => Err(Stop::Io(io::Error::other("a tensor was described and is not there"))),
    };
    format::write(&mut writer, &metadata, &descriptions, next).map_err(|stop| match stop {
        Stop::Io(source) => failed(source),
        Stop::Export(error) => error,
    })?;
    writer.flush().map_err(failed)?;
    drop(writer);
    file.as_file().sync_all().map_err(failed)?;
    let bytes = file.as_file().metadata().map_err(failed)?.len();
    file.persist(to).map_err(|error| failed(error.error))?;
    Ok(Exported { tensors: descriptions.len(), bytes })
}

/// Why writing stopped.
enum Stop {
    Io(io::Error),
    Export(ExportError),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn read(model: &Path, name: &str) -> Result<Vec<u8>, ExportError> {
    let path = model.join(name);
    fs::read(&path).map_err(|source| ExportError::Read { path, source })
}

fn read_if_there(model: &Path, name: &str) -> Result<Option<Vec<u8>>, ExportError> {
    match read(model, name) {
        Err(ExportError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn metadata(model: &Path, architecture: &Architecture, quant: Quant) -> Result<Vec<(String, Value)>, ExportError> {
    let dir = || model.to_owned();
    let mut metadata = architecture.metadata().map_err(|source| ExportError::Architecture { dir: dir(), source })?;
    let name = fs::canonicalize(model).unwrap_or_else(|_| dir());
    let name = name.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    metadata.push(("general.type".to_owned(), Value::Text("model".to_owned())));
    metadata.push(("general.name".to_owned(), Value::Text(name)));
    metadata.push(("general.file_type".to_owned(), Value::U32(quant.file_type())));
    metadata.push(("general.quantization_version".to_owned(), Value::U32(QUANTIZATION_VERSION)));

    let tokenizer = read(model, "tokenizer.json")?;
    let config = read_if_there(model, "tokenizer_config.json")?;
    let template = read_if_there(model, "chat_template.jinja")?;
    let template = template.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let files = Files { tokenizer: &tokenizer, config: config.as_deref(), template: template.as_deref() };
    let vocabulary = vocabulary::metadata(files, architecture.vocab_size());
    metadata.extend(vocabulary.map_err(|source| ExportError::Vocabulary { dir: dir(), source })?);
    Ok(metadata)
}

/// What goes into the file, in the order of the names there.
struct Plan {
    tensors: Vec<Planned>,
}

struct Planned {
    described: Described,
    from: Origin,
}

/// Where a tensor comes from.
enum Origin {
    Weights { name: String, reordered_heads: Option<u32> },
    Computed(Vec<f32>),
}

impl Plan {
    fn new(model: &Path, architecture: &Architecture, shards: &Shards, quant: Quant) -> Result<Self, ExportError> {
        let wrong = |source| ExportError::Architecture { dir: model.to_owned(), source };
        let rows = shards.shape(EMBEDDING)?.first().copied().unwrap_or(0);
        if rows as u64 != u64::from(architecture.vocab_size()) {
            let what = format!("`vocab_size` is {}, and `{EMBEDDING}` has {rows} rows", architecture.vocab_size());
            return Err(wrong(ArchitectureError::Contradiction(what)));
        }
        let mut tensors = BTreeMap::new();
        for name in shards.names() {
            let Some(place) = architecture.place(name).map_err(wrong)? else { continue };
            let shape = shards.shape(name)?.to_vec();
            let described = Described { name: place.name.clone(), stored: quant.stored(&shape), shape };
            let from = Origin::Weights { name: name.to_owned(), reordered_heads: place.reordered_heads };
            tensors.insert(place.name, Planned { described, from });
        }
        if let Some(factors) = architecture.rope_factors().map_err(wrong)? {
            let name = "rope_freqs.weight".to_owned();
            let described = Described { name: name.clone(), shape: vec![factors.len()], stored: Stored::F32 };
            tensors.insert(name, Planned { described, from: Origin::Computed(factors) });
        }
        Ok(Self { tensors: tensors.into_values().collect() })
    }
}

impl Planned {
    fn bytes(self, shards: &Shards) -> Result<Vec<u8>, ExportError> {
        let (name, reordered_heads) = match self.from {
            Origin::Computed(numbers) => return Ok(numbers.iter().flat_map(|number| number.to_le_bytes()).collect()),
            Origin::Weights { name, reordered_heads } => (name, reordered_heads),
        };
        let convert = |source| ExportError::Convert { name: name.clone(), source };
        let tensor = shards.tensor(&name)?.to_dtype(DType::F32).map_err(convert)?;
        let tensor = match reordered_heads {
            Some(heads) => interleave_halves(&tensor, heads as usize).map_err(convert)?,
            None => tensor,
        };
        let numbers = || tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).map_err(convert);
        let finite =
            |number: &f32| number.is_finite() && (self.described.stored != Stored::F16 || number.abs() < 65520.0);
        let numbers = numbers()?;
        if !numbers.iter().all(finite) {
            return Err(ExportError::NotFinite(name));
        }
        match self.described.stored {
            Stored::F32 => Ok(numbers.iter().flat_map(|number| number.to_le_bytes()).collect()),
            Stored::F16 => quantized(&tensor, GgmlDType::F16).map_err(convert),
            Stored::Q8_0 => quantized(&tensor, GgmlDType::Q8_0).map_err(convert),
        }
    }
}

fn quantized(tensor: &Tensor, dtype: GgmlDType) -> candle_core::Result<Vec<u8>> {
    Ok(QTensor::quantize(tensor, dtype)?.data()?.into_owned())
}

/// Transformers rotates the first half of a head against the second, llama.cpp neighbours: row i of the first half and
/// row i of the second become neighbours.
fn interleave_halves(tensor: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let shape = tensor.dims().to_vec();
    let rows = shape.first().copied().unwrap_or(0);
    let half = rows / heads.max(1) / 2;
    let columns = tensor.elem_count() / rows.max(1);
    tensor.reshape((heads, 2, half, columns))?.transpose(1, 2)?.contiguous()?.reshape(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn halves_of_each_head_are_interleaved() {
        let tensor = Tensor::arange(0f32, 8., &Device::Cpu).unwrap();
        let interleaved = interleave_halves(&tensor, 2).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(interleaved, [0., 2., 1., 3., 4., 6., 5., 7.]);
    }

    #[test]
    fn rows_that_blocks_do_not_divide_become_16_bit_floats() {
        assert_eq!(Quant::Q8_0.stored(&[7, 64]), Stored::Q8_0);
        assert_eq!(Quant::Q8_0.stored(&[64, 7]), Stored::F16);
        assert_eq!(Quant::Q8_0.stored(&[64]), Stored::F32);
    }
}
