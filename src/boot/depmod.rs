//! The module tables that loading by device needs: `modules.dep`, `modules.alias` and
//! `modules.softdep`, in the form of kmod's `depmod` (modules.dep(5)).

use crate::{
    boot::{
        modinfo::{self, Modinfo, split_file_name},
        modules::{Kernel, ModulesError, OsFiles, read},
    },
    layer::tree::TreePath,
    parallel::try_map,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    num::NonZeroUsize,
    thread,
};

/// First line of `modules.alias`, as depmod writes it.
const ALIAS_HEADER: &str = "# Aliases extracted from modules themselves.\n";
/// First line of `modules.softdep`, as depmod writes it.
const SOFTDEP_HEADER: &str = "# Soft dependencies extracted from modules themselves.\n";
/// Modules below this directory replace those of the same name elsewhere, as with depmod.
const UPDATES: &str = "updates/";

/// Why the tables cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DepmodError {
    /// A module needs one that is not there.
    #[error(
        "the kernel module `{module}` needs `{needs}`, which the OS image does not have; add the package that has it"
    )]
    Missing {
        /// The module.
        module: String,
        /// What it needs.
        needs: String,
    },
    /// Modules need each other.
    #[error("the kernel modules `{0}` and what it needs depend on each other in a circle")]
    Cycle(String),
    /// Two files hold a module of one name, and neither is an update.
    #[error("two files hold the kernel module `{name}`: {first} and {second}; keep one")]
    Duplicate {
        /// The module.
        name: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
}

/// The tables, as the texts of their files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModuleTables {
    /// `modules.dep`: each module with all that it needs; what stands last is loaded first.
    pub dep: String,
    /// `modules.alias`: which module serves which device or name.
    pub alias: String,
    /// `modules.softdep`: what should be loaded before or after, but need not.
    pub softdep: String,
}

/// A module's file and what the module says of itself.
struct Module {
    path: String,
    info: Modinfo,
}

impl ModuleTables {
    /// The tables of `kernel`: those in the image when they list exactly the modules that are there,
    /// else made anew, which reads every module.
    ///
    /// # Errors
    /// [`ModulesError`] when a module cannot be read, or needs what is not there.
    pub fn of(files: &dyn OsFiles, kernel: &Kernel) -> Result<Self, ModulesError> {
        match Self::read(files, kernel)? {
            Some(tables) => Ok(tables),
            None => Self::generate(files, kernel),
        }
    }

    /// Makes the tables from the modules themselves.
    ///
    /// # Errors
    /// As [`ModuleTables::of`].
    pub fn generate(files: &dyn OsFiles, kernel: &Kernel) -> Result<Self, ModulesError> {
        let paths = module_paths(files, kernel)?;
        let infos = read_all(files, kernel, &paths)?;
        let builtin = read(files, &kernel.file("modules.builtin")?)?;
        let builtin: BTreeSet<String> = String::from_utf8_lossy(&builtin).lines().filter_map(module_name).collect();
        let modules: BTreeMap<String, Module> =
            paths.into_iter().zip(infos).map(|((name, path), info)| (name, Module { path, info })).collect();
        let order = in_build_order(files, kernel, &modules)?;
        let mut tables = Self { alias: ALIAS_HEADER.into(), softdep: SOFTDEP_HEADER.into(), dep: String::new() };
        for name in order {
            let Some(module) = modules.get(name) else { continue };
            tables.add(name, module, &dependencies(name, &modules, &builtin)?);
        }
        Ok(tables)
    }

    /// The tables that lie in the image; `None` when one is missing or `modules.dep` lists other
    /// modules than are there, as when a driver was added by a later layer.
    fn read(files: &dyn OsFiles, kernel: &Kernel) -> Result<Option<Self>, ModulesError> {
        let mut texts = Vec::with_capacity(3);
        for name in ["modules.dep", "modules.alias", "modules.softdep"] {
            match files.read(&kernel.file(name)?) {
                Ok(bytes) => texts.push(String::from_utf8_lossy(&bytes).into_owned()),
                Err(_) => return Ok(None),
            }
        }
        let [dep, alias, softdep] = <[String; 3]>::try_from(texts).unwrap_or_default();
        let listed: BTreeSet<&str> = dep.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
        let present = module_paths(files, kernel)?;
        let current = listed == present.values().map(String::as_str).collect();
        Ok(current.then_some(Self { dep, alias, softdep }))
    }

