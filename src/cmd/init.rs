//! `gapimage init`.

use super::{Failure, Outcome, failure::failed};
use crate::report::output::print;
use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

/// The files of a new project, by path.
const FILES: [(&str, &str); 3] = [
    ("recipe.toml", include_str!("init/recipe.toml")),
    (".gitignore", include_str!("init/gitignore")),
    ("site/motd", include_str!("init/motd")),
];

/// Writes a starter project to `dir`; nothing that exists is touched.
pub fn run(dir: &Path) -> Outcome {
    if let Some((name, _)) = FILES.iter().find(|(name, _)| dir.join(name).symlink_metadata().is_ok()) {
        return Err(exists(&dir.join(name)));
    }
    for (name, text) in FILES {
        write(&dir.join(name), text)?;
    }
    let shown = dir.join("recipe.toml").display().to_string();
    let text =
        format!("wrote {shown}\nnext: gapimage keygen {}, then gapimage build {shown}\n", dir.join("keys").display());
    print(&text).map_err(failed("writing to standard output"))
}

fn write(path: &Path, text: &str) -> Outcome {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed(format!("making the directory `{}`", parent.display())))?;
    }
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
    {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
        other => other.map_err(failed(format!("writing `{}`", path.display()))),
    }
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
    use crate::recipe::{LayerKind, Recipe};

    #[test]
    fn the_starter_loads_and_names_only_files_that_it_brings() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("new/project");
        run(&project).unwrap();
        let recipe = Recipe::load(&project.join("recipe.toml")).unwrap();
        let [image] = recipe.images.as_slice() else { panic!("one image") };
        let kinds: Vec<_> = image.layers.iter().map(|name| &recipe.layer(name).unwrap().kind).collect();
        let [LayerKind::Debian(debian), LayerKind::Files(files)] = kinds.as_slice() else { panic!("{kinds:?}") };
        assert!(!debian.configure);
        assert!(files.items.iter().all(|item| item.base.join(&item.path).exists()));
        assert_eq!(recipe.appliance.trust, Some(project.join("keys/trust.toml")));
    }

    #[test]
    fn the_starter_with_its_last_part_uncommented_loads_and_boots() {
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
        assert_eq!(recipe.boot_image().map(|image| image.name.as_str()), Some("os"));
        assert!(recipe.boot.is_some());
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
}
