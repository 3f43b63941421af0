//! Lines that wait in a file without name until it is known where they go.

use crate::Error;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write},
};

/// Takes lines.
pub(super) struct LineWriter(BufWriter<File>);

impl LineWriter {
    pub fn new(file: File) -> Self {
        Self(BufWriter::with_capacity(1 << 18, file))
    }

    /// A line has no line feed in it: JSON escapes them.
    pub fn push(&mut self, line: &str) -> io::Result<()> {
        self.0.write_all(line.as_bytes())?;
        self.0.write_all(b"\n")
    }

    pub fn finish(self) -> io::Result<Lines> {
        Ok(Lines(self.0.into_inner().map_err(io::IntoInnerError::into_error)?))
    }
}

/// Gives them back.
pub(super) struct Lines(File);

impl Lines {
    /// Calls `take` with each line, line feed included, in the order in which they came.
    pub fn each(&self, mut take: impl FnMut(usize, &[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let failed = || Error::io("read a temporary file");
        let mut file = &self.0;
        file.seek(SeekFrom::Start(0)).map_err(failed())?;
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(failed())? == 0 {
                return Ok(());
            }
            take(number, &line)?;
            number += 1;
        }
    }
}
