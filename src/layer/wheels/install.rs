//! Installing wheels into a tree, as pip would but the same each time.

use super::{
    FILE_DATE, InstallError, Scheme,
    error::WheelError,
    opened::{Opened, Place},
    record::{self, Recorded},
};
use crate::{
    hashing::Hashing,
    layer::tree::{Content, Meta, Node, Tree, TreePath},
    parallel::try_map,
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
use rawzip::FileReader;
use std::{collections::BTreeMap, io::Read, num::NonZeroUsize, thread::available_parallelism};

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
}

#[derive(Debug)]
struct File {
    content: Content,
    mode: u32,
    mtime: i64,
    recorded: Recorded,
}

/// A file and its place, if it has one.
type Placed = Option<(TreePath, File)>;

/// Installs these wheels, which must be in the store, on all cores; results in their order. Contents lie in the spool.
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
    let opened = wheels.iter().map(|row| open(row, target, store)).collect::<Result<Vec<_>, _>>()?;
    let members = opened.iter().enumerate();
    let jobs: Vec<(usize, &Member)> = members
        .flat_map(|(number, wheel)| wheel.archive.members().iter().map(move |member| (number, member)))
        .collect();
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let placed = try_map(
        &jobs,
        threads,
        |(_, member)| member.size,
        |&(number, member)| {
            let (Some(wheel), Some(row)) = (opened.get(number), wheels.get(number)) else { return Ok((number, None)) };
            place(wheel, member, row, scheme, spool)
                .map(|placed| (number, placed))
                .map_err(|source| InstallError::Wheel { file: row.file.clone(), source })
        },
    )?;
    let mut files: Vec<BTreeMap<TreePath, File>> = wheels.iter().map(|_| BTreeMap::new()).collect();
    for (number, placed) in placed {
        if let (Some((path, placed)), Some(files)) = (placed, files.get_mut(number)) {
            files.insert(path, placed);
        }
    }
    let whole = wheels.iter().zip(&opened).zip(files);
    whole.map(|((row, wheel), files)| finish(row, wheel, files, scheme)).collect()
}

fn open(row: &LockedWheel, target: &Target, store: &Store) -> Result<Opened<FileReader>, InstallError> {
    let file =
        store.open_source(&row.sha256, Some(row.size))?.ok_or_else(|| InstallError::Missing(row.file.clone()))?;
    Opened::new(FileReader::from(file), row.size, row, target)
        .map_err(|source| InstallError::Wheel { file: row.file.clone(), source })
}

/// Unpacks one file, checks it against `RECORD` and says where it goes; `None` if nowhere.
fn place(
    wheel: &Opened<FileReader>,
    member: &Member,
    row: &LockedWheel,
    scheme: &Scheme,
    spool: &Spool,
) -> Result<Placed, WheelError> {
    let (path, is_script) = match wheel.place(member)? {
        Place::Dropped => return Ok(None),
        Place::Site(rest) => (scheme.site.join(rest)?, false),
        Place::Script(rest) => (scheme.scripts.join(rest)?, true),
        Place::Header(rest) => (scheme.headers.join(row.name.as_str())?.join(rest)?, false),
        Place::Data(rest) => (scheme.data.join(rest)?, false),
    };
    let recorded = wheel.record.get(&member.path).cloned().unwrap_or(NOTHING);
    let mut source = Hashing::new(wheel.archive.reader(member)?);
    let damaged = |source| ArchiveError::Read { member: member.path.escape_debug().to_string(), source };
    let content = if is_script && member.size <= SCRIPT_MAX {
        let mut data = Vec::new();
        source.read_to_end(&mut data).map_err(damaged)?;
        Content::bytes(data)
    } else {
        spool.store(&mut source, member.size, &mut Vec::new()).map_err(damaged)?
    };
    // The archive's own checksum is compared at the end, which must be here.
    if source.read(&mut [0]).map_err(damaged)? != 0 {
        return Err(WheelError::Changed(member.path.escape_debug().to_string()));
    }
    let found = record::encoded(&source.digest());
    if recorded.sha256.as_ref() != Some(&found) {
        return Err(WheelError::Changed(member.path.escape_debug().to_string()));
    }
    let mode = if is_script || member.executable { 0o755 } else { 0o644 };
    let recorded = Recorded { sha256: Some(found), size: Some(member.size) };
    let file = File { content, mode, mtime: member.mtime.unwrap_or(FILE_DATE), recorded };
    Ok(Some((path, if is_script { with_interpreter(file, scheme)? } else { file })))
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
    Ok(Installed { files, info })
}

impl Installed {
    /// The Python sources among the modules, sorted.
    pub fn sources(&self, scheme: &Scheme) -> Vec<&TreePath> {
        let is_source = |path: &&TreePath| path.is_within(&scheme.site) && path.as_bytes().ends_with(b".py");
        self.files.keys().filter(is_source).collect()
    }

    /// Lays what is there to be compiled into `tree`.
    ///
    /// # Errors
    /// As for [`Installed::lay`].
    pub fn add_to(&self, tree: &mut Tree, scheme: &Scheme) -> Result<(), InstallError> {
        for (path, file) in &self.files {
            let meta = Meta::root_owned(file.mode, file.mtime);
            put(tree, path, Node::File { meta, content: file.content.clone() }, scheme)?;
        }
        Ok(())
    }

    /// Lays the files, what `bytecode` has for its sources, and `RECORD` into `tree`.
    ///
    /// # Errors
    /// [`InstallError::Clash`] where a file and a directory of the same name meet.
    pub fn lay(&self, tree: &mut Tree, bytecode: &Tree, scheme: &Scheme) -> Result<(), InstallError> {
        self.add_to(tree, scheme)?;
        let mut lines: BTreeMap<String, Recorded> =
            self.files.iter().map(|(path, file)| (scheme.recorded(path), file.recorded.clone())).collect();
        for compiled in self.sources(scheme).into_iter().filter_map(|source| scheme.compiled(source)) {
            let Some(Node::File { content, .. }) = bytecode.get(&compiled) else { continue };
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
