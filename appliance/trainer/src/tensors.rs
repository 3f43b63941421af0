//! Tensors as a safetensors file, written one after another: what is saved is never there a second time.

use crate::files::Growing;
use candle_core::{DType, Tensor};
use gap_lm::training::TrainableDecoder;
use safetensors::{
    SafeTensorError,
    tensor::{Dtype, Metadata, TensorInfo},
};
use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
};

/// Tensors by the names that they have in a file, in which their values have 32 bits.
pub type Tensors = BTreeMap<String, Tensor>;

/// Values that are turned into bytes at once.
const PIECE: usize = 1 << 18;
/// Bytes of a value.
const VALUE: usize = 4;

/// Why tensors cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The file system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The device fails.
    #[error("computing failed: {0}")]
    Compute(#[from] candle_core::Error),
    /// The format has no place for them.
    #[error("the tensors cannot be laid out: {0}")]
    Layout(#[from] SafeTensorError),
    /// Values that nobody could go on with.
    #[error("`{0}` has values that are no numbers")]
    NotFinite(String),
}

/// The trained parameters of a model, or with `all` every one. Their values are the model's own, not copies.
pub fn of(model: &mut TrainableDecoder, all: bool) -> Tensors {
    let mut tensors = Tensors::new();
    model.visit(|parameter| {
        if all || parameter.is_trainable() {
            tensors.insert(parameter.name().to_owned(), parameter.value().clone());
        }
    });
    tensors
}

/// Writes a file into a growing directory; its digest.
///
/// # Errors
/// [`WriteError`].
pub fn save(
    growing: &Growing,
    name: &str,
    tensors: &Tensors,
    notes: HashMap<String, String>,
) -> Result<String, WriteError> {
    let mut file = growing.create(name)?;
    write(tensors, notes, &mut file)?;
    Ok(file.finish()?)
}

/// The bytes that [`write`] writes.
///
/// # Errors
/// [`WriteError::Layout`].
pub fn size(tensors: &Tensors, notes: HashMap<String, String>) -> Result<u64, WriteError> {
    let values: usize = tensors.values().map(Tensor::elem_count).sum();
    Ok((header(tensors, notes)?.len() + values * VALUE) as u64)
}

/// Writes tensors as a safetensors file: the header, then one tensor after another, a piece of it at a time.
///
/// # Errors
/// [`WriteError`]; what was written until then is no file.
pub fn write(tensors: &Tensors, notes: HashMap<String, String>, to: &mut impl Write) -> Result<(), WriteError> {
    to.write_all(&header(tensors, notes)?)?;
    let mut bytes = Vec::new();
    for (name, tensor) in tensors {
        let tensor = tensor.flatten_all()?;
        let count = tensor.elem_count();
        // From a GPU a tensor comes whole, whatever part of it is asked for.
        let piece = if tensor.device().is_cpu() { PIECE } else { count.max(1) };
        for start in (0..count).step_by(piece) {
            let values = tensor.narrow(0, start, piece.min(count - start))?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            if !values.iter().all(|value| value.is_finite()) {
                return Err(WriteError::NotFinite(name.clone()));
            }
            for values in values.chunks(PIECE) {
                bytes.clear();
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                to.write_all(&bytes)?;
            }
        }
    }
    Ok(())
}

/// The header as the format's own library writes it.
fn header(tensors: &Tensors, notes: HashMap<String, String>) -> Result<Vec<u8>, WriteError> {
    let mut end = 0;
    let mut described = Vec::new();
    for (name, tensor) in tensors {
        let start = end;
        end += tensor.elem_count() * VALUE;
        let info = TensorInfo { dtype: Dtype::F32, shape: tensor.dims().to_vec(), data_offsets: (start, end) };
        described.push((name.clone(), info));
    }
    let metadata = Metadata::new(Some(notes), described)?;
    let mut json = serde_json::to_vec(&metadata).map_err(io::Error::from)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes()[..], &json].concat())
}
