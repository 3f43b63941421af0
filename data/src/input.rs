//! The files of a data set.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// One file of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The name that problems and the data card give it: never a path of this machine.
    pub name: Arc<str>,
    /// Where it lies.
    pub path: PathBuf,
}

/// Why there are no inputs.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Reading failed.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name that is not text.
    #[error("{} has a name that is not UTF-8; rename it", path.display())]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// A socket, pipe, device or link.
    #[error("{} is neither a file nor a directory; symbolic links in a data set are not followed", path.display())]
    Special {
        /// What it was.
        path: PathBuf,
    },
    /// A directory without data.
    #[error("no data files below {}: names must end in {}", path.display(), EXTENSIONS.join(", "))]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// More files than allowed.
    #[error("more than {MAX_FILES} files below {}", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
}

/// What a data file in a directory ends in; others (`README.md`, `.gitattributes`) are no data.
const EXTENSIONS: [&str; 7] = [".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv", ".txt"];
const MAX_FILES: usize = 100_000;
const MAX_DEPTH: usize = 16;

impl Input {
    /// A file under a name.
    pub fn new(name: &str, path: &Path) -> Self {
        Self { name: name.into(), path: path.to_owned() }
    }

    /// The file at `path`, called `name`; or all data files below it, called `name/…` and sorted by the bytes of their
    /// names. Hidden files are no data.
    ///
    /// # Errors
    /// [`InputError`].
    pub fn find(name: &str, path: &Path) -> Result<Vec<Self>, InputError> {
        let metadata = fs::metadata(path).map_err(|source| InputError::Read { path: path.to_owned(), source })?;
        if metadata.is_file() {
            return Ok(vec![Self::new(name, path)]);
        }
        if !metadata.is_dir() {
            return Err(InputError::Special { path: path.to_owned() });
        }
        let mut found = Vec::new();
        below(name, path, 0, &mut found)?;
        if found.is_empty() {
            return Err(InputError::Empty { path: path.to_owned() });
        }
        found.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        Ok(found)
    }
}

fn below(name: &str, directory: &Path, depth: usize, found: &mut Vec<Input>) -> Result<(), InputError> {
    let unreadable = |source| InputError::Read { path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let file_name = entry.file_name();
        let own = file_name.to_str().ok_or_else(|| InputError::Name { path: path.clone() })?;
        if own.starts_with('.') {
            continue;
        }
        let kind = entry.file_type().map_err(unreadable)?;
        let data = EXTENSIONS.iter().any(|end| own.to_ascii_lowercase().ends_with(end));
        let inner = format!("{name}/{own}");
        if kind.is_dir() && depth < MAX_DEPTH {
            below(&inner, &path, depth + 1, found)?;
        } else if data && kind.is_file() {
            found.push(Input::new(&inner, &path));
        } else if data {
            return Err(InputError::Special { path });
        }
        if found.len() > MAX_FILES {
            return Err(InputError::TooMany { path: directory.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_its_data_files_in_order() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("b")).unwrap();
        for name in ["z.jsonl", "a.CSV", "README.md", ".hidden.jsonl", "b/c.parquet"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let names: Vec<String> =
            Input::find("set", directory.path()).unwrap().iter().map(|input| input.name.to_string()).collect();
        assert_eq!(names, ["set/a.CSV", "set/b/c.parquet", "set/z.jsonl"]);
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("x.txt")).unwrap();
        assert!(matches!(Input::find("set", directory.path()), Err(InputError::Special { .. })));
    }

    #[test]
    fn a_directory_without_data_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(Input::find("set", directory.path()), Err(InputError::Empty { .. })));
        assert!(matches!(Input::find("set", &directory.path().join("none")), Err(InputError::Read { .. })));
    }
}
