//! Examples that are measured on and trained on as well: what is measured on them is better than the model is.

use std::{
    collections::HashSet,
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

/// Longest files that are compared, in bytes: others wait who move many bytes.
const MAX_TRAINING: u64 = 256 << 20;
const MAX_VALIDATION: u64 = 32 << 20;
/// Longest line that is read whole, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// How many examples are in both files, and how many there are to measure on. Nothing where the files are too long to compare.
///
/// # Errors
/// What the system said.
pub fn between(training: &Path, validation: &Path) -> io::Result<Option<(usize, usize)>> {
    if fs::metadata(training)?.len() > MAX_TRAINING || fs::metadata(validation)?.len() > MAX_VALIDATION {
        return Ok(None);
    }
    let hashing = RandomState::new();
    let mut measured = HashSet::new();
    each(validation, |line| {
        measured.insert(hashing.hash_one(line));
    })?;
    let (all, mut both) = (measured.len(), 0_usize);
    each(training, |line| both = both.saturating_add(usize::from(measured.remove(&hashing.hash_one(line)))))?;
    Ok(Some((both, all)))
}

/// Examples are written alike wherever they come from, so that equal ones are equal lines.
fn each(path: &Path, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    while reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? > 0 {
        let example = line.trim_ascii();
        if !example.is_empty() {
            take(example);
        }
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_examples_are_counted_once_wherever_they_stand() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (one, other) = (file("one", "a\nb\nb\nc\n"), file("other", "b\nd\n\ne"));
        assert_eq!(between(&one, &other).unwrap(), Some((1, 3)));
        assert_eq!(between(&one, &file("empty", "")).unwrap(), Some((0, 0)));
        assert!(between(&one, &directory.path().join("none")).is_err());
        let long = file("long", "");
        File::options().write(true).open(&long).unwrap().set_len(MAX_VALIDATION + 1).unwrap();
        assert_eq!(between(&one, &long).unwrap(), None);
    }
}
