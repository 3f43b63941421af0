//! What an artifact says about itself.

use super::{
    checklist,
    contents::{Blob, Contents, ContentsError, Image},
    documents::Document,
    trials::Tests,
};
use crate::check;
use gap_format::{Digest, Timestamp, escape::escaped, key::KeyId, statement::Kind};
use serde::Serialize;
use std::fmt::{self, Write as _};

/// Everything that `inspect` tells; `null` under `trusted`, because nobody was asked whom to trust.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    name: &'a str,
    version: &'a str,
    serial: u64,
    rollback_to: u64,
    kind: Kind,
    architecture: &'a str,
    source_date: Timestamp,
    expires: Option<Timestamp>,
    length: u64,
    trusted: Option<bool>,
    signatures: Vec<Signature>,
    esp: Option<Partition>,
    images: &'a [Image],
    documents: Vec<Document>,
    #[serde(flatten)]
    results: Results,
}

/// What came of trying and checking when the artifact was built, as it says itself.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Results {
    /// How many tests were passed; none where none were tried.
    tests: Option<usize>,
    /// How many lines of the checklist came out how.
    checklist: Option<check::Summary>,
}

impl Results {
    /// Of this artifact.
    ///
    /// # Errors
    /// [`ContentsError`] if one of the two documents cannot be read.
    pub fn of(contents: &Contents) -> Result<Self, ContentsError> {
        let tests = Tests::of(contents)?.map(|list| list.tests.len());
        Ok(Self { tests, checklist: checklist::summary(contents)? })
    }

    /// For people: what it is about, and what came of it.
    pub fn lines(&self) -> [(&'static str, String); 2] {
        let tests = self.tests.map_or_else(|| "none".to_owned(), |count| format!("{count} passed"));
        let checklist = self.checklist.map_or_else(|| "none".to_owned(), |summary| summary.to_string());
        [("tests", tests), ("checklist", checklist)]
    }
}

/// A signature that nobody checked.
#[derive(Debug, Serialize)]
struct Signature {
    key: KeyId,
}

/// The EFI system partition.
#[derive(Debug, Serialize)]
struct Partition {
    offset: u64,
    size: u64,
    digest: Digest,
}

impl<'a> Summary<'a> {
    /// Of this artifact.
    ///
    /// # Errors
    /// [`ContentsError`] if a manifest of a document cannot be read.
    pub fn of(contents: &'a Contents) -> Result<Self, ContentsError> {
        let release = &contents.release().statement().release;
        let partition =
            |esp: &gap_format::layout::Member| Partition { offset: esp.offset, size: esp.size, digest: esp.digest };
        Ok(Self {
            name: &release.name,
            version: &release.version,
            serial: release.serial,
            rollback_to: release.rollback_to,
            kind: release.kind,
            architecture: &release.architecture,
            source_date: release.source_date,
            expires: release.expires,
            length: contents.release().statement().length,
            trusted: None,
            signatures: contents.release().claimed_signers().iter().map(|key| Signature { key: *key }).collect(),
            esp: contents.esp().map(partition),
            images: contents.images(),
            documents: Document::all(contents)?,
            results: Results::of(contents)?,
        })
    }
}

/// `12345678 bytes`, grouped for the eye and exact.
fn bytes(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} (serial {}, {})", self.name, self.version, self.serial, self.kind)?;
        writeln!(f, "  nothing of this is verified: use `gapimage verify` for that")?;
        writeln!(f, "  architecture   {}", self.architecture)?;
        writeln!(f, "  source date    {}", self.source_date)?;
        if let Some(expires) = self.expires {
            writeln!(f, "  expires        {expires}")?;
        }
        writeln!(f, "  rollback to    serial {}", self.rollback_to)?;
        writeln!(f, "  length         {} bytes", bytes(self.length))?;
        match self.signatures.as_slice() {
            [] => writeln!(f, "  signatures     none")?,
            signatures => {
                for signature in signatures {
                    writeln!(f, "  signed by      {} (claimed)", signature.key)?;
                }
            }
        }
        for (what, result) in self.results.lines() {
            writeln!(f, "  {what:<14} {result}")?;
        }
        if let Some(esp) = &self.esp {
            writeln!(f, "  boot partition {} bytes at {}", bytes(esp.size), esp.offset)?;
        }
        self.images.iter().try_for_each(|image| write_image(f, image))?;
        write_documents(f, &self.documents)
    }
}

