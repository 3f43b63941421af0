//! A trial that was passed, as a release tells of it, so that the other side can try the same again.

use super::{MissingLibrary, Trial};
use serde::{Deserialize, Serialize};

/// A passed trial with the images that it ran in. There is no time in it, and nothing of what was printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was tried.
    #[serde(flatten)]
    pub trial: Trial,
    /// The image that it ran in.
    pub image: String,
    /// Images of models and data sets that were laid over it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
    /// What came of it.
    pub result: Verdict,
    /// Shared libraries that files of the image ask for, but that are nowhere in it; looked for where modules are imported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_libraries: Vec<MissingLibrary>,
}

/// What came of a trial. A build in which one fails makes no artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It did what it should.
    Passed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_flat_and_read_back_whatever_is_added_later() {
        let trial =
            Trial { name: "answers".to_owned(), command: vec!["true".to_owned()], time_limit: 600, ..Trial::default() };
        let record = Record {
            trial,
            image: "app".to_owned(),
            with: vec!["tiny".to_owned()],
            result: Verdict::Passed,
            missing_libraries: Vec::new(),
        };
        let mut json = serde_json::to_value(&record).unwrap();
        let expected = serde_json::json!({
            "name": "answers", "command": ["true"], "time_limit": 600, "image": "app", "with": ["tiny"],
            "result": "passed",
        });
        assert_eq!(json, expected);
        json["later"] = 1.into();
        assert_eq!(serde_json::from_value::<Record>(json).unwrap(), record);
    }
}
