//! What a release declares that its appliance can be told to run: the document `jobs.json` in the artifact
//! (docs/format.md, section 12). Written when the release is built, read by the agent from the verified head.

use crate::site::EndpointName;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, num::NonZeroU16};

/// Artifact type of its manifest, and media type of the document.
pub const MEDIA_TYPE: &str = "application/vnd.gapimage.jobs.v1+json";
/// Its title.
pub const TITLE: &str = "jobs.json";
/// The version of this form.
pub const VERSION: u64 = 1;
/// Longest document that is read, in bytes.
pub const MAX_LEN: u64 = 1 << 20;

/// The whole document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// [`VERSION`].
    pub version: u64,
    /// Jobs, in the order of the recipe.
    pub jobs: Vec<DeclaredJob>,
    /// Models, in the order of the recipe.
    pub models: Vec<Place>,
    /// Data sets, in the order of the recipe.
    pub datasets: Vec<Place>,
    /// By what the outcome is judged. Left out where the recipe says nothing about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acceptance: Option<Acceptance>,
}

/// `[acceptance]` of the recipe: what a model must have been measured at before it is promoted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// The data set on whose `test.jsonl` it is measured.
    pub test_set: Option<String>,
    /// What must hold, all of it.
    pub criteria: Vec<Criterion>,
}

/// A condition on a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Criterion {
    /// The metric.
    pub metric: String,
    /// How the value is compared with the bound.
    pub comparison: Comparison,
    /// A finite number.
    pub bound: f64,
}

/// How a value is compared with a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// Below it.
    #[serde(rename = "<")]
    Below,
    /// Not above it.
    #[serde(rename = "<=")]
    AtMost,
    /// Not below it.
    #[serde(rename = ">=")]
    AtLeast,
    /// Above it.
    #[serde(rename = ">")]
    Above,
}

impl Comparison {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Below, Self::AtMost, Self::AtLeast, Self::Above];

    /// As it is written.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::AtLeast => ">=",
            Self::Above => ">",
        }
    }

    /// Whether it holds. Nothing holds of what is no number.
    pub fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Below => value < bound,
            Self::AtMost => value <= bound,
            Self::AtLeast => value >= bound,
            Self::Above => value > bound,
        }
    }
}

/// Something that an image holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Its name in the recipe.
    pub name: String,
    /// The image that holds it.
    pub image: String,
    /// The directory in the image.
    pub path: String,
}

/// `[job.NAME]` of the recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredJob {
    /// Its name in the recipe.
    pub name: String,
    /// What it is for.
    pub kind: DeclaredKind,
    /// The image that it runs in.
    pub image: String,
    /// Program and arguments; those of the engine, or the image's own, when empty.
    pub run: Vec<String>,
    /// The program's kind: `gap-train`, `trl`, `vllm`, …; absent where the recipe leaves that open.
    pub engine: Option<String>,
    /// How many GPUs it takes.
    pub gpus: u32,
    /// The model that it works on, by its name in the recipe.
    pub model: Option<String>,
    /// Data sets that it works on, by their names in the recipe.
    pub datasets: Vec<String>,
    /// For training: fields of `job.json` (docs/jobs.md) that the recipe decides.
    pub parameters: serde_json::Map<String, serde_json::Value>,
    /// For serving: tokens of the longest sequence.
    pub length: Option<u64>,
    /// For serving: sequences at a time.
    pub concurrency: Option<u64>,
    /// Endpoints of the site that it is to reach, and the port of its own loopback on which it finds each. Not written
    /// when there are none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<EndpointName, NonZeroU16>,
}

/// What a declared job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeclaredKind {
    /// Trains a model.
    Train,
    /// Serves a model.
    Serve,
    /// Anything else.
    Run,
}

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum DeclaredError {
    /// It is no such document.
    #[error("the release's {TITLE} is not of its form: {0}")]
    Json(#[from] serde_json::Error),
    /// It has another version.
    #[error("the release's {TITLE} has version {0}, and this agent knows version {VERSION}")]
    Version(u64),
}

impl Declared {
    /// Reads the document.
    ///
    /// # Errors
    /// [`DeclaredError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DeclaredError> {
        let declared: Self = serde_json::from_slice(bytes)?;
        if declared.version != VERSION {
            return Err(DeclaredError::Version(declared.version));
        }
        Ok(declared)
    }

    /// The job of this name.
    pub fn job(&self, name: &str) -> Option<&DeclaredJob> {
        self.jobs.iter().find(|job| job.name == name)
    }

    /// The model of this name.
    pub fn model(&self, name: &str) -> Option<&Place> {
        self.models.iter().find(|model| model.name == name)
    }

    /// The data set of this name.
    pub fn dataset(&self, name: &str) -> Option<&Place> {
        self.datasets.iter().find(|dataset| dataset.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criteria_are_written_as_in_the_recipe_and_older_documents_have_none() {
        let criterion = |comparison| Criterion { metric: "accuracy".into(), comparison, bound: 0.5 };
        let criteria = Comparison::ALL.map(criterion).to_vec();
        let acceptance = Some(Acceptance { test_set: Some("tickets".into()), criteria });
        let declared = Declared { version: VERSION, acceptance, ..Declared::default() };
        let text = serde_json::to_string(&declared).unwrap();
        assert!(text.contains(r#"{"metric":"accuracy","comparison":">=","bound":0.5}"#), "{text}");
        assert_eq!(Declared::parse(text.as_bytes()).unwrap(), declared);
        let older = br#"{"version":1,"jobs":[],"models":[],"datasets":[]}"#;
        assert_eq!(Declared::parse(older).unwrap(), Declared { version: VERSION, ..Declared::default() });
        let holding = |value| Comparison::ALL.map(|comparison| comparison.holds(value, 0.5));
        assert_eq!(holding(0.4), [true, true, false, false]);
        assert_eq!(holding(0.5), [false, true, true, false]);
        assert_eq!(holding(0.6), [false, false, true, true]);
        assert_eq!(holding(f64::NAN), [false; 4]);
    }

    #[test]
    fn a_document_is_read_back_and_another_version_is_refused() {
        let place = Place { name: "tiny".into(), image: "tiny".into(), path: "/models/tiny".into() };
        let declared = Declared { version: VERSION, models: vec![place.clone()], ..Declared::default() };
        let bytes = serde_json::to_vec(&declared).unwrap();
        assert_eq!(Declared::parse(&bytes).unwrap(), declared);
        assert_eq!(declared.model("tiny"), Some(&place));
        assert_eq!(declared.model("other"), None);
        let newer = serde_json::to_vec(&Declared { version: 2, ..declared }).unwrap();
        assert!(matches!(Declared::parse(&newer), Err(DeclaredError::Version(2))));
        assert!(matches!(Declared::parse(b"{}"), Err(DeclaredError::Json(_))));
    }
}
