//! `.deb` files (deb(5)): an ar archive of `debian-binary`, `control.tar` and `data.tar`.

use super::{
    LockedPackage,
    compression::{Bounded, Compression, decompress},
    data_tar::{TarError, read_tree},
    deb822::{self, Deb822Error},
    spool::Spool,
};
use crate::{
    hashing::Hashing,
    layer::tree::{PathError, Tree, TreePath},
    parallel::try_map,
};
use gap_format::Digest;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    num::{NonZeroU32, NonZeroUsize},
    path::Path,
    thread::available_parallelism,
};

/// A packed `data.tar` of this many bytes is decompressed by several threads; others keep the cores busy by their number.
const IN_PARALLEL: u64 = 32 << 20;

/// The control fields of a package, as its `control` file writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    text: String,
}

impl Control {
    /// Takes the text of a `control` file: exactly one paragraph with name, version, architecture.
    ///
    /// # Errors
    /// [`DebError::Control`] or [`DebError::Syntax`].
    pub fn new(text: String) -> Result<Self, DebError> {
        match deb822::parse(&text)?.as_slice() {
            [paragraph] => {
                for field in ["Package", "Version", "Architecture"] {
                    if paragraph.get(field).is_none_or(str::is_empty) {
                        return Err(DebError::Control(field));
                    }
                }
            }
            _ => return Err(DebError::Control("(one paragraph)")),
        }
        Ok(Self { text })
    }

    /// The text, for dpkg's database.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut parser = deb822::Parser::new(&self.text);
        let mut paragraph = deb822::Paragraph::default();
        parser.read(&mut paragraph).ok()?;
        paragraph.get(name)
    }
}

/// A member of `control.tar` other than `control`: maintainer scripts, conffiles, triggers, …
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// Permission bits.
    pub mode: u32,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// An unpacked package.
#[derive(Debug, Clone)]
pub struct Deb {
    /// The control fields.
    pub control: Control,
    /// `preinst`, `postinst`, `prerm`, `postrm`, `conffiles`, `triggers`, `md5sums`, … by name.
    pub control_files: BTreeMap<String, ControlFile>,
    /// The files; contents lie in the spool.
    pub tree: Tree,
}

impl Deb {
    /// The configuration files by path; those that `conffiles` marks with a flag are left out.
    ///
    /// # Errors
    /// [`PathError`] if one leaves the tree.
    pub fn conffiles(&self) -> Result<Vec<TreePath>, PathError> {
        let data = self.control_files.get("conffiles").map(|file| file.data.as_slice()).unwrap_or_default();
        let lines = data.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        lines.filter(|line| line.starts_with(b"/")).map(TreePath::new).collect()
    }
}

/// How much a package may unpack to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of `data.tar`, whatever the package says about itself.
    pub data: u64,
    /// Bytes of `control.tar`.
    pub control: u64,
}

impl Default for Limits {
    /// 32 GiB and 64 MiB.
    fn default() -> Self {
        Self { data: 32 << 30, control: 64 << 20 }
    }
}

impl Limits {
    /// `Installed-Size` counts every file as at least 1 KiB; twice that and 64 MiB leave room for
    /// tar headers and for packages that were measured on another file system.
    fn for_data(&self, control: &Control) -> u64 {
        let installed = control.get("Installed-Size").and_then(|size| size.parse::<u64>().ok());
        let expected = installed.unwrap_or(256 << 10).saturating_mul(2 << 10).saturating_add(64 << 20);
        expected.min(self.data)
    }
}

