//! Everything after the head, from a pipe: one pass in order, hash trees on other threads.

use super::{Check, body::is_blob, expect_blob, expect_root, work};
use crate::{
    Digest, VerifyError,
    frame::{Owner, Part},
    layout::Member,
    release::Release,
    verity::{CHUNK, OrderedRoot, leaf_digests},
};
use sha2::{Digest as _, Sha256};
use std::{
    io::{self, Read},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

/// A chunk of a covered blob on its way to a hashing thread.
struct Chunk {
    root: Arc<OrderedRoot>,
    number: u64,
    buffer: Vec<u8>,
    len: usize,
}

/// Reads the artifact in order. Memory is bounded by the buffers that circulate between reader and hashing threads.
struct Reader<'a, S> {
    release: &'a Release<S>,
    source: &'a mut dyn Read,
    check: &'a Check<'a>,
    total_work: u64,
    chunks: Sender<Chunk>,
    free: Receiver<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    roots: Vec<(&'a Member, Arc<OrderedRoot>)>,
}

/// See [`super::verify_stream`]; the head was read from the same source.
pub(super) fn check<S: Sync>(
    release: &Release<S>,
    source: &mut dyn Read,
    check: &Check<'_>,
) -> Result<(), VerifyError> {
    let (chunks, queue) = channel::<Chunk>();
    let (returned, free) = channel();
    let queue = Mutex::new(queue);
    let roots = thread::scope(|scope| {
        for _ in 0..check.threads.get() {
            let returned = returned.clone();
            let queue = &queue;
            scope.spawn(move || hash_chunks(queue, &returned));
        }
        drop(returned);
        let total_work = work(release, check);
        let spare = vec![vec![0; CHUNK]; 2 * check.threads.get() + 1];
        Reader { release, source, check, total_work, chunks, free, spare, roots: Vec::new() }.run()
    })?;
    for (member, root) in roots {
        let root = Arc::into_inner(root).map_or_else(|| Err(stopped()), OrderedRoot::finish);
        expect_root(member, root.map_err(VerifyError::io(&*member.path))?)?;
    }
    Ok(())
}

/// What a hashing thread does until the reader has no more.
fn hash_chunks(queue: &Mutex<Receiver<Chunk>>, returned: &Sender<Vec<u8>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Chunk { root, number, buffer, len }) = next else { return };
        let leaves = leaf_digests(buffer.get(..len).unwrap_or_default());
        // Folding into memory cannot fail; a missing chunk would leave the root wrong, never right.
        let _ = root.add(number, leaves);
        drop(root);
        // The reader may be gone after an error; then nobody needs the buffer.
        let _ = returned.send(buffer);
    }
}

fn stopped() -> io::Error {
    io::Error::other("a hashing thread stopped")
}

impl<'a, S> Reader<'a, S> {
    fn run(mut self) -> Result<Vec<(&'a Member, Arc<OrderedRoot>)>, VerifyError> {
        let frame = self.release.frame();
        for piece in frame.pieces().iter().filter(|piece| piece.offset >= frame.head_len()) {
            match piece.part {
                Part::Data(Owner::Member(number)) if is_blob(piece) => self.pass_blob(number)?,
                _ => {
                    let mut found = vec![0; usize::try_from(piece.len).unwrap_or(0)];
                    self.fill(&mut found, piece.offset)?;
                    self.release.compare(piece, &found)?;
                }
            }
        }
        self.expect_end(frame.total())?;
        Ok(self.roots)
    }

    fn pass_blob(&mut self, number: usize) -> Result<(), VerifyError> {
        let Some(member) = self.release.layout().members.get(number) else { return Ok(()) };
        let mut flat = self.check.wants_flat(member).then(Sha256::new);
        let tree = member.verity.map(|_| Arc::new(OrderedRoot::new(member.size)));
        let (mut chunk, mut at) = (0, 0);
        while at < member.size {
            let mut buffer = self.buffer().map_err(VerifyError::io(&*member.path))?;
            let len = usize::try_from(member.size - at).map_or(CHUNK, |left| left.min(CHUNK));
            let bytes = buffer.get_mut(..len).unwrap_or_default();
            self.fill(bytes, member.offset + at)?;
            if let Some(hasher) = &mut flat {
                hasher.update(&*bytes);
            }
            let passes = u64::from(flat.is_some()) + u64::from(tree.is_some());
            (self.check.progress)(passes * len as u64, self.total_work);
            match &tree {
                // Should all hashing threads be gone, the next buffer is missed.
                Some(tree) => drop(self.chunks.send(Chunk { root: Arc::clone(tree), number: chunk, buffer, len })),
                None => self.spare.push(buffer),
            }
            (chunk, at) = (chunk + 1, at + len as u64);
        }
        self.roots.extend(tree.map(|tree| (member, tree)));
        flat.map_or(Ok(()), |hasher| expect_blob(member, Digest::from(hasher)))
    }

    /// A buffer of [`CHUNK`] bytes, waiting until a hashing thread gives one back.
    fn buffer(&mut self) -> io::Result<Vec<u8>> {
        self.spare.pop().map_or_else(|| self.free.recv().map_err(|_| stopped()), Ok)
    }

    fn fill(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), VerifyError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) => {
                    let (expected, found) = (self.release.frame().total(), offset + filled as u64);
                    return Err(VerifyError::Truncated { expected, found });
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(VerifyError::io(format!("the artifact at offset {offset}"))(error)),
            }
        }
        Ok(())
    }

    fn expect_end(&mut self, expected: u64) -> Result<(), VerifyError> {
        let mut one = [0];
        loop {
            match self.source.read(&mut one) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err(VerifyError::Extended { expected }),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(VerifyError::io("what follows the artifact")(error)),
            }
        }
    }
}
