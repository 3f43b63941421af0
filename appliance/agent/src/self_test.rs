//! The program of a self-test job: memory and disk, written, read back and compared.
//!
//! It runs in a container of the OS image like any job, with memory and room of its own. What it finds is
//! `self-test.json` in its output and a line for each part in its log. Exit code 0: all is well; 2: something is wrong, which
//! trying again would not mend.

use rustix::fs::{Advice, fadvise};
use serde::Serialize;
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    time::Instant,
};

/// The word on the command line by which the agent is started as this program; bytes of memory and of disk, and a
/// directory follow it.
pub const SELF_TEST: &str = "self-test";
/// The report.
pub const REPORT: &str = "self-test.json";
/// Length of the pieces in which the disk is written and read, in bytes.
const PIECE: usize = 1 << 20;
/// What memory is filled with, besides each word's own number: bits that alternate, their opposites, and noise.
const PATTERNS: [u64; 3] = [0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa, 0x9e37_79b9_7f4a_7c15];
/// Most faults that are listed.
const MAX_FAULTS: usize = 16;

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SelfTest {
    /// Main memory.
    pub memory: Part,
    /// The data volume.
    pub disk: Part,
}

/// What was found of one part.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Part {
    /// Bytes that were written and read back.
    pub bytes: u64,
    /// How often.
    pub passes: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What was not read as it was written; empty when all is well.
    pub faults: Vec<String>,
}

/// Tests so many bytes of memory and of the disk that `directory` is on, and leaves a report there.
///
/// # Errors
/// What the system said when there is no report.
pub fn run(memory: u64, disk: u64, directory: &Path) -> io::Result<SelfTest> {
    let found = SelfTest { memory: test_memory(memory), disk: test_disk(disk, directory) };
    for (name, part) in [("memory", &found.memory), ("disk", &found.disk)] {
        let verdict = if part.faults.is_empty() { "good".to_owned() } else { part.faults.join("; ") };
        println!("{name}: {} MiB, {} passes, {:.1} s: {verdict}", part.bytes >> 20, part.passes, part.seconds);
    }
    fs::write(directory.join(REPORT), serde_json::to_vec_pretty(&found)?)?;
    Ok(found)
}

impl SelfTest {
    /// Whether nothing was wrong.
    pub fn is_good(&self) -> bool {
        self.memory.faults.is_empty() && self.disk.faults.is_empty()
    }
}

fn test_memory(bytes: u64) -> Part {
    let begun = Instant::now();
    let words = usize::try_from(bytes / 8).unwrap_or(0);
    let mut memory: Vec<u64> = Vec::new();
    let mut part = Part { bytes, passes: PATTERNS.len() as u64, ..Part::default() };
    if memory.try_reserve_exact(words).is_err() {
        part.faults.push(format!("{bytes} bytes cannot be had"));
        return part;
    }
    memory.resize(words, 0);
    for pattern in PATTERNS {
        fill(&mut memory, pattern);
        look(&memory, pattern, &mut part.faults);
    }
    part.seconds = begun.elapsed().as_secs_f64();
    part
}

fn fill(memory: &mut [u64], pattern: u64) {
    for (number, word) in (0_u64..).zip(memory.iter_mut()) {
        *word = number ^ pattern;
    }
    // What follows reads memory, and not what the compiler remembers of it.
    std::hint::black_box(memory);
}

fn look(memory: &[u64], pattern: u64, faults: &mut Vec<String>) {
    for (number, word) in (0_u64..).zip(memory) {
        let wanted = number ^ pattern;
        if *word != wanted && faults.len() < MAX_FAULTS {
            faults.push(format!("word {number} is {word:#018x} and not {wanted:#018x}"));
        }
    }
}

fn test_disk(bytes: u64, directory: &Path) -> Part {
    let begun = Instant::now();
    let path = directory.join("self-test.bin");
    let mut part = Part { bytes, passes: 1, ..Part::default() };
    if let Err(error) = write_disk(bytes, &path).and_then(|()| read_disk(bytes, &path, &mut part.faults)) {
        part.faults.push(error.to_string());
    }
    if let Err(error) = fs::remove_file(&path) {
        part.faults.push(format!("removing what was written: {error}"));
    }
    part.seconds = begun.elapsed().as_secs_f64();
    part
}

fn write_disk(bytes: u64, path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut noise = Noise::default();
    let mut piece = vec![0; PIECE];
    let mut left = bytes;
    while left > 0 {
        noise.fill(&mut piece);
        let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        file.write_all(piece.get(..length).unwrap_or_default())?;
        left -= length as u64;
    }
    file.sync_all()
}

fn read_disk(bytes: u64, path: &Path, faults: &mut Vec<String>) -> io::Result<()> {
    let mut file = File::open(path)?;
    // From the disk, and not from the kernel's memory, which is what was just written.
    fadvise(&file, 0, None, Advice::DontNeed)?;
    let mut noise = Noise::default();
    let (mut piece, mut wanted) = (vec![0; PIECE], vec![0; PIECE]);
    let (mut left, mut at) = (bytes, 0_u64);
    while left > 0 {
        noise.fill(&mut wanted);
        let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let piece = piece.get_mut(..length).unwrap_or_default();
        file.read_exact(piece)?;
        if Some(&*piece) != wanted.get(..length) && faults.len() < MAX_FAULTS {
            faults.push(format!("the {length} bytes from {at} on are not read as they were written"));
        }
        left -= length as u64;
        at += length as u64;
    }
    Ok(())
}

/// Bytes without a pattern, the same each time (xorshift64*, Vigna 2016).
struct Noise(u64);

impl Default for Noise {
    fn default() -> Self {
        Self(0x2545_f491_4f6c_dd1d)
    }
}

impl Noise {
    fn fill(&mut self, piece: &mut [u8]) {
        for bytes in piece.chunks_exact_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            bytes.copy_from_slice(&self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_machine_is_found_sound_and_nothing_but_the_report_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let found = run(1 << 20, (2 << 20) + 5, directory.path()).unwrap();
        assert!(found.is_good(), "{found:?}");
        assert_eq!((found.memory.bytes, found.disk.bytes), (1 << 20, (2 << 20) + 5));
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [REPORT]);
    }

    #[test]
    fn one_flipped_bit_is_found_in_memory_and_on_the_disk() {
        let mut memory = vec![0; 1000];
        fill(&mut memory, PATTERNS[0]);
        memory[777] ^= 1 << 40;
        let mut faults = Vec::new();
        look(&memory, PATTERNS[0], &mut faults);
        assert!(matches!(faults.as_slice(), [fault] if fault.starts_with("word 777 is ")), "{faults:?}");

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        write_disk(3 << 20, &path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[(2 << 20) + 9] ^= 4;
        fs::write(&path, bytes).unwrap();
        let mut faults = Vec::new();
        read_disk(3 << 20, &path, &mut faults).unwrap();
        assert_eq!(faults, ["the 1048576 bytes from 2097152 on are not read as they were written"]);
        assert!(read_disk(4 << 20, &path, &mut faults).is_err(), "a file that became shorter");
    }
}
