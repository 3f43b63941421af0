//! What secrets look like.

use aho_corasick::AhoCorasick;
use regex::bytes::{Regex, RegexBuilder};
use std::sync::LazyLock;

/// A kind of secret.
#[derive(Debug)]
pub(super) struct Pattern {
    /// What it is called in a report.
    pub name: &'static str,
    /// Text that is in every one of its kind; looked for first, since it is much faster.
    literal: &'static [u8],
    expression: &'static str,
}

/// The kind that documentation is full of.
pub(super) const ADDRESS: &str = "password in an address";

/// All kinds. Where a service publishes the form of its tokens, this is it; else what its tokens have in common.
const PATTERNS: [Pattern; 42] = [
    Pattern {
        name: "private key",
        literal: b"PRIVATE KEY-----",
        // The body must follow: programs that read keys hold the first line alone.
        expression: r"-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY-----(?:\r?\n|\\n)(?:[A-Za-z-]{1,32}: [^\n]{1,128}\r?\n|\r?\n){0,4}[A-Za-z0-9+/=]{40}",
    },
    Pattern {
        name: "PGP private key",
        literal: b"PGP PRIVATE KEY BLOCK-----",
        expression: r"-----BEGIN PGP PRIVATE KEY BLOCK-----\r?\n(?:[A-Za-z-]{1,32}: [^\n]{1,128}\r?\n|\r?\n){0,4}[A-Za-z0-9+/=]{40}",
    },
    Pattern { name: "age secret key", literal: b"AGE-SECRET-KEY-1", expression: r"AGE-SECRET-KEY-1[0-9A-Z]{58}" },
    Pattern { name: "Hugging Face token", literal: b"hf_", expression: r"\bhf_[A-Za-z]{34}\b" },
    Pattern { name: "AWS access key", literal: b"AKIA", expression: r"\bAKIA[A-Z2-7]{16}\b" },
    Pattern { name: "AWS access key", literal: b"ASIA", expression: r"\bASIA[A-Z2-7]{16}\b" },
    Pattern { name: "GitHub token", literal: b"ghp_", expression: r"\bghp_[A-Za-z0-9]{36}\b" },
    Pattern { name: "GitHub token", literal: b"gho_", expression: r"\bgho_[A-Za-z0-9]{36}\b" },
    Pattern { name: "GitHub token", literal: b"ghu_", expression: r"\bghu_[A-Za-z0-9]{36}\b" },
    Pattern { name: "GitHub token", literal: b"ghs_", expression: r"\bghs_[A-Za-z0-9]{36}\b" },
    Pattern { name: "GitHub token", literal: b"ghr_", expression: r"\bghr_[A-Za-z0-9]{36}\b" },
    Pattern {
        name: "GitHub token",
        literal: b"github_pat_",
        expression: r"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b",
    },
    Pattern { name: "GitLab token", literal: b"glpat-", expression: r"\bglpat-[A-Za-z0-9_-]{20}\b" },
    Pattern { name: "Slack token", literal: b"xox", expression: r"\bxox[abeprs]-[0-9]{8,14}-[A-Za-z0-9-]{16,80}" },
    Pattern {
        name: "OpenAI key",
        literal: b"T3BlbkFJ",
        expression: r"\bsk-(?:[A-Za-z0-9]{2,8}-)?[A-Za-z0-9_-]{16,90}T3BlbkFJ[A-Za-z0-9_-]{16,90}",
    },
    Pattern { name: "Anthropic key", literal: b"sk-ant-", expression: r"\bsk-ant-[a-z0-9]{3,8}-[A-Za-z0-9_-]{80,120}" },
    Pattern { name: "Google API key", literal: b"AIza", expression: r"\bAIza[A-Za-z0-9_-]{35}\b" },
    Pattern {
        name: "PyPI token",
        literal: b"pypi-AgEIcHlwaS5vcmc",
        expression: r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}",
    },
    Pattern { name: "npm token", literal: b"npm_", expression: r"\bnpm_[A-Za-z0-9]{36}\b" },
    Pattern {
        name: "PuTTY private key",
        literal: b"PuTTY-User-Key-File-",
        expression: r"PuTTY-User-Key-File-[23]: [a-z0-9-]{4,32}\r?\nEncryption: ",
    },
    Pattern {
        name: "key of a Kubernetes client",
        literal: b"client-key-data",
        expression: r#"client-key-data"?:\s{0,4}"?[A-Za-z0-9+/=]{60}"#,
    },
    Pattern {
        name: "AWS secret key",
        literal: b"aws_secret_access_key",
        expression: r#"aws_secret_access_key["']?\s{0,4}[=:]\s{0,4}["']?[A-Za-z0-9/+]{40}\b"#,
    },
    Pattern {
        name: "AWS secret key",
        literal: b"AWS_SECRET_ACCESS_KEY",
        expression: r#"AWS_SECRET_ACCESS_KEY["']?\s{0,4}[=:]\s{0,4}["']?[A-Za-z0-9/+]{40}\b"#,
    },
    Pattern { name: "Azure storage key", literal: b"AccountKey=", expression: r"AccountKey=[A-Za-z0-9+/]{86}==" },
    Pattern {
        name: "Weights & Biases key",
        literal: b"WANDB_API_KEY",
        expression: r#"WANDB_API_KEY["']?\s{0,4}[=:]\s{0,4}["']?[0-9a-f]{40}\b"#,
    },
    Pattern { name: "Weights & Biases key", literal: b"wandb_v1_", expression: r"\bwandb_v1_[A-Za-z0-9_]{60,}" },
    Pattern { name: "GitLab token", literal: b"glrt-", expression: r"\bglrt-[A-Za-z0-9_-]{20}\b" },
    Pattern { name: "GitLab token", literal: b"gldt-", expression: r"\bgldt-[A-Za-z0-9_-]{20}\b" },
    Pattern { name: "Docker token", literal: b"dckr_pat_", expression: r"\bdckr_pat_[A-Za-z0-9_-]{27}\b" },
    Pattern { name: "Vault token", literal: b"hvs.", expression: r"\bhvs\.[A-Za-z0-9_-]{90,120}\b" },
    Pattern { name: "DigitalOcean token", literal: b"dop_v1_", expression: r"\bdop_v1_[0-9a-f]{64}\b" },
    Pattern { name: "Databricks token", literal: b"dapi", expression: r"\bdapi[0-9a-f]{32}(?:-[0-9]{1,2})?\b" },
    Pattern { name: "Groq key", literal: b"gsk_", expression: r"\bgsk_[A-Za-z0-9]{52}\b" },
    Pattern { name: "Replicate token", literal: b"r8_", expression: r"\br8_[A-Za-z0-9]{37}\b" },
    Pattern { name: "NVIDIA key", literal: b"nvapi-", expression: r"\bnvapi-[A-Za-z0-9_-]{64}\b" },
    Pattern { name: "Stripe key", literal: b"k_live_", expression: r"\b[rs]k_live_[A-Za-z0-9]{24,99}\b" },
    Pattern { name: "SendGrid key", literal: b"SG.", expression: r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}\b" },
    Pattern {
        name: "Tailscale key",
        literal: b"tskey-",
        expression: r"\btskey-(?:auth|api|client)-[A-Za-z0-9]{8,32}-[A-Za-z0-9]{16,64}\b",
    },
    Pattern {
        name: "Terraform token",
        literal: b".atlasv1.",
        expression: r"\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,80}",
    },
    Pattern {
        name: "Slack webhook",
        literal: b"hooks.slack.com/services/",
        expression: r"hooks\.slack\.com/services/T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}/[A-Za-z0-9]{24}\b",
    },
    Pattern { name: "Google OAuth token", literal: b"ya29.", expression: r"\bya29\.[A-Za-z0-9_-]{60,}" },
    Pattern {
        name: ADDRESS,
        literal: b"://",
        expression: r"\b(?:https?|ftp|postgres(?:ql)?|mysql|mongodb(?:\+srv)?|redis|amqp)://[A-Za-z0-9._~%+-]{1,64}:[A-Za-z0-9._~%!$&'()*+,;=-]{6,128}@[A-Za-z0-9.-]{1,253}\.[A-Za-z]{2,24}\b",
    },
];

