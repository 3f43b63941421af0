//! Export to GGUF, the one-file form that llama.cpp and its relatives load.
//!
//! The model's directory goes in, one file comes out: metadata named by the model's architecture, the tokenizer, the
//! chat template, and the weights as 16-bit floats or in blocks of 8 bits. Vectors (norms, biases) stay 32-bit floats, as
//! llama.cpp's own converter has it.

mod architecture;
mod export;
mod format;
mod vocabulary;

pub use architecture::ArchitectureError;
pub use export::{ExportError, Exported, Quant, export};
pub use vocabulary::VocabularyError;
