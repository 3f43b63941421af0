//! Bytecode, compiled by the image's own Python in the sandbox, of all wheels that are installed at once.
//!
//! Interpreter and standard library are all that it sees of the image, so that the bytes depend on nothing else and a
//! change of another package below costs nothing. Sources go in as one file and bytecode comes out as one for each group of
//! them: making tens of thousands of files would take longer than much of the compiling.

use super::{
    Compiler, FILE_DATE, InstallError, Scheme,
    install::Installed,
    interpreter::{self, path},
};
use crate::{
    layer::{
        sandbox::{Job, SandboxError, Step, Writes},
        tree::{Content, Meta, Node, Tree, TreePath},
    },
    parallel::try_map,
    source::{debian::spool::Spool, wheels::target::Python},
};
use gap_format::ReadAt;
use std::{
    io::{self, Read},
    num::NonZeroUsize,
    path::Path,
    thread::available_parallelism,
    time::Duration,
};

/// Compiles what it is told to.
const COMPILER: &str = include_str!("compile.py");
/// Where the compiler, the sources, their list and what comes of them lie in the sandbox.
const COMPILER_AT: &str = "gapimage/compile.py";
const SOURCES_AT: &str = "gapimage/sources";
const LIST_AT: &str = "gapimage/list";
const COMPILED_AT: &str = "gapimage/compiled";
/// Sources that one process compiles, at most.
const GROUP: usize = 64;
/// When compiling that does not end is stopped.
const TIME_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// How much longer than sources bytecode is, at most.
const GROWTH: u64 = 3;
/// Bytes before each piece of bytecode that say how long it is.
const LENGTH: usize = 8;

/// The bytecode of a wheel: for each of its sources, in their order, what it was compiled to, if anything.
#[derive(Debug, Clone, Default)]
pub(super) struct Bytecode(Vec<Option<Content>>);

impl Bytecode {
    /// What the source of this number was compiled to.
    pub(super) fn of(&self, number: usize) -> Option<&Content> {
        self.0.get(number)?.as_ref()
    }

    /// Reads what was compiled of so many sources, each after its length; `None` if that is not what `whole` holds.
    pub(super) fn read(whole: &Content, sources: usize) -> Option<Self> {
        let reader = whole.open().ok()?;
        let mut at = 0;
        let mut pieces = Vec::with_capacity(sources);
        for _ in 0..sources {
            let mut length = [0; LENGTH];
            reader.read_exact_at(&mut length, at).ok()?;
            let (start, length) = (at + LENGTH as u64, u64::from_le_bytes(length));
            pieces.push(if length > 0 { Some(whole.part(start, length)?) } else { None });
            at = start.checked_add(length)?;
        }
        (at == whole.len()).then_some(Self(pieces))
    }

    /// Writes it in the form that [`Bytecode::read`] reads.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> io::Result<()> {
        for content in &self.0 {
            out.extend(content.as_ref().map_or(0, Content::len).to_le_bytes());
            if let Some(content) = content {
                content.reader()?.read_to_end(out)?;
            }
        }
        Ok(())
    }
}

/// A source where it lies among all others.
struct Source {
    /// Which wheel it is of, and which of its sources it is.
    wheel: usize,
    number: usize,
    line: String,
}

/// Compiles all sources of what is installed and was not compiled before; their files are unpacked into `spool`. Gives the
/// bytecode of each wheel, in their order.
///
/// # Errors
/// [`InstallError::NoInterpreter`] if the image below has no Python, [`InstallError::Compile`] if compiling fails.
pub(super) fn compile(
    installed: &[&Installed],
    scheme: &Scheme,
    python: Python,
    compiler: &Compiler<'_>,
    spool: &Spool,
) -> Result<Vec<Bytecode>, InstallError> {
    let recall = |wheel: &Installed| {
        compiler.memory.and_then(|memory| memory.recall(&wheel.sha256, scheme, wheel.sources(scheme).len(), spool))
    };
    let mut bytecode: Vec<Option<Bytecode>> = installed.iter().map(|wheel| recall(wheel)).collect();
    let new: Vec<&Installed> =
        installed.iter().zip(&bytecode).filter(|(_, known)| known.is_none()).map(|(wheel, _)| *wheel).collect();
    let mut compiled = compile_new(&new, scheme, python, compiler, spool)?.into_iter();
    for (wheel, place) in installed.iter().zip(&mut bytecode).filter(|(_, known)| known.is_none()) {
        let made = compiled.next().ok_or_else(incomplete)?;
        if let Some(memory) = compiler.memory {
            memory.remember(&wheel.sha256, scheme, &made)?;
        }
        *place = Some(made);
    }
    Ok(bytecode.into_iter().flatten().collect())
}

