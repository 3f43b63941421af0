//! One pass over data: what is read once is written, hashed flat and treed at the same time.
//!
//! The caller's thread reads; some write, one computes the flat SHA-256 (unless it is known) and one the verity tree. Chunks are shared between
//! them and recycled, so that nothing is copied and memory does not grow with the data.

use super::{
    Known,
    chunk::{Chunk, Filling, IN_FLIGHT, Pool},
    output::{Gathered, Output},
};
use crate::layer::sink::Sink;
use gap_format::{
    Digest, Slice,
    verity::{TreeBuilder, tree_len},
};
use sha2::{Digest as _, Sha256};
use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, Scope, ScopedJoinHandle},
};

/// Threads that write: past the page cache each waits for the disk, which should not wait for them.
const WRITERS: usize = 4;

/// Where a blob and its verity tree go.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The file that both are written to.
    pub out: &'a Output<'a>,
    /// First byte of the blob in it.
    pub offset: u64,
    /// Length of the blob.
    pub len: u64,
    /// From which of the blob's bytes on nothing is read again soon.
    pub bulk: u64,
    /// First byte of its verity tree.
    pub tree: u64,
}

/// The end that is handed to whatever produces the blob.
pub struct Feed<'a> {
    /// Bytes passed on.
    at: u64,
    /// Bytes still to come.
    remaining: u64,
    filling: Option<Filling>,
    pool: &'a Pool,
    workers: Vec<SyncSender<Arc<Chunk>>>,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Feed<'_> {
    fn pass_on(&mut self) -> io::Result<()> {
        let Some(filling) = self.filling.take() else { return Ok(()) };
        let chunk = self.pool.seal(filling, self.at);
        let len = chunk.bytes().len() as u64;
        for worker in &self.workers {
            // A worker is gone only when it failed; its own error is the one to report.
            worker.send(Arc::clone(&chunk)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        self.at += len;
        (self.progress)(len);
        Ok(())
    }

    /// The chunk being filled, with room in it.
    fn filling(&mut self) -> io::Result<&mut Filling> {
        if self.filling.as_ref().is_some_and(Filling::is_full) {
            self.pass_on()?;
        }
        match &mut self.filling {
            Some(filling) => Ok(filling),
            none => Ok(none.insert(self.pool.empty().ok_or(io::ErrorKind::BrokenPipe)?)),
        }
    }
}

impl Sink for Feed<'_> {
    fn room(&mut self) -> io::Result<&mut [u8]> {
        let remaining = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        if remaining == 0 {
            let message = "a blob became longer than it was when its place was reserved";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let room = self.filling()?.room();
        let wanted = room.len().min(remaining);
        Ok(room.split_at_mut(wanted).0)
    }

    fn advance(&mut self, count: usize) {
        if let Some(filling) = &mut self.filling {
            filling.advance(count);
            self.remaining -= count as u64;
        }
    }
}

impl Write for Feed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.push(buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets `produce` make a blob of exactly `place.len` bytes in its place, and says what it is; a `digest` that is known
/// already is not computed again. The bytes travel in memory of `pool`.
///
/// # Errors
/// What the system said; [`io::ErrorKind::InvalidData`] when more or fewer bytes came than were announced.
pub fn ingest(
    place: Place<'_>,
    pool: &Pool,
    digest: Option<Digest>,
    progress: &(dyn Fn(u64) + Sync),
    produce: impl FnOnce(&mut Feed<'_>) -> io::Result<()>,
) -> io::Result<Known> {
    let (write_in, write_out) = sync_channel(IN_FLIGHT);
    let write_out = Mutex::new(Some(write_out));
    thread::scope(|scope| {
        let mut workers = vec![write_in];
        let writing: Vec<_> = (0..WRITERS).map(|_| scope.spawn(|| write(place, &write_out))).collect();
        let flat = digest.is_none().then(|| worker(scope, &mut workers, |chunks| Ok(hash_flat(&chunks))));
        let tree = worker(scope, &mut workers, move |chunks| hash_tree(place, &chunks));
        let mut feed = Feed { at: 0, remaining: place.len, filling: None, pool, workers, progress };
        let produced = produce(&mut feed).and_then(|()| feed.pass_on());
        let remaining = feed.remaining;
        drop(feed);
        let worked = (|| {
            let written = writing.into_iter().map(end).fold(Ok(()), Result::and);
            let (flat, root) = (flat.map(end).transpose(), end(tree));
            // What could not be written says more than the threads that missed the rest.
            written?;
            let digest = digest.or(flat?).ok_or(io::ErrorKind::BrokenPipe)?;
            Ok(Known { digest, root: root? })
        })();
        match (produced, worked) {
            // A worker that failed hung up; its own error says why.
            (Err(error), Err(cause)) if error.kind() == io::ErrorKind::BrokenPipe => Err(cause),
            (Err(error), _) => Err(error),
            (Ok(()), _) if remaining != 0 => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a blob ended {remaining} bytes before the length that was reserved for it"),
            )),
            (Ok(()), worked) => worked,
        }
    })
}

/// Starts a thread that gets every chunk.
fn worker<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    workers: &mut Vec<SyncSender<Arc<Chunk>>>,
    work: impl FnOnce(Receiver<Arc<Chunk>>) -> io::Result<T> + Send + 'scope,
) -> ScopedJoinHandle<'scope, io::Result<T>> {
    let (send, receive) = sync_channel(IN_FLIGHT);
    workers.push(send);
    scope.spawn(move || work(receive))
}