    /// The files to lay beside the modules: name and text.
    pub fn files(&self) -> [(&'static str, &str); 3] {
        [("modules.alias", &self.alias), ("modules.dep", &self.dep), ("modules.softdep", &self.softdep)]
    }

    fn add(&mut self, name: &str, module: &Module, dependencies: &[&str]) {
        self.dep.push_str(&module.path);
        self.dep.push(':');
        for dependency in dependencies {
            self.dep.push(' ');
            self.dep.push_str(dependency);
        }
        self.dep.push('\n');
        // Writing to a string cannot fail.
        for alias in &module.info.aliases {
            let _ = writeln!(self.alias, "alias {alias} {name}");
        }
        for softdep in &module.info.softdeps {
            let _ = writeln!(self.softdep, "softdep {name} {softdep}");
        }
    }
}

fn module_name(path: &str) -> Option<String> {
    split_file_name(path.rsplit('/').next()?).map(|(name, _)| name)
}

/// All modules by name, with their paths below the modules' directory.
fn module_paths(files: &dyn OsFiles, kernel: &Kernel) -> Result<BTreeMap<String, String>, ModulesError> {
    let mut paths: BTreeMap<String, String> = BTreeMap::new();
    for file in files.files_below(&kernel.modules) {
        let relative = file.as_bytes().get(kernel.modules.as_bytes().len() + 1..).unwrap_or_default();
        let Ok(path) = std::str::from_utf8(relative) else { continue };
        let Some(name) = module_name(path) else { continue };
        match paths.get(&name) {
            Some(first) if first.starts_with(UPDATES) == path.starts_with(UPDATES) => {
                return Err(DepmodError::Duplicate { name, first: first.clone(), second: path.to_owned() }.into());
            }
            Some(first) if first.starts_with(UPDATES) => {}
            _ => {
                paths.insert(name, path.to_owned());
            }
        }
    }
    Ok(paths)
}

/// Reads what every module says of itself, on all cores, in the order of `paths`.
fn read_all(
    files: &dyn OsFiles,
    kernel: &Kernel,
    paths: &BTreeMap<String, String>,
) -> Result<Vec<Modinfo>, ModulesError> {
    let paths: Vec<TreePath> = paths.values().map(|path| kernel.file(path)).collect::<Result<_, _>>()?;
    let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    try_map(&paths, threads, |_| 0, |path| read_modinfo(files, path))
}

fn read_modinfo(files: &dyn OsFiles, path: &TreePath) -> Result<Modinfo, ModulesError> {
    let in_module = |source| ModulesError::Module { path: path.clone(), source };
    let name = String::from_utf8_lossy(path.name());
    let compression = split_file_name(&name).map_or(modinfo::Compression::None, |(_, compression)| compression);
    let data = modinfo::decompress(read(files, path)?, compression).map_err(in_module)?;
    Modinfo::parse(&data).map_err(in_module)
}

/// Names in the order of `modules.order`, the kernel's link order, which decides between two drivers
/// for one device; then those that it does not list.
fn in_build_order<'a>(
    files: &dyn OsFiles,
    kernel: &Kernel,
    modules: &'a BTreeMap<String, Module>,
) -> Result<Vec<&'a str>, ModulesError> {
    let listed = files.read(&kernel.file("modules.order")?).unwrap_or_default();
    let position: BTreeMap<String, usize> =
        String::from_utf8_lossy(&listed).lines().filter_map(module_name).zip(0..).collect();
    let mut names: Vec<&str> = modules.keys().map(String::as_str).collect();
    names.sort_by_key(|name| position.get(*name).copied().unwrap_or(usize::MAX));
    Ok(names)
}

