//! Planted secrets are found where they lie, and what only looks like one is not.

use super::*;
use crate::layer::tree::{Content, Meta, Node, Tree, TreePath};

fn scan(origin: Origin, files: &[(&str, &[u8])]) -> Vec<(String, u64, String)> {
    let mut tree = Tree::new();
    for (path, data) in files {
        let content = Content::bytes(data.to_vec());
        tree.insert(TreePath::new(path).unwrap(), Node::File { meta: Meta::root_owned(0o644, 0), content });
    }
    let findings = scan_tree(&tree, origin, &|_| false).unwrap().findings;
    findings.into_iter().map(|finding| (finding.path, finding.line, finding.kind)).collect()
}

/// Letters that differ, made here so that this file holds nothing that looks like a secret.
fn letters(count: usize) -> String {
    (0..count).map(|index| char::from(b'a' + u8::try_from((index * 7 + index / 26) % 26).unwrap())).collect()
}

/// The same, of the digits of numbers to the base sixteen.
fn hex(count: usize) -> String {
    (0..count)
        .map(|index| char::from_digit(u32::try_from((index * 7 + index / 16) % 16).unwrap(), 16).unwrap())
        .collect()
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
        ("password in an address", format!("postgresql://app:{}@db.company.io/app", letters(12))),
        ("PuTTY private key", format!("{}-3: ssh-ed25519\nEncryption: none", "PuTTY-User-Key-File")),
        ("key of a Kubernetes client", format!("client-key{}: {}", "-data", letters(64))),
        ("AWS secret key", format!("AWS_SECRET{}={}", "_ACCESS_KEY", letters(40))),
        ("Azure storage key", format!("AccountName=a;Account{}={}==", "Key", letters(86))),
        ("Weights & Biases key", format!("WANDB_API{}={}", "_KEY", hex(40))),
        ("GitLab token", format!("{}{}", "glrt-", letters(20))),
        ("Docker token", format!("{}{}", "dckr_pat_", letters(27))),
        ("Vault token", format!("{}{}", "hvs.", letters(95))),
        ("DigitalOcean token", format!("{}{}", "dop_v1_", hex(64))),
        ("Databricks token", format!("{}{}", "dapi", hex(32))),
        ("Groq key", format!("{}{}", "gsk_", letters(52))),
        ("Replicate token", format!("{}{}", "r8_", letters(37))),
        ("NVIDIA key", format!("{}{}", "nvapi-", letters(64))),
        ("Stripe key", format!("{}{}", "sk_live_", letters(24))),
        ("SendGrid key", format!("{}{}.{}", "SG.", letters(22), letters(43))),
        ("Tailscale key", format!("{}auth-{}-{}", "tskey-", letters(12), letters(32))),
        ("Terraform token", format!("{}.{}.{}", letters(14), "atlasv1", letters(67))),
        (
            "Slack webhook",
            format!("https://hooks.slack.com/{}/T{upper}/B{upper}/{}", "services", letters(24))
                .replace(&upper, &upper[..9]),
        ),
        ("Google OAuth token", format!("{}{}", "ya29.", letters(70))),
    ];
    for (kind, secret) in kinds {
        let text = format!("first line\nkey = \"{secret}\"\n");
        let expected = vec![("/srv/settings".to_owned(), 2, kind.to_owned())];
        assert_eq!(scan(Origin::Owner, &[("srv/settings", text.as_bytes())]), expected);
    }
}

