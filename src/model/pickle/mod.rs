//! Python pickles: which code a file would import when it is loaded.
//!
//! A pickle is a program for a stack machine; loading it can call anything that can be imported. It is not run here: its
//! instructions are read one by one, with a stack that holds nothing but texts, so that each import is named however it
//! is written. What cannot be followed is refused.

mod imports;
mod machine;
mod opcode;
#[cfg(test)]
mod tests;

pub use imports::{Danger, Import};

use machine::Machine;
use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader, Read, Seek},
};
use zip::ZipArchive;

/// Longest pickle within an archive, in bytes; weights lie beside it.
const PICKLED_MAX: u64 = 256 << 20;
/// Most pickles that follow one another in one file.
const PICKLES_MAX: usize = 64;
/// How the first pickle of a file in PyTorch's form before 1.6 ends: the number 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: [u8; 13] = [0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];
/// How many pickles such a file begins with.
const LEGACY_PICKLES: usize = 5;

/// Why a pickle cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// It ends too early, or cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// An instruction that does not exist.
    #[error("it is neither a pickle nor an archive of pickles: at byte {at} stands {opcode:#04x}")]
    Opcode {
        /// The byte.
        opcode: u8,
        /// Where it stands.
        at: u64,
    },
    /// An instruction that takes what is not there.
    #[error("it is damaged: the instruction at byte {at} takes something that is not there")]
    Underflow {
        /// Where the instruction stands.
        at: u64,
    },
    /// Something is larger than the bounds.
    #[error("it is beyond all bounds: {0}")]
    TooLarge(&'static str),
    /// The zip archive is damaged, or holds a name twice.
    #[error("it is a damaged zip archive: {0}")]
    Archive(String),
    /// An archive without what PyTorch loads.
    #[error("it is a zip archive without a `data.pkl`")]
    NoData,
}

/// Finds out what a file of pickles would import when it is loaded: a plain one, or what PyTorch writes.
///
/// # Errors
/// [`PickleError`] if it cannot be followed; it must not be loaded then.
pub fn scan(mut file: impl Read + Seek) -> Result<BTreeSet<Import>, PickleError> {
    let mut magic = [0; 4];
    let read = file.read(&mut magic)?;
    file.rewind()?;
    // PyTorch tells its two forms apart by these bytes too.
    match magic.get(..read) == Some(b"PK\x03\x04") {
        true => archive(file),
        false => stream(BufReader::with_capacity(1 << 16, file)),
    }
}

/// Finds out what pickles that follow one another would import.
///
/// # Errors
/// [`PickleError`] if one that will be loaded cannot be followed.
pub fn stream(mut input: impl BufRead) -> Result<BTreeSet<Import>, PickleError> {
    let mut imports = BTreeSet::new();
    let needed = if starts_legacy(input.fill_buf()?) { LEGACY_PICKLES } else { 1 };
    for number in 0..PICKLES_MAX {
        if number >= needed && input.fill_buf()?.is_empty() {
            return Ok(imports);
        }
        match Machine::new(&mut input, u64::MAX).run() {
            Ok(found) => imports.extend(found),
            // Only where it is known how many pickles are loaded may something else follow them.
            Err(_) if needed == LEGACY_PICKLES && number >= needed => return Ok(imports),
            Err(error) => return Err(error),
        }
    }
    Err(PickleError::TooLarge("the number of pickles"))
}

fn starts_legacy(bytes: &[u8]) -> bool {
    // `PROTO 2` stands before the number.
    bytes.get(2..).is_some_and(|rest| rest.starts_with(&LEGACY_MAGIC))
}

fn archive(file: impl Read + Seek) -> Result<BTreeSet<Import>, PickleError> {
    let failed = |error: zip::result::ZipError| PickleError::Archive(error.to_string());
    let mut archive = ZipArchive::new(BufReader::with_capacity(1 << 16, file)).map_err(failed)?;
    // A reader that takes the other one of two equal names would load what was not looked at.
    if archive.has_duplicate_names() {
        return Err(PickleError::Archive("it lists a name twice".to_owned()));
    }
    let mut imports = BTreeSet::new();
    let mut has_data = false;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(failed)?;
        let name = entry.name().map_err(failed)?.into_owned();
        if name.contains("/code/") || name.ends_with("/constants.pkl") {
            imports.insert(Import::new("torch.jit", "program"));
        }
        if !name.ends_with(".pkl") {
            continue;
        }
        has_data |= name.rsplit('/').next() == Some("data.pkl");
        imports.extend(Machine::new(BufReader::new(entry), PICKLED_MAX).run()?);
    }
    if has_data { Ok(imports) } else { Err(PickleError::NoData) }
}