fn write_documents(f: &mut fmt::Formatter<'_>, documents: &[Document]) -> fmt::Result {
    if documents.is_empty() {
        return Ok(());
    }
    let rows: Vec<(String, String, String)> = documents
        .iter()
        .map(|document| (escaped(&document.title), bytes(document.size), escaped(&document.media_type)))
        .collect();
    let titles = rows.iter().map(|(title, _, _)| title.len()).max().unwrap_or_default();
    let sizes = rows.iter().map(|(_, size, _)| size.len()).max().unwrap_or_default();
    writeln!(f, "\ndocuments")?;
    rows.iter().try_for_each(|(title, size, kind)| writeln!(f, "  {title:<titles$}  {size:>sizes$}  {kind}"))
}

fn write_image(f: &mut fmt::Formatter<'_>, image: &Image) -> fmt::Result {
    writeln!(f, "\nimage {}{}", escaped(&image.name), if image.boot { " (boots)" } else { "" })?;
    writeln!(f, "  {}", image.digest)?;
    let metadata = image.metadata.iter().map(|blob| ("(metadata)".to_owned(), blob));
    let layers = image.layers.iter().map(|layer| (escaped(&layer.name), &layer.blob));
    let rows: Vec<(String, &Blob)> = metadata.chain(layers).collect();
    let names = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let sizes = rows.iter().map(|(_, blob)| bytes(blob.size).len()).max().unwrap_or_default();
    for (name, blob) in rows {
        let mut line = format!("  {name:<names$}  {:>sizes$}  {}", bytes(blob.size), blob.digest);
        if blob.verity.is_none() {
            write!(line, "  not mounted")?;
        }
        writeln!(f, "{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::Sample;

    #[test]
    fn json_has_the_promised_shape() {
        let sample = Sample::new();
        let contents = Contents::open(&sample.artifact("a.gap", "1.0", &[("base", "one"), ("site", "two")])).unwrap();
        let json = serde_json::to_value(Summary::of(&contents).unwrap()).unwrap();
        assert_eq!(json["name"], "example");
        assert_eq!(json["kind"], "appliance");
        assert_eq!(json["source_date"], "2025-06-15T15:06:40Z");
        assert_eq!((&json["expires"], &json["trusted"], &json["esp"]), (&().into(), &().into(), &().into()));
        assert_eq!(json["signatures"], serde_json::json!([]));
        let image = &json["images"][0];
        assert_eq!((&image["name"], &image["boot"]), (&"os".into(), &false.into()));
        for blob in [&image["metadata"], &image["layers"][0], &image["layers"][1]] {
            assert!(blob["size"].as_u64().unwrap() >= 8192 && blob["offset"].as_u64().unwrap() % 4096 == 0, "{blob}");
            for digest in [&blob["digest"], &blob["verity"]["root"], &blob["verity"]["tree"]] {
                assert!(digest.as_str().unwrap().starts_with("sha256:"), "{blob}");
            }
        }
        assert_eq!(image["layers"][1]["name"], "site");
    }

    #[test]
    fn people_are_told_that_nothing_is_verified() {
        let sample = Sample::new();
        let contents = Contents::open(&sample.artifact("a.gap", "1.0", &[("base", "one")])).unwrap();
        let text = Summary::of(&contents).unwrap().to_string();
        let parts = ["nothing of this is verified", "image os", "(metadata)", "base", "signatures     none"];
        for part in parts.into_iter().chain(["tests          none", "checklist      none"]) {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(bytes), ["0", "999", "1 000", "1 234 567"]);
    }
}