#[test]
fn files_that_exist_to_hold_credentials_count_if_they_do() {
    let cases = [
        ("root/.netrc", "machine a login b password c3cre7", true),
        ("root/.netrc", "machine a login b", false),
        ("etc/pip.conf", "[global]\nindex-url = https://u:h0rse@mirror/simple\n", true),
        ("etc/pip.conf", "[global]\nindex-url = https://mirror/simple\n", false),
        ("etc/pip.conf", "[global]\nindex-url = https://u:${PASSWORD}@mirror/simple\n", false),
        ("root/.docker/config.json", "{\"auths\": {\"r\": {\"auth\": \"dXNlcjpwYXNz\"}}}", true),
        ("srv/model/config.json", "{\"auth\": \"dXNlcjpwYXNz\"}", false),
        ("root/.cache/huggingface/token", "abcdefghij", true),
        ("usr/lib/python3/huggingface_hub/token", "abcdefghij", false),
        ("root/.npmrc", "//registry/:_authToken=${NPM_TOKEN}", false),
        ("root/.npmrc", "//registry/:_authToken=qwertzuiop", true),
        ("root/.pypirc", "[pypi]\nusername = a\npassword = qwertzuiop\n", true),
        ("root/.cargo/credentials.toml", "[registry]\ntoken = \"qwertzuiop\"\n", true),
        ("root/.git-credentials", "https://a:qwertzuiop@forge.company.io\n", true),
        ("root/.aws/credentials", "[default]\naws_secret_access_key = qwertzuiopasdfgh\n", true),
        ("root/.aws/config", "[default]\nregion = eu-central-1\n", false),
        ("root/.kube/config", "users:\n- name: a\n  user:\n    token: qwertzuiop\n", true),
        ("root/.kube/config", "clusters:\n- name: a\n  cluster:\n    server: https://a:6443\n", false),
        ("etc/kubernetes/admin.conf", "users:\n- name: a\n  user:\n    password: qwertzuiop\n", true),
        ("root/.kaggle/kaggle.json", "{\"username\":\"a\",\"key\":\"fedcba9876543210fedcba9876543210\"}", true),
        ("root/.pgpass", "db:5432:app:app:qwertzuiop\n", true),
        ("srv/app/.env", "# settings\nexport DB_PASSWORD=\"qwertzuiop\"\n", true),
        ("srv/app/prod.env", "MY_API_KEY=qwertzuiop\n", true),
        ("srv/app/.env", "LEVEL=debug\nTOKENIZER_NAME=qwen2-tokenizer\nMAX_TOKENS=100000000\n", false),
        ("srv/app/.env", "DB_PASSWORD=${DB_PASSWORD}\nAPI_KEY=\nSECRET=changeme-please\n", false),
        ("srv/app/.env.example", "DB_PASSWORD=qwertzuiop\n", false),
        ("srv/app/.env", "TLS_PRIVATE_KEY=/etc/tls/key.pem\n", false),
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
        scan_tree(&tree, origin, &|_| false).unwrap().findings.iter().map(|finding| finding.came_with_package).collect()
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

/// The name of a file, its bytes, and where the data of its tensors begins.
type Weights = (&'static str, Vec<u8>, usize);

/// Files of weights with this note in their headers, of one tensor each of 512 bytes.
fn weights(note: &str) -> [Weights; 2] {
    let header = format!(
        "{{\"__metadata__\":{{\"note\":\"{note}\"}},\"a\":{{\"dtype\":\"F32\",\"shape\":[128],\"data_offsets\":[0,512]}}}}"
    );
    let safetensors = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let mut gguf = [&b"GGUF"[..], &3_u32.to_le_bytes(), &1_u64.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    gguf.extend([text("general.note"), 8_u32.to_le_bytes().to_vec(), text(note)].concat());
    gguf.extend([text("a"), 1_u32.to_le_bytes().to_vec(), 128_u64.to_le_bytes().to_vec()].concat());
    gguf.extend([&0_u32.to_le_bytes()[..], &0_u64.to_le_bytes()].concat());
    gguf.resize(gguf.len().next_multiple_of(32), 0);
    [("a.safetensors", safetensors), ("a.gguf", gguf)].map(|(name, mut file)| {
        let data = file.len();
        file.resize(data + 512, 0);
        (name, file, data)
    })
}

#[test]
fn of_weights_all_but_the_numbers_is_looked_through() {
    let token = format!(" {}{} ", "hf_", letters(34));
    let found = |name: &str, file: &[u8]| !scan(Origin::Owner, &[(name, file)]).is_empty();
    for (name, file, _) in weights(&token) {
        assert!(found(name, &file), "the header of {name}");
    }
    for (name, mut file, data) in weights("nothing") {
        assert!(!found(name, &file), "{name}");
        file[data..data + token.len()].copy_from_slice(token.as_bytes());
        assert!(!found(name, &file), "what stands among the numbers of {name} is one of them");
        assert!(found("other.bin", &file));
        file[8] ^= 0xff;
        assert!(found(name, &file), "{name} with a header that is none");
        assert!(found(name, token.as_bytes()), "{name} that holds something else");
    }
    let [_, (name, mut file, _)] = weights("nothing");
    file.extend_from_slice(token.as_bytes());
    assert!(found(name, &file), "what follows the last tensor");
}

#[test]
fn paths_that_would_command_a_terminal_are_escaped() {
    let token = format!("{}{}", "hf_", letters(34));
    assert_eq!(scan(Origin::Owner, &[("a\u{1b}[2J", token.as_bytes())])[0].0, "/a\\x1b[2J");
}

#[test]
fn what_is_allowed_or_came_with_a_package_hides_nothing() {
    let token = format!("{}{}", "hf_", letters(34));
    let (many, mut tree) = (format!("{token}\n").repeat(1200), Tree::new());
    let mut add = |path: &str, text: &str| {
        let node = Node::File { meta: Meta::root_owned(0o644, 0), content: Content::bytes(text.as_bytes().to_vec()) };
        tree.insert(TreePath::new(path).unwrap(), node);
    };
    add("a/allowed", &many);
    add("z/real", &token);
    let places = |found: &Found| found.findings.iter().any(|finding| finding.path == "/z/real");
    let all = scan_tree(&tree, Origin::Owner, &|_| false).unwrap();
    assert!(all.is_cut && all.findings.len() == 1000 && !places(&all), "more count than are kept");
    let left = scan_tree(&tree, Origin::Owner, &|path| path == "/a/allowed").unwrap();
    assert!(!left.is_cut && left.findings.len() == 1 && places(&left), "{left:?}");

    let mut tree = Tree::new();
    let mut add = |path: &str, text: &str| {
        let node = Node::File { meta: Meta::root_owned(0o644, 0), content: Content::bytes(text.as_bytes().to_vec()) };
        tree.insert(TreePath::new(path).unwrap(), node);
    };
    add("usr/lib/python3/tests/keys", &private_key().repeat(1200));
    add("z/real", &token);
    let found = scan_tree(&tree, Origin::Packages, &|_| false).unwrap();
    assert!(!found.is_cut && found.findings.len() == 1000 && places(&found));
}
