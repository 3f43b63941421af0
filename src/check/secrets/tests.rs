//! Planted secrets are found where they lie, and what only looks like one is not.

use super::*;
use crate::layer::tree::{Content, Meta, Node, Tree, TreePath};

fn scan(origin: Origin, files: &[(&str, &[u8])]) -> Vec<(String, u64, String)> {
    let mut tree = Tree::new();
    for (path, data) in files {
        let content = Content::bytes(data.to_vec());
        tree.insert(TreePath::new(path).unwrap(), Node::File { meta: Meta::root_owned(0o644, 0), content });
    }
    let findings = scan_tree(&tree, origin).unwrap();
    findings.into_iter().map(|finding| (finding.path, finding.line, finding.kind)).collect()
}

/// Letters that differ, made here so that this file holds nothing that looks like a secret.
fn letters(count: usize) -> String {
    (0..count).map(|index| char::from(b'a' + u8::try_from((index * 7 + index / 26) % 26).unwrap())).collect()
}

fn private_key() -> String {
    format!("-----BEGIN {} KEY-----\n{}\n", "PRIVATE", letters(64))
}

#[test]
fn each_kind_is_found_with_its_line() {
    let upper = letters(16).to_uppercase();
    let kinds = [
        ("private key", private_key()),
        ("private key", private_key().replace('\n', "\\n")),
        ("PGP private key", format!("-----BEGIN PGP {} KEY BLOCK-----\n\n{}\n", "PRIVATE", letters(64))),
        ("age secret key", format!("AGE-SECRET-{}{}", "KEY-1", letters(58).to_uppercase())),
        ("Hugging Face token", format!("{}{}", "hf_", letters(34))),
        ("AWS access key", format!("{}{upper}", "AKIA")),
        ("GitHub token", format!("{}{}", "ghp_", letters(36))),
        ("GitHub token", format!("{}{}_{}", "github_pat_", letters(22), letters(59))),
        ("GitLab token", format!("{}{}", "glpat-", letters(20))),
        ("Slack token", format!("{}-9183746501-{}", "xoxb", letters(24))),
        ("OpenAI key", format!("{}{}{}{}", "sk-", letters(20), "T3BlbkFJ", letters(20))),
        ("Anthropic key", format!("{}api03-{}", "sk-ant-", letters(95))),
        ("Google API key", format!("{}{}", "AIza", letters(35))),
        ("npm token", format!("{}{}", "npm_", letters(36))),
        ("PyPI token", format!("{}{}{}", "pypi-", "AgEIcHlwaS5vcmc", letters(60))),
        ("password in an address", format!("https://me:{}@registry.company.io/simple", letters(12))),
    ];
    for (kind, secret) in kinds {
        let text = format!("first line\nkey = \"{secret}\"\n");
        let expected = vec![("/srv/settings".to_owned(), 2, kind.to_owned())];
        assert_eq!(scan(Origin::Owner, &[("srv/settings", text.as_bytes())]), expected);
    }
}

#[test]
fn files_that_exist_to_hold_credentials_count_if_they_do() {
    let cases: [(&str, &str, bool); 8] = [
        ("root/.netrc", "machine a login b password c3cre7", true),
        ("root/.netrc", "machine a login b", false),
        ("etc/pip.conf", "[global]\nindex-url = https://u:h0rse@mirror/simple\n", true),
        ("etc/pip.conf", "[global]\nindex-url = https://mirror/simple\n", false),
        ("root/.docker/config.json", "{\"auths\": {\"r\": {\"auth\": \"dXNlcjpwYXNz\"}}}", true),
        ("srv/model/config.json", "{\"auth\": \"dXNlcjpwYXNz\"}", false),
        ("root/.cache/huggingface/token", "abcdefghij", true),
        ("root/.npmrc", "//registry/:_authToken=${NPM_TOKEN}", false),
    ];
    for (path, text, is_secret) in cases {
        assert_eq!(!scan(Origin::Owner, &[(path, text.as_bytes())]).is_empty(), is_secret, "{path}: {text}");
    }
}

#[test]
fn what_only_shows_the_form_of_a_secret_is_none() {
    let texts = [
        format!("if line == \"-----BEGIN {} KEY-----\":", "PRIVATE"),
        format!("-----BEGIN PUBLIC KEY-----\n{}", letters(64)),
        format!("{}{}", "hf_", "x".repeat(34)),
        format!("{}IOSFODNN7EXAMPLE", "AKIA"),
        format!("{}{}", "hf_", letters(33)),
        "https://user:password@host.company.io/x and https://example.org/a:b@c".to_owned(),
    ];
    for text in texts {
        assert_eq!(scan(Origin::Owner, &[("a", text.as_bytes())]), [], "{text}");
    }
}

#[test]
fn keys_of_packages_tests_are_told_apart_and_their_tokens_are_not() {
    let key = private_key();
    let token = format!("{}{}", "hf_", letters(34));
    let program = format!("\x7fELF{key}");
    let mut tree = Tree::new();
    for (path, text) in [
        ("usr/lib/python3/test/certdata/a.pem", &key),
        ("usr/lib/python3/test/b", &token),
        ("usr/lib/libtls.so", &program),
        ("etc/k", &key),
    ] {
        let content = Content::bytes(text.clone().into_bytes());
        tree.insert(TreePath::new(path).unwrap(), Node::File { meta: Meta::root_owned(0o644, 0), content });
    }
    let told = |origin| -> Vec<bool> {
        scan_tree(&tree, origin).unwrap().iter().map(|finding| finding.came_with_package).collect()
    };
    assert_eq!(told(Origin::Packages), [false, true, false, true]);
    assert_eq!(told(Origin::Owner), [false; 4]);
}

#[test]
fn a_secret_across_the_border_of_two_parts_is_found_once_with_its_line() {
    let token = format!("{}{}", "hf_", letters(34));
    for before in (1 << 20) - 40..(1 << 20) + 5 {
        let mut data = vec![b'\n'; 9];
        data.resize(before, b' ');
        data.extend_from_slice(token.as_bytes());
        data.extend_from_slice(&vec![b' '; 1 << 12]);
        let found = scan(Origin::Owner, &[("big", &data)]);
        assert_eq!(found, [("/big".to_owned(), 10, "Hugging Face token".to_owned())], "{before}");
    }
}

#[test]
fn paths_that_would_command_a_terminal_are_escaped() {
    let token = format!("{}{}", "hf_", letters(34));
    assert_eq!(scan(Origin::Owner, &[("a\u{1b}[2J", token.as_bytes())])[0].0, "/a\\x1b[2J");
}