/// All literals at once; the number of a match is that of the pattern.
pub(super) static LITERALS: LazyLock<Option<AhoCorasick>> =
    LazyLock::new(|| AhoCorasick::new(PATTERNS.iter().map(|pattern| pattern.literal)).ok());

static EXPRESSIONS: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| {
    let compile = |pattern: &Pattern| RegexBuilder::new(pattern.expression).unicode(false).build().ok();
    PATTERNS.iter().map(compile).collect()
});

/// Longest secret with what must precede it, in bytes.
pub(super) const LONGEST: usize = 1024;

/// The pattern of this number, compiled.
pub(super) fn pattern(number: usize) -> Option<(&'static Pattern, &'static Regex)> {
    Some((PATTERNS.get(number)?, EXPRESSIONS.get(number)?.as_ref()?))
}

/// Whether what has the form of a secret only shows the form: examples in manuals, placeholders, the same letter over
/// and over.
pub(super) fn is_example(secret: &[u8]) -> bool {
    const WORDS: [&[u8]; 20] = [
        b"EXAMPLE",
        b"example.",
        b"localhost",
        b"xxxxxxxx",
        b"XXXXXXXX",
        b"00000000",
        b"12345678",
        b":password@",
        b":passwd@",
        b":secret@",
        b":pass@",
        b":$",
        b"changeme",
        b"change-me",
        b"CHANGEME",
        b"your_",
        b"your-",
        b"YOUR_",
        b"YOUR-",
        b"placeholder",
    ];
    WORDS.iter().any(|word| secret.windows(word.len()).any(|part| part == *word))
}

