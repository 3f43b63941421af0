//! Installing wheels into a tree, as pip would but the same each time.

use super::{
    FILE_DATE, InstallError, Scheme,
    bytecode::Bytecode,
    error::WheelError,
    opened::{Opened, Place},
    record::{self, Recorded},
    unpacked::Unpacked,
};
use crate::{
    layer::tree::{Content, Meta, Node, Packed, Tree, TreePath, Unpack},
    source::{
        debian::spool::Spool,
        wheels::{
            LockedWheel,
            archive::{ArchiveError, Member},
            target::Target,
        },
    },
    store::Store,
};
use gap_format::Digest;
use rawzip::FileReader;
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::Arc,
};

/// Longest program of a wheel that is taken into memory, in bytes; no script is longer.
const SCRIPT_MAX: u64 = 64 << 20;
/// How scripts name the interpreter that they are to get (PEP 427).
const PLACEHOLDER: &[u8] = b"#!python";
/// What `RECORD` says of files that it does not vouch for.
const NOTHING: Recorded = Recorded { sha256: None, size: None };

/// A wheel's files where they belong.
#[derive(Debug)]
pub struct Installed {
    /// The files, without `RECORD`.
    files: BTreeMap<TreePath, File>,
    /// The project's own directory.
    info: TreePath,
    /// Digest of the wheel.
    pub sha256: Digest,
}

#[derive(Debug)]
struct File {
    content: Content,
    mode: u32,
    mtime: i64,
    recorded: Recorded,
}

/// Installs these wheels, which must be in the store; results in their order. Files stay packed until they are read, and are
/// compared with `RECORD` then; what has to be unpacked goes into the spool.
///
/// # Errors
/// [`InstallError`] for the first wheel, in their order, that cannot be.
pub fn install(
    wheels: &[&LockedWheel],
    target: &Target,
    scheme: &Scheme,
    store: &Store,
    spool: &Spool,
) -> Result<Vec<Installed>, InstallError> {
    let install = |row: &&LockedWheel| {
        let wheel = Arc::new(open(row, target, store)?);
        let of_wheel = |source| InstallError::Wheel { file: row.file.clone(), source };
        let placed = (0..wheel.opened.archive.members().len()).map(|number| place(&wheel, number, row, scheme, spool));
        let files = placed.filter_map(Result::transpose).collect::<Result<_, _>>().map_err(of_wheel)?;
        finish(row, &wheel.opened, files, scheme)
    };
    wheels.iter().map(install).collect()
}

/// A wheel in the store.
#[derive(Debug)]
struct Stored {
    opened: Opened<FileReader>,
    /// What it unpacks to, if that is kept.
    unpacked: Option<Unpacked>,
}

fn open(row: &LockedWheel, target: &Target, store: &Store) -> Result<Stored, InstallError> {
    let file =
        store.open_source(&row.sha256, Some(row.size))?.ok_or_else(|| InstallError::Missing(row.file.clone()))?;
    let opened = Opened::new(FileReader::from(file), row.size, row, target)
        .map_err(|source| InstallError::Wheel { file: row.file.clone(), source })?;
    let members = opened.archive.members();
    let is_wanted = |member: &Member| !matches!(opened.place(member), Ok(Place::Dropped));
    let wanted = members.iter().enumerate().filter(|(_, member)| is_wanted(member)).map(|(number, _)| number).collect();
    let unpacked = Unpacked::new(store, &row.sha256, members, wanted)?;
    Ok(Stored { opened, unpacked })
}

