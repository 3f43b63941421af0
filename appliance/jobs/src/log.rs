//! What a job prints, kept in files of bounded size.
//!
//! A log is a directory of files named by the position of their first byte in all that was ever printed, so that a
//! reader goes on from a position whatever was thrown away meanwhile. A line is its time (milliseconds since 1970), `o`
//! or `e` for the stream, and the text.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Bytes after which another file begins.
const FILE_LEN: u64 = 8 << 20;
/// Files that are kept.
const FILES: usize = 4;
/// Longest line that is kept, in bytes; the rest of a longer one becomes further lines.
pub const MAX_LINE: usize = 16 << 10;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    const fn letter(self) -> char {
        match self {
            Self::Out => 'o',
            Self::Err => 'e',
        }
    }
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was printed, in milliseconds since 1970.
    pub at: i64,
    /// Where it came from.
    pub stream: Stream,
    /// The text without the line break; what is no UTF-8 is replaced.
    pub text: String,
}

/// Lines of a log from a position on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The lines, oldest first.
    pub lines: Vec<Line>,
    /// Where to go on reading.
    pub next: u64,
}

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    file: File,
    begin: u64,
    len: u64,
    /// Whether more may lie in the file than `len` says.
    is_torn: bool,
}

impl Log {
    /// Opens the log in `directory`, which is made where it is missing, to go on with it. What a power cut left of a line is
    /// ended, so that the next one does not become part of it.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let begin = files(directory)?.last().copied().unwrap_or(0);
        let mut file = open(directory, begin)?;
        let mut len = file.metadata()?.len();
        if len > 0 {
            let mut last = [0];
            file.read_exact_at(&mut last, len.saturating_sub(1))?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                len = len.saturating_add(1);
            }
        }
        Ok(Self { directory: directory.to_owned(), file, begin, len, is_torn: false })
    }

    /// Adds a line, or nothing of it.
    ///
    /// # Errors
    /// What the system said, for instance that the disk is full.
    pub fn append(&mut self, stream: Stream, text: &[u8], now: i64) -> io::Result<()> {
        self.mend()?;
        if self.len >= FILE_LEN {
            self.rotate()?;
        }
        let mut line = format!("{now} {} ", stream.letter()).into_bytes();
        line.extend(text.iter().map(|&byte| if byte == b'\n' { b' ' } else { byte }));
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            self.is_torn = true;
            // Else before the next one.
            drop(self.mend());
            return Err(error);
        }
        self.len = self.len.saturating_add(u64::try_from(line.len()).unwrap_or(0));
        Ok(())
    }

    /// Cuts off what a full disk let through of a line: the next one would become part of it.
    fn mend(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.len)?;
            self.is_torn = false;
        }
        Ok(())
    }

    /// Adds all that `source` gives until its end, line by line, and calls `added` after each.
    ///
    /// # Errors
    /// What reading said. A line that cannot be kept is dropped, so that the program does not stop at a full pipe.
    pub fn drain(
        log: &std::sync::Mutex<Self>,
        stream: Stream,
        source: impl Read,
        now: impl Fn() -> i64,
        added: impl Fn(),
    ) -> io::Result<()> {
        let mut reader = BufReader::new(source);
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
            if reader.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            drop(log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).append(stream, &line, now()));
            added();
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.begin = self.begin.saturating_add(self.len);
        self.file = open(&self.directory, self.begin)?;
        self.len = 0;
        let files = files(&self.directory)?;
        for old in files.iter().take(files.len().saturating_sub(FILES)) {
            fs::remove_file(path(&self.directory, *old))?;
        }
        Ok(())
    }
}

/// Reads at most `limit` lines of the log in `directory` that hold `search`, from position `from` on. What was thrown
/// away is passed over.
///
/// # Errors
/// What the system said; a log that does not exist is empty.
pub fn read(directory: &Path, from: u64, limit: usize, search: Option<&str>) -> io::Result<Page> {
    let begins = unless_gone(files(directory))?.unwrap_or_default();
    let mut page = Page { lines: Vec::new(), next: from };
    for begin in begins {
        // It may have been thrown away since it was listed.
        let Some(file) = unless_gone(File::open(path(directory, begin)))? else { continue };
        let end = begin.saturating_add(file.metadata()?.len());
        if end <= page.next && begin < page.next {
            continue;
        }
        page.next = page.next.max(begin);
        if !read_file(file, begin, limit, search, &mut page)? {
            break;
        }
    }
    Ok(page)
}

