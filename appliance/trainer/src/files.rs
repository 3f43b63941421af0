//! Files and directories that appear whole or not at all.

use gap_lm::training::TrainableDecoder;
use safetensors::tensor::{Dtype, TensorView};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Puts a file in another's place once its bytes are on the disk.
///
/// # Errors
/// What the system says.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync(parent)
}

/// Waits until a directory's entries are on the disk.
///
/// # Errors
/// What the system says.
pub fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A directory that is filled under another name, and appears when it is complete.
#[derive(Debug)]
pub struct Growing {
    made: PathBuf,
    place: PathBuf,
}

impl Growing {
    /// Begins one. What an earlier attempt left is taken away.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin(place: &Path) -> io::Result<Self> {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let made = place.with_file_name(format!(".{name}.part"));
        if made.exists() {
            fs::remove_dir_all(&made)?;
        }
        fs::create_dir_all(&made)?;
        Ok(Self { made, place: place.to_owned() })
    }

    /// Where to fill it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.made
    }

    /// Writes a file into it.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(self.made.join(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Puts it in its place; one that is there is replaced.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(self) -> io::Result<()> {
        sync(&self.made)?;
        if self.place.exists() {
            fs::remove_dir_all(&self.place)?;
        }
        fs::rename(&self.made, &self.place)?;
        sync(self.place.parent().unwrap_or(Path::new(".")))
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        // After `finish` there is nothing to take away.
        let _ = fs::remove_dir_all(&self.made);
    }
}

/// SHA-256 of bytes, in hexadecimal.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Tensors of 32-bit floats by their names: shape, and values as little-endian bytes.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// Tensors of 32-bit floats as the bytes of a safetensors file.
///
/// # Errors
/// Where the format's library refuses them.
pub fn safetensors(
    tensors: &Tensors,
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let views: Result<Vec<_>, _> = tensors
        .iter()
        .map(|(name, (shape, bytes))| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<_, safetensors::SafeTensorError>>();
    safetensors::serialize(views?, Some(metadata))
}

/// The values of a tensor as bytes.
///
/// # Errors
/// Where the device fails.
pub fn bytes(tensor: &candle_core::Tensor) -> candle_core::Result<(Vec<usize>, Vec<u8>)> {
    let values = tensor.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()?;
    Ok((tensor.dims().to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect()))
}

/// The trained parameters of a model, or with `all` every one.
///
/// # Errors
/// Where the device fails.
pub fn parameters(model: &mut TrainableDecoder, all: bool) -> candle_core::Result<Tensors> {
    let (mut tensors, mut failed) = (BTreeMap::new(), None);
    model.visit(|parameter| {
        if all || parameter.is_trainable() {
            match bytes(parameter.value()) {
                Ok(value) => drop(tensors.insert(parameter.name().to_owned(), value)),
                Err(error) => failed = Some(error),
            }
        }
    });
    failed.map_or(Ok(tensors), Err)
}
