//! Terms of well-known licences that gate or forbid commercial use.

/// What a licence says of commercial use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commercial {
    /// It is forbidden.
    Forbidden,
    /// It is allowed under conditions.
    Gated,
}

/// Terms that whoever is responsible must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What the licence says of commercial use.
    pub commercial: Commercial,
    /// The terms in one sentence.
    pub sentence: &'static str,
}

const LLAMA: &str = "above 700 million users a month Meta's own consent is needed; an acceptable-use policy and the words \
                     \"Built with Llama\" go with it";
const OPENRAIL: &str = "uses that its attachment lists are forbidden, and so they are to whoever gets it from you";

/// Licences by how their names begin, in lower case and without `LicenseRef-`; the first that fits counts.
const TERMS: [(&str, Commercial, &str); 30] = [
    ("apple-amlr", Commercial::Forbidden, "for research only (Apple Machine Learning Research Model License)"),
    ("bigcode-openrail-m", Commercial::Gated, OPENRAIL),
    ("bigscience-bloom-rail", Commercial::Gated, OPENRAIL),
    ("bigscience-openrail-m", Commercial::Gated, OPENRAIL),
    ("cc-by-nc", Commercial::Forbidden, "not for commercial use (Creative Commons NonCommercial)"),
    ("creativeml-openrail-m", Commercial::Gated, OPENRAIL),
    ("deepseek", Commercial::Gated, "uses that its attachment A lists are forbidden"),
    ("exaone", Commercial::Forbidden, "for research only (EXAONE AI Model License)"),
    ("fair-noncommercial", Commercial::Forbidden, "for non-commercial research only (FAIR)"),
    (
        "falcon-llm",
        Commercial::Gated,
        "an acceptable-use policy goes with it, and hosting it as a service needs consent",
    ),
    (
        "gemma",
        Commercial::Gated,
        "Google's Gemma terms and prohibited-use policy go with it, and to whoever gets it from you",
    ),
    ("h-research", Commercial::Forbidden, "for research only"),
    ("intel-research", Commercial::Forbidden, "for research only"),
    ("llama2", Commercial::Gated, LLAMA),
    ("llama3", Commercial::Gated, LLAMA),
    ("llama4", Commercial::Gated, LLAMA),
    ("mistral-ai-research", Commercial::Forbidden, "for research only (Mistral AI Research License)"),
    ("mnpl", Commercial::Forbidden, "not for production (Mistral AI Non-Production License)"),
    ("mrl", Commercial::Forbidden, "for research only (Mistral AI Research License)"),
    ("nvidia-open-model", Commercial::Gated, "NVIDIA's conditions go with it, and end if its guardrails are taken out"),
    (
        "nvidia-proprietary",
        Commercial::Gated,
        "NVIDIA's end-user licence: handed on only as part of an application, and unchanged",
    ),
    ("nvidia", Commercial::Gated, "NVIDIA's own terms"),
    ("openrail", Commercial::Gated, OPENRAIL),
    ("polyform-noncommercial", Commercial::Forbidden, "not for commercial use (PolyForm)"),
    ("proprietary", Commercial::Gated, "its owner's own terms"),
    ("qwen-research", Commercial::Forbidden, "for non-commercial research only (Qwen Research License)"),
    ("qwen", Commercial::Gated, "above 100 million users a month a licence must be asked for (Tongyi Qianwen License)"),
    ("stabilityai", Commercial::Gated, "from a yearly revenue of one million dollars on a licence is needed"),
    ("tongyi-qianwen-research", Commercial::Forbidden, "for non-commercial research only"),
    (
        "tongyi-qianwen",
        Commercial::Gated,
        "above 100 million users a month a licence must be asked for (Tongyi Qianwen License)",
    ),
];

/// The terms of a licence, by its SPDX identifier or the name that a hub has for it.
pub fn terms_of(license: &str) -> Option<Terms> {
    let lower = license.to_ascii_lowercase();
    let name = lower.strip_prefix("licenseref-").unwrap_or(&lower);
    let found = TERMS.iter().find(|(prefix, ..)| name.starts_with(prefix));
    found.map(|&(_, commercial, sentence)| Terms { commercial, sentence })
}

/// Whether this is the name of one of these licences.
pub(super) fn is_named(lower: &str) -> bool {
    let is_one_word = lower.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    is_one_word && terms_of(lower).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_found_by_the_name_that_fits_best() {
        assert_eq!(terms_of("LicenseRef-llama3.1").unwrap().commercial, Commercial::Gated);
        assert_eq!(terms_of("CC-BY-NC-SA-4.0").unwrap().commercial, Commercial::Forbidden);
        assert_eq!(terms_of("qwen-research").unwrap().commercial, Commercial::Forbidden);
        assert_eq!(terms_of("qwen").unwrap().commercial, Commercial::Gated);
        assert_eq!(terms_of("CC-BY-4.0"), None);
        assert_eq!(terms_of("Apache-2.0"), None);
        // A shorter name before a longer one that begins with it would hide that one.
        for (index, (name, ..)) in TERMS.iter().enumerate() {
            assert!(!TERMS[..index].iter().any(|(earlier, ..)| name.starts_with(earlier)), "{name}");
        }
    }
}