fn compile_new(
    installed: &[&Installed],
    scheme: &Scheme,
    python: Python,
    compiler: &Compiler<'_>,
    spool: &Spool,
) -> Result<Vec<Bytecode>, InstallError> {
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let numbered: Vec<(usize, &Installed)> = installed.iter().copied().enumerate().collect();
    let unpack = |(wheel, installed): &(usize, &Installed)| sources(*wheel, installed, scheme, spool);
    let unpacked = try_map(&numbered, threads, |(_, installed)| installed.size(), unpack)?;
    // Each project's groups are its own, so that its bytecode does not depend on what else is compiled.
    let groups: Vec<&[Source]> = unpacked.iter().flat_map(|sources| sources.chunks(GROUP)).collect();
    let mut bytecode: Vec<Bytecode> =
        installed.iter().map(|installed| Bytecode(vec![None; installed.sources(scheme).len()])).collect();
    if groups.is_empty() {
        return Ok(bytecode);
    }
    let made = run(&groups, python, compiler, spool)?;
    for (number, group) in groups.iter().enumerate() {
        let compiled = group_of(&made, number, group.len()).ok_or_else(incomplete)?;
        for (source, content) in group.iter().zip(compiled.0) {
            let place = bytecode.get_mut(source.wheel).and_then(|wheel| wheel.0.get_mut(source.number));
            if let Some(place) = place {
                *place = content;
            }
        }
    }
    Ok(bytecode)
}

/// Unpacks the sources of a wheel. A name with a line break is left out: it cannot be imported.
fn sources(wheel: usize, installed: &Installed, scheme: &Scheme, spool: &Spool) -> Result<Vec<Source>, InstallError> {
    let mut found = Vec::new();
    for (number, (path, content)) in installed.sources(scheme).into_iter().enumerate() {
        let name = std::str::from_utf8(path.as_bytes()).ok().filter(|name| !name.contains(['\n', '\r']));
        let Some(name) = name else { continue };
        let offset = spool.place_of(content).map_err(|error| unpacking(path, error))?;
        found.push(Source { wheel, number, line: format!("{offset} {} /{name}\n", content.len()) });
    }
    Ok(found)
}

/// A wheel that is not as it should be says so itself.
fn unpacking(path: &TreePath, error: io::Error) -> InstallError {
    match error.downcast::<InstallError>() {
        Ok(refused) => refused,
        Err(error) => InstallError::io("unpacking", Path::new(&path.to_string()))(error),
    }
}

/// Runs the compiler over the groups; gives what it left.
fn run(groups: &[&[Source]], python: Python, compiler: &Compiler<'_>, spool: &Spool) -> Result<Tree, InstallError> {
    let mut root = interpreter::root(compiler.lower, python)?;
    let list: Vec<String> =
        groups.iter().map(|group| group.iter().map(|source| source.line.as_str()).collect()).collect();
    let files = [
        (COMPILER_AT, Content::bytes(COMPILER.as_bytes())),
        (LIST_AT, Content::bytes(list.join("\n").into_bytes())),
        (SOURCES_AT, spool.whole()),
    ];
    for (place, content) in files {
        root.insert(path(place)?, Node::File { meta: Meta::root_owned(0o644, FILE_DATE), content });
    }
    let into = path(COMPILED_AT)?;
    root.insert(into.clone(), Node::Directory { meta: Meta::root_owned(0o755, FILE_DATE), opaque: false });
    let program = format!("/usr/bin/python{}", python.series());
    let [script, sources, list, target] =
        [COMPILER_AT, SOURCES_AT, LIST_AT, COMPILED_AT].map(|place| format!("/{place}"));
    let step = Step::new([&program, "-I", "-S", "-B", &script, &sources, &list, &target]).with("PYTHONHASHSEED", "0");
    let job = Job {
        root: &root,
        scratch: (compiler.scratch)(root.file_bytes() * GROWTH),
        writes: Writes::Into(into),
        binds: Vec::new(),
        steps: vec![step],
        source_date: FILE_DATE,
        time_limit: TIME_LIMIT,
    };
    Ok(compiler.sandbox.run(&job)?.changes)
}

/// What a group of so many sources was compiled to; `None` if it is not all there.
fn group_of(made: &Tree, number: usize, sources: usize) -> Option<Bytecode> {
    let place = path(COMPILED_AT).ok()?.join(number.to_string()).ok()?;
    Bytecode::read(made.file(&place)?, sources)
}

fn incomplete() -> InstallError {
    SandboxError::Broken { message: "the compiler left less than it was to make".to_owned(), output: String::new() }
        .into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Of three sources, the second of which does not compile.
    pub(in super::super) fn sample() -> Bytecode {
        Bytecode(vec![Some(Content::bytes(*b"one")), None, Some(Content::bytes(*b"three"))])
    }

    fn held(bytes: &[u8]) -> Content {
        let spool = Spool::new_in(&std::env::temp_dir()).unwrap();
        spool.store(&mut &*bytes, bytes.len() as u64, &mut Vec::new()).unwrap()
    }

    #[test]
    fn bytecode_is_read_as_it_was_written_and_never_in_part() {
        let mut bytes = Vec::new();
        sample().write(&mut bytes).unwrap();
        let read = Bytecode::read(&held(&bytes), 3).unwrap();
        assert_eq!(read.of(0).unwrap().read().unwrap(), b"one");
        assert!(read.of(1).is_none());
        assert_eq!(read.of(2).unwrap().read().unwrap(), b"three");
        for (sources, wrong) in [(2, &bytes[..]), (4, &bytes[..]), (3, &bytes[..bytes.len() - 1])] {
            assert!(Bytecode::read(&held(wrong), sources).is_none());
        }
        let endless = [u64::MAX.to_le_bytes(); 3].concat();
        assert!(Bytecode::read(&held(&endless), 1).is_none());
    }
}