/// Why a `.deb` cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// Reading failed; also: truncated, malformed, decompresses to too much.
    #[error("{during}: {source}")]
    Io {
        /// What was being read.
        during: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// It is not an ar archive, or not of the members that deb(5) demands.
    #[error("not a Debian package: {0}")]
    Format(String),
    /// The control file is not deb822.
    #[error("control file: {0}")]
    Syntax(#[from] Deb822Error),
    /// The control file lacks something.
    #[error("control file: {0} is missing")]
    Control(&'static str),
    /// The tar inside is not acceptable.
    #[error("{during}: {source}")]
    Tar {
        /// Which tar.
        during: &'static str,
        /// Why.
        source: TarError,
    },
    /// It holds another package than it should.
    #[error("it holds {found}, not {expected}; fetch it again")]
    Identity {
        /// `name version arch` that were wanted.
        expected: String,
        /// `name version arch` that it holds.
        found: String,
    },
    /// Its digest is not the locked one.
    #[error("it has digest {found}, but {expected} is locked; run the same command again, which fetches it anew")]
    Digest {
        /// What the lock says.
        expected: Digest,
        /// What was read.
        found: Digest,
    },
    /// One of several packages.
    #[error("cannot unpack {package}: {source}")]
    Package {
        /// Name and version.
        package: String,
        /// Why.
        source: Box<Self>,
    },
}

/// Unpacks one `.deb` in a single pass over `source`.
///
/// # Errors
/// [`DebError`]; what was written to the spool by then is lost with it.
pub fn unpack(source: impl Read + Send, spool: &Spool, limits: &Limits) -> Result<Deb, DebError> {
    let mut ar = ArReader::new(BufReader::with_capacity(64 << 10, source))?;
    let version = ar.member("debian-binary", |_, body| {
        let mut text = String::new();
        body.take(64).read_to_string(&mut text).map_err(reading("debian-binary"))?;
        Ok(text)
    })?;
    if !version.starts_with("2.") {
        return Err(DebError::Format(format!("its format is {:?}, not 2.0", version.trim_end())));
    }
    let (control, control_files) = ar.member("control.tar", |extension, body| {
        let tar = decompress(compression(extension)?, body, limits.control).map_err(reading("control.tar"))?;
        read_control(&tar)
    })?;
    let tree = ar.member("data.tar", |extension, body| {
        let threads = if body.limit() < IN_PARALLEL { NonZeroUsize::MIN } else { cores() };
        let threads = NonZeroU32::try_from(threads).unwrap_or(NonZeroU32::MIN);
        let data = compression(extension)?.parallel_reader(body, threads).map_err(reading("data.tar"))?;
        read_tree(Bounded::new(data, limits.for_data(&control)), spool)
            .map_err(|source| DebError::Tar { during: "data.tar", source })
    })?;
    ar.finish()?;
    Ok(Deb { control, control_files, tree })
}

fn cores() -> NonZeroUsize {
    available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn reading(during: &'static str) -> impl Fn(io::Error) -> DebError {
    move |source| DebError::Io { during, source }
}

fn compression(extension: &str) -> Result<Compression, DebError> {
    Compression::from_extension(extension)
        .ok_or_else(|| DebError::Format(format!("compression `{extension}` is not known (none, .gz, .xz, .zst are)")))
}

/// Reads the members of an ar archive in order.
struct ArReader<R> {
    inner: R,
}

impl<R: BufRead + Send> ArReader<R> {
    fn new(mut inner: R) -> Result<Self, DebError> {
        let mut magic = [0; 8];
        inner.read_exact(&mut magic).map_err(reading("ar magic"))?;
        if &magic != b"!<arch>\n" {
            return Err(DebError::Format("the ar magic is missing".to_owned()));
        }
        Ok(Self { inner })
    }

    /// Reads the next member, whose name must start with `stem`; `read` gets what follows the stem
    /// and the body. Members whose names start with `_` are skipped, as deb(5) demands.
    fn member<T>(
        &mut self,
        stem: &'static str,
        read: impl FnOnce(&str, &mut io::Take<&mut R>) -> Result<T, DebError>,
    ) -> Result<T, DebError> {
        let (name, size) = loop {
            let (name, size) = self.header()?.ok_or_else(|| DebError::Format(format!("member {stem} is missing")))?;
            if !name.starts_with('_') {
                break (name, size);
            }
            self.skip(size.saturating_add(size % 2))?;
        };
        let extension = name
            .strip_prefix(stem)
            .ok_or_else(|| DebError::Format(format!("member {stem} was expected, `{name}` found")))?;
        let mut body = (&mut self.inner).take(size);
        let result = read(extension, &mut body)?;
        // A decoder that stopped early leaves the rest unread; for a package none may be left.
        let rest = io::copy(&mut body, &mut io::sink()).map_err(reading(stem))?;
        if body.limit() > 0 {
            return Err(reading(stem)(io::ErrorKind::UnexpectedEof.into()));
        }
        if rest > 0 {
            return Err(DebError::Format(format!("member {stem} has {rest} bytes after its end")));
        }
        self.skip(size % 2)?;
        Ok(result)
    }

    /// Skips bytes; the end of the file may come earlier, as the last member's padding may be missing.
    fn skip(&mut self, size: u64) -> Result<(), DebError> {
        io::copy(&mut (&mut self.inner).take(size), &mut io::sink()).map_err(reading("ar member")).map(drop)
    }

    fn header(&mut self) -> Result<Option<(String, u64)>, DebError> {
        if self.inner.fill_buf().map_err(reading("ar header"))?.is_empty() {
            return Ok(None);
        }
        let mut header = [0; 60];
        self.inner.read_exact(&mut header).map_err(reading("ar header"))?;
        let text = str::from_utf8(&header).ok().filter(|text| text.is_ascii() && text.ends_with("`\n"));
        let malformed = || DebError::Format("an ar header is malformed".to_owned());
        let text = text.ok_or_else(malformed)?;
        let name = text.get(..16).map(str::trim_end).ok_or_else(malformed)?;
        let size = text.get(48..58).and_then(|size| size.trim_end().parse().ok()).ok_or_else(malformed)?;
        Ok(Some((name.strip_suffix('/').unwrap_or(name).to_owned(), size)))
    }

    fn finish(mut self) -> Result<(), DebError> {
        while let Some((name, size)) = self.header()? {
            if !name.starts_with('_') {
                return Err(DebError::Format(format!("member `{name}` follows data.tar")));
            }
            self.skip(size.saturating_add(size % 2))?;
        }
        Ok(())
    }
}

fn read_control(data: &[u8]) -> Result<(Control, BTreeMap<String, ControlFile>), DebError> {
    let failed = |source: io::Error| DebError::Tar { during: "control.tar", source: source.into() };
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(data);
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        let raw = entry.path_bytes().into_owned();
        let name = str::from_utf8(raw.strip_prefix(b"./").unwrap_or(&raw)).unwrap_or_default();
        if !kind.is_file() || name.is_empty() || name.contains('/') || name.contains('\0') || name == ".." {
            return Err(DebError::Format(format!(
                "control.tar holds `{}`, which is not a plain file",
                raw.escape_ascii()
            )));
        }
        let mut contents = Vec::new();
        let mode = entry.header().mode().map_err(failed)? & 0o777;
        entry.read_to_end(&mut contents).map_err(failed)?;
        if files.insert(name.to_owned(), ControlFile { mode, data: contents }).is_some() {
            return Err(DebError::Format(format!("control.tar holds `{name}` twice")));
        }
    }
    let control =
        files.remove("control").ok_or_else(|| DebError::Format("control.tar has no control file".to_owned()))?;
    let text =
        String::from_utf8(control.data).map_err(|_| DebError::Format("the control file is not UTF-8".to_owned()))?;
    Ok((Control::new(text)?, files))
}

/// A `.deb` on disk and what it must be.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// What the lock says of it.
    pub package: &'a LockedPackage,
    /// Where it lies.
    pub path: &'a Path,
}

/// Unpacks many packages on `threads` threads, large ones first; results in the order of `sources`.
/// Each file's digest, name, version and architecture are compared with the lock.
///
/// # Errors
/// [`DebError::Package`] for the first source, in their order, that failed.
pub fn unpack_all(
    sources: &[Source<'_>],
    spool: &Spool,
    limits: &Limits,
    threads: NonZeroUsize,
) -> Result<Vec<Deb>, DebError> {
    try_map(sources, threads, |source| source.package.size, |source| unpack_locked(source, spool, limits))
}

fn unpack_locked(source: &Source<'_>, spool: &Spool, limits: &Limits) -> Result<Deb, DebError> {
    let package = source.package;
    let attempt = || {
        let file = File::open(source.path).map_err(reading("opening the file"))?;
        let mut hashing = Hashing::new(file);
        let deb = unpack(&mut hashing, spool, limits);
        // What a failed attempt left unread decides between a bad package and a damaged file.
        io::copy(&mut hashing, &mut io::sink()).map_err(reading("reading the file"))?;
        let found = hashing.digest();
        if found != package.sha256 {
            return Err(DebError::Digest { expected: package.sha256, found });
        }
        let deb = deb?;
        check_identity(&deb.control, package)?;
        Ok(deb)
    };
    attempt().map_err(|source| DebError::Package {
        package: format!("{} {}", package.name, package.version),
        source: Box::new(source),
    })
}

fn check_identity(control: &Control, package: &LockedPackage) -> Result<(), DebError> {
    let found = ["Package", "Version", "Architecture"].map(|field| control.get(field).unwrap_or_default());
    let expected = [package.name.as_str(), &package.version, &package.arch];
    if found != expected {
        return Err(DebError::Identity { expected: expected.join(" "), found: found.join(" ") });
    }
    Ok(())
}