/// A position from which to read about the last `bytes` bytes of a log.
///
/// # Errors
/// What the system said.
pub fn tail(directory: &Path, bytes: u64) -> io::Result<u64> {
    let begins = unless_gone(files(directory))?.unwrap_or_default();
    let Some(&last) = begins.last() else { return Ok(0) };
    let len = unless_gone(fs::metadata(path(directory, last)))?.map_or(0, |metadata| metadata.len());
    let end = last.saturating_add(len);
    let first = begins.first().copied().unwrap_or(0);
    Ok(end.saturating_sub(bytes).max(first))
}

/// How many bytes of a log are kept.
///
/// # Errors
/// What the system said; a log that does not exist has none.
pub fn bytes(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0_u64;
    for begin in unless_gone(files(directory))?.unwrap_or_default() {
        let metadata = unless_gone(fs::metadata(path(directory, begin)))?;
        bytes = bytes.saturating_add(metadata.map_or(0, |metadata| metadata.len()));
    }
    Ok(bytes)
}

/// Reads on in one file. Returns whether there is room for more lines.
fn read_file(mut file: File, begin: u64, limit: usize, search: Option<&str>, page: &mut Page) -> io::Result<bool> {
    let skip = page.next.saturating_sub(begin);
    file.seek(SeekFrom::Start(skip.saturating_sub(1)))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    if skip > 0 {
        // A position within a line goes on after it.
        let mut before = [0];
        reader.read_exact(&mut before)?;
        if before != *b"\n" {
            let passed = reader.read_until(b'\n', &mut line)?;
            page.next = page.next.saturating_add(u64::try_from(passed).unwrap_or(0));
        }
    }
    while page.lines.len() < limit {
        line.clear();
        let len = reader.read_until(b'\n', &mut line)?;
        if len == 0 || line.last() != Some(&b'\n') {
            return Ok(true);
        }
        page.next = page.next.saturating_add(u64::try_from(len).unwrap_or(0));
        if let Some(line) = parse(&line)
            && search.is_none_or(|search| line.text.contains(search))
        {
            page.lines.push(line);
        }
    }
    Ok(false)
}

fn parse(line: &[u8]) -> Option<Line> {
    let text = String::from_utf8_lossy(line);
    let mut parts = text.trim_end_matches('\n').splitn(3, ' ');
    let at = parts.next()?.parse().ok()?;
    let stream = if parts.next()? == "e" { Stream::Err } else { Stream::Out };
    Some(Line { at, stream, text: parts.next()?.to_owned() })
}

fn path(directory: &Path, begin: u64) -> PathBuf {
    directory.join(format!("{begin:020}"))
}

fn open(directory: &Path, begin: u64) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path(directory, begin))
}

