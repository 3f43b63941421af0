//! Formats of weights, by name.

/// A format of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// A header and raw tensors; loading it runs nothing.
    Safetensors,
    /// llama.cpp's format; loading it runs nothing.
    Gguf,
    /// Python pickles, alone or in a zip as PyTorch writes them; loading them can run anything.
    Pickle,
    /// Keras' HDF5.
    Hdf5,
    /// Flax' MessagePack.
    MessagePack,
    /// ONNX, with its external data.
    Onnx,
}

impl Format {
    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "GGUF",
            Self::Pickle => "pickle",
            Self::Hdf5 => "HDF5",
            Self::MessagePack => "MessagePack",
            Self::Onnx => "ONNX",
        }
    }
}

/// The format of weights that a file's name stands for; `None` for what is no weights.
pub fn format_of(path: &str) -> Option<Format> {
    let name = path.rsplit('/').next().unwrap_or(path);
    // What trainers pickle beside the weights counts as pickle too, because loading it runs code just the same.
    Some(match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
        "safetensors" => Format::Safetensors,
        "gguf" => Format::Gguf,
        "bin" | "pt" | "pth" | "ckpt" | "pkl" | "pickle" | "joblib" | "dill" => Format::Pickle,
        "h5" | "keras" => Format::Hdf5,
        "msgpack" => Format::MessagePack,
        "onnx" | "onnx_data" => Format::Onnx,
        _ => return None,
    })
}

/// Whether a file is laid down in a layer of its own: weights, and whatever is as large.
pub fn is_weights(path: &str, size: u64) -> bool {
    /// From here on a file is large, in bytes.
    const LARGE: u64 = 64 << 20;
    format_of(path).is_some() || size >= LARGE
}
