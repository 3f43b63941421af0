//! Sets of shingles, in memory or in a file.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
};

/// Where the sets of shingles are.
pub(crate) trait Sets: Sync {
    /// How many shingles a set has.
    fn len(&self, id: u32) -> usize;

    /// Reads a set.
    fn read(&self, id: u32, into: &mut Vec<u32>) -> io::Result<()>;
}

/// Sets in memory.
#[derive(Default)]
pub(super) struct MemorySets {
    shingles: Vec<u32>,
    ends: Vec<usize>,
}

impl MemorySets {
    pub fn push(&mut self, set: &[u32]) {
        self.shingles.extend_from_slice(set);
        self.ends.push(self.shingles.len());
    }

    fn range(&self, id: u32) -> std::ops::Range<usize> {
        range(&self.ends, id)
    }
}

impl Sets for MemorySets {
    fn len(&self, id: u32) -> usize {
        self.range(id).len()
    }

    fn read(&self, id: u32, into: &mut Vec<u32>) -> io::Result<()> {
        into.clear();
        into.extend_from_slice(self.shingles.get(self.range(id)).unwrap_or_default());
        Ok(())
    }
}

fn range<N: Copy + Default>(ends: &[N], id: u32) -> std::ops::Range<N> {
    let id = id as usize;
    let start = id.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or_default();
    start..ends.get(id).copied().unwrap_or_default()
}

/// Writes sets to a file that has no name.
pub(crate) struct SetWriter {
    file: BufWriter<File>,
    ends: Vec<u64>,
}

impl SetWriter {
    pub fn new(file: File) -> Self {
        Self { file: BufWriter::with_capacity(1 << 18, file), ends: Vec::new() }
    }

    pub fn push(&mut self, set: &[u32]) -> io::Result<()> {
        for shingle in set {
            self.file.write_all(&shingle.to_le_bytes())?;
        }
        let end = self.ends.last().copied().unwrap_or_default() + set.len() as u64;
        self.ends.push(end);
        Ok(())
    }

    pub fn finish(self) -> io::Result<FileSets> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(FileSets { file, ends: self.ends })
    }
}

/// Sets in a file: memory stays free for what is compared often.
pub(crate) struct FileSets {
    file: File,
    ends: Vec<u64>,
}

const WIDTH: u64 = size_of::<u32>() as u64;

impl Sets for FileSets {
    fn len(&self, id: u32) -> usize {
        let range = range(&self.ends, id);
        (range.end - range.start) as usize
    }

    fn read(&self, id: u32, into: &mut Vec<u32>) -> io::Result<()> {
        let start = range(&self.ends, id).start;
        let mut bytes = vec![0; self.len(id) * WIDTH as usize];
        self.file.read_exact_at(&mut bytes, start * WIDTH)?;
        into.clear();
        into.extend(
            bytes.chunks_exact(WIDTH as usize).filter_map(|chunk| chunk.try_into().ok()).map(u32::from_le_bytes),
        );
        Ok(())
    }
}

/// Whether the similarity of two sorted sets reaches the threshold.
pub(super) fn alike(one: &[u32], two: &[u32], threshold: f64) -> bool {
    let shared = shared(one, two);
    let all = one.len() + two.len() - shared;
    all > 0 && shared as f64 >= threshold * all as f64
}

fn shared(one: &[u32], two: &[u32]) -> usize {
    let (mut one, mut two) = (one, two);
    let mut count = 0;
    while let ([a, rest_of_one @ ..], [b, rest_of_two @ ..]) = (one, two) {
        count += usize::from(a == b);
        if a <= b {
            one = rest_of_one;
        }
        if b <= a {
            two = rest_of_two;
        }
    }
    count
}

/// Whether sets of those lengths can be alike at all.
pub(super) fn can_be_alike(one: usize, two: usize, threshold: f64) -> bool {
    let (short, long) = (one.min(two), one.max(two));
    short > 0 && short as f64 >= threshold * long as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarity_is_shared_by_all() {
        assert!(alike(&[1, 2, 3, 4], &[1, 2, 3, 4, 5], 0.8));
        assert!(!alike(&[1, 2, 3, 4], &[1, 2, 3, 5], 0.8));
        assert!(alike(&[1, 2, 3], &[2, 3, 4], 0.5));
        assert!(!alike(&[], &[], 0.5));
        assert!(can_be_alike(4, 5, 0.8) && !can_be_alike(3, 4, 0.8) && !can_be_alike(0, 0, 0.5));
    }

    #[test]
    fn sets_come_back_from_a_file() {
        let sets: [&[u32]; 4] = [&[1, u32::MAX], &[], &[7], &[8, 9, 10]];
        let mut writer = SetWriter::new(tempfile::tempfile().unwrap());
        let mut memory = MemorySets::default();
        for set in sets {
            writer.push(set).unwrap();
            memory.push(set);
        }
        let file = writer.finish().unwrap();
        let mut read = vec![5];
        for (id, set) in sets.iter().enumerate() {
            for from in [&file as &dyn Sets, &memory] {
                from.read(id as u32, &mut read).unwrap();
                assert_eq!((read.as_slice(), from.len(id as u32)), (*set, set.len()));
            }
        }
    }
}