fn unless_gone<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Positions at which the files of a log begin, in order.
fn files(directory: &Path) -> io::Result<Vec<u64>> {
    let mut begins = Vec::new();
    for entry in fs::read_dir(directory)? {
        if let Some(begin) =
            entry?.file_name().to_str().filter(|name| name.len() == 20).and_then(|name| name.parse().ok())
        {
            begins.push(begin);
        }
    }
    begins.sort_unstable();
    Ok(begins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn texts(page: &Page) -> Vec<&str> {
        page.lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn lines_are_read_back_page_by_page_and_searched() {
        let directory = tempfile::tempdir().unwrap();
        let log = Mutex::new(Log::open(directory.path()).unwrap());
        Log::drain(&log, Stream::Out, &b"one\ntwo\nthree"[..], || 7, || ()).unwrap();
        let page = read(directory.path(), 0, 2, None).unwrap();
        assert_eq!((texts(&page), page.lines[0].at), (vec!["one", "two"], 7));
        let rest = read(directory.path(), page.next, 2, None).unwrap();
        assert_eq!(texts(&rest), ["three"]);
        assert_eq!(texts(&read(directory.path(), rest.next, 2, None).unwrap()), [""; 0]);
        assert_eq!(texts(&read(directory.path(), 0, 9, Some("t")).unwrap()), ["two", "three"]);
        assert_eq!(texts(&read(directory.path(), 1, 9, None).unwrap()), ["two", "three"], "within a line");
        assert_eq!(read(&directory.path().join("none"), 5, 9, None).unwrap().next, 5);
    }

    #[test]
    fn a_log_that_is_opened_again_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        Log::open(directory.path()).unwrap().append(Stream::Err, b"a\nb", 1).unwrap();
        Log::open(directory.path()).unwrap().append(Stream::Out, b"c", 2).unwrap();
        let page = read(directory.path(), 0, 9, None).unwrap();
        assert_eq!(texts(&page), ["a b", "c"]);
        assert_eq!((page.lines[0].stream, page.lines[1].stream), (Stream::Err, Stream::Out));
    }

    #[test]
    fn a_line_that_a_power_cut_left_unfinished_does_not_swallow_the_next() {
        let directory = tempfile::tempdir().unwrap();
        Log::open(directory.path()).unwrap().append(Stream::Out, b"whole", 1).unwrap();
        let file = path(directory.path(), 0);
        let mut torn = fs::read(&file).unwrap();
        torn.extend(b"2 o tor");
        fs::write(&file, torn).unwrap();
        let mut log = Log::open(directory.path()).unwrap();
        log.append(Stream::Err, b"next", 3).unwrap();
        assert_eq!(texts(&read(directory.path(), 0, 9, None).unwrap()), ["whole", "tor", "next"]);
    }

    /// Names the log to a process that may write little to one file.
    const CRAMPED: &str = "GAP_TEST_CRAMPED_LOG";

    /// That process: without the variable it is no test and does nothing.
    #[test]
    fn writer_without_room() {
        let Some(directory) = std::env::var_os(CRAMPED) else { return };
        let mut log = Log::open(Path::new(&directory)).unwrap();
        log.append(Stream::Out, b"first", 1).unwrap();
        assert!(log.append(Stream::Out, &[b'x'; 8192], 2).is_err());
        log.append(Stream::Out, b"next", 3).unwrap();
    }

    #[test]
    fn a_line_that_finds_no_room_does_not_swallow_the_next() {
        let directory = tempfile::tempdir().unwrap();
        // Blocks of 512 or 1024 bytes: less than the long line in either case.
        let script = r#"trap '' XFSZ; ulimit -f 4; exec "$0" --exact log::tests::writer_without_room"#;
        let program = std::env::current_exe().unwrap();
        let mut shell = std::process::Command::new("sh");
        let done = shell.arg("-c").arg(script).arg(program).env(CRAMPED, directory.path()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        let page = read(directory.path(), 0, 9, None).unwrap();
        assert_eq!(texts(&page), ["first", "next"]);
    }

    #[test]
    fn a_file_that_is_thrown_away_while_it_is_read_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        Log::open(directory.path()).unwrap().append(Stream::Out, b"kept", 1).unwrap();
        // It is listed, and cannot be opened: its name leads nowhere.
        std::os::unix::fs::symlink(directory.path().join("gone"), path(directory.path(), 4096)).unwrap();
        assert_eq!(texts(&read(directory.path(), 0, 9, None).unwrap()), ["kept"]);
        assert_eq!(tail(directory.path(), 0).unwrap(), 4096);
    }

    #[test]
    fn old_files_go_and_positions_stay() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path()).unwrap();
        let long = vec![b'x'; 1 << 20];
        for n in 0..48 {
            log.append(Stream::Out, &long, n).unwrap();
        }
        let begins = files(directory.path()).unwrap();
        assert!(begins.len() <= FILES && begins[0] > 0, "{begins:?}");
        let page = read(directory.path(), 0, 1, None).unwrap();
        assert!(page.lines[0].at > 0 && page.next > begins[0]);
        let end = tail(directory.path(), 2 << 20).unwrap();
        assert_eq!(read(directory.path(), end, 9, None).unwrap().lines.last().unwrap().at, 47);
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let directory = tempfile::tempdir().unwrap();
        let log = Mutex::new(Log::open(directory.path()).unwrap());
        Log::drain(&log, Stream::Out, io::repeat(b'y').take(3 * MAX_LINE as u64), || 0, || ()).unwrap();
        assert_eq!(read(directory.path(), 0, 9, None).unwrap().lines.len(), 3);
    }
}
