//! Language models from a Hugging Face directory: configuration, weights, tokenizer, chat template, forward pass.

pub mod chat_template;
pub mod inference;
pub mod training;
