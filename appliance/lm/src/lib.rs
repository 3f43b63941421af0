//! Language models from a Hugging Face directory: configuration, weights, tokenizer, chat template, forward pass.
