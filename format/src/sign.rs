//! Signing an artifact in place, so that a crash leaves it either as it was or signed.
//!
//! Before the envelope is written over, its old bytes are put into a journal beside the file. Whoever opens the file for
//! signing next finds the journal of a crash and puts the old bytes back.

use crate::{
    VerifyError,
    dsse::{self, Envelope, EnvelopeError, REGION_LEN},
    head::Head,
    key::KeyId,
    release::{Release, Unverified},
    tar_header::{self, HEADER_LEN},
};
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    ops::Deref,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// First bytes of a journal. Then: the envelope's offset (8 bytes, little-endian), the SHA-256 of all that stands before it
/// in the artifact, its old bytes, and the SHA-256 of all that.
const MAGIC: &[u8; 16] = b"gapimage-sign-2\n";
/// What the journals of all versions begin with.
const ANY_MAGIC: &[u8] = b"gapimage-sign-";
/// Bytes hashed at once.
const CHUNK: usize = 1 << 20;

/// Why an artifact was not signed; unless said otherwise it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// Reading or writing failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else is signing the file right now.
    #[error("{0} is being signed by another process: try again when it is done")]
    Busy(PathBuf),
    /// The file is no artifact.
    #[error(transparent)]
    Head(#[from] VerifyError),
    /// The signature cannot be added.
    #[error("cannot add a signature: {0}")]
    Envelope(#[from] EnvelopeError),
    /// The file says something else than what was looked at.
    #[error("{0} was changed while it was looked at: nothing was signed")]
    Changed(PathBuf),
    /// A journal lies beside the file that is not about it.
    #[error(
        "the journal {0} of an interrupted signing does not fit the artifact beside it, which was left as it is: if that was built \
         or copied here since then, remove the journal, and else look into where it comes from"
    )]
    ForeignJournal(PathBuf),
}

/// Adds a signature of `key` to the artifact at `path`, after undoing what a crash left half done.
///
/// The caller has accounted for every byte first ([`verify::account`](crate::verify::account), full) and shown what is
/// about to be signed: the release as it was `shown`. Its statement, in which every digest and length is, must be the one in
/// the envelope, so that nothing else can be signed, whatever became of the file meanwhile.
///
/// # Errors
/// See [`SignError`]; [`EnvelopeError::AlreadySigned`] when the key has signed before.
pub fn sign_in_place(path: &Path, shown: &Release<Unverified>, key: &SigningKey) -> Result<KeyId, SignError> {
    let file = open_locked(path)?;
    undo(path, &file)?;
    let head = Head::read_at(&*file)?;
    if head.envelope().payload() != shown.payload() {
        return Err(SignError::Changed(path.to_owned()));
    }
    let mut envelope = head.envelope().clone();
    let id = envelope.sign(key)?;
    let region = envelope.encode_region()?;
    let offset = head.envelope_offset();
    let mut old = vec![0; region.len()];
    file.read_exact_at(&mut old, offset).map_err(failed("read", path))?;
    let before = digest_before(&file, offset).map_err(failed("read", path))?;
    write_journal(&journal_path(path), offset, &before, &old)?;
    if let Err(error) = file.write_all_at(&region, offset).and_then(|()| file.sync_all()) {
        // Where even that fails, the journal stays, and the next signing begins with it.
        let _ = undo(path, &file);
        return Err(failed("write", path)(error));
    }
    remove_journal(&journal_path(path))?;
    Ok(id)
}

/// Undoes what a crash during signing left half done; true when there was something to undo.
///
/// # Errors
/// See [`SignError`].
pub fn recover(path: &Path) -> Result<bool, SignError> {
    if !journal_path(path).try_exists().map_err(failed("look for the journal of", path))? {
        return Ok(false);
    }
    let file = open_locked(path)?;
    undo(path, &file)
}

/// Where the journal of an artifact lies: beside it, with `.sign-journal` after its name.
pub fn journal_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sign-journal");
    PathBuf::from(name)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SignError {
    move |source| SignError::Io { action, path: path.to_owned(), source }
}

/// The artifact, locked. The lock is given back by word when this goes: a program that another thread starts in the
/// meantime has a copy of the file until its `exec`, and closing ours alone would leave it locked until then.
struct Locked(File);

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Where that fails, closing it does the same a little later.
        let _ = self.0.unlock();
    }
}

