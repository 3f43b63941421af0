//! A model in a directory on this machine.

use super::{FILES_MAX, ModelError, Selection, is_path};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// How deep directories may lie in one another.
const DEPTH_MAX: usize = 16;

/// One file of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryFile {
    /// Its path below the directory.
    pub path: String,
    /// The file itself; links are followed.
    pub real: PathBuf,
    /// Its length in bytes.
    pub size: u64,
}

/// Lists what is selected of a directory, sorted by path. Links are followed, because a Hugging Face cache is made of
/// links; what they lead to is taken as a file.
///
/// # Errors
/// [`ModelError`] if something cannot be read, is neither file nor directory, or has a name that cannot be used.
pub fn list(directory: &Path, selection: &Selection) -> Result<Vec<DirectoryFile>, ModelError> {
    let mut files = Vec::new();
    walk(directory, "", 0, &mut files)?;
    let mut files = selection.apply(files, |file| &file.path)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn walk(directory: &Path, within: &str, depth: usize, files: &mut Vec<DirectoryFile>) -> Result<(), ModelError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| ModelError::Read { path, source }
    };
    let odd = |path: &Path, what: &str| ModelError::Odd { path: path.to_owned(), what: what.to_owned() };
    if depth > DEPTH_MAX {
        return Err(odd(directory, "lies too deep; a link may lead back to where it is"));
    }
    for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
        let entry = entry.map_err(unreadable(directory))?;
        let real = entry.path();
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| odd(&real, "has a name that is not UTF-8"))?;
        let path = if within.is_empty() { name.to_owned() } else { format!("{within}/{name}") };
        // What git and the hub's own tools keep beside a download is no part of the model.
        if within.is_empty() && matches!(name, ".git" | ".cache" | ".huggingface") {
            continue;
        }
        if !is_path(&path) {
            return Err(odd(&real, "has a name that cannot be used"));
        }
        let metadata = fs::metadata(&real).map_err(unreadable(&real))?;
        if metadata.is_dir() {
            walk(&real, &path, depth + 1, files)?;
        } else if metadata.is_file() {
            files.push(DirectoryFile { path, real, size: metadata.len() });
        } else {
            return Err(odd(&real, "is neither a file nor a directory"));
        }
        if files.len() > FILES_MAX {
            return Err(odd(directory, &format!("holds more than {FILES_MAX} files")));
        }
    }
    Ok(())
}
