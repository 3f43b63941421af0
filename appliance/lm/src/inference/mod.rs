//! The forward pass for serving: packed weights, many sequences at once, the same bits whatever else is computed.

mod adapter;
mod attention;
mod decoder;
mod decoder_config;
mod embedder;
mod encoder;
mod encoder_config;
mod error;
mod gguf;
mod gguf_tokenizer;
mod json_file;
mod kernel;
mod kv_cache;
mod lineage;
mod linear;
mod matrix;
mod rotation;
mod tensors;

pub use adapter::Adapter;
pub use decoder::{Decoder, Piece};
pub use decoder_config::{DecoderConfig, Family, Rope, Scaling};
pub use embedder::Embedder;
pub use encoder::{Classifier, EncodedText, Encoder};
pub use encoder_config::{EncoderConfig, Scores};
pub use error::LoadError;
pub use gguf::GgufFile;
pub use json_file::{MAX_CONFIG, read_bounded, read_json};
pub use kv_cache::{Allocation, KvCache};
pub use lineage::{BaseModel, Kinship, Lineage};
pub use linear::{Linear, Loader};
pub use matrix::{Matrix, MatrixBuilder, Precision};
pub use rotation::Rotation;
pub use tensors::{SafetensorsDirectory, TensorSource};
