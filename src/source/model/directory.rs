//! A model in a directory on this machine.

use super::{FILES_MAX, GitId, ModelError, Selection, is_path};
use crate::{
    model::{ModelFile, ModelFiles, is_weights},
    store::KeyBuilder,
};
use gap_format::Digest;
use std::{fs, io, path::Path};

/// How deep directories may lie in one another.
const DEPTH_MAX: usize = 16;

/// Lists what is selected of a directory. Links are followed, because a Hugging Face cache is made of
/// links; what they lead to is taken as a file.
///
/// # Errors
/// [`ModelError`] if something cannot be read, is neither file nor directory, or has a name that cannot be used.
pub fn list(directory: &Path, selection: &Selection) -> Result<ModelFiles, ModelError> {
    let mut files = Vec::new();
    walk(directory, "", 0, &mut files)?;
    Ok(selection.apply(files, |(path, _)| path)?.into_iter().collect())
}

/// What stands for the commit of a directory, which has none: it covers the names and sizes of all files and the
/// contents of those that are no weights. The digests of layers cover the weights, once they were read.
///
/// # Errors
/// [`ModelError::Read`] if a file cannot be read.
pub fn commit_of(files: &ModelFiles) -> Result<GitId, ModelError> {
    let mut key = KeyBuilder::new("model directory", 1);
    for (path, file) in files.iter() {
        key.text("path", path).list("size", [file.size.to_le_bytes()]);
        if !is_weights(path, file.size) {
            let unreadable = |source| ModelError::Read { path: file.real.clone(), source };
            key.digest("content", &Digest::of(&fs::read(&file.real).map_err(unreadable)?));
        }
    }
    Ok(GitId::from_digest(&key.finish()))
}

/// The licences that the card of a directory names.
pub fn licenses_of(files: &ModelFiles) -> Vec<String> {
    let card = files.get("README.md").filter(|card| !is_weights("README.md", card.size));
    let text = card.and_then(|card| fs::read(&card.real).ok()).unwrap_or_default();
    super::card::licenses(&String::from_utf8_lossy(&text))
}

fn walk(directory: &Path, within: &str, depth: usize, files: &mut Vec<(String, ModelFile)>) -> Result<(), ModelError> {
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
            files.push((path, ModelFile::alone(real, metadata.len())));
        } else {
            return Err(odd(&real, "is neither a file nor a directory"));
        }
        if files.len() > FILES_MAX {
            return Err(odd(directory, &format!("holds more than {FILES_MAX} files")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list_all(directory: &Path) -> Result<ModelFiles, ModelError> {
        list(directory, &Selection::of_model(&[], &[])?)
    }

    #[test]
    fn links_are_followed_and_what_tools_keep_beside_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let (blobs, model) = (dir.path().join("blobs"), dir.path().join("model"));
        for path in [blobs.clone(), model.join("sub"), model.join(".git"), model.join(".cache/huggingface")] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(blobs.join("x"), "{}").unwrap();
        std::os::unix::fs::symlink("../blobs/x", model.join("config.json")).unwrap();
        fs::write(model.join("sub/a.txt"), "a").unwrap();
        fs::write(model.join(".git/HEAD"), "").unwrap();
        let files = list_all(&model).unwrap();
        assert_eq!(files.paths().collect::<Vec<_>>(), ["config.json", "sub/a.txt"]);
        assert_eq!(files.get("config.json").unwrap().size, 2);
    }

    #[test]
    fn a_circle_of_links_and_special_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(".", dir.path().join("again")).unwrap();
        assert!(matches!(list_all(dir.path()), Err(ModelError::Odd { .. } | ModelError::Read { .. })));
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("null")).unwrap();
        assert!(matches!(list_all(dir.path()), Err(ModelError::Odd { .. })));
    }

    #[test]
    fn the_commit_follows_names_sizes_and_small_contents() {
        let dir = tempfile::tempdir().unwrap();
        let commit = || commit_of(&list_all(dir.path()).unwrap()).unwrap();
        fs::write(dir.path().join("config.json"), "{}").unwrap();
        let first = commit();
        assert_eq!(first, commit());
        fs::write(dir.path().join("config.json"), "[]").unwrap();
        assert_ne!(first, commit());
    }
}