fn end<T>(worker: ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    worker.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the packer died")))
}

/// Writes what comes, in turn with others who do the same.
fn write(place: Place<'_>, chunks: &Mutex<Option<Receiver<Arc<Chunk>>>>) -> io::Result<()> {
    let lock = || chunks.lock().unwrap_or_else(PoisonError::into_inner);
    let next = || lock().as_ref().and_then(|chunks| chunks.recv().ok());
    while let Some(chunk) = next() {
        let offset = place.offset + chunk.at;
        let written = if chunk.at < place.bulk {
            place.out.write(chunk.bytes(), offset)
        } else {
            place.out.write_bulk(chunk.bytes(), offset)
        };
        if let Err(error) = written {
            // Hangs up, so that the rest is not read in vain.
            lock().take();
            return Err(error);
        }
    }
    Ok(())
}

fn hash_flat(chunks: &Receiver<Arc<Chunk>>) -> Digest {
    let mut hasher = Sha256::new();
    while let Ok(chunk) = chunks.recv() {
        hasher.update(chunk.bytes());
    }
    hasher.into()
}

fn hash_tree(place: Place<'_>, chunks: &Receiver<Arc<Chunk>>) -> io::Result<Digest> {
    let blocks = Gathered::new(Slice::new(place.out.file(), place.tree, tree_len(place.len)));
    let mut builder = TreeBuilder::new(place.len, &blocks)?;
    while let Ok(chunk) = chunks.recv() {
        builder.update(chunk.bytes())?;
    }
    let root = builder.finish()?;
    blocks.flush()?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::super::chunk::CHUNK;
    use super::*;
    use std::{fs::File, os::unix::fs::FileExt};

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn one_pass_writes_hashes_and_trees() {
        let data = sample(CHUNK * 12 + 3 * 4096);
        let (len, tree) = (data.len() as u64, 4096 + data.len() as u64);
        for bulk in [0, 4096, len] {
            let file = tempfile::tempfile().unwrap();
            let out = Output::new(&file);
            let place = Place { out: &out, offset: 4096, len, bulk, tree };
            let fill = |feed: &mut Feed<'_>| {
                feed.push(&data[..5000])?;
                feed.write_all(&data[5000..9000])?;
                feed.copy(&data, 9000, len - 9000)
            };
            let made = ingest(place, &Pool::new(), None, &|_| (), fill).unwrap();
            assert_eq!(made.digest, Digest::of(&data));
            let mut blocks = vec![0; tree_len(len) as usize];
            file.read_exact_at(&mut blocks, tree).unwrap();
            assert_eq!(made.root, Digest::of(&blocks[..4096]));
            // A digest that is known is believed, but the root is worked out from the bytes.
            let said = Digest::of(b"said");
            assert_eq!(
                ingest(place, &Pool::new(), Some(said), &|_| (), fill).unwrap(),
                Known { digest: said, root: made.root }
            );
            let mut back = vec![0; data.len()];
            file.read_exact_at(&mut back, 4096).unwrap();
            assert!(back == data, "bulk from {bulk}");
        }
    }

    #[test]
    fn a_blob_of_another_length_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let out = Output::new(&file);
        let place = Place { out: &out, offset: 0, len: 8192, bulk: 0, tree: 8192 };
        for len in [0, 8191, 8193] {
            let error = ingest(place, &Pool::new(), None, &|_| (), |feed| feed.push(&sample(len))).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
    }

    #[test]
    fn what_cannot_be_written_ends_the_pass_with_the_systems_reason() {
        let file = File::open("/dev/null").unwrap();
        let out = Output::new(&file);
        let len = 64 * CHUNK as u64;
        for bulk in [len, 0] {
            let place = Place { out: &out, offset: 0, len, bulk, tree: len };
            let error = ingest(place, &Pool::new(), None, &|_| (), |feed| feed.zeros(len)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::BADF.raw_os_error()), "{error}");
        }
    }
}
