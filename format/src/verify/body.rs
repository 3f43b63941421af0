//! Everything after the head, from a source that can be read anywhere: all threads hash at once.

use super::{Check, expect_blob, expect_root, work};
use crate::{
    Digest, ReadAt, Slice, VerifyError,
    frame::{Part, Piece},
    layout::Member,
    release::Release,
    verity::{CHUNK, OrderedRoot, leaf_digests, read_chunk},
};
use sha2::{Digest as _, Sha256};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// Hashing shared out among threads: first whole blobs, the largest first, then chunks of covered blobs, which fill up
/// whatever time is left evenly.
struct Jobs<'a> {
    source: &'a dyn ReadAt,
    flat: Vec<&'a Member>,
    covered: Vec<Covered<'a>>,
    next: AtomicUsize,
    stop: AtomicBool,
    faults: Mutex<Vec<(u64, VerifyError)>>,
    progress: &'a (dyn Fn(u64) + Sync),
}

struct Covered<'a> {
    member: &'a Member,
    /// Number of the job that hashes its first chunk.
    first_job: usize,
    root: OrderedRoot,
}

/// Compares what is generated, then hashes all blobs. Of several faults the one at the lowest offset is told, however the
/// threads were timed.
pub(super) fn check<S: Sync>(release: &Release<S>, source: &dyn ReadAt, check: &Check<'_>) -> Result<(), VerifyError> {
    compare_generated(release, source)?;
    let total = work(release, check);
    let progress = |bytes| (check.progress)(bytes, total);
    let jobs = Jobs::new(release, source, check, &progress);
    thread::scope(|scope| {
        for _ in 1..check.threads.get() {
            scope.spawn(|| jobs.run());
        }
        jobs.run();
    });
    jobs.finish()
}

fn compare_generated<S>(release: &Release<S>, source: &dyn ReadAt) -> Result<(), VerifyError> {
    let head_len = release.frame().head_len();
    let generated = |piece: &&Piece| piece.offset >= head_len && !is_blob(piece);
    let mut found = Vec::new();
    for piece in release.frame().pieces().iter().filter(generated) {
        found.resize(usize::try_from(piece.len).unwrap_or(0), 0);
        let what = || release.generator().describe(piece.part);
        source.read_exact_at(&mut found, piece.offset).map_err(|source| VerifyError::Io { what: what(), source })?;
        release.compare(piece, &found)?;
    }
    Ok(())
}

/// Whether a piece after the head is content.
pub(super) const fn is_blob(piece: &Piece) -> bool {
    matches!(piece.part, Part::Data(crate::frame::Owner::Member(_)))
}

impl<'a> Jobs<'a> {
    fn new<S>(
        release: &'a Release<S>,
        source: &'a dyn ReadAt,
        check: &Check<'_>,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        let blobs = release.layout().blobs();
        let mut flat: Vec<_> = blobs.iter().filter(|blob| check.wants_flat(blob)).collect();
        flat.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        let mut first_job = flat.len();
        let mut covered = Vec::new();
        for member in blobs.iter().filter(|blob| blob.verity.is_some()) {
            covered.push(Covered { member, first_job, root: OrderedRoot::new(member.size) });
            first_job += usize::try_from(member.size.div_ceil(CHUNK as u64)).unwrap_or(usize::MAX / 2);
        }
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { source, flat, covered, next, stop, faults: Mutex::default(), progress }
    }

    fn run(&self) {
        let mut buffer = vec![0; CHUNK];
        while !self.stop.load(Ordering::Relaxed) {
            let job = self.next.fetch_add(1, Ordering::Relaxed);
            let (member, result) = if let Some(member) = self.flat.get(job) {
                (*member, self.hash_flat(member, &mut buffer))
            } else {
                let after = self.covered.partition_point(|covered| covered.first_job <= job);
                let Some(covered) = after.checked_sub(1).and_then(|at| self.covered.get(at)) else { return };
                match self.hash_chunk(covered, job, &mut buffer) {
                    Ok(true) => continue,
                    Ok(false) => return,
                    Err(error) => (covered.member, Err(error)),
                }
            };
            if let Err(error) = result {
                self.stop.fetch_or(error.could_not_run(), Ordering::Relaxed);
                self.faults.lock().unwrap_or_else(PoisonError::into_inner).push((member.offset, error));
            }
        }
    }

    fn hash_flat(&self, member: &Member, buffer: &mut [u8]) -> Result<(), VerifyError> {
        let data = Slice::new(self.source, member.offset, member.size);
        let mut hasher = Sha256::new();
        let mut chunk = 0;
        while let Some(bytes) = read_chunk(&data, member.size, chunk, buffer).map_err(VerifyError::io(&*member.path))? {
            hasher.update(bytes);
            (self.progress)(bytes.len() as u64);
            chunk += 1;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        expect_blob(member, Digest::from(hasher))
    }

    /// Hashes the chunk that a job number stands for; false when there is no such chunk: all work is given out.
    fn hash_chunk(&self, covered: &Covered<'_>, job: usize, buffer: &mut [u8]) -> Result<bool, VerifyError> {
        let member = covered.member;
        let data = Slice::new(self.source, member.offset, member.size);
        let chunk = (job - covered.first_job) as u64;
        let bytes = read_chunk(&data, member.size, chunk, buffer).map_err(VerifyError::io(&*member.path))?;
        let Some(bytes) = bytes else { return Ok(false) };
        covered.root.add(chunk, leaf_digests(bytes)).map_err(VerifyError::io(&*member.path))?;
        (self.progress)(bytes.len() as u64);
        Ok(true)
    }

    fn finish(self) -> Result<(), VerifyError> {
        let mut faults = self.faults.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = faults.iter().position(|(_, error)| error.could_not_run()) {
            return Err(faults.swap_remove(at).1);
        }
        for covered in self.covered {
            let member = covered.member;
            let root = covered.root.finish().map_err(VerifyError::io(&*member.path))?;
            if let Err(error) = expect_root(member, root) {
                faults.push((member.offset, error));
            }
        }
        faults.into_iter().min_by_key(|(offset, _)| *offset).map_or(Ok(()), |(_, error)| Err(error))
    }
}
