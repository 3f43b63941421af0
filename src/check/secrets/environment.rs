//! Environment variables of images, which go into the image's configuration and so cross as plainly as a file.

use super::{Origin, scan_tree};
use crate::layer::tree::{Content, Meta, Node, Tree, TreePath};
use std::collections::BTreeMap;

/// The variables whose name and value look like a credential, each with what it looks like.
pub fn secret_variables(variables: &BTreeMap<String, String>) -> Vec<(String, String)> {
    // One line each, in a file whose name says that it holds variables.
    let lines = variables.iter().map(|(name, value)| format!("{name}={}\n", value.replace(['\n', '\r'], " ")));
    let text: String = lines.collect();
    let Ok(path) = TreePath::new(".env") else { return Vec::new() };
    let mut tree = Tree::new();
    tree.insert(path, Node::File { meta: Meta::root_owned(0o600, 0), content: Content::bytes(text.into_bytes()) });
    // Memory can always be read.
    let findings = scan_tree(&tree, Origin::Owner, &|_| false).unwrap_or_default().findings;
    let named = findings.into_iter().filter_map(|finding| {
        let index = usize::try_from(finding.line).ok()?.checked_sub(1)?;
        Some((variables.keys().nth(index)?.clone(), finding.kind))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_hold_credentials_are_named_and_others_are_not() {
        let variables = [
            ("DATABASE_PASSWORD", "qwertzuiop".to_owned()),
            ("HF_HOME", "/var/cache/huggingface".to_owned()),
            ("LETTERS", format!("{}{}", "hf_", "abcdefghijklmnopqrstuvwxyzabcdefgh")),
            ("TOKENIZERS_PARALLELISM", "false".to_owned()),
        ];
        let found = secret_variables(&variables.map(|(name, value)| (name.to_owned(), value)).into());
        let names: Vec<(&str, &str)> = found.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
        assert_eq!(names, [("DATABASE_PASSWORD", "credential of an environment"), ("LETTERS", "Hugging Face token")]);
    }
}
