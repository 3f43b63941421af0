//! GGUF files: metadata and tensors under the names that Hugging Face gives them. Nothing in a file is believed before it
//! is compared with the file's length. The format is described in ggml's `docs/gguf.md`.

mod config;

use super::{error::LoadError, gguf_tokenizer, matrix::Precision, tensors::TensorSource};
use crate::chat_template::ChatTemplate;
use candle_core::{
    Device,
    quantized::{GgmlDType, QStorage, QTensor},
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use tokenizers::Tokenizer;

/// Bytes of one tensor that are read at once, about.
const PIECE: u64 = 1 << 20;
/// Longest name, and longest text that is no list's.
const MAX_TEXT: u64 = 16 << 20;
const SUPPORTED: &str =
    "GGUF files of llama, qwen2 and qwen3 are, in F32, F16, BF16 and the types Q4_0 to Q8_0 and Q2_K to Q6_K";

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any whole number.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// Text.
    Text(String),
    /// A list of values of one kind.
    List(Vec<Value>),
}

/// An opened file.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    file: File,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Stored>,
    architecture: String,
}

#[derive(Debug)]
struct Stored {
    /// Outermost first.
    shape: Vec<usize>,
    kind: GgmlDType,
    /// In the file.
    offset: u64,
}

impl GgufFile {
    /// Opens a file and reads everything but the tensors' data.
    ///
    /// # Errors
    /// Where it is no GGUF file, or contradicts itself or its length.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path).map_err(LoadError::reading(path))?;
        let length = file.metadata().map_err(LoadError::reading(path))?.len();
        let mut reader = Reader { inner: BufReader::new(&file), left: length, path };
        if reader.bytes::<4>()? != *b"GGUF" {
            return Err(LoadError::damaged(path, "it does not begin as a GGUF file"));
        }
        let version = reader.u32()?;
        if !(2..=3).contains(&version) {
            return Err(LoadError::damaged(path, format!("it is of version {version}; versions 2 and 3 are read")));
        }
        let (tensors, entries) = (reader.u64()?, reader.u64()?);
        let mut metadata = BTreeMap::new();
        for _ in 0..entries {
            let (name, kind) = (reader.text()?, reader.u32()?);
            let value = reader.value(kind)?;
            if metadata.insert(name.clone(), value).is_some() {
                return Err(LoadError::damaged(path, format!("{name:?} is there twice")));
            }
        }
        let mut infos = Vec::new();
        for _ in 0..tensors {
            infos.push(reader.tensor()?);
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Integer(alignment)) => u64::try_from(*alignment).unwrap_or_default(),
            Some(_) => 0,
        };
        if !alignment.is_power_of_two() {
            return Err(LoadError::damaged(path, "its alignment is no power of two"));
        }
        let start = (length - reader.left).next_multiple_of(alignment);
        let tensors = place(path, infos, start, length)?;
        let architecture = match metadata.get("general.architecture") {
            Some(Value::Text(architecture)) => architecture.clone(),
            _ => return Err(LoadError::damaged(path, "it does not say its architecture")),
        };
        Ok(Self { path: path.to_path_buf(), file, metadata, tensors, architecture })
    }

    /// A value of the metadata.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.metadata.get(name)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn own(&self, name: &str) -> Option<&Value> {
        self.get(&format!("{}.{name}", self.architecture))
    }

    fn size(&self, name: &str) -> Result<usize, LoadError> {
        match self.own(name) {
            Some(Value::Integer(value)) if *value >= 0 => Ok(usize::try_from(*value).unwrap_or(usize::MAX)),
            _ => Err(LoadError::damaged(&self.path, format!("it does not say `{}.{name}`", self.architecture))),
        }
    }

    fn number(&self, name: &str) -> Option<f32> {
        match self.own(name)? {
            Value::Float(value) => Some(*value as f32),
            Value::Integer(value) => Some(*value as f32),
            _ => None,
        }
    }

    /// The tokenizer: `tokenizer.json` beside the file if there is one, else what the file says.
    ///
    /// # Errors
    /// Where the file has a tokenizer of a kind that is not known.
    pub fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        let beside = self.path.with_file_name("tokenizer.json");
        if beside.exists() {
            return Tokenizer::from_file(&beside).map_err(|error| LoadError::damaged(&beside, error.to_string()));
        }
        gguf_tokenizer::build(self)
    }

    /// The chat template, if there is one.
    ///
    /// # Errors
    /// Where it is not valid.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, LoadError> {
        let Some(Value::Text(source)) = self.get("tokenizer.chat_template") else { return Ok(None) };
        let special = ["bos", "eos", "unk"].into_iter().filter_map(|name| {
            let Some(Value::Integer(token)) = self.get(&format!("tokenizer.ggml.{name}_token_id")) else { return None };
            let Some(Value::List(tokens)) = self.get("tokenizer.ggml.tokens") else { return None };
            let Some(Value::Text(token)) = tokens.get(usize::try_from(*token).ok()?) else { return None };
            Some((format!("{name}_token"), token.clone()))
        });
        let template = ChatTemplate::new(source, special.collect());
        let wrong = |error| LoadError::damaged(&self.path, format!("its chat template is not valid: {error:#}"));
        template.map(Some).map_err(wrong)
    }

    /// All values of a tensor.
    fn values(&self, name: &str, stored: &Stored) -> Result<Vec<f32>, LoadError> {
        let mut values = Vec::new();
        self.pieces(name, stored, &mut |piece| values.extend_from_slice(piece))?;
        Ok(values)
    }

    fn pieces(&self, name: &str, stored: &Stored, take: &mut dyn FnMut(&[f32])) -> Result<(), LoadError> {
        let width = stored.shape.last().copied().unwrap_or(1);
        let row = bytes(stored.kind, width as u64).unwrap_or(u64::MAX).max(1);
        let rows = stored.shape.iter().rev().skip(1).product::<usize>();
        let step = usize::try_from(PIECE / row).unwrap_or(1).max(1);
        for first in (0..rows).step_by(step) {
            let count = step.min(rows - first);
            let mut data = vec![0; usize::try_from(row * count as u64).unwrap_or(usize::MAX)];
            let at = stored.offset + row * first as u64;
            self.file.read_exact_at(&mut data, at).map_err(LoadError::reading(&self.path))?;
            let storage = QStorage::from_data(Cow::Owned(data), &Device::Cpu, stored.kind)?;
            let values =
                QTensor::new(storage, (count, width))?.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
            if !values.iter().all(|value| value.is_finite()) {
                return Err(LoadError::NotFinite { path: self.path.clone(), name: name.to_owned() });
            }
            take(&values);
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<(String, &Stored)> {
        let own = own_name(name)?;
        let stored = self.tensors.get(&own)?;
        Some((own, stored))
    }

    /// Heads of a tensor whose rows llama.cpp put into another order, if it is such a one.
    fn interleaved_heads(&self, name: &str) -> Option<usize> {
        if self.architecture != "llama" {
            return None;
        }
        let module = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias"))?;
        if module.ends_with("q_proj") {
            self.size("attention.head_count").ok()
        } else if module.ends_with("k_proj") {
            self.size("attention.head_count_kv").or_else(|_| self.size("attention.head_count")).ok()
        } else {
            None
        }
    }
}

impl TensorSource for GgufFile {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.find(name).map(|(_, stored)| stored.shape.clone())
    }

    fn precision(&self, name: &str) -> Precision {
        match self.find(name).map(|(_, stored)| stored.kind) {
            Some(GgmlDType::BF16) => Precision::Bf16,
            Some(GgmlDType::F32 | GgmlDType::F16) | None => Precision::F32,
            Some(_) => Precision::Q8,
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self, name: &str, shape: &[usize], take: &mut dyn FnMut(&[f32])) -> Result<(), LoadError> {
        self.expect(name, shape)?;
        let Some((own, stored)) = self.find(name) else {
            return Err(LoadError::NoTensor { path: self.path.clone(), name: name.to_owned() });
        };
        let Some(heads) = self.interleaved_heads(name) else { return self.pieces(&own, stored, take) };
        let values = self.values(&own, stored)?;
        // A bias has one value for each row.
        let (rows, width) = (shape.first().copied().unwrap_or_default(), shape.get(1).copied().unwrap_or(1));
        let head = rows / heads.max(1);
        let half = head / 2;
        for row in 0..rows {
            let (of_head, within) = (row / head.max(1), row % head.max(1));
            // Pairs lie side by side there, and in two halves here.
            let from = of_head * head + within % half.max(1) * 2 + within / half.max(1);
            take(values.get(from * width..(from + 1) * width).unwrap_or_default());
        }
        Ok(())
    }
}

/// GGUF's name of a tensor.
fn own_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".to_owned()),
        "model.norm.weight" => return Some("output_norm.weight".to_owned()),
        "lm_head.weight" => return Some("output.weight".to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    let part = match part {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.{kind}"))
}

/// Checks where the data of tensors lies.
fn place(
    path: &Path,
    infos: Vec<(String, Stored)>,
    start: u64,
    length: u64,
) -> Result<BTreeMap<String, Stored>, LoadError> {
    let mut tensors = BTreeMap::new();
    for (name, mut stored) in infos {
        let count = stored.shape.iter().try_fold(1u64, |count, size| count.checked_mul(*size as u64));
        let size = count.and_then(|count| bytes(stored.kind, count));
        let end = start.checked_add(stored.offset).and_then(|begin| begin.checked_add(size?));
        let block = stored.kind.block_size();
        let whole = stored.shape.last().is_some_and(|width| width.is_multiple_of(block));
        if !whole || end.is_none_or(|end| end > length) {
            let reason = format!("tensor {name:?} lies beyond its end: it is truncated or damaged; copy it again");
            return Err(LoadError::damaged(path, reason));
        }
        stored.offset += start;
        if tensors.insert(name.clone(), stored).is_some() {
            return Err(LoadError::damaged(path, format!("tensor {name:?} is there twice")));
        }
    }
    Ok(tensors)
}

/// Bytes of so many values.
fn bytes(kind: GgmlDType, count: u64) -> Option<u64> {
    (count / kind.block_size() as u64).checked_mul(kind.type_size() as u64)
}

/// Reads numbers and texts, and never more than there is.
struct Reader<'a> {
    inner: BufReader<&'a File>,
    left: u64,
    path: &'a Path,
}

impl Reader<'_> {
    fn take(&mut self, count: u64) -> Result<Vec<u8>, LoadError> {
        self.left = self.left.checked_sub(count).ok_or_else(|| {
            LoadError::damaged(self.path, "it ends before what it announces: it is truncated or damaged; copy it again")
        })?;
        let mut data = vec![0; usize::try_from(count).unwrap_or(usize::MAX)];
        self.inner.read_exact(&mut data).map_err(LoadError::reading(self.path))?;
        Ok(data)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], LoadError> {
        let data = self.take(N as u64)?;
        data.try_into().map_err(|_| LoadError::damaged(self.path, "it ends early"))
    }

    fn u32(&mut self) -> Result<u32, LoadError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, LoadError> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, LoadError> {
        let length = self.u64()?;
        if length > MAX_TEXT {
            return Err(LoadError::damaged(self.path, format!("a text of {length} bytes in it is beyond reason")));
        }
        String::from_utf8(self.take(length)?).map_err(|_| LoadError::damaged(self.path, "a text in it is not UTF-8"))
    }

    fn value(&mut self, kind: u32) -> Result<Value, LoadError> {
        Ok(match kind {
            0 => Value::Integer(u8::from_le_bytes(self.bytes()?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.bytes()?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.bytes()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.bytes()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.bytes()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.bytes()?).into()),
            7 => Value::Bool(self.bytes::<1>()? != [0]),
            8 => Value::Text(self.text()?),
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                if kind == 9 || count > self.left {
                    return Err(LoadError::damaged(self.path, "a list in it is longer than the file, or of lists"));
                }
                Value::List((0..count).map(|_| self.value(kind)).collect::<Result<_, _>>()?)
            }
            10 => Value::Integer(self.u64()?.into()),
            11 => Value::Integer(i64::from_le_bytes(self.bytes()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.bytes()?)),
            other => return Err(LoadError::damaged(self.path, format!("it has a value of unknown type {other}"))),
        })
    }

    fn tensor(&mut self) -> Result<(String, Stored), LoadError> {
        let (name, dimensions) = (self.text()?, self.u32()?);
        if !(1..=4).contains(&dimensions) {
            return Err(LoadError::damaged(self.path, format!("tensor {name:?} has {dimensions} dimensions")));
        }
        let sizes = (0..dimensions).map(|_| self.u64()).collect::<Result<Vec<_>, _>>()?;
        let shape = sizes.into_iter().rev().map(|size| usize::try_from(size).unwrap_or(usize::MAX)).collect();
        let kind = match self.u32()? {
            0 => GgmlDType::F32,
            1 => GgmlDType::F16,
            2 => GgmlDType::Q4_0,
            3 => GgmlDType::Q4_1,
            6 => GgmlDType::Q5_0,
            7 => GgmlDType::Q5_1,
            8 => GgmlDType::Q8_0,
            10 => GgmlDType::Q2K,
            11 => GgmlDType::Q3K,
            12 => GgmlDType::Q4K,
            13 => GgmlDType::Q5K,
            14 => GgmlDType::Q6K,
            30 => GgmlDType::BF16,
            other => {
                let what = format!("type {other} of tensor {name:?}");
                return Err(LoadError::Unsupported { path: self.path.to_path_buf(), what, supported: SUPPORTED });
            }
        };
        Ok((name, Stored { shape, kind, offset: self.u64()? }))
    }
}