/// Says where a file goes; `None` if nowhere.
fn place(
    wheel: &Arc<Stored>,
    number: usize,
    row: &LockedWheel,
    scheme: &Scheme,
    spool: &Spool,
) -> Result<Option<(TreePath, File)>, WheelError> {
    let Some(member) = wheel.opened.archive.members().get(number) else { return Ok(None) };
    let (path, is_script) = match wheel.opened.place(member)? {
        Place::Dropped => return Ok(None),
        Place::Site(rest) => (scheme.site.join(rest)?, false),
        Place::Script(rest) => (scheme.scripts.join(rest)?, true),
        Place::Header(rest) => (scheme.headers.join(row.name.as_str())?.join(rest)?, false),
        Place::Data(rest) => (scheme.data.join(rest)?, false),
    };
    let source = PackedMember { wheel: Arc::clone(wheel), file: row.file.clone(), number };
    let content = if is_script && member.size <= SCRIPT_MAX {
        let mut data = Vec::new();
        let damaged = |source| WheelError::Io { path: member.path.escape_debug().to_string(), source };
        source.reader().and_then(|mut reader| reader.read_to_end(&mut data)).map_err(damaged)?;
        Content::bytes(data)
    } else {
        Content::Packed(Arc::new(Packed::new(Box::new(source), member.size, spool.clone())))
    };
    let mode = if is_script || member.executable { 0o755 } else { 0o644 };
    let sha256 = wheel.opened.record.get(&member.path).and_then(|recorded| recorded.sha256.clone());
    let recorded = Recorded { sha256, size: Some(member.size) };
    let file = File { content, mode, mtime: member.mtime.unwrap_or(FILE_DATE), recorded };
    Ok(Some((path, if is_script { with_interpreter(file, scheme)? } else { file })))
}

/// A file of a wheel.
#[derive(Debug)]
struct PackedMember {
    wheel: Arc<Stored>,
    /// The wheel's file name.
    file: String,
    /// Which member it is.
    number: usize,
}

impl Unpack for PackedMember {
    fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
        // The digest that `RECORD` has says more than the archive's own checksum.
        self.unpacking(Some(Sha256::new()))
    }

    fn unchecked(&self) -> io::Result<Box<dyn Read + '_>> {
        self.unpacking(None)
    }
}

impl PackedMember {
    fn unpacking(&self, hasher: Option<Sha256>) -> io::Result<Box<dyn Read + '_>> {
        let Stored { opened, unpacked } = &*self.wheel;
        let member = opened.archive.members().get(self.number).ok_or(io::ErrorKind::NotFound)?;
        let done = 0;
        match unpacked.as_ref().and_then(|unpacked| unpacked.reader(self.number, member.size)) {
            Some(source) => Ok(Box::new(Unpacking { source, hasher, of: self, member, done, was_kept: true })),
            None => {
                let source = opened.archive.unchecked_reader(member).map_err(io::Error::other)?;
                Ok(Box::new(Unpacking { source, hasher, of: self, member, done, was_kept: false }))
            }
        }
    }
}

/// Unpacks a file; with a hasher, compares it with `RECORD` before its last bytes are out, and keeps it.
struct Unpacking<'m, R> {
    source: R,
    hasher: Option<Sha256>,
    /// Bytes read.
    done: u64,
    /// Whether it was unpacked before.
    was_kept: bool,
    of: &'m PackedMember,
    member: &'m Member,
}

impl<R: Read> Read for Unpacking<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let PackedMember { wheel, file, number } = self.of;
        let refused = |source: WheelError| {
            io::Error::new(io::ErrorKind::InvalidData, InstallError::Wheel { file: file.clone(), source })
        };
        let damaged = |source| ArchiveError::Read { member: self.member.path.escape_debug().to_string(), source };
        let read = self.source.read(buf).map_err(|error| refused(damaged(error).into()))?;
        let Some(hasher) = &mut self.hasher else { return Ok(read) };
        let data = buf.get(..read).unwrap_or_default();
        hasher.update(data);
        if let Some(unpacked) = wheel.unpacked.as_ref().filter(|_| !self.was_kept) {
            unpacked.take(*number, self.done, data);
        }
        self.done += read as u64;
        if self.done == self.member.size || (read == 0 && !buf.is_empty()) {
            let found = record::encoded(&hasher.clone().into());
            let recorded = wheel.opened.record.get(&self.member.path).and_then(|recorded| recorded.sha256.as_ref());
            match (recorded == Some(&found), &wheel.unpacked) {
                (true, Some(unpacked)) if !self.was_kept => unpacked.finish(*number),
                (true, _) => {}
                (false, Some(unpacked)) if self.was_kept => {
                    unpacked.discard();
                    return Err(refused(WheelError::Damaged(self.member.path.escape_debug().to_string())));
                }
                (false, _) => return Err(refused(WheelError::Changed(self.member.path.escape_debug().to_string()))),
            }
        }
        Ok(read)
    }
}

