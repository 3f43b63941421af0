//! `gapimage init`.

use super::{Failure, Outcome, failure::failed, new_file::write_new};
use crate::report::output::print;
use std::{fs, io, path::Path};

/// The files of a new project, by path.
const FILES: [(&str, &str); 3] = [
    ("recipe.toml", include_str!("init/recipe.toml")),
    (".gitignore", include_str!("init/gitignore")),
    ("site/motd", include_str!("init/motd")),
];

/// Writes a starter project to `dir`. A file that exists already is never changed; one that differs from the starter's is
/// refused before anything is written.
pub fn run(dir: &Path) -> Outcome {
    let mut missing = Vec::new();
    for (name, text) in FILES {
        let path = dir.join(name);
        match fs::read(&path) {
            // An earlier run wrote it, and was perhaps interrupted after that.
            Ok(content) if content == text.as_bytes() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => missing.push((path, text)),
            Ok(_) | Err(_) => return Err(exists(&path)),
        }
    }
    for (path, text) in missing {
        write(&path, text)?;
    }
    let shown = |name| dir.strip_prefix(".").unwrap_or(dir).join(name).display().to_string();
    let text = format!(
        "wrote {}: a recipe that boots as it stands, and explains itself\n\
         next: gapimage keygen {}, then gapimage build {}\n",
        shown("recipe.toml"),
        shown("keys"),
        shown("recipe.toml")
    );
    print(&text).map_err(failed("writing to standard output"))
}

fn write(path: &Path, text: &str) -> Outcome {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed(format!("making the directory `{}`", parent.display())))?;
    }
    write_new(path, text.as_bytes(), 0o644).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => failed(format!("writing `{}`", path.display()))(error),
    })
}

fn exists(path: &Path) -> Failure {
    Failure::could_not_run(
        format!("`{}` exists already and is not overwritten", path.display()),
        "name an empty directory, or move the file away",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{LayerKind, Recipe, Workspace};

    #[test]
    fn the_starter_boots_and_needs_only_files_that_it_brings() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("new/project");
        run(&project).unwrap();
        let recipe = Recipe::load(&project.join("recipe.toml")).unwrap();
        assert_eq!(recipe.boot_image().map(|image| image.name.as_str()), Some("os"));
        assert_eq!(recipe.appliance.trust, Some(project.join("keys/trust.toml")));
        let mut programs = Vec::new();
        for layer in recipe.layers.values() {
            match &layer.kind {
                LayerKind::Cargo(cargo) => {
                    assert_eq!(cargo.workspace, Workspace::Builtin, "{}", layer.name);
                    programs.push((cargo.bin.as_str(), cargo.to.to_string(), cargo.static_link));
                }
                LayerKind::Files(files) => {
                    assert!(files.items.iter().all(|item| item.base.join(&item.path).exists()), "{}", layer.name);
                }
                kind => assert_eq!(kind.name(), "debian", "{}", layer.name),
            }
        }
        let expected = [("gapd", "/usr/bin/gapd".to_owned(), false), ("gap-init", "/init".to_owned(), true)];
        assert_eq!(programs, expected);
    }

    #[test]
    fn the_parts_to_try_load_once_the_hash_sign_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path()).unwrap();
        let path = dir.path().join("recipe.toml");
        let text = fs::read_to_string(&path).unwrap();
        let uncommented: String = text
            .lines()
            .filter(|line| !line.starts_with("# "))
            .map(|line| format!("{}\n", line.strip_prefix('#').unwrap_or(line)))
            .collect();
        fs::write(&path, uncommented).unwrap();
        let recipe = Recipe::load(&path).unwrap_or_else(|error| panic!("{:#?}", error.problems()));
        let images: Vec<&str> = recipe.images.iter().map(|image| image.name.as_str()).collect();
        assert_eq!(images, ["os", "tools"]);
        assert!(recipe.appliance.expires.is_some());
        let LayerKind::Debian(debian) = &recipe.layer("debian").unwrap().kind else { panic!("not debian") };
        assert!(debian.configure && debian.packages.iter().any(|package| package.name == "python3"));
    }

    #[test]
    fn nothing_that_exists_is_overwritten_and_then_nothing_is_written() {
        for (name, _) in FILES {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "mine").unwrap();
            let Err(Failure::CouldNotRun(report)) = run(dir.path()) else { panic!("{name} was taken") };
            assert!(report.to_string().contains(name), "{report}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
            assert_eq!(FILES.iter().filter(|(name, _)| dir.path().join(name).exists()).count(), 1);
        }
    }
    #[test]
    fn a_run_that_was_interrupted_is_finished_by_the_same_command() {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path()).unwrap();
        for (name, text) in FILES {
            fs::remove_file(dir.path().join(name)).unwrap();
            run(dir.path()).unwrap();
            assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), text);
        }
    }
}
