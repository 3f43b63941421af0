//! Imports: which ones weights need, and which ones are there to do harm.

use std::fmt;

/// Something that a pickle imports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The module.
    pub module: String,
    /// The name in it, possibly with dots.
    pub name: String,
}

/// What an import is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Danger {
    /// What weights are made of; calling it only makes tensors and containers.
    Harmless,
    /// Nothing is known of it.
    Unknown,
    /// Made for running programs, loading code or reaching out.
    Dangerous,
}

/// Modules of which everything is dangerous, with all below them; separated by blanks.
const DANGEROUS_MODULES: &str = "\
    _io _pickle _posixsubprocess _thread _winapi aiohttp asyncio bdb cProfile cloudpickle code codeop commands \
    concurrent copyreg ctypes dill distutils doctest ensurepip ftplib gc glob http httplib imp importlib inspect \
    io joblib logging marshal multiprocessing nt ntpath os pathlib pdb pickle pip pkgutil platform posix posixpath \
    profile pty pydoc requests runpy shutil signal smtplib socket ssl subprocess sys tempfile threading timeit \
    torch._dynamo torch.hub torch.jit torch.utils._config_module torch.utils.cpp_extension trace types urllib \
    urllib2 venv webbrowser xmlrpc zipimport";
/// Names that are dangerous although their modules are not.
const DANGEROUS_NAMES: [(&str, &str); 10] = [
    ("functools", "partial"),
    ("functools", "reduce"),
    ("operator", "attrgetter"),
    ("operator", "itemgetter"),
    ("operator", "methodcaller"),
    ("numpy.testing._private.utils", "runstring"),
    ("numpy", "load"),
    ("torch", "load"),
    ("torch.serialization", "load"),
    ("torch.storage", "_load_from_bytes"),
];
/// Built-in functions that only make values; separated by blanks.
const HARMLESS_BUILTINS: &str = "\
    bool bytearray bytes complex dict float frozenset int list object set slice str tuple";
/// What PyTorch and NumPy write for tensors and arrays, and containers.
const HARMLESS: [(&str, &str); 33] = [
    ("collections", "OrderedDict"),
    ("collections", "Counter"),
    ("collections", "defaultdict"),
    ("_codecs", "encode"),
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("torch", "Size"),
    ("torch", "Tensor"),
    ("torch", "device"),
    ("torch", "bfloat16"),
    ("torch", "float16"),
    ("torch", "float32"),
    ("torch", "float64"),
    ("torch", "int8"),
    ("torch", "int16"),
    ("torch", "int32"),
    ("torch", "int64"),
    ("torch", "uint8"),
    ("torch._tensor", "_rebuild_from_type_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_parameter_with_state"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_qtensor"),
    ("torch.nn.parameter", "Parameter"),
    ("torch.serialization", "_get_layout"),
    ("torch.storage", "UntypedStorage"),
];

impl Import {
    /// An import by its names.
    pub fn new(module: &str, name: &str) -> Self {
        Self { module: module.to_owned(), name: name.to_owned() }
    }

    /// An import whose names are worked out while the pickle runs.
    pub(super) fn computed() -> Self {
        Self::new("?", "?")
    }

    /// What it is good for.
    pub fn danger(&self) -> Danger {
        let (module, name) = (self.module.as_str(), self.name.as_str());
        let is = |known: &&(&str, &str)| **known == (module, name);
        if matches!(module, "builtins" | "__builtin__" | "__builtins__") {
            return if words(HARMLESS_BUILTINS).any(|harmless| harmless == name) {
                Danger::Harmless
            } else {
                Danger::Dangerous
            };
        }
        let within =
            |root: &str| module.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let in_dangerous = words(DANGEROUS_MODULES).any(within);
        // A name with dots reaches through one object to another.
        let reaches = name.contains('.') || name.starts_with("__");
        if module == "?" || in_dangerous || reaches || DANGEROUS_NAMES.iter().any(|known| is(&known)) {
            return Danger::Dangerous;
        }
        let storage = module == "torch"
            && name.strip_suffix("Storage").is_some_and(|kind| kind.chars().all(char::is_alphanumeric));
        match storage || HARMLESS.iter().any(|known| is(&known)) {
            true => Danger::Harmless,
            false => Danger::Unknown,
        }
    }
}

fn words(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.split_ascii_whitespace()
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.module.as_str() {
            "?" => f.write_str("a name that is worked out while it is loaded"),
            module => write!(f, "{}.{}", module.escape_debug(), self.name.escape_debug()),
        }
    }
}
