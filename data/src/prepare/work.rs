//! What is done with one row, whichever thread does it.

use crate::{
    CountTokens, Example, TokenizerError,
    container::Row,
    duplicates::{Sketch, Sketcher, key, split_key},
    example::{Content, Part},
    format::{Schema, read_row},
    pii::{Detector, PiiAction, PiiKind, Redactor, shape},
    problem::{At, Fault},
};
use gap_format::Digest;

/// What rows are worked with.
pub(super) struct Worker<'a> {
    pub schema: &'a Schema,
    pub detector: Option<&'a Detector>,
    pub action: PiiAction,
    pub sketcher: Option<&'a Sketcher>,
    pub tokenizer: Option<&'a dyn CountTokens>,
}

/// What became of a row.
pub(crate) struct Worked {
    pub at: At,
    pub faults: Vec<Fault>,
    pub unused: Vec<String>,
    pub found: Vec<Found>,
    pub ready: Option<Ready>,
}

/// Personal data in a row.
pub(crate) struct Found {
    pub kind: PiiKind,
    pub field: String,
    pub shape: String,
}

/// An example that can be used.
pub(crate) struct Ready {
    /// As it is written, without line end.
    pub line: String,
    pub key: Digest,
    pub split_key: Digest,
    pub sketch: Sketch,
    pub characters: u32,
    pub tokens: u32,
}

impl Worker<'_> {
    pub fn work(&self, row: Row) -> Result<Worked, TokenizerError> {
        let read = read_row(row.content, self.schema);
        let mut worked =
            Worked { at: row.at, faults: read.faults, unused: read.unused, found: Vec::new(), ready: None };
        if let Some(mut example) = read.example {
            self.search(&mut example, &mut worked.found);
            worked.ready = Some(self.ready(&example)?);
        }
        Ok(worked)
    }

    /// Finds personal data, and replaces it if it is to be replaced.
    fn search(&self, example: &mut Example, found: &mut Vec<Found>) {
        let Some(detector) = self.detector else { return };
        let mut redactor = Redactor::new(detector);
        example.each_text(&mut |field, text| {
            let Some((findings, redacted)) = redactor.redact(text) else { return };
            found.extend(findings.into_iter().map(|finding| Found {
                shape: shape(&finding.kind, text.get(finding.range).unwrap_or_default()),
                kind: finding.kind,
                field: field.to_string(),
            }));
            if self.action == PiiAction::Redact {
                *text = redacted;
            }
        });
    }

    fn ready(&self, example: &Example) -> Result<Ready, TokenizerError> {
        let contents = example.contents();
        let mut tokens = 0u32;
        if let Some(tokenizer) = self.tokenizer {
            for content in &contents {
                tokens = tokens.saturating_add(tokenizer.count(&content.text)?);
            }
        }
        let characters: usize = contents.iter().map(|content| content.text.chars().count()).sum();
        Ok(Ready {
            // Strings, numbers and lists: there is nothing in it that JSON could not hold.
            line: serde_json::to_string(example).unwrap_or_default(),
            key: key(&contents),
            split_key: split_key(example, &contents),
            sketch: self.sketcher.map(|sketcher| sketch(sketcher, &contents)).unwrap_or_default(),
            characters: u32::try_from(characters).unwrap_or(u32::MAX),
            tokens,
        })
    }
}

/// A better and a worse answer that change places are no duplicates: the part counts.
fn sketch(sketcher: &Sketcher, contents: &[Content<'_>]) -> Sketch {
    let part = |part| match part {
        Part::Prompt => 0,
        Part::Chosen => 1,
        Part::Rejected => 2,
    };
    sketcher.sketch(contents.iter().map(|content| (part(content.part), content.text.as_ref())))
}
