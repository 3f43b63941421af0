//! Keys, tokens and passwords: the forms that issuers document, and values of high entropy that are called secrets.

use super::{PatternError, context, pattern};
use regex::Regex;
use std::ops::Range;

/// Forms that tell by themselves, each as its issuer documents it. What must be hidden is the first group where there
/// is one, else the whole. Word borders are those of ASCII, which keeps the search fast in any script.
const FORMS: &[&str] = &[
    // Private keys, whole (RFC 7468), also with the line ends of JSON.
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?s:.*?)-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
    r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
    // Amazon.
    r"(?-u:\b)(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}(?-u:\b)",
    // GitHub, GitLab.
    r"(?-u:\b)gh[pousr]_[A-Za-z0-9]{36,255}(?-u:\b)",
    r"(?-u:\b)github_pat_[A-Za-z0-9_]{22,255}(?-u:\b)",
    r"(?-u:\b)gl(?:pat|ptt|dt|rt|cbt|soat|oas|ft|imt|agent)-[A-Za-z0-9_-]{20,}",
    // Model hubs and model APIs.
    r"(?-u:\b)hf_[A-Za-z0-9]{30,}(?-u:\b)",
    r"(?-u:\b)sk-(?:proj-|ant-|svcacct-|admin-|or-)?[A-Za-z0-9_-]{20,}",
    r"(?-u:\b)r8_[A-Za-z0-9]{37}(?-u:\b)",
    r"(?-u:\b)gsk_[A-Za-z0-9]{40,}(?-u:\b)",
    r"(?-u:\b)nvapi-[A-Za-z0-9_-]{40,}",
    // Google.
    r"(?-u:\b)AIza[0-9A-Za-z_-]{35}",
    r"(?-u:\b)ya29\.[0-9A-Za-z_-]{20,}",
    r"(?-u:\b)GOCSPX-[0-9A-Za-z_-]{28}",
    // Slack, Discord, Telegram.
    r"(?-u:\b)xox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"https://hooks\.slack\.com/services/[A-Za-z0-9_/]{20,}",
    r"(?-u:\b)xapp-[0-9]-[A-Z0-9]+-[0-9]+-[a-z0-9]{20,}",
    r"(?-u:\b)[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}",
    r"(?-u:\b)[0-9]{8,10}:[A-Za-z0-9_-]{35}(?-u:\b)",
    // Payments and mail.
    r"(?-u:\b)(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}(?-u:\b)",
    r"(?-u:\b)whsec_[A-Za-z0-9]{24,}",
    r"(?-u:\b)sq0(?:atp|csp)-[A-Za-z0-9_-]{22,}",
    r"(?-u:\b)SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}",
    r"(?-u:\b)(?:AC|SK)[0-9a-f]{32}(?-u:\b)",
    r"(?-u:\b)key-[0-9a-f]{32}(?-u:\b)",
    // Registries and clouds.
    r"(?-u:\b)npm_[A-Za-z0-9]{36}(?-u:\b)",
    r"(?-u:\b)pypi-AgEI[A-Za-z0-9_-]{50,}",
    r"(?-u:\b)rubygems_[a-f0-9]{48}(?-u:\b)",
    r"(?-u:\b)dckr_pat_[A-Za-z0-9_-]{27}",
    r"(?-u:\b)do[opr]_v1_[a-f0-9]{64}(?-u:\b)",
    r"(?-u:\b)dapi[a-f0-9]{32}(?-u:\b)",
    r"(?-u:\b)shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}(?-u:\b)",
    r"(?-u:\b)hv[sb]\.[A-Za-z0-9_-]{24,}",
    r"(?-u:\b)EAACEdEose0cBA[0-9A-Za-z]+",
    r"AccountKey=([A-Za-z0-9+/=]{40,})",
    r"[?&]sig=([A-Za-z0-9%+/=]{30,})",
    // Tokens of JWT's form (RFC 7519).
    r"(?-u:\b)eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    // A password in an address (RFC 3986, 3.2.1).
    r"[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s/:@]{1,80}:([^\s/@]{3,200})@[A-Za-z0-9\[]",
    // Headers (RFC 7617, RFC 6750).
    r"(?i)(?-u:\b)authorization:\s*(?:basic|bearer|token)\s+([A-Za-z0-9+/=._~-]{8,})",
];

