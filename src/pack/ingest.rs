//! One pass over data: what is read once is written, hashed flat and treed at the same time.
//!
//! The caller's thread reads and writes; one thread computes the flat SHA-256, another the verity
//! tree. Chunks are shared between them and recycled, so memory does not grow with the data.

use gap_format::{Digest, Slice, verity::TreeBuilder};
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

/// Bytes that travel together; large enough that threads seldom wait for one another.
const CHUNK: usize = 2 << 20;
/// Chunks that may be under way.
const IN_FLIGHT: usize = 6;

/// Where a blob and, if it is block-mounted, its verity tree go.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The file that the blob is written to.
    pub file: &'a File,
    /// First byte of the blob in it.
    pub offset: u64,
    /// Length of the blob.
    pub len: u64,
    /// The file and the first byte of its verity tree, when it gets one.
    pub tree: Option<(&'a File, u64)>,
}

/// What was found out while a blob passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingested {
    /// SHA-256 of the blob.
    pub digest: Digest,
    /// Root of its verity tree, when it has one.
    pub root: Option<Digest>,
}

/// A buffer that goes back to its pool when the last thread has let go of it.
struct Chunk {
    data: Vec<u8>,
    pool: Sender<Vec<u8>>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // The pool is gone when the writer is; then the buffer may go too.
        let _ = self.pool.send(std::mem::take(&mut self.data));
    }
}

/// The writing end handed to whatever produces the blob.
struct Feed<'a> {
    out: &'a File,
    offset: u64,
    remaining: u64,
    filling: Vec<u8>,
    workers: Vec<SyncSender<Arc<Chunk>>>,
    pool: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Feed<'_> {
    fn pass_on(&mut self) -> io::Result<()> {
        if self.filling.is_empty() {
            return Ok(());
        }
        let next = self.pool.1.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
        let data = std::mem::replace(&mut self.filling, next);
        self.filling.clear();
        let len = data.len() as u64;
        let chunk = Arc::new(Chunk { data, pool: self.pool.0.clone() });
        for worker in &self.workers {
            // A worker is gone only when it failed; its own error is the one to report.
            worker.send(Arc::clone(&chunk)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        self.out.write_all_at(&chunk.data, self.offset)?;
        self.offset += len;
        (self.progress)(len);
        Ok(())
    }
}

impl Write for Feed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = CHUNK - self.filling.len();
        let (taken, _) = buf.split_at(buf.len().min(room));
        let count = taken.len() as u64;
        self.remaining = self.remaining.checked_sub(count).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "a blob became longer than it was when its place was reserved")
        })?;
        self.filling.extend_from_slice(taken);
        if self.filling.len() == CHUNK {
            self.pass_on()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets `produce` write a blob of exactly `place.len` bytes to its place.
///
/// # Errors
/// What the system said; [`io::ErrorKind::InvalidData`] when more or fewer bytes came than were announced.
pub fn ingest(
    place: Place<'_>,
    progress: &(dyn Fn(u64) + Sync),
    produce: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Ingested> {
    let pool = channel();
    for _ in 0..IN_FLIGHT {
        // Cannot fail: the receiver is alive in the same tuple.
        let _ = pool.0.send(Vec::with_capacity(CHUNK));
    }
    thread::scope(|scope| {
        let (flat_in, flat_out) = sync_channel(IN_FLIGHT);
        let flat = scope.spawn(move || hash_flat(&flat_out));
        let mut workers = vec![flat_in];
        let tree = match place.tree {
            Some((file, offset)) => {
                let (tree_in, tree_out) = sync_channel(IN_FLIGHT);
                workers.push(tree_in);
                let window = Slice::new(file, offset, gap_format::verity::tree_len(place.len));
                let builder = TreeBuilder::new(place.len, window)?;
                Some(scope.spawn(move || hash_tree(builder, &tree_out)))
            }
            None => None,
        };
        let mut feed = Feed {
            out: place.file,
            offset: place.offset,
            remaining: place.len,
            filling: Vec::with_capacity(CHUNK),
            workers,
            pool,
            progress,
        };
        let produced = produce(&mut feed).and_then(|()| feed.pass_on());
        let remaining = feed.remaining;
        drop(feed);
        let digest = flat.join().map_err(|_| io::Error::other("a hashing thread died"))?;
        let tree = tree.map(|tree| tree.join().map_err(|_| io::Error::other("a hashing thread died"))).transpose()?;
        match (produced, tree) {
            // A worker that failed hung up; its own error says why.
            (Err(error), Some(Err(cause))) if error.kind() == io::ErrorKind::BrokenPipe => Err(cause),
            (Err(error), _) => Err(error),
            (Ok(()), _) if remaining != 0 => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a blob ended {remaining} bytes before the length that was reserved for it"),
            )),
            (Ok(()), root) => Ok(Ingested { digest, root: root.transpose()? }),
        }
    })
}

fn hash_flat(chunks: &Receiver<Arc<Chunk>>) -> Digest {
    let mut hasher = Sha256::new();
    while let Ok(chunk) = chunks.recv() {
        hasher.update(&chunk.data);
    }
    hasher.into()
}

fn hash_tree(mut builder: TreeBuilder<Slice<&File>>, chunks: &Receiver<Arc<Chunk>>) -> io::Result<Digest> {
    while let Ok(chunk) = chunks.recv() {
        builder.update(&chunk.data)?;
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gap_format::verity::tree_len;

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn one_pass_writes_hashes_and_trees() {
        let data = sample(CHUNK * 2 + 3 * 4096);
        let out = tempfile::tempfile().unwrap();
        let place =
            Place { file: &out, offset: 4096, len: data.len() as u64, tree: Some((&out, 4096 + data.len() as u64)) };
        let done = ingest(place, &|_| (), |sink| sink.write_all(&data)).unwrap();
        assert_eq!(done.digest, Digest::of(&data));
        let mut tree = vec![0; tree_len(data.len() as u64) as usize];
        out.read_exact_at(&mut tree, place.tree.unwrap().1).unwrap();
        assert_eq!(done.root, Some(Digest::of(&tree[..4096])));
        let mut back = vec![0; data.len()];
        out.read_exact_at(&mut back, 4096).unwrap();
        assert!(back == data);
    }

    #[test]
    fn a_blob_of_another_length_is_refused() {
        let out = tempfile::tempfile().unwrap();
        let place = Place { file: &out, offset: 0, len: 8192, tree: Some((&out, 8192)) };
        for len in [8191, 8193] {
            let error = ingest(place, &|_| (), |sink| sink.write_all(&sample(len))).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
    }
}
