//! Names of things that the appliance makes: jobs, files, uploads.

use rand::{RngCore, rngs::OsRng};
use std::fmt;

/// Digits of a name: Crockford's base 32, which leaves out what is easily misread.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Random digits of a name: 120 bits, so that none can be guessed and none comes twice.
const LEN: usize = 24;

/// `PREFIX-` and 24 random digits.
pub fn random(prefix: &str) -> String {
    let mut bytes = [0; LEN];
    OsRng.fill_bytes(&mut bytes);
    let digits = bytes.iter().map(|byte| char::from(DIGITS.get(usize::from(byte & 31)).copied().unwrap_or(b'0')));
    format!("{prefix}-{}", digits.collect::<String>())
}

/// Whether `text` could have come from [`random`] with this prefix. Only such a text is ever made part of a path.
pub fn is_well_formed(prefix: &str, text: &str) -> bool {
    text.strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|digits| digits.len() == LEN && digits.bytes().all(|byte| DIGITS.contains(&byte)))
}

/// The name of a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct JobId(String);

/// A text that names no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not the name of a job")]
pub struct NoJobId;

impl JobId {
    /// Prefix of training jobs, as OpenAI has it.
    pub const TRAINING: &str = "ftjob";
    /// Prefix of all others.
    pub const OTHER: &str = "job";

    /// A new name.
    pub fn new(prefix: &'static str) -> Self {
        Self(random(prefix))
    }

    /// The name as text; it can be part of a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for JobId {
    type Error = NoJobId;

    fn try_from(text: String) -> Result<Self, NoJobId> {
        let is_one = [Self::TRAINING, Self::OTHER].iter().any(|prefix| is_well_formed(prefix, &text));
        if is_one { Ok(Self(text)) } else { Err(NoJobId) }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_are_read_back() {
        let (one, other) = (JobId::new(JobId::TRAINING), JobId::new(JobId::TRAINING));
        assert_ne!(one, other);
        assert_eq!(JobId::try_from(one.to_string()), Ok(one));
    }

    #[test]
    fn what_could_lead_out_of_a_directory_is_no_name() {
        for bad in ["", "job-", "job-../../../../etc/passwd0000", "file-000000000000000000000000", "job-0"] {
            assert!(JobId::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
