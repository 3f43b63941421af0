//! Resolving: a revision becomes a commit, and its files become digests.

use super::{
    Hub, LockedHubModel, LockedModelFile, ModelError, Repository, Selection,
    api::{ListedFile, Revision},
    card,
    git::GitId,
};
use crate::{
    source::http::Progress,
    store::{Store, StoreError},
};
use gap_format::Digest;
use std::{fs, io::Write, path::PathBuf};

/// Largest file that is read into memory because only its git id is known, in bytes. Larger ones are in Git LFS.
const SMALL_MAX: u64 = 64 << 20;
/// The card, by its name in every repository.
const CARD: &str = "README.md";

/// Resolves `revision` of a repository and what is selected of it. Small files come into the store by the way.
///
/// # Errors
/// [`ModelError`]; what was fetched before stays in the store, so the next try goes on.
pub fn resolve(
    hub: &Hub,
    repository: Repository<'_>,
    revision: &str,
    selection: &Selection,
    store: &Store,
    progress: Progress<'_>,
) -> Result<LockedHubModel, ModelError> {
    let repo = repository.name;
    let found = hub.revision(repository, revision)?;
    if let Ok(asked) = revision.parse::<GitId>()
        && asked != found.commit
    {
        return Err(ModelError::OtherCommit { repo: repo.clone(), asked, found: found.commit });
    }
    let Revision { commit, gated, mut licenses, files } = found;
    let known = Known::open(store)?;
    let resolver = Resolver { hub, repository, commit, store, known: &known, progress };
    let card = files.iter().find(|file| file.path == CARD).cloned();
    let files = selection.apply(files, |file| &file.path)?;
    let files = hub.client().in_parallel(&files, |file| file.size, |file| resolver.lock(file))?;
    if licenses.is_empty()
        && let Some(card) = card
    {
        licenses = resolver.licenses(&card)?;
    }
    Ok(LockedHubModel { repo: repo.clone(), revision: revision.to_owned(), commit, gated, licenses, files })
}

struct Resolver<'a> {
    hub: &'a Hub,
    repository: Repository<'a>,
    commit: GitId,
    store: &'a Store,
    known: &'a Known,
    progress: Progress<'a>,
}

impl Resolver<'_> {
    /// The row of a file. A large one is not fetched for it.
    fn lock(&self, file: &ListedFile) -> Result<LockedModelFile, ModelError> {
        let sha256 = match file.sha256 {
            Some(sha256) => sha256,
            None => self.small(file)?,
        };
        Ok(LockedModelFile { path: file.path.clone(), size: file.size, sha256, git: file.git })
    }

    /// The digest of a file of which the hub knows the git id only.
    fn small(&self, file: &ListedFile) -> Result<Digest, ModelError> {
        if let Some(sha256) = self.known.digest(&file.git)
            && self.store.has_source(&sha256, Some(file.size))
        {
            return Ok(sha256);
        }
        if file.size > SMALL_MAX {
            let what = format!("`{}` is large, but not in Git LFS, so its SHA-256 is not known", file.path);
            return Err(ModelError::Answer { repo: self.repository.name.clone(), what });
        }
        let content = self.hub.read(self.repository, &self.commit, &file.path, SMALL_MAX)?;
        let (found, size) = (GitId::of_blob(&content), content.len() as u64);
        if (found, size) != (file.git, file.size) {
            return Err(ModelError::WrongFile {
                repo: self.repository.name.clone(),
                path: file.path.clone(),
                expected: file.git,
                listed: file.size,
                found,
                size,
            });
        }
        let stored = self.store.insert_source(None, SMALL_MAX, content.as_slice())?;
        self.known.note(self.store, &file.git, &stored.digest)?;
        (self.progress)(size);
        Ok(stored.digest)
    }

    fn licenses(&self, file: &ListedFile) -> Result<Vec<String>, ModelError> {
        if file.size > SMALL_MAX || file.sha256.is_some() {
            return Ok(Vec::new());
        }
        let digest = self.small(file)?;
        let path = self.store.source_path(&digest);
        let text = fs::read(&path).map_err(StoreError::io("reading", &path))?;
        Ok(card::licenses(&String::from_utf8_lossy(&text)))
    }
}

/// The digests of small files by their git ids, as far as they were fetched here before.
struct Known(PathBuf);

impl Known {
    fn open(store: &Store) -> Result<Self, StoreError> {
        store.cache_dir("git-blobs", &Digest::of(b"sha256")).map(Self)
    }

    fn digest(&self, id: &GitId) -> Option<Digest> {
        Digest::from_hex(&fs::read_to_string(self.0.join(id.to_string())).ok()?).ok()
    }

    fn note(&self, store: &Store, id: &GitId, digest: &Digest) -> Result<(), StoreError> {
        let path = self.0.join(id.to_string());
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(store.session_dir())?;
            file.write_all(digest.to_hex().as_bytes())?;
            file.persist(&path).map_err(|error| error.error)
        };
        write().map(drop).map_err(StoreError::io("writing", &path))
    }
}
