//! The parts and the card, complete before any of them has its name.

use super::{compare::Compared, gather::Gathered};
use crate::{
    Error, Stage, Watch,
    card::{Card, FileCard},
    split::Split,
};
use gap_format::Digest;
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File, Permissions},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};
use tempfile::NamedTempFile;

const CARD: &str = "card.json";
const CARD_TO_READ: &str = "card.md";

/// Files that are written and have no names yet.
pub(super) struct Parts(Vec<Part>);

struct Part {
    split: Split,
    file: BufWriter<NamedTempFile>,
    hasher: Sha256,
    size: u64,
    examples: u64,
}

impl Part {
    fn new(split: Split, into: &Path) -> Result<Self, Error> {
        let file = BufWriter::with_capacity(1 << 18, temporary(into)?);
        Ok(Self { split, file, hasher: Sha256::new(), size: 0, examples: 0 })
    }

    fn push(&mut self, line: &[u8]) -> Result<(), Error> {
        self.file.write_all(line).map_err(Error::io(format!("write {}.jsonl", self.split.name())))?;
        self.hasher.update(line);
        self.size += line.len() as u64;
        self.examples += 1;
        Ok(())
    }

    fn card(&self) -> FileCard {
        FileCard {
            name: format!("{}.jsonl", self.split.name()),
            split: self.split,
            examples: self.examples,
            size: self.size,
            sha256: Digest::from(self.hasher.clone()),
        }
    }
}

fn temporary(into: &Path) -> Result<NamedTempFile, Error> {
    NamedTempFile::new_in(into).map_err(Error::io(format!("make a temporary file in {}", into.display())))
}

impl Parts {
    pub fn write(gathered: &Gathered, compared: &Compared, into: &Path, watch: &mut Watch<'_>) -> Result<Self, Error> {
        let wanted = Split::ALL.into_iter().filter(|&split| compared.ratios.percent(split) > 0);
        let mut parts = wanted.map(|split| Part::new(split, into)).collect::<Result<Vec<_>, _>>()?;
        gathered.lines.each(|number, line| {
            if number % 4096 == 0 {
                watch.at(Stage::Write, number as u64, gathered.len() as u64)?;
            }
            let split = compared.places.get(number).copied().flatten();
            match parts.iter_mut().find(|part| Some(part.split) == split) {
                Some(part) => part.push(line),
                None => Ok(()),
            }
        })?;
        watch.at(Stage::Write, gathered.len() as u64, gathered.len() as u64)?;
        Ok(Self(parts))
    }

    pub fn cards(&self) -> Vec<FileCard> {
        self.0.iter().map(Part::card).collect()
    }

    /// Gives the files their names, the card last: a directory with a card is complete.
    pub fn publish(self, card: &Card, into: &Path) -> Result<Vec<(String, Digest)>, Error> {
        let mut complete = Vec::new();
        for part in self.0 {
            let FileCard { name, sha256, .. } = part.card();
            let file = part
                .file
                .into_inner()
                .map_err(|error| error.into_error())
                .map_err(Error::io(format!("write {name}")))?;
            complete.push((name, sha256, file));
        }
        for (name, text) in [(CARD_TO_READ, card.to_markdown()), (CARD, card.to_json())] {
            let mut file = temporary(into)?;
            file.write_all(text.as_bytes()).map_err(Error::io(format!("write {name}")))?;
            complete.push((name.to_owned(), Digest::of(text.as_bytes()), file));
        }
        for (name, _, file) in &complete {
            let settled = file.as_file().set_permissions(Permissions::from_mode(0o644));
            settled.and_then(|()| file.as_file().sync_all()).map_err(Error::io(format!("write {name}")))?;
        }
        remove_old(into)?;
        let mut files = Vec::new();
        for (name, digest, file) in complete {
            file.persist(into.join(&name)).map_err(|error| error.error).map_err(Error::io(format!("name {name}")))?;
            files.push((name, digest));
        }
        File::open(into)
            .and_then(|directory| directory.sync_all())
            .map_err(Error::io(format!("sync {}", into.display())))?;
        files.sort();
        Ok(files)
    }
}

/// Removes what an earlier run wrote, the card first: until the new one is there, nothing is complete.
fn remove_old(into: &Path) -> Result<(), Error> {
    let parts = Split::ALL.map(|split| format!("{}.jsonl", split.name()));
    for name in [CARD.to_owned(), CARD_TO_READ.to_owned()].into_iter().chain(parts) {
        match fs::remove_file(into.join(&name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("remove the old {name}"))(error));
            }
            _ => {}
        }
    }
    Ok(())
}
