//! Puts into the program what recipes name as `builtin`: the sources of the appliance's own programs, as they are in
//! this checkout, and the layer definitions. Only names and contents count, so the program is the same wherever it was
//! built.

use std::{
    env,
    error::Error,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

/// Files of the workspace itself.
const WORKSPACE: [&str; 3] = ["Cargo.lock", "Cargo.toml", "rust-toolchain.toml"];
/// The packages that the appliance's programs are made of.
const PACKAGES: [&str; 15] = [
    "appliance/agent",
    "appliance/console",
    "appliance/contract",
    "appliance/gpu",
    "appliance/handover",
    "appliance/init",
    "appliance/jobs",
    "appliance/lm",
    "appliance/mapping",
    "appliance/modalias",
    "appliance/root",
    "appliance/server",
    "appliance/trainer",
    "data",
    "format",
];
/// What of a package no release build uses.
const LEFT_OUT: [&str; 4] = ["target", "tests", "benches", "examples"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("Cargo names no directory")?);
    let mut files: Vec<PathBuf> = WORKSPACE.iter().map(|name| root.join(name)).collect();
    for package in PACKAGES {
        for path in list(&root.join(package))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !name.starts_with('.') && !LEFT_OUT.contains(&name) {
                collect(path, &mut files)?;
            }
        }
    }
    files.sort();
    for path in WORKSPACE.iter().chain(&PACKAGES).chain(&["layers"]) {
        println!("cargo::rerun-if-changed={path}");
    }

    let mut code = format!("const PACKAGES: &[&str] = &{PACKAGES:?};\nconst WORKSPACE: &[(&str, &[u8])] = &[\n");
    for path in &files {
        let name = path.strip_prefix(&root)?.to_str().ok_or("a name that is not UTF-8")?;
        writeln!(code, "    ({name:?}, include_bytes!({path:?})),")?;
    }
    code += "];\nconst DEFINITIONS: &[(&str, &str)] = &[\n";
    for path in list(&root.join("layers"))? {
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_stem().and_then(|name| name.to_str()).ok_or("a name that is not UTF-8")?;
            writeln!(code, "    ({name:?}, include_str!({path:?})),")?;
        }
    }
    code += "];\n";
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("Cargo names no directory for what is generated")?);
    Ok(fs::write(out.join("builtin.rs"), code)?)
}

fn collect(path: PathBuf, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path);
        return Ok(());
    }
    list(&path)?.into_iter().try_for_each(|path| collect(path, files))
}

/// What a directory holds, sorted.
fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
