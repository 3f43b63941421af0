//! Which tokenizer a model has.

use super::ModelFiles;

/// Files that are a tokenizer each by itself.
const WHOLE: [&str; 9] = [
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "tekken.json",
    "vocab.txt",
    "tokenizer.model.v3",
    "source.spm",
];
/// Files that are one together.
const TOGETHER: [&[&str]; 2] = [&["vocab.json", "merges.txt"], &["vocab.json", "tokenizer_config.json"]];

/// Whether these files hold a tokenizer in a form that is in use.
pub(super) fn is_there(files: &ModelFiles) -> bool {
    // Pipelines of several models keep theirs one directory down.
    let has = |name: &str| files.paths().any(|path| path == name || is_one_down(path, name));
    WHOLE.iter().any(|name| has(name))
        || TOGETHER.iter().any(|names| names.iter().all(|name| has(name)))
        || files.paths().any(|path| path.ends_with(".tiktoken"))
}

fn is_one_down(path: &str, name: &str) -> bool {
    path.split_once('/').is_some_and(|(_, rest)| rest == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelFile;

    #[test]
    fn every_form_in_use_is_accepted() {
        let has = |names: &[&str]| {
            let file = || ModelFile::alone("/".into(), 0);
            is_there(&names.iter().map(|name| ((*name).to_owned(), file())).collect())
        };
        for good in [
            &["tokenizer.json"][..],
            &["tokenizer.model"],
            &["vocab.txt"],
            &["vocab.json", "merges.txt"],
            &["qwen.tiktoken"],
            &["tokenizer/tokenizer.json"],
        ] {
            assert!(has(good), "{good:?}");
        }
        for bad in [&[][..], &["vocab.json"], &["merges.txt"], &["tokenizer_config.json"], &["a/b/tokenizer.json"]] {
            assert!(!has(bad), "{bad:?}");
        }
    }
}