/// What a file holds by its name, if files of this name exist to hold credentials: the name of the kind, and what must
/// be in the file for it to count.
pub(super) fn by_name(path: &[u8]) -> Option<(&'static str, &'static Regex)> {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    let (kind, expression) = match name {
        b".netrc" | b"_netrc" => ("credentials of netrc", &NETRC),
        b"pip.conf" | b"pip.ini" | b"uv.toml" => ("credentials of a package index", &IN_ADDRESS),
        b".pypirc" => ("credentials of a package index", &PYPIRC),
        b".npmrc" | b".yarnrc.yml" => ("credentials of a package index", &NPMRC),
        b"credentials.toml" | b"credentials" if is_in(path, b".cargo") => ("credentials of a package index", &CARGO),
        b".git-credentials" => ("credentials of git", &IN_ADDRESS),
        b"config.json" if is_in(path, b".docker") => ("credentials of a container registry", &DOCKER),
        b".dockercfg" => ("credentials of a container registry", &DOCKER),
        b"auth.json" if is_in(path, b"containers") => ("credentials of a container registry", &DOCKER),
        b"credentials" if is_in(path, b".aws") => ("credentials of AWS", &AWS),
        b"config" if is_in(path, b".kube") => ("credentials of Kubernetes", &KUBE),
        b"kubeconfig" | b"kubeconfig.yaml" | b"admin.conf" => ("credentials of Kubernetes", &KUBE),
        b"token" if is_in(path, b"huggingface") => ("Hugging Face token", &TOKEN),
        b"kaggle.json" => ("credentials of Kaggle", &KAGGLE),
        b".pgpass" => ("password of a database", &PGPASS),
        b"credentials.tfrc.json" | b".terraformrc" => ("credentials of Terraform", &TERRAFORM),
        _ if is_environment(name) => ("credential of an environment", &ENVIRONMENT),
        _ => return None,
    };
    Some((kind, expression.as_ref()?))
}

/// Whether the file lies in a directory of this name.
fn is_in(path: &[u8], directory: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').rev().nth(1) == Some(directory)
}

/// `.env`, `.env.production`, `prod.env`; not those that show how one looks.
fn is_environment(name: &[u8]) -> bool {
    const SHOWN: [&[u8]; 4] = [b"example", b"sample", b"template", b"dist"];
    let is_shown = SHOWN.iter().any(|word| name.windows(word.len()).any(|part| part == *word));
    !is_shown && (name == b".env" || name.starts_with(b".env.") || name.ends_with(b".env"))
}

type Compiled = LazyLock<Option<Regex>>;
static NETRC: Compiled = LazyLock::new(|| compile(r"(?i)\bpassword\s+\S+"));
static DOCKER: Compiled =
    LazyLock::new(|| compile(r#""(?:auth|identitytoken|registrytoken|password)"\s*:\s*"[^"]{4,}""#));
static IN_ADDRESS: Compiled = LazyLock::new(|| compile(r"://[^/\s:@]+:[^/\s@$]+@"));
static AWS: Compiled = LazyLock::new(|| compile(r"(?i)aws_(?:secret_access_key|session_token)\s*=\s*\S{16,}"));
static KUBE: Compiled =
    LazyLock::new(|| compile(r#"(?m)^[\s-]*"?(?:token|client-key-data|password)"?:\s*"?[^\s"]{8,}"#));
static TOKEN: Compiled = LazyLock::new(|| compile(r"\A\s*\S{8,}\s*\z"));
static PYPIRC: Compiled = LazyLock::new(|| compile(r"(?m)^\s*password\s*[=:]\s*\S+"));
static NPMRC: Compiled =
    LazyLock::new(|| compile(r"(?m)(?:_(?:authToken|auth|password)\s*=|npmAuthToken:)\s*[^\s$]\S*"));
static CARGO: Compiled = LazyLock::new(|| compile(r#"(?m)^\s*token\s*=\s*"[^"]{8,}""#));
static KAGGLE: Compiled = LazyLock::new(|| compile(r#""key"\s*:\s*"[0-9a-f]{32}""#));
static PGPASS: Compiled = LazyLock::new(|| compile(r"(?m)^[^#\s:][^:\n]*(?::[^:\n]*){3}:[^\s:]+$"));
static TERRAFORM: Compiled = LazyLock::new(|| compile(r#"token"?\s*[=:]\s*"[^"]{8,}""#));
static ENVIRONMENT: Compiled = LazyLock::new(|| {
    compile(concat!(
        r"(?m)^[ \t]*(?:export[ \t]+)?[A-Z0-9_]*",
        r"(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_KEY|PRIVATE_KEY)(?:_[A-Z0-9_]*)?",
        r#"[ \t]*=[ \t]*["']?[^\s"'$<{/][^\s"']{7,}"#,
    ))
});

fn compile(expression: &str) -> Option<Regex> {
    RegexBuilder::new(expression).unicode(false).build().ok()
}
