//! Language models from a Hugging Face directory: configuration, weights, tokenizer, chat template, forward pass.

pub mod chat_template;
pub mod device;
pub mod inference;
mod python_json;
pub mod training;

/// Names and versions of the libraries that decide about numbers and tokens.
pub const LIBRARIES: [(&str, &str); 3] = [("candle-core", "0.11.1"), ("gemm", "0.19.0"), ("tokenizers", "0.23.2")];

#[cfg(test)]
mod tests {
    #[test]
    fn libraries_have_the_versions_that_are_locked() {
        let lock = include_str!("../../../Cargo.lock");
        for (name, version) in super::LIBRARIES {
            assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")), "{name} {version}");
        }
    }
}
