//! All usable examples of the inputs, and what was noticed on the way.

use super::{
    BadRows,
    intake::Intake,
    lines::{LineWriter, Lines},
    work::{Ready, Worked},
};
use crate::{
    Error, Limits, Problems, Severity, Watch,
    card::InputCard,
    duplicates::{FileSets, SetWriter},
    pii::{PiiAction, PiiReport, PiiSample},
    problem::Place,
};
use gap_format::Digest;
use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
};

/// Names of unused columns that are kept.
const MAX_UNUSED: usize = 100;

/// What is counted on the way.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub rows: u64,
    pub bad: u64,
    pub problems: Problems,
    pub pii: PiiReport,
    pub unused: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts what a row showed; gives the example out if it can be used.
    pub fn count(&mut self, file: &Arc<str>, worked: Worked, limits: &Limits) -> Option<Ready> {
        self.rows += 1;
        self.bad += u64::from(worked.ready.is_none());
        for fault in worked.faults {
            self.problems.add(fault.at(file, worked.at), limits.problems);
        }
        self.pii.examples += u64::from(!worked.found.is_empty());
        for found in worked.found {
            let place = Place { file: file.clone(), at: worked.at };
            let sample = PiiSample { kind: found.kind, place, field: found.field, shape: found.shape };
            self.pii.add(sample, limits.places);
        }
        for name in worked.unused {
            let name = name.chars().take(80).collect();
            if self.unused.len() < MAX_UNUSED || self.unused.contains_key(&name) {
                *self.unused.entry(name).or_default() += 1;
            }
        }
        worked.ready
    }
}

/// The examples. What belongs to one is found by its number, counted from 0.
pub(crate) struct Gathered {
    pub tally: Tally,
    pub inputs: Vec<InputCard>,
    pub exact_duplicates: u64,
    pub(super) lines: Lines,
    /// The digests by which they are split.
    pub keys: Vec<Digest>,
    /// The bands of all sketches, one after the other.
    pub bands: Vec<u32>,
    pub sets: FileSets,
    pub characters: Vec<u32>,
    pub tokens: Vec<u32>,
}

impl Gathered {
    /// Reads the inputs; files without names in `into` hold what memory should not.
    pub fn read(intake: &Intake<'_>, into: &Path, watch: &mut Watch<'_>) -> Result<Self, Error> {
        let temporary =
            || tempfile::tempfile_in(into).map_err(Error::io(format!("make a temporary file in {}", into.display())));
        let mut gathering = Gathering {
            exact: intake.options.dedupe.exact,
            sketched: intake.sketcher.is_some(),
            counted: intake.options.tokenizer.is_some(),
            seen: HashSet::new(),
            exact_duplicates: 0,
            lines: LineWriter::new(temporary()?),
            sets: SetWriter::new(temporary()?),
            keys: Vec::new(),
            bands: Vec::new(),
            characters: Vec::new(),
            tokens: Vec::new(),
        };
        let mut tally = Tally::default();
        let inputs =
            intake.run(watch, &mut |file, worked| match tally.count(file, worked, &intake.options.limits) {
                Some(ready) => gathering.push(ready),
                None => Ok(()),
            })?;
        refuse(&mut tally, intake)?;
        gathering.finish(tally, inputs)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }
}

/// What the options do not let pass.
fn refuse(tally: &mut Tally, intake: &Intake<'_>) -> Result<(), Error> {
    if intake.options.bad_rows == BadRows::Refuse && tally.problems.count(Severity::Error) > 0 {
        return Err(Error::Problems { problems: Box::new(std::mem::take(&mut tally.problems)) });
    }
    if intake.options.pii == PiiAction::Refuse && tally.pii.examples > 0 {
        let first = tally.pii.samples.first().map(|sample| format!(", first at {}", sample.place)).unwrap_or_default();
        return Err(Error::Pii { found: tally.pii.summary() + &first });
    }
    Ok(())
}

struct Gathering {
    exact: bool,
    sketched: bool,
    counted: bool,
    seen: HashSet<[u8; 16]>,
    exact_duplicates: u64,
    lines: LineWriter,
    sets: SetWriter,
    keys: Vec<Digest>,
    bands: Vec<u32>,
    characters: Vec<u32>,
    tokens: Vec<u32>,
}

impl Gathering {
    fn push(&mut self, ready: Ready) -> Result<(), Error> {
        // Half a digest is enough to tell contents apart, and half the memory.
        let [half @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *ready.key.as_bytes();
        if self.exact && !self.seen.insert(half) {
            self.exact_duplicates += 1;
            return Ok(());
        }
        let failed = || Error::io("write a temporary file");
        self.lines.push(&ready.line).map_err(failed())?;
        if self.sketched {
            self.sets.push(ready.sketch.shingles()).map_err(failed())?;
            self.bands.extend_from_slice(ready.sketch.bands());
        }
        if self.counted {
            self.tokens.push(ready.tokens);
        }
        self.keys.push(ready.split_key);
        self.characters.push(ready.characters);
        Ok(())
    }

    fn finish(self, tally: Tally, inputs: Vec<InputCard>) -> Result<Gathered, Error> {
        if self.keys.is_empty() {
            return Err(Error::Empty);
        }
        let failed = || Error::io("write a temporary file");
        Ok(Gathered {
            tally,
            inputs,
            exact_duplicates: self.exact_duplicates,
            lines: self.lines.finish().map_err(failed())?,
            keys: self.keys,
            bands: self.bands,
            sets: self.sets.finish().map_err(failed())?,
            characters: self.characters,
            tokens: self.tokens,
        })
    }
}