/// Paths of all that `name` needs, so that loading from the last to the first works.
fn dependencies<'a>(
    name: &str,
    modules: &'a BTreeMap<String, Module>,
    builtin: &BTreeSet<String>,
) -> Result<Vec<&'a str>, DepmodError> {
    let mut visit = Visit { modules, builtin, done: BTreeSet::new(), open: BTreeSet::new(), loaded: Vec::new() };
    visit.module(name, name)?;
    visit.loaded.pop();
    visit.loaded.reverse();
    Ok(visit.loaded)
}

/// A depth-first walk; a module is appended after all that it needs.
struct Visit<'a, 'b> {
    modules: &'a BTreeMap<String, Module>,
    builtin: &'b BTreeSet<String>,
    done: BTreeSet<&'a str>,
    open: BTreeSet<&'a str>,
    loaded: Vec<&'a str>,
}

impl Visit<'_, '_> {
    fn module(&mut self, name: &str, needed_by: &str) -> Result<(), DepmodError> {
        let Some((name, module)) = self.modules.get_key_value(name) else {
            let missing = || DepmodError::Missing { module: needed_by.to_owned(), needs: name.to_owned() };
            return if self.builtin.contains(name) { Ok(()) } else { Err(missing()) };
        };
        if self.done.contains(name.as_str()) {
            return Ok(());
        }
        if !self.open.insert(name) {
            return Err(DepmodError::Cycle(name.clone()));
        }
        for needs in &module.info.depends {
            self.module(needs, name)?;
        }
        self.done.insert(name);
        self.loaded.push(&module.path);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(graph: &[(&str, &[&str])]) -> BTreeMap<String, Module> {
        let module = |name: &str, depends: &[&str]| Module {
            path: format!("kernel/{name}.ko"),
            info: Modinfo { depends: depends.iter().map(|name| (*name).to_owned()).collect(), ..Modinfo::default() },
        };
        graph.iter().map(|(name, depends)| ((*name).to_owned(), module(name, depends))).collect()
    }

    #[test]
    fn a_shared_dependency_is_loaded_before_both_that_need_it() {
        let modules = modules(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["b", "core"]), ("d", &[])]);
        let builtin = BTreeSet::from(["core".to_owned()]);
        assert_eq!(dependencies("a", &modules, &builtin).unwrap(), ["kernel/c.ko", "kernel/b.ko", "kernel/d.ko"]);
    }

    #[test]
    fn a_missing_dependency_names_both() {
        let error = dependencies("a", &modules(&[("a", &["b"]), ("b", &["gone"])]), &BTreeSet::new()).unwrap_err();
        assert!(matches!(error, DepmodError::Missing { module, needs } if module == "b" && needs == "gone"));
    }

    #[test]
    fn a_circle_is_refused() {
        let modules = modules(&[("a", &["b"]), ("b", &["a"])]);
        assert!(matches!(dependencies("a", &modules, &BTreeSet::new()), Err(DepmodError::Cycle(_))));
    }

    #[test]
    fn an_update_replaces_the_kernels_own_module() {
        use crate::layer::tree::{Content, Meta, Node, Tree};
        let file = || Node::File { meta: Meta::default(), content: Content::bytes(*b"") };
        let tree = |paths: &[&str]| -> Tree {
            let path = |name: &&str| TreePath::new(format!("usr/lib/modules/6/{name}")).unwrap();
            paths.iter().map(|name| (path(name), file())).collect()
        };
        let files = tree(&["modules.builtin", "kernel/net/e1000.ko", "updates/e1000.ko.xz"]);
        let kernel = Kernel::find(&files, None).unwrap();
        let paths = module_paths(&files, &kernel).unwrap();
        assert_eq!(paths.get("e1000").unwrap(), "updates/e1000.ko.xz");
        let files = tree(&["modules.builtin", "kernel/a/e1000.ko", "kernel/b/e1000.ko"]);
        assert!(matches!(module_paths(&files, &kernel), Err(ModulesError::Depmod(DepmodError::Duplicate { .. }))));
    }
}