fn open_locked(path: &Path) -> Result<Locked, SignError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed("open for signing", path))?;
    match file.try_lock() {
        Ok(()) => Ok(Locked(file)),
        Err(fs::TryLockError::WouldBlock) => Err(SignError::Busy(path.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(failed("lock", path)(source)),
    }
}

fn undo(path: &Path, file: &File) -> Result<bool, SignError> {
    let journal = journal_path(path);
    let mut bytes = Vec::new();
    match File::open(&journal) {
        Ok(open) => open.take(2 * REGION_LEN).read_to_end(&mut bytes).map_err(failed("read", &journal))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("open", &journal)(error)),
    };
    if bytes.starts_with(ANY_MAGIC) && !bytes.starts_with(MAGIC) && bytes.len() >= MAGIC.len() {
        return Err(SignError::ForeignJournal(journal));
    }
    // An incomplete journal means that the crash came before the artifact was touched.
    if let Some(Journal { offset, before, old }) = parse_journal(&bytes) {
        // Another artifact may have the name by now, and would be destroyed.
        let fits = is_envelope_at(file, offset)
            && digest_before(file, offset).map_err(failed("read", path))? == before
            && !holds_another(file, offset, old).map_err(failed("read", path))?;
        if !fits {
            return Err(SignError::ForeignJournal(journal));
        }
        file.write_all_at(old, offset).and_then(|()| file.sync_all()).map_err(failed("restore", path))?;
    }
    remove_journal(&journal)?;
    Ok(true)
}

/// Whether the member whose data begins at `offset` is the envelope.
fn is_envelope_at(file: &File, offset: u64) -> bool {
    let mut header = [0; HEADER_LEN];
    let read = offset.checked_sub(HEADER_LEN as u64).map(|at| file.read_exact_at(&mut header, at));
    matches!(read, Some(Ok(()))) && tar_header::decode(&header) == Some((dsse::PATH.to_owned(), REGION_LEN))
}

/// Whether the region holds the whole envelope of another statement than `old`. One that was written half holds none.
fn holds_another(file: &File, offset: u64, old: &[u8]) -> io::Result<bool> {
    let mut now = vec![0; old.len()];
    file.read_exact_at(&mut now, offset)?;
    let envelope = |region: &[u8]| Envelope::decode_region(region).ok();
    Ok(envelope(&now).is_some_and(|now| envelope(old).is_none_or(|old| old.payload() != now.payload())))
}

/// SHA-256 of the first `len` bytes.
fn digest_before(file: &File, len: u64) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < len {
        let count = usize::try_from(len - at).unwrap_or(CHUNK).min(CHUNK);
        let part = chunk.get_mut(..count).unwrap_or_default();
        file.read_exact_at(part, at)?;
        hasher.update(&*part);
        at += count as u64;
    }
    Ok(hasher.finalize().into())
}

/// What a whole journal says.
struct Journal<'a> {
    offset: u64,
    before: [u8; 32],
    old: &'a [u8],
}

fn parse_journal(bytes: &[u8]) -> Option<Journal<'_>> {
    let (content, sum) = bytes.split_last_chunk::<32>()?;
    let (offset, rest) = content.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
    let (before, old) = rest.split_first_chunk::<32>()?;
    let whole = <[u8; 32]>::from(Sha256::digest(content)) == *sum && old.len() as u64 == REGION_LEN;
    whole.then_some(Journal { offset: u64::from_le_bytes(*offset), before: *before, old })
}

fn write_journal(journal: &Path, offset: u64, before: &[u8; 32], old: &[u8]) -> Result<(), SignError> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(offset.to_le_bytes());
    bytes.extend(before);
    bytes.extend_from_slice(old);
    let sum = Sha256::digest(&bytes);
    bytes.extend(sum);
    let written = File::create_new(journal).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.and_then(|()| sync_folder(journal)).map_err(|error| {
        // A full disk leaves part of it, which says nothing: the artifact was not touched yet.
        let _ = fs::remove_file(journal);
        failed("write the journal", journal)(error)
    })
}

fn remove_journal(journal: &Path) -> Result<(), SignError> {
    fs::remove_file(journal).and_then(|()| sync_folder(journal)).map_err(failed("remove the journal", journal))
}

/// Makes the appearance or disappearance of a file durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}
