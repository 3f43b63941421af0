//! Tensors by name, from the safetensors files of a directory. Headers are checked against the files' lengths, and data
//! is read by position, so that a file that shrinks gives an error and not a signal.

use super::{
    error::LoadError,
    json_file::read_json,
    matrix::{MatrixBuilder, Precision},
};
use candle_core::{Device, Tensor};
use safetensors::{Dtype, tensor::Metadata};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Longest header of a safetensors file, in bytes (what the format's own library takes).
const MAX_HEADER: u64 = 100_000_000;
/// Longest index of a model in several files, in bytes.
const MAX_INDEX: u64 = 64 << 20;
/// Bytes that are read at once.
const PIECE: usize = 1 << 18;

/// Where tensors come from.
pub trait TensorSource: Sync {
    /// The shape of a tensor, if there is one of that name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;
    /// How the weights of a tensor are best kept, from how they are stored.
    fn precision(&self, name: &str) -> Precision;
    /// Gives the values of a tensor of two dimensions or fewer in order, whole rows at a time.
    ///
    /// # Errors
    /// Where there is no such tensor, its shape is another, the file cannot be read, or a value is not finite.
    fn read(&self, name: &str, shape: &[usize], take: &mut dyn FnMut(&[f32])) -> Result<(), LoadError>;
    /// Where the tensors lie, for errors.
    fn path(&self) -> &Path;

    /// Checks that a tensor is there and has a shape, before room is made for it.
    ///
    /// # Errors
    /// Where it is not, or has another.
    fn expect(&self, name: &str, shape: &[usize]) -> Result<(), LoadError> {
        let path = || self.path().to_path_buf();
        match self.shape(name) {
            None => Err(LoadError::NoTensor { path: path(), name: name.to_owned() }),
            Some(found) if found == shape => Ok(()),
            Some(found) => {
                Err(LoadError::Shape { path: path(), name: name.to_owned(), found, expected: shape.to_vec() })
            }
        }
    }

    /// Whether there is a tensor of that name.
    fn has(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    /// A tensor of 32-bit values.
    ///
    /// # Errors
    /// As [`TensorSource::read`].
    fn tensor(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, LoadError> {
        let mut values = Vec::new();
        self.read(name, shape, &mut |piece| values.extend_from_slice(piece))?;
        Ok(Tensor::from_vec(values, shape, device)?)
    }

    /// Adds the rows of a matrix.
    ///
    /// # Errors
    /// As [`TensorSource::read`].
    fn rows(&self, name: &str, shape: [usize; 2], builder: &mut MatrixBuilder) -> Result<(), LoadError> {
        self.read(name, &shape, &mut |rows| builder.push(rows))
    }
}

/// The safetensors files of a directory.
#[derive(Debug)]
pub struct SafetensorsDirectory {
    path: PathBuf,
    files: Vec<Shard>,
    /// Which file holds a tensor.
    index: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Where the data begins.
    start: u64,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl SafetensorsDirectory {
    /// Opens `model.safetensors`, or what `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// Where neither is there, or a header contradicts its file.
    pub fn open(directory: &Path) -> Result<Self, LoadError> {
        let index = directory.join("model.safetensors.index.json");
        let names = if index.exists() {
            let map: Index = read_json(&index, MAX_INDEX)?;
            map.weight_map.into_values().collect::<BTreeSet<_>>()
        } else {
            BTreeSet::from(["model.safetensors".to_owned()])
        };
        let mut paths = Vec::new();
        for name in names {
            if Path::new(&name).components().count() != 1 || name.starts_with('.') {
                return Err(LoadError::damaged(&index, format!("{name:?} is no name of a file beside it")));
            }
            paths.push(directory.join(name));
        }
        Self::open_files(directory, paths)
    }

    /// Opens one file.
    ///
    /// # Errors
    /// As [`SafetensorsDirectory::open`].
    pub fn open_file(path: &Path) -> Result<Self, LoadError> {
        Self::open_files(path, vec![path.to_path_buf()])
    }

    fn open_files(path: &Path, paths: Vec<PathBuf>) -> Result<Self, LoadError> {
        let mut files = Vec::new();
        let mut index = BTreeMap::new();
        for path in paths {
            let shard = Shard::open(path)?;
            for name in shard.metadata.offset_keys() {
                if index.insert(name.clone(), files.len()).is_some() {
                    return Err(LoadError::damaged(&shard.path, format!("tensor {name:?} is in another file as well")));
                }
            }
            files.push(shard);
        }
        Ok(Self { path: path.to_path_buf(), files, index })
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    fn shard(&self, name: &str) -> Option<&Shard> {
        self.files.get(*self.index.get(name)?)
    }
}

impl Shard {
    fn open(path: PathBuf) -> Result<Self, LoadError> {
        let file = File::open(&path).map_err(LoadError::reading(&path))?;
        let length = file.metadata().map_err(LoadError::reading(&path))?.len();
        let mut size = [0; 8];
        if length < 8 {
            return Err(LoadError::damaged(&path, "it is too short for a safetensors file; copy it again"));
        }
        file.read_exact_at(&mut size, 0).map_err(LoadError::reading(&path))?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || size > length - 8 {
            let reason = format!("its header claims {size} bytes, but the file has {length}; copy it again");
            return Err(LoadError::damaged(&path, reason));
        }
        let mut header = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut header, 8).map_err(LoadError::reading(&path))?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| LoadError::damaged(&path, format!("its header is not valid: {error}")))?;
        let start = 8 + size;
        if start + metadata.data_len() as u64 != length {
            let reason = format!(
                "its header describes {} bytes, but the file has {length}: it is truncated or padded; copy it again",
                start + metadata.data_len() as u64
            );
            return Err(LoadError::damaged(&path, reason));
        }
        Ok(Self { path, file, metadata, start })
    }
}

impl TensorSource for SafetensorsDirectory {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.shard(name)?.metadata.info(name)?.shape.clone())
    }

    fn precision(&self, name: &str) -> Precision {
        match self.shard(name).and_then(|shard| shard.metadata.info(name)).map(|info| info.dtype) {
            Some(Dtype::BF16) => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self, name: &str, shape: &[usize], take: &mut dyn FnMut(&[f32])) -> Result<(), LoadError> {
        self.expect(name, shape)?;
        let Some((shard, info)) = self.shard(name).and_then(|shard| Some((shard, shard.metadata.info(name)?))) else {
            return Err(LoadError::NoTensor { path: self.path.clone(), name: name.to_owned() });
        };
        let convert: fn(&[u8], &mut Vec<f32>) = match info.dtype {
            Dtype::F32 => {
                |bytes, values| values.extend(bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)))
            }
            Dtype::F16 => |bytes, values| {
                values.extend(bytes.as_chunks::<2>().0.iter().map(|value| half::f16::from_le_bytes(*value).to_f32()));
            },
            // The upper half of a 32-bit float, which is quicker said than by `bf16`, for whom some values are no numbers.
            Dtype::BF16 => |bytes, values| {
                let upper = |value: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*value)) << 16);
                values.extend(bytes.as_chunks::<2>().0.iter().map(upper));
            },
            other => {
                return Err(LoadError::Unsupported {
                    path: shard.path.clone(),
                    what: format!("type {other:?} of tensor `{name}`"),
                    supported: "weights are F32, F16 or BF16",
                });
            }
        };
        let row = shape.last().copied().unwrap_or(1).max(1) * info.dtype.bitsize() / 8;
        let (first, end) = info.data_offsets;
        let piece = (PIECE / row).max(1) * row;
        let (mut bytes, mut values) = (vec![0; piece.min(end - first)], Vec::new());
        let mut at = first;
        while at < end {
            let bytes = bytes.get_mut(..piece.min(end - at)).unwrap_or_default();
            shard.file.read_exact_at(bytes, shard.start + at as u64).map_err(LoadError::reading(&shard.path))?;
            values.clear();
            convert(bytes, &mut values);
            // All of them, without a way out at the first that is none: vectors of them are compared.
            if !values.iter().fold(true, |finite, value| finite & value.is_finite()) {
                return Err(LoadError::NotFinite { path: shard.path.clone(), name: name.to_owned() });
            }
            take(&values);
            at += bytes.len();
        }
        Ok(())
    }
}