/// A name for something secret, and its value: in quotes (the first group), or up to the next white space (the second).
const CALLED: &str = r#"(?i)(?:api|access|auth|secret|private|client|encryption|signing|session|refresh|bearer|app|service|master|account|storage|webhook)?[_ -]?(?:key|token|secret|password|passwd|passphrase|pwd|credentials?|passwort|kennwort|contraseña|mot de passe|senha)\\?["']?\s*(?::=|=>|[:=]|(?-u:\b)is(?-u:\b)|(?-u:\b)ist(?-u:\b))\s*\\?(?:["'`]([^"'`\s]{8,200})["'`\\]|([^\s"'`]{8,200}))"#;

#[derive(Debug)]
pub(super) struct Secrets {
    forms: regex::RegexSet,
    each: Vec<Regex>,
    called: Regex,
}

impl Secrets {
    pub fn new() -> Result<Self, PatternError> {
        let invalid =
            |error: regex::Error| PatternError::Invalid { name: "built in".to_owned(), reason: error.to_string() };
        Ok(Self {
            forms: regex::RegexSet::new(FORMS).map_err(invalid)?,
            each: FORMS.iter().map(|form| pattern(form)).collect::<Result<_, _>>()?,
            called: pattern(CALLED)?,
        })
    }

    pub fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        for index in self.forms.matches(text) {
            let Some(form) = self.each.get(index) else { continue };
            for captures in form.captures_iter(text) {
                found.extend(captures.get(1).or_else(|| captures.get(0)).map(|value| value.range()));
            }
        }
        for captures in self.called.captures_iter(text) {
            let Some(value) = captures.get(1).or_else(|| captures.get(2)) else { continue };
            let quoted = captures.get(1).is_some();
            let ends: &[char] = if quoted { &['\\'] } else { &['.', ',', ';', ':', '!', '?'] };
            let trimmed = value.as_str().trim_end_matches(ends);
            if looks_random(trimmed) && !is_public(&context(text, value.start(), 32)) {
                found.push(value.start()..value.start() + trimmed.len());
            }
        }
        found
    }
}

/// Bits of entropy for each character of a secret, at least. Words of a language have fewer than 3 in so short a text
/// only when letters repeat; what tells is that letters, digits and signs are mixed.
const ENTROPY: f64 = 2.8;

/// Whether a value is made by a machine or meant to be guessed by none.
fn looks_random(value: &str) -> bool {
    let has = |test: fn(&char) -> bool| value.chars().any(|character| test(&character));
    let classes = [
        has(char::is_ascii_lowercase),
        has(char::is_ascii_uppercase),
        has(char::is_ascii_digit),
        has(char::is_ascii_punctuation),
    ];
    let mixed = classes.into_iter().filter(|&class| class).count();
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    // Calls, paths, templates and placeholders are no values.
    let name = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '.');
    let code = ["${", "$(", "{{", "://", "::", "->", "..."].iter().any(|sign| value.contains(sign))
        || value.starts_with(['/', '<'])
        || value.starts_with('$') && value.chars().skip(1).all(name)
        || value
            .split_once('(')
            .is_some_and(|(call, rest)| !call.is_empty() && call.chars().all(name) && rest.contains(')'));
    let placeholder = ["xxxx", "****", "your", "example", "changeme", "placeholder", "redacted"]
        .iter()
        .any(|word| value.to_lowercase().contains(word));
    value.len() >= 8 && mixed >= 2 && digits >= 1 && !code && !placeholder && entropy(value) >= ENTROPY
}

/// Keys that are given to everybody.
fn is_public(before: &str) -> bool {
    ["public", "primary", "foreign", "ssh-"].iter().any(|word| before.contains(word))
}

/// Shannon's entropy of a text's bytes, in bits for each.
fn entropy(text: &str) -> f64 {
    let mut counts = [0u32; 256];
    for byte in text.bytes() {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let len = text.len().max(1) as f64;
    counts
        .into_iter()
        .filter(|&count| count > 0)
        .map(|count| f64::from(count) / len)
        .map(|share| -share * share.log2())
        .sum()
}