/// A script whose first line names the interpreter of the scheme, if it asks for that.
fn with_interpreter(file: File, scheme: &Scheme) -> Result<File, WheelError> {
    let Content::Bytes(data) = &file.content else { return Ok(file) };
    let Some(rest) = data.strip_prefix(PLACEHOLDER) else { return Ok(file) };
    // `#!pythonw` and arguments: the rest of the first word is dropped, what follows it stays.
    let word_end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    let rest = rest.get(word_end..).unwrap_or_default();
    let data = [b"#!", scheme.interpreter.as_bytes(), rest].concat();
    Ok(File { recorded: record::of_bytes(&data), content: Content::bytes(data), ..file })
}

/// Adds what the installer writes: programs, and notes that it was here.
fn finish(
    row: &LockedWheel,
    wheel: &Opened<FileReader>,
    mut files: BTreeMap<TreePath, File>,
    scheme: &Scheme,
) -> Result<Installed, InstallError> {
    let joined =
        |directory: &TreePath, name: &str| directory.join(name).map_err(|reason| InstallError::path(name, reason));
    let written = |data: &[u8], mode| File {
        recorded: record::of_bytes(data),
        content: Content::bytes(data),
        mode,
        mtime: FILE_DATE,
    };
    for program in &wheel.programs {
        let script = program.script(&scheme.interpreter);
        files.insert(joined(&scheme.scripts, &program.name)?, written(script.as_bytes(), 0o755));
    }
    let info = joined(&scheme.site, &wheel.info)?;
    files.insert(joined(&info, "INSTALLER")?, written(b"gapimage\n", 0o644));
    if row.requested {
        files.insert(joined(&info, "REQUESTED")?, written(b"", 0o644));
    }
    Ok(Installed { files, info, sha256: row.sha256 })
}

impl Installed {
    /// The Python sources among the modules, sorted.
    pub fn sources(&self, scheme: &Scheme) -> Vec<(&TreePath, &Content)> {
        let is_source = |path: &TreePath| path.is_within(&scheme.site) && path.as_bytes().ends_with(b".py");
        let sources = self.files.iter().filter(|(path, _)| is_source(path));
        sources.map(|(path, file)| (path, &file.content)).collect()
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.values().map(|file| file.content.len()).sum()
    }

    /// Lays the files, what `bytecode` has for its sources, and `RECORD` into `tree`.
    ///
    /// # Errors
    /// [`InstallError::Clash`] where a file and a directory of the same name meet.
    pub fn lay(&self, tree: &mut Tree, bytecode: &Bytecode, scheme: &Scheme) -> Result<(), InstallError> {
        for (path, file) in &self.files {
            let meta = Meta::root_owned(file.mode, file.mtime);
            put(tree, path, Node::File { meta, content: file.content.clone() }, scheme)?;
        }
        let mut lines: BTreeMap<String, Recorded> =
            self.files.iter().map(|(path, file)| (scheme.recorded(path), file.recorded.clone())).collect();
        for (number, (source, _)) in self.sources(scheme).into_iter().enumerate() {
            let Some((compiled, content)) = scheme.compiled(source).zip(bytecode.of(number)) else { continue };
            let node = Node::File { meta: Meta::root_owned(0o644, FILE_DATE), content: content.clone() };
            put(tree, &compiled, node, scheme)?;
            // As pip has it: bytecode may be made anew, so its digest proves nothing.
            lines.insert(scheme.recorded(&compiled), NOTHING);
        }
        let record = self.info.join("RECORD").map_err(|reason| InstallError::path("RECORD", reason))?;
        lines.insert(scheme.recorded(&record), NOTHING);
        let content = Content::bytes(record::write(&lines).into_bytes());
        put(tree, &record, Node::File { meta: Meta::root_owned(0o644, FILE_DATE), content }, scheme)
    }
}

/// Puts a file into the tree, and the directories above it that belong to wheels.
fn put(tree: &mut Tree, path: &TreePath, node: Node, scheme: &Scheme) -> Result<(), InstallError> {
    let mut above = path.parent();
    while let Some(directory) = above.filter(|directory| !scheme.is_own_directory(directory)) {
        match tree.get(&directory) {
            Some(Node::Directory { .. }) => break,
            Some(_) => return Err(InstallError::Clash { path: directory }),
            None => {}
        }
        above = directory.parent();
        tree.insert(directory, Node::Directory { meta: Meta::root_owned(0o755, FILE_DATE), opaque: false });
    }
    match tree.insert(path.clone(), node) {
        Some(Node::Directory { .. }) => Err(InstallError::Clash { path: path.clone() }),
        _ => Ok(()),
    }
}
