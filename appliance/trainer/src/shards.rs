//! The weights of a model directory, tensor by tensor: `*.safetensors` read in place of being loaded as a whole.
//!
//! Nothing is believed before it is checked: a header must describe the file to its last byte.

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, tensor::Metadata};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// The largest header that is read, in bytes; the limit of the format's own library.
const MAX_HEADER: u64 = 100_000_000;

/// Why weights cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// The file system says no.
    #[error("{} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// No weights.
    #[error("{} has no *.safetensors", .0.display())]
    Empty(PathBuf),
    /// The file is not what its header says.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// A tensor that is needed is not there.
    #[error("the weights in {} lack `{name}`", dir.display())]
    Missing {
        /// The model directory.
        dir: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// Computing failed.
    #[error("`{name}` cannot be taken as {dtype:?} {shape:?}: {source}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// Its type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// The reason.
        source: Box<candle_core::Error>,
    },
    /// Weights that are stored in a type that nothing here computes in.
    #[error("`{name}` is stored as {dtype:?}; f32, f16 and bf16 can be worked on")]
    Type {
        /// The tensor's name.
        name: String,
        /// Its type.
        dtype: Dtype,
    },
}

/// One file of weights.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    header: Vec<u8>,
    metadata: Metadata,
}

impl Shard {
    /// Reads and checks the header of a file.
    ///
    /// # Errors
    /// [`ShardError::Io`], and [`ShardError::Damaged`] if header and length do not describe each other.
    pub fn open(path: &Path) -> Result<Self, ShardError> {
        let io = |source| ShardError::Io { path: path.to_owned(), source };
        let damaged = |what: String| ShardError::Damaged { path: path.to_owned(), what };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(|_| damaged(format!("it has {length} bytes, less than a header")))?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || size > length - 8 {
            return Err(damaged(format!("its header is said to have {size} bytes, the file has {length}")));
        }
        let mut json = vec![0; usize::try_from(size).map_err(|error| damaged(error.to_string()))?];
        file.read_exact(&mut json).map_err(io)?;
        let metadata: Metadata =
            serde_json::from_slice(&json).map_err(|error| damaged(format!("its header is wrong: {error}")))?;
        let expected = 8 + size + metadata.data_len() as u64;
        if expected != length {
            return Err(damaged(format!("its header describes {expected} bytes, the file has {length}")));
        }
        let header = [&size.to_le_bytes()[..], &json].concat();
        Ok(Self { path: path.to_owned(), header, metadata })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's first bytes, up to the data of the first tensor.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The tensors' names, in the order of their data.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Shape of a tensor.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|info| info.shape.as_slice())
    }

    /// The bytes of a tensor as they lie in the file.
    ///
    /// # Errors
    /// [`ShardError::Missing`], [`ShardError::Io`].
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, ShardError> {
        let info = self.metadata.info(name).ok_or_else(|| self.missing(name))?;
        let (start, end) = info.data_offsets;
        let io = |source| ShardError::Io { path: self.path.clone(), source };
        let mut file = File::open(&self.path).map_err(io)?;
        file.seek(SeekFrom::Start((self.header.len() + start) as u64)).map_err(io)?;
        let mut bytes = vec![0; end - start];
        file.read_exact(&mut bytes).map_err(io)?;
        Ok(bytes)
    }

    /// A tensor in the type that it is stored in.
    ///
    /// # Errors
    /// Those of [`Shard::bytes`], and [`ShardError::Type`] for anything but f32, f16 and bf16.
    pub fn tensor(&self, name: &str) -> Result<Tensor, ShardError> {
        let info = self.metadata.info(name).ok_or_else(|| self.missing(name))?;
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            dtype => return Err(ShardError::Type { name: name.to_owned(), dtype }),
        };
        Tensor::from_raw_buffer(&self.bytes(name)?, dtype, &info.shape, &Device::Cpu).map_err(|source| {
            ShardError::Tensor {
                name: name.to_owned(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                source: Box::new(source),
            }
        })
    }

    fn missing(&self, name: &str) -> ShardError {
        ShardError::Missing { dir: self.path.clone(), name: name.to_owned() }
    }
}

/// All files of weights of a model directory.
#[derive(Debug)]
pub struct Shards {
    dir: PathBuf,
    shards: Vec<Shard>,
    places: BTreeMap<String, usize>,
}

impl Shards {
    /// Opens every `*.safetensors` of a directory, in the order of their names.
    ///
    /// # Errors
    /// [`ShardError::Empty`], those of [`Shard::open`], and [`ShardError::Damaged`] if two files have the same tensor.
    pub fn open(dir: &Path) -> Result<Self, ShardError> {
        let io = |source| ShardError::Io { path: dir.to_owned(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                paths.push(path);
            }
        }
        paths.sort();
        let shards = paths.iter().map(|path| Shard::open(path)).collect::<Result<Vec<_>, _>>()?;
        let mut places = BTreeMap::new();
        for (index, shard) in shards.iter().enumerate() {
            for name in shard.names() {
                if places.insert(name.clone(), index).is_some() {
                    let what = format!("it has `{name}`, as another file of the model");
                    return Err(ShardError::Damaged { path: shard.path.clone(), what });
                }
            }
        }
        if places.is_empty() {
            return Err(ShardError::Empty(dir.to_owned()));
        }
        Ok(Self { dir: dir.to_owned(), shards, places })
    }

    /// The files, sorted by name.
    #[must_use]
    pub fn files(&self) -> &[Shard] {
        &self.shards
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether a tensor is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Shape of a tensor.
    ///
    /// # Errors
    /// [`ShardError::Missing`].
    pub fn shape(&self, name: &str) -> Result<&[usize], ShardError> {
        self.place(name)?.shape(name).ok_or_else(|| self.missing(name))
    }

    /// A tensor in the type that it is stored in.
    ///
    /// # Errors
    /// Those of [`Shard::tensor`].
    pub fn tensor(&self, name: &str) -> Result<Tensor, ShardError> {
        self.place(name)?.tensor(name)
    }

    fn place(&self, name: &str) -> Result<&Shard, ShardError> {
        self.places.get(name).and_then(|&index| self.shards.get(index)).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> ShardError {
        ShardError::Missing { dir: self.dir.clone(), name: name.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn file(dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        let tensor = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu).unwrap();
        candle_core::safetensors::save(&HashMap::from([("a", tensor)]), &path).unwrap();
        path
    }

    #[test]
    fn a_tensor_comes_back_as_it_was_stored() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path(), "model.safetensors");
        let shards = Shards::open(dir.path()).unwrap();
        assert_eq!(shards.shape("a").unwrap(), [2, 2]);
        assert_eq!(shards.tensor("a").unwrap().to_vec2::<f32>().unwrap(), [[1., 2.], [3., 4.]]);
        assert!(matches!(shards.tensor("b"), Err(ShardError::Missing { .. })));
    }

    #[test]
    fn a_file_of_another_length_than_its_header_says_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "model.safetensors");
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 7, 8, 20, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(matches!(Shard::open(&path), Err(ShardError::Damaged { .. })), "{cut}");
        }
        std::fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert!(matches!(Shard::open(&path), Err(ShardError::Damaged { .. })));
        std::fs::write(&path, [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat()).unwrap();
        assert!(matches!(Shard::open(&path), Err(ShardError::Damaged { .. })));
    }

    #[test]
    fn a_tensor_that_two_files_have_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path(), "model-1.safetensors");
        file(dir.path(), "model-2.safetensors");
        assert!(Shards::open(dir.path()).unwrap_err().to_string().contains("as another file"));
    }
}
