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
const PATTERNS: [Pattern; 20] = [
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
    const WORDS: [&[u8]; 12] = [
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
    ];
    WORDS.iter().any(|word| secret.windows(word.len()).any(|part| part == *word))
}

/// What a file holds by its name, if files of this name exist to hold credentials: the name of the kind, and what must
/// be in the file for it to count.
pub(super) fn by_name(path: &[u8]) -> Option<(&'static str, &'static Regex)> {
    static NETRC: LazyLock<Option<Regex>> = LazyLock::new(|| compile(r"(?i)\bpassword\s+\S+"));
    static DOCKER: LazyLock<Option<Regex>> =
        LazyLock::new(|| compile(r#""(?:auth|identitytoken|registrytoken)"\s*:\s*"[^"]{4,}""#));
    static PIP: LazyLock<Option<Regex>> = LazyLock::new(|| compile(r"://[^/\s:@]+:[^/\s@]+@"));
    static AWS: LazyLock<Option<Regex>> = LazyLock::new(|| compile(r"(?i)aws_secret_access_key\s*=\s*\S{16,}"));
    static KUBE: LazyLock<Option<Regex>> =
        LazyLock::new(|| compile(r"(?m)^\s*(?:token|client-key-data|password):\s*\S{8,}"));
    static GIT: LazyLock<Option<Regex>> = LazyLock::new(|| compile(r"https?://[^/\s:@]+:[^/\s@]+@"));
    static TOKEN: LazyLock<Option<Regex>> = LazyLock::new(|| compile(r"\A\s*\S{8,}\s*\z"));
    static PYPIRC: LazyLock<Option<Regex>> = LazyLock::new(|| compile(r"(?m)^\s*password\s*[=:]\s*\S+"));
    static NPMRC: LazyLock<Option<Regex>> =
        LazyLock::new(|| compile(r"(?m)_(?:authToken|auth|password)\s*=\s*[^\s$]\S*"));
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    let (kind, expression) = match name {
        b".netrc" | b"_netrc" => ("credentials of netrc", &NETRC),
        b"pip.conf" | b"uv.toml" => ("credentials of a package index", &PIP),
        b".pypirc" => ("credentials of a package index", &PYPIRC),
        b".npmrc" => ("credentials of a package index", &NPMRC),
        b".git-credentials" => ("credentials of git", &GIT),
        b"config.json" if path.ends_with(b".docker/config.json") => ("credentials of a container registry", &DOCKER),
        b"auth.json" if path.ends_with(b"containers/auth.json") => ("credentials of a container registry", &DOCKER),
        b"credentials" if path.ends_with(b".aws/credentials") => ("credentials of AWS", &AWS),
        b"config" if path.ends_with(b".kube/config") => ("credentials of Kubernetes", &KUBE),
        b"token" if path.ends_with(b"huggingface/token") => ("Hugging Face token", &TOKEN),
        _ => return None,
    };
    Some((kind, expression.as_ref()?))
}

fn compile(expression: &str) -> Option<Regex> {
    RegexBuilder::new(expression).unicode(false).build().ok()
}
